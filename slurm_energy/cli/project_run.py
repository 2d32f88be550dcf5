"""The work behind `senergy project explain`: find the job's record, ask each rule, and the ledger."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb

from slurm_energy.cli.aggregate_run import LIVE, account_tree, file_records
from slurm_energy.cli.options import site_zone
from slurm_energy.config import Config, ledger_path, load_config
from slurm_energy.ledger.damage import telling_damage
from slurm_energy.ledger.ingest import Ingest
from slurm_energy.ledger.projects import explain, rules_of, sweep_sql
from slurm_energy.ledger.store import Ledger
from slurm_energy.report.formats import printable
from slurm_energy.slurm import states
from slurm_energy.slurm.records import RawRecords, SetAside
from slurm_energy.slurm.sacct import read_sacct
from slurm_energy.sql import one_of, parquet

_FIELDS = ("account", "user", "wckey", "job_name", "comment")
_ID = re.compile(r"(\d{1,18})(?:([_+])(\d{1,9}))?")


class Found(NamedTuple):
    """What was found of a job: its distinct descriptions (account, user, wckey, job_name, comment, id, cluster, sweep), the
    projects that the ledger has it under by cluster, and rows that name it and could not be read."""

    jobs: list[dict[str, str]]
    stored: dict[str, list[str]]
    set_aside: list[SetAside]
    parents: Mapping[str, str]
    config: Config


def condition(jobid: str) -> str:
    """SQL for the records of a job as sacct names it. Raises ValueError for what is no id of a job."""
    match = _ID.fullmatch(jobid)
    if match is None:
        raise ValueError(f"{jobid!r}: expected a job id as sacct shows it: 1234, 1234_5 (array) or 1234+1 (het job)")
    base, sign, part = int(match[1]), match[2], int(match[3] or 0)
    if sign == "_":
        return f"array_job_id = {base} AND array_task_id = {part}"
    return f"job_id = {base + part}" if sign else f"(job_id = {base} OR array_job_id = {base})"


def find_jobs(
    jobid: str, source: str, clusters: Sequence[str], config_path: Path | None, ledger_given: Path | None
) -> Found:
    """Looks into the source and into the ledger. Raises ValueError, SourceError, ConfigError, LedgerError."""
    where = condition(jobid)
    config, _ = load_config(config_path)
    asked = list(clusters) or list(config.slurm.clusters)
    if asked:
        where += f" AND cluster IN {one_of(asked)}"
    with tempfile.TemporaryDirectory(prefix="senergy-") as folder:
        con = duckdb.connect()
        ingest = Ingest(con, site_zone(config), config.site.cluster)
        if source in LIVE:
            for batch in read_sacct(0, int(time.time()), asked, [jobid]):
                ingest.add(RawRecords(source, rows=[(None, row) for row in batch]))
        else:
            ingest.add(file_records(source, Path(folder), (), ""))
        found = con.execute(
            f'SELECT DISTINCT account, "user", wckey, job_name, comment, cluster, {sweep_sql(config)} AS sweep '
            f"FROM parsed WHERE {where} ORDER BY ALL"
        ).fetchall()
    names = (*_FIELDS, "cluster", "sweep")
    jobs = [
        {name: "" if value is None else str(value) for name, value in zip(names, row, strict=True)} for row in found
    ]
    named = re.compile(rf"(?<![\w+.]){re.escape(jobid)}(?![\w+.])")
    bad = [row for row in ingest.set_aside if named.search(row.text)]
    stored = _stored(Ledger(ledger_path(config, ledger_given)), where)
    return Found([{**job, "id": jobid} for job in jobs], stored, bad, account_tree(config, source in LIVE), config)


def _stored(ledger: Ledger, where: str) -> dict[str, list[str]]:
    """The projects under which the ledger has the job, by cluster; nothing where there is no ledger."""
    files = [file.path for file in ledger.days()]
    if not files:
        return {}
    stored: dict[str, list[str]] = {}
    with telling_damage(files):
        rows = duckdb.execute(
            f"SELECT DISTINCT cluster, project FROM {parquet(files)} "
            f"WHERE {where} AND state NOT IN {one_of(states.OWN)} ORDER BY ALL"
        ).fetchall()
    for cluster, project in rows:
        stored.setdefault(str(cluster), []).append(str(project))
    return stored


def tell(job: Mapping[str, str], found: Found) -> None:
    """Prints the project, what each rule said, and whether the ledger has it there."""
    config = found.config
    verdicts = explain(job, rules_of(config), found.parents)
    last = verdicts[-1]
    print(
        f"job {job['id']} of user {printable(job['user'])} on {printable(job['cluster'])}: project {printable(last.project)}"
    )
    for number, verdict in enumerate(verdicts, 1):
        known = number <= len(config.projects)
        label = f"rule {number} ({verdict.rule.project})" if known else "default (the account)"
        print(f"  {label}: {'matches' if verdict.matched else 'does not match'}: {printable(verdict.why)}")
    print(f"  sweep: {printable(job['sweep']) or 'none'}")
    stored = [name for name in found.stored.get(job["cluster"], []) if name != last.project]
    if stored:
        names = ", ".join(printable(name) for name in stored)
        print(f"  the ledger has it under {names}, by earlier rules: aggregate the days of the job again")
