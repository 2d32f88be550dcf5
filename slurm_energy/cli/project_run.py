"""The work behind `senergy project explain`: find the job's record, ask each rule."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from slurm_energy.cli.aggregate_run import LIVE, account_tree, file_records
from slurm_energy.cli.options import site_zone
from slurm_energy.config import Config, load_config
from slurm_energy.ledger.ingest import Ingest
from slurm_energy.ledger.projects import explain, rules_of, sweep_sql
from slurm_energy.report.formats import printable
from slurm_energy.slurm.records import RawRecords
from slurm_energy.slurm.sacct import read_sacct

_FIELDS = ("account", "user", "wckey", "job_name", "comment")


def find_jobs(
    jobid: str, source: str, clusters: Sequence[str], config_path: Path | None
) -> tuple[list[dict[str, str]], Mapping[str, str], Config]:
    """The distinct descriptions of a job in the source (account, user, wckey, job_name, comment, id, sweep)."""
    config, _ = load_config(config_path)
    with tempfile.TemporaryDirectory(prefix="senergy-") as folder:
        con = duckdb.connect()
        ingest = Ingest(con, site_zone(config), config.site.cluster)
        if source in LIVE:
            for batch in read_sacct(0, int(time.time()), clusters, [jobid]):
                ingest.add(RawRecords(source, rows=[(None, row) for row in batch]))
        else:
            ingest.add(file_records(source, Path(folder), (), ""))
        base, task = jobid.replace("+", "_").split("_")[:2] if "_" in jobid or "+" in jobid else (jobid, "")
        if not base.isdigit() or (task and not task.isdigit()):
            return [], {}, config
        where = f"job_id = {int(base) + int(task or 0)}" if "+" in jobid else (
            f"array_job_id = {base} AND array_task_id = {task}" if task else f"job_id = {base} OR array_job_id = {base}"
        )  # fmt: skip
        found = con.execute(
            f'SELECT DISTINCT account, "user", wckey, job_name, comment, cluster, {sweep_sql(config)} AS sweep '
            f"FROM parsed WHERE {where} ORDER BY ALL"
        ).fetchall()
    names = (*_FIELDS, "cluster", "sweep")
    jobs = [
        {name: "" if value is None else str(value) for name, value in zip(names, row, strict=True)} for row in found
    ]
    return [{**job, "id": jobid} for job in jobs], account_tree(config, source in LIVE), config


def tell(job: Mapping[str, str], config: Config, parents: Mapping[str, str]) -> None:
    """Prints the project, and what each rule said."""
    verdicts = explain(job, rules_of(config), parents)
    last = verdicts[-1]
    print(
        f"job {job['id']} of user {printable(job['user'])} on {printable(job['cluster'])}: project {printable(last.project)}"
    )
    for number, verdict in enumerate(verdicts, 1):
        known = number <= len(config.projects)
        label = f"rule {number} ({verdict.rule.project})" if known else "default (the account)"
        print(f"  {label}: {'matches' if verdict.matched else 'does not match'}: {printable(verdict.why)}")
    print(f"  sweep: {printable(job['sweep']) or 'none'}")
