"""The rows of the ledger that a report is about, priced as they were stored or under another profile.

No import but DuckDB's is heavy here, for a person waits for the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

import duckdb

from slurm_energy.accounting.equations import cloud_usd, electricity_usd, facility_from_it_kwh
from slurm_energy.accounting.sql import Sql, derived_columns
from slurm_energy.ledger.damage import damage
from slurm_energy.ledger.store import Ledger
from slurm_energy.report.errors import NoDays, ReportError
from slurm_energy.slurm import states
from slurm_energy.sql import JOB_KEY, SAME_RUN, one_of, parquet, quoted, run_key

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
        raise NoDays(f"no days to report on in the ledger {ledger.path}: {_instead(ledger, selection)}")
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    conditions = [
        f'"{column}" IN {one_of(values)}'
        for column, values in (
            ("project", selection.projects),
            ("user", selection.users),
            ("account", selection.accounts),
        )
        if values
    ]
    if not selection.idle:
        conditions.append(f"state <> {quoted(states.IDLE)}")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    columns = ", ".join(f'"{name}"' for name in dict.fromkeys((*_NEEDED, *also)))
    try:
        con.execute(f"CREATE TEMP TABLE stored AS SELECT {columns} FROM {parquet(file.path for file in files)}{where}")
    except duckdb.Error as error:
        said = f"the ledger {ledger.path} cannot be read ({str(error).splitlines()[0]})"
        raise ReportError(damage(file.path for file in files) or said) from error
    con.execute(f"CREATE TEMP VIEW priced AS {_priced(con, profile) if profile else _AS_STORED}")
    con.execute(_CONTINUED)
    con.execute(
        "CREATE TEMP VIEW rows AS SELECT p.*, a, b, coalesce(c.job_start, p.start) AS job_start FROM "
        f"(SELECT *, {JOB_KEY} FROM priced) p LEFT JOIN continued c {SAME_RUN}"
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


# What follows from other columns is worked out again, as the aggregator did: quicker than to read it.
_AS_STORED = f"SELECT *, profile AS stored_profile, {derived_columns()} FROM stored"
_NEEDED = (
    "cluster", "date", "job_id", "array_job_id", "array_task_id", "sweep", "state", "start", "end", "elapsed_s",
    "nodes", "coverage", "gpu_model", "gpu_h", "cpu_h", "it_kwh", "measured_kwh", "slurm_kwh", "pue", "carbon_g_per_kwh",
    "electricity_usd", "cloud_low_usd", "cloud_high_usd", "profile",
)  # fmt: skip
# A run goes on with the job of the same id whose run before it ended in a state from which Slurm starts again;
# otherwise the id has come round, and it is another job. Only ids with several runs are looked at.
_CONTINUED = f"""
    CREATE TEMP TABLE continued AS
    WITH parts AS (
      SELECT {run_key()}, state FROM stored
    ), runs AS (
      SELECT cluster, a, b, start, min(state) AS state FROM parts
      SEMI JOIN (SELECT cluster, a, b FROM parts GROUP BY ALL HAVING min(start) < max(start)) USING (cluster, a, b)
      GROUP BY ALL
    ), several AS (
      SELECT *, coalesce(lag(state) OVER w, '') AS before FROM runs WINDOW w AS (PARTITION BY cluster, a, b ORDER BY start)
    )
    SELECT cluster, a, b, start, max(CASE WHEN before NOT IN {one_of(states.AGAIN)} THEN start END)
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
    price = electricity_usd(facility_from_it_kwh(Sql("it_kwh"), Sql(pue)), Sql(electricity))
    return f"""
        SELECT * REPLACE ({pue} AS pue, {carbon} AS carbon_g_per_kwh,
            {price} AS electricity_usd, {low} AS cloud_low_usd, {high} AS cloud_high_usd,
            {quoted(profile.name)} AS profile), profile AS stored_profile, {derived_columns(pue, carbon)}
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
    cases = [f"WHEN gpu_model IS NULL THEN {cloud_usd(Sql('cpu_h'), Sql(f'{cores!r}::DOUBLE'))}"]
    for model in models:
        prices = [
            getattr(profile.gpu(None if part == "unknown" else part), f"{which}_usd_per_h") for part in model.split("+")
        ]
        mean = None if None in prices else Sql(f"{sum(prices) / len(prices)!r}::DOUBLE")
        cost = cloud_usd(Sql("gpu_h"), mean) if mean is not None else "NULL"
        cases.append(f"WHEN gpu_model = {quoted(model)} THEN {cost}")
    return f"CASE {' '.join(cases)} END"
