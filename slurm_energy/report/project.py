"""A project's whole accounting, as Strubell et al. 2019 give it for one: not the cost of one run but of all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slurm_energy.accounting.development import Development, development, own_hardware
from slurm_energy.report.errors import ReportError
from slurm_energy.report.selection import JOB
from slurm_energy.report.totals import REAL, known, rows_of, totals_of
from slurm_energy.slurm import states
from slurm_energy.sql import one_of, quoted

if TYPE_CHECKING:
    import duckdb

    from slurm_energy.factors.profile import Profile

_RND_KEYS = (
    "gpu_hours", "cpu_hours", "facility_kwh", "cloud_low_usd", "cloud_high_usd", "electricity_usd", "co2e_lb", "cloud_price",
)  # fmt: skip


def project_report(
    con: duckdb.DuckDBPyConnection, project: str, profile: Profile, model: str | None = None, sweep: str | None = None,
    window: tuple[int | None, int | None] = (None, None),
) -> dict[str, Any]:  # fmt: skip
    """The report on what `rows` holds, as a dict of raw numbers (the JSON output).

    profile: for the price of own hardware and the name where the rows have several. model: the job (JOBID as sacct
    shows it) that counts as the one model; sweep: the sweep that counts as the one tune. Default: the sweep whose last
    job ended last, and of its completed jobs the one with the most GPU-hours; without sweeps the completed job with
    the most GPU-hours, and no tune. Without a job that has a record there are totals only: `rnd` is empty, `development`
    and `own_hardware` are None. Raises ReportError where the model or the sweep is not found.
    """
    _make_jobs(con, window)
    jobs = rows_of(
        con,
        'SELECT count(*) AS n, min(start) AS first, max("end") AS last, count(*) FILTER '
        "(still_running = 1 AND state <> 'SUSPENDED') AS running, "
        "count(*) FILTER (still_running = 1 AND state = 'SUSPENDED') AS suspended, list(DISTINCT cluster) AS clusters FROM jobs",
    )[0]
    days = rows_of(con, "SELECT min(date) AS first, max(date) AS last FROM rows")[0]
    total = known(totals_of(con))
    profiles = [row["profile"] for row in rows_of(con, "SELECT DISTINCT profile FROM rows ORDER BY 1")]
    grown = _development(con) if jobs["n"] else None
    tune_name = sweep if sweep is not None else _last_sweep(con)
    one, like_it = _model(con, model, tune_name)
    rnd = [{"what": "one model", "models": 1, **_sum_of(con, f"{JOB} = {one['job']}")}] if one else []
    tune = None
    if tune_name is not None:
        tune = _sum_of(con, f"sweep = {quoted(tune_name)}")
        rnd.append({"what": "one tune", "models": tune.pop("jobs"), **tune})
    if grown:
        rnd.append({"what": "all jobs", "models": total["jobs"], **{key: total[key] for key in _RND_KEYS}})
    for row in rnd:
        row.pop("jobs", None)
    return {
        "project": project,
        "start": _iso(jobs["first"]),
        "end": _iso(jobs["last"]),
        "first_day": _iso(days["first"]),
        "last_day": _iso(days["last"]),
        "profile": profiles[0] if len(profiles) == 1 else ", ".join(profiles),
        **total,
        "failed": _ended_as(con, states.FAILED),
        "cancelled": _ended_as(con, {"CANCELLED"}),
        "running_jobs": int(jobs["running"]),
        "suspended_jobs": int(jobs["suspended"]),
        "factors": _factors(con),
        "comparisons": _comparisons(total["co2e_lb"]),
        "model": one["name"] if one else None,
        "clusters": sorted(jobs["clusters"] or ()),
        "model_cluster": one["cluster"] if one else None,
        "model_clusters": sorted({job["cluster"] for job in like_it}),
        "model_of_several": len(like_it) if len(like_it) > 1 else 0,
        "tune": tune_name,
        "rnd": rnd,
        "development": grown._asdict() if grown else None,
        "own_hardware": _own(grown, profile.own_gpu_usd, total) if grown else None,
    }


def _own(grown: Development, usd_per_gpu: float, total: dict[str, Any]) -> dict[str, Any]:
    """GPUs to own against the cloud: at least one where the project used any."""
    mean = max(1.0, grown.mean_gpus) if total["gpu_hours"] else 0.0
    beside = ("cloud_low_usd", "cloud_high_usd", "electricity_usd")
    return {**own_hardware(mean, usd_per_gpu)._asdict(), **{key: total[key] for key in beside}}


def _make_jobs(con: duckdb.DuckDBPyConnection, window: tuple[int | None, int | None]) -> None:
    """The table `jobs`: a row per job, its runs and days together; one that runs ends where its record does.

    Of a job that reaches out of the window (epoch seconds) the part inside counts, as its hours do. What segments
    alone know (state NO_RECORD) is energy, and no job.
    """
    first, last = window
    con.execute(f"""
        CREATE TEMP TABLE jobs AS SELECT * REPLACE (
          greatest(start, to_timestamp({first if first is not None else 0})) AS start,
          least("end", to_timestamp({last if last is not None else 253402300799})) AS "end") FROM (
        SELECT {JOB} AS job, cluster, any_value(job_id) AS job_id, any_value(array_job_id) AS array_job_id,
          any_value(array_task_id) AS array_task_id, any_value(sweep) AS sweep, arg_max(state, (start, date)) AS state,
          min(start) AS start, greatest(max("end"), max(start) FILTER ("end" IS NULL)
            + to_seconds(sum(elapsed_s) FILTER ("end" IS NULL))) AS "end",
          max(CASE WHEN "end" IS NULL THEN 1 ELSE 0 END) AS still_running,
          sum(elapsed_s) AS elapsed_s, fsum(gpu_h) AS gpu_h, fsum(cpu_h) AS cpu_h
        FROM rows WHERE {REAL} GROUP BY job, cluster)""")


def _development(con: duckdb.DuckDBPyConnection) -> Development:
    row = rows_of(
        con,
        'SELECT count(*) AS jobs, count(DISTINCT sweep) AS sweeps, epoch(max("end") - min(start)) AS span_s, '
        "min(elapsed_s) AS shortest, max(elapsed_s) AS longest, sum(elapsed_s) AS elapsed, fsum(gpu_h) AS gpu_h FROM jobs",
    )[0]
    models = rows_of(con, "SELECT gpu_model, fsum(gpu_h) AS gpu_h FROM rows WHERE gpu_model IS NOT NULL GROUP BY 1")
    return development(
        jobs=int(row["jobs"]), sweeps=int(row["sweeps"]), span_s=float(row["span_s"]), shortest_s=int(row["shortest"]),
        longest_s=int(row["longest"]), elapsed_s=int(row["elapsed"]), gpu_hours=float(row["gpu_h"]),
        gpu_hours_by_model={row["gpu_model"]: float(row["gpu_h"]) for row in models},
    )  # fmt: skip


def _last_sweep(con: duckdb.DuckDBPyConnection) -> str | None:
    found = rows_of(
        con,
        "SELECT sweep FROM jobs WHERE sweep IS NOT NULL GROUP BY sweep HAVING count(*) > 1 "
        'ORDER BY max("end") DESC, sum(gpu_h) DESC, sweep LIMIT 1',
    )
    return str(found[0]["sweep"]) if found else None


def _model(
    con: duckdb.DuckDBPyConnection, wanted: str | None, sweep: str | None
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:  # fmt: skip
    """The job that is the one model; and all jobs of the id asked for, which may have come round or be on other clusters."""
    if wanted is not None:
        match = re.fullmatch(r"([0-9]+)(?:_([0-9]+)|\+([0-9]+))?", wanted)
        if not match:
            raise ReportError(f"--model {wanted}: expected a job id such as 1234, 1234_5 or 1234+1")
        number, task, part = match.groups()
        where = (
            f"array_job_id = {number} AND array_task_id = {task}"
            if task
            else f"job_id = {int(number) + int(part or 0)}"
        )
    else:
        where = "state = 'COMPLETED'" + (f" AND sweep = {quoted(sweep)}" if sweep is not None else "")
    limit = " LIMIT 1" if wanted is None else ""
    found = rows_of(
        con,
        f'SELECT * FROM jobs WHERE {where} ORDER BY gpu_h DESC, cpu_h DESC, "end" DESC, job_id DESC, cluster{limit}',
    )
    if not found:
        if wanted is not None:
            raise ReportError(f"--model {wanted}: no such job in this report")
        return None, []
    row = found[0]
    array = row["array_job_id"] is not None and row["array_task_id"] is not None
    row["name"] = f"{row['array_job_id']}_{row['array_task_id']}" if array else str(row["job_id"])
    return row, found


def _sum_of(con: duckdb.DuckDBPyConnection, where: str) -> dict[str, Any]:
    total = known(totals_of(con, where))
    if not total["jobs"]:
        raise ReportError(f"no job with {where} in this report; `senergy report --by sweep` lists the sweeps")
    return {"jobs": total["jobs"], **{key: total[key] for key in _RND_KEYS}}


def _ended_as(con: duckdb.DuckDBPyConnection, names: Sequence[str] | set[str] | frozenset[str]) -> dict[str, Any]:
    """Totals of the runs that ended in one of these states."""
    return known(totals_of(con, f"state IN {one_of(names)}"))


def _factors(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The factors that the rows with energy were priced with: a mean by energy, the least and the most."""
    return rows_of(
        con,
        "SELECT fsum(facility_kwh) / nullif(fsum(it_kwh), 0) AS pue, min(r.pue) AS pue_min, max(r.pue) AS pue_max, "
        "fsum(co2e_g) / nullif(fsum(facility_kwh), 0) AS carbon_g_per_kwh, "
        "min(r.carbon_g_per_kwh) AS carbon_g_per_kwh_min, max(r.carbon_g_per_kwh) AS carbon_g_per_kwh_max, "
        "fsum(electricity_usd) / nullif(fsum(facility_kwh), 0) AS electricity_usd_per_kwh, "
        "min(electricity_usd / facility_kwh) AS electricity_usd_per_kwh_min, "
        "max(electricity_usd / facility_kwh) AS electricity_usd_per_kwh_max FROM rows r WHERE it_kwh > 0",
    )[0]


def _comparisons(co2e_lb: float) -> list[dict[str, Any]]:
    """Table 1 of the paper: what is given there, and how often the project's emissions hold it."""
    from slurm_energy.paper.tables import is_result, printed

    given = [row for row in printed(1) if not is_result(1, row)]
    return [
        {"what": row["what"], "co2e_lb": row["co2e_lb"], "times": co2e_lb / float(row["co2e_lb"] or 1)} for row in given
    ]


def _iso(moment: Any) -> str | None:
    return moment.isoformat() if moment is not None else None
