"""The rows of the ledger that a report is about, priced as they were stored or under another profile.

No import but DuckDB's is heavy here, for a person waits for the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

import duckdb

from slurm_energy.ledger.store import Ledger, damage
from slurm_energy.report.errors import ReportError
from slurm_energy.slurm import states

if TYPE_CHECKING:
    from slurm_energy.factors.profile import Profile


class Selection(NamedTuple):
    """Which rows: all conditions hold together, the values of one are alternatives; empty is no condition."""

    projects: Sequence[str] = ()
    users: Sequence[str] = ()
    accounts: Sequence[str] = ()
    clusters: Sequence[str] = ()
    start: date | None = None
    end: date | None = None
    """The first day, and the day after the last."""
    idle: bool = False
    """Whether what no job used (project '(idle)') is in it, too."""


def literal(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def open_rows(
    ledger: Ledger, selection: Selection, profile: Profile | None, also: Sequence[str] = ()
) -> duckdb.DuckDBPyConnection:
    """A connection with the view `rows`: the selected rows of the ledger, each with the first start of its job.

    also: further columns of the ledger that the report needs; each one read costs time.

    With a profile, its PUE, carbon intensity and prices take the place of the stored ones; the energy stays.
    Raises ReportError where the ledger has no day in the window.
    """
    files = ledger.days(selection.clusters, selection.start, selection.end)
    if not files:
        raise ReportError(f"no days to report on in the ledger {ledger.path}: {_instead(ledger, selection)}")
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    paths = ", ".join(literal(str(file.path)) for file in files)
    conditions = [
        f'"{column}" IN ({", ".join(map(literal, values))})'
        for column, values in (
            ("project", selection.projects),
            ("user", selection.users),
            ("account", selection.accounts),
        )
        if values
    ]
    if not selection.idle:
        conditions.append("state <> 'IDLE'")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    columns = ", ".join(f'"{name}"' for name in dict.fromkeys((*_NEEDED, *also)))
    try:
        con.execute(
            f"CREATE TEMP TABLE stored AS SELECT {columns} FROM read_parquet([{paths}], hive_partitioning=false){where}"
        )
    except duckdb.Error as error:
        said = f"the ledger {ledger.path} cannot be read ({str(error).splitlines()[0]})"
        raise ReportError(damage(file.path for file in files) or said) from error
    con.execute(f"CREATE TEMP VIEW priced AS {_priced(con, profile) if profile else _AS_STORED}")
    con.execute(_CONTINUED)
    con.execute(
        "CREATE TEMP VIEW rows AS SELECT p.*, a, b, coalesce(c.job_start, p.start) AS job_start FROM "
        "(SELECT *, coalesce(array_job_id, job_id) AS a, coalesce(array_task_id, -1) AS b FROM priced) p "
        "LEFT JOIN continued c USING (cluster, a, b, start)"
    )
    return con


def _instead(ledger: Ledger, selection: Selection) -> str:
    """What there is where nothing was found, or why nothing can be seen."""
    try:
        next((ledger.path / "days").iterdir(), None)
    except FileNotFoundError:
        return "run `senergy aggregate` first"
    except OSError as error:
        return f"{error.strerror}; its owner decides who may read it"
    every = ledger.days()
    if not every:
        return "run `senergy aggregate` first"
    clusters = sorted({file.cluster for file in every})
    if selection.clusters and not set(selection.clusters) & set(clusters):
        return f"it has the clusters {', '.join(clusters)}"
    days = sorted(file.day for file in every)
    return f"it has days from {days[0]} to {days[-1]}"


def check_projects(con: duckdb.DuckDBPyConnection, projects: Sequence[str]) -> None:
    """Raises ReportError where one of the projects has no row: a misspelt name must not look like an idle project."""
    if projects:
        here = {row[0] for row in con.execute("SELECT DISTINCT project FROM rows").fetchall()}
        for project in projects:
            if project not in here:
                raise ReportError(
                    f"no jobs of project {project!r} here; `senergy report --by project` lists the projects"
                )


# What follows from other columns is worked out again, as the aggregator did: quicker than to read it.
_AS_STORED = """
    SELECT *, it_kwh - measured_kwh - slurm_kwh AS estimated_kwh, it_kwh * pue AS facility_kwh,
      it_kwh * pue * carbon_g_per_kwh AS co2e_g FROM stored"""
_NEEDED = (
    "cluster", "date", "job_id", "array_job_id", "array_task_id", "sweep", "state", "start", "end", "elapsed_s",
    "gpu_model", "gpu_h", "cpu_h", "it_kwh", "measured_kwh", "slurm_kwh", "pue", "carbon_g_per_kwh",
    "electricity_usd", "cloud_low_usd", "cloud_high_usd", "profile",
)  # fmt: skip
# A run goes on with the job of the same id whose run before it ended in a state from which Slurm starts again;
# otherwise the id has come round, and it is another job. Only ids with several runs are looked at.
_CONTINUED = f"""
    CREATE TEMP TABLE continued AS
    WITH runs AS (
      SELECT cluster, coalesce(array_job_id, job_id) AS a, coalesce(array_task_id, -1) AS b, start, min(state) AS state
      FROM stored GROUP BY ALL
    ), several AS (
      SELECT *, coalesce(lag(state) OVER w, '') AS before FROM runs
      SEMI JOIN (SELECT cluster, a, b FROM runs GROUP BY ALL HAVING count(*) > 1) USING (cluster, a, b)
      WINDOW w AS (PARTITION BY cluster, a, b ORDER BY start)
    )
    SELECT cluster, a, b, start, max(CASE WHEN before NOT IN ({", ".join(f"'{s}'" for s in sorted(states.AGAIN))}) THEN start END)
      OVER (PARTITION BY cluster, a, b ORDER BY start ROWS UNBOUNDED PRECEDING) AS job_start
    FROM several"""
JOB = "hash(cluster, a, b, job_start)"
"""What tells a job from others in the view `rows`; all its runs together."""


def _priced(con: duckdb.DuckDBPyConnection, profile: Profile) -> str:
    """The stored rows with another profile's factors."""
    models = [
        row[0] for row in con.execute("SELECT DISTINCT gpu_model FROM stored WHERE gpu_model IS NOT NULL").fetchall()
    ]
    low, high = _prices(models, profile, "low"), _prices(models, profile, "high")
    pue = _dated(profile, "pue")
    carbon = _dated(profile, "carbon_g_per_kwh")
    electricity = _dated(profile, "electricity_usd_per_kwh")
    facility = f"it_kwh * {pue}"
    return f"""
        SELECT * REPLACE (
            {facility} * {electricity} AS electricity_usd, {low} AS cloud_low_usd, {high} AS cloud_high_usd,
            {literal(profile.name)} AS profile),
          it_kwh - measured_kwh - slurm_kwh AS estimated_kwh, {facility} AS facility_kwh, {facility} * {carbon} AS co2e_g
        FROM stored"""


def _dated(profile: Profile, field: str) -> str:
    """SQL for a factor that may change on certain days."""
    value: float = getattr(profile, field)
    cases: list[str] = []
    for period in profile.periods:
        changed: float | None = getattr(period, field)
        if changed is not None:
            cases.insert(0, f"WHEN date >= DATE '{period.start.isoformat()}' THEN {changed!r}::DOUBLE")
    return f"(CASE {' '.join(cases)} ELSE {value!r}::DOUBLE END)" if cases else f"{value!r}::DOUBLE"


def _prices(models: Sequence[str], profile: Profile, which: str) -> str:
    """SQL for the cloud cost of a row. Of several models on one job the mean price counts: the ledger has the sum."""
    cores: float = getattr(profile, f"cpu_core_{which}_usd_per_h")
    cases = [f"WHEN gpu_model IS NULL THEN cpu_h * {cores!r}::DOUBLE"]
    for model in models:
        prices = [
            getattr(profile.gpu(None if part == "unknown" else part), f"{which}_usd_per_h") for part in model.split("+")
        ]
        mean = "NULL" if None in prices else f"gpu_h * {sum(prices) / len(prices)!r}::DOUBLE"
        cases.append(f"WHEN gpu_model = {literal(model)} THEN {mean}")
    return f"CASE {' '.join(cases)} END"
