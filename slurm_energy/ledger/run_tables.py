"""The tables that a run of the aggregator joins, and the expression over them as the engine's SQL."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import duckdb
import ibis
import pyarrow as pa

from slurm_energy.config import ConfigError
from slurm_energy.ledger.calendar import date_of
from slurm_energy.ledger.expression import ledger_rows
from slurm_energy.ledger.projects import project_sql, sweep_sql
from slurm_energy.ledger.rating import Rater, Rating
from slurm_energy.ledger.run import Run
from slurm_energy.slurm.zone import local_midnights, offset_sql


def make_views(con: duckdb.DuckDBPyConnection, run: Run) -> None:
    """`placed`: the records with the days that they touch."""
    local = f"start + ({offset_sql(run.site, 'start', wall=False)})"
    end = "start + greatest(span_s, 1) - 1"
    con.execute(f"""
        CREATE TEMP VIEW placed AS
        SELECT rowid AS record, *, ({local}) // 86400 AS first_day,
          ({end} + ({offset_sql(run.site, f"({end})", wall=False)})) // 86400 AS last_day
        FROM parsed""")


def make_tables(con: duckdb.DuckDBPyConnection, run: Run, affected: Sequence[tuple[str, int]]) -> None:
    """What the expression joins: `ratings`, `days`, and `all_jobs`, of which `jobs` will be a part."""
    try:
        rater = Rater(run.profile, run.config.power)
    except ConfigError as error:
        raise ConfigError(f"{run.config.file}, {error}") from error
    nodes = "node_list" if rater.looks_at_nodes else "''"
    shapes = con.execute(f'SELECT DISTINCT gpu_key, "partition", {nodes} AS n FROM parsed ORDER BY ALL').fetchall()
    ratings = [rater.rate(*shape) for shape in shapes]
    columns: dict[str, pa.Array] = {"shape": pa.array(range(len(shapes)), pa.int64())}
    for index, name in enumerate(("shape_key", "shape_partition", "shape_nodes")):
        columns[name] = pa.array([shape[index] for shape in shapes], pa.string())
    types = {"gpus": pa.int32(), "gpu_model": pa.string(), "exclusive": pa.bool_(), "cpus_per_node": pa.int64()}
    for index, name in enumerate(Rating._fields):
        columns[name] = pa.array([rating[index] for rating in ratings], types.get(name, pa.float64()))
    con.register("ratings_arrow", pa.table(columns))
    con.execute(
        "CREATE TEMP TABLE ratings AS SELECT * EXCLUDE (shape_key, shape_partition, shape_nodes) FROM ratings_arrow"
    )
    con.execute("CREATE TEMP TABLE shapes AS SELECT shape, shape_key, shape_partition, shape_nodes FROM ratings_arrow")
    con.register("days_arrow", _days_table(run, affected))
    con.execute("CREATE TEMP TABLE days AS SELECT * FROM days_arrow")
    con.execute(f"""
        CREATE TEMP VIEW all_jobs AS
        SELECT placed.*, shape, {project_sql(run.config, run.account_parents)} AS project, {sweep_sql(run.config)} AS sweep
        FROM placed JOIN shapes
          ON gpu_key = shape_key AND "partition" = shape_partition AND {nodes} = shape_nodes""")


def _days_table(run: Run, affected: Sequence[tuple[str, int]]) -> pa.Table:
    """Each cluster's day: when it begins and ends, and the factors that hold on it."""
    first, last = min(day for _, day in affected), max(day for _, day in affected)
    midnights = local_midnights(run.site, first, last)
    factors = {day: run.profile.on(date_of(day)) for day in {day for _, day in affected}}
    return pa.table(
        {
            "cluster": pa.array([cluster for cluster, _ in affected], pa.string()),
            "day": pa.array([day for _, day in affected], pa.int64()),
            "day_start": pa.array([midnights[day - first] for _, day in affected], pa.int64()),
            "day_end": pa.array([midnights[day - first + 1] for _, day in affected], pa.int64()),
            "pue": [factors[day].pue for _, day in affected],
            "carbon_g_per_kwh": [factors[day].carbon_g_per_kwh for _, day in affected],
            "electricity_usd_per_kwh": [factors[day].electricity_usd_per_kwh for _, day in affected],
        }
    )


def take_days(con: duckdb.DuckDBPyConnection, first: int, last: int) -> None:
    """Narrows `jobs` to these days, so that a piece of any ledger fits in memory."""
    con.execute(f"SET VARIABLE first_day = {first}")
    con.execute(f"SET VARIABLE last_day = {last}")
    con.execute(f"""
        CREATE OR REPLACE TEMP VIEW jobs AS
        SELECT * REPLACE (greatest(first_day, {first}) AS first_day, least(last_day, {last}) AS last_day)
        FROM all_jobs WHERE first_day <= {last} AND last_day >= {first}""")


def rows_sql(con: duckdb.DuckDBPyConnection, run: Run) -> str:
    """The expression as DuckDB's SQL, which holds for whatever days `jobs` is narrowed to."""
    take_days(con, 0, 0)
    backend = ibis.duckdb.from_connection(con)
    schemas = [backend.table(name).schema() for name in ("jobs", "ratings", "days")]
    measured = con.execute("SELECT count(*) FROM energy").fetchall()  # fetchone would leave the connection in use
    energy = backend.table("energy").schema() if measured[0][0] else None
    return _compiled(*schemas, energy, run.plugin, run.profile.name)


@functools.cache
def _compiled(
    jobs: ibis.Schema, ratings: ibis.Schema, days: ibis.Schema, energy: ibis.Schema | None, plugin: str, profile: str
) -> str:
    """The SQL, which depends on nothing else: who aggregates often in one process has it worked out once."""
    rows = ledger_rows(
        ibis.table(jobs, name="jobs"),
        ibis.table(ratings, name="ratings"),
        ibis.table(days, name="days"),
        ibis.table(energy, name="energy") if energy is not None else None,
        plugin,
        profile,
    )
    return str(ibis.to_sql(rows, dialect="duckdb"))
