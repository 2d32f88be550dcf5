"""New records against the days that the ledger has: who is later, which days change, what stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import duckdb
import pyarrow as pa

from slurm_energy.ledger.calendar import date_of, day_number
from slurm_energy.ledger.damage import telling_damage
from slurm_energy.ledger.schema import NAMES, SCHEMA, SORT_KEY
from slurm_energy.ledger.store import DayFile, Ledger
from slurm_energy.slurm import states
from slurm_energy.sql import JOB_KEY, SAME_RUN, one_of, parquet, run_key

_OLD_KEY = run_key("epoch(start)::BIGINT")


def prepare(
    con: duckdb.DuckDBPyConnection, ledger: Ledger, window: tuple[int, int] | None, also: Iterable[tuple[str, int]] = ()
) -> list[tuple[str, int]]:  # fmt: skip
    """Drops new records that the ledger knows in a later state; the (cluster, day) pairs that must be written anew.

    A day outside of the window is touched only where the ledger has it already: else it would be half a day.
    also: days that must be written whatever the records say.
    """
    clusters = [row[0] for row in con.execute("SELECT DISTINCT cluster FROM parsed ORDER BY 1").fetchall()]
    first = con.execute("SELECT min(first_day) FROM placed").fetchall()[0][0]
    have: list[DayFile] = []
    if clusters and first is not None:
        have = ledger.days(clusters, start=date_of(int(first)))
    known = {(file.cluster, day_number(file.day)) for file in have}
    affected: set[tuple[str, int]] = set(also)
    if have:
        con.execute(f'CREATE TEMP TABLE fresh AS SELECT {run_key()}, "end", elapsed_s FROM parsed')
        with telling_damage(file.path for file in have):
            con.execute(f"""
                CREATE TEMP TABLE old AS
                SELECT cluster, a, b, start, date, "end", elapsed_s
                FROM (SELECT {_OLD_KEY}, date, epoch("end")::BIGINT AS "end", elapsed_s
                      FROM {_rows_of(have)})
                SEMI JOIN fresh {SAME_RUN}""")
        con.execute(f"""
            CREATE TEMP TABLE later AS
            SELECT cluster, a, b, start
            FROM (SELECT cluster, a, b, start, max("end") AS old_end, sum(elapsed_s) AS old_s FROM old GROUP BY ALL)
            JOIN fresh {SAME_RUN}
            WHERE CASE WHEN fresh."end" IS NULL THEN old_end IS NOT NULL OR old_s > fresh.elapsed_s
                       ELSE coalesce(old_end > fresh."end", false) END""")
        con.execute(f"""
            DELETE FROM parsed WHERE rowid IN (
              SELECT id FROM (SELECT rowid AS id, {run_key()} FROM parsed) SEMI JOIN later {SAME_RUN})""")
        superseded = con.execute(f"SELECT DISTINCT cluster, date FROM old ANTI JOIN later {SAME_RUN}").fetchall()
        affected.update((cluster, day_number(day)) for cluster, day in superseded)
    touched = con.execute(
        "SELECT DISTINCT cluster, unnest(range(first_day, last_day + 1)) AS day FROM "
        "(SELECT DISTINCT cluster, first_day, last_day FROM placed)"
    ).fetchall()
    for cluster, day in touched:
        if window is None or window[0] <= day <= window[1] or (cluster, day) in known:
            affected.add((cluster, day))
    return sorted(affected)


def combined(
    con: duckdb.DuckDBPyConnection, new_rows_sql: str, leftover_sql: str, ledger: Ledger, chunk: Sequence[tuple[str, int]]
) -> pa.Table:  # fmt: skip
    """The rows of these days: the new ones, those of jobs that no new record speaks of, and those of segments alone.

    Sorted, in the ledger's schema.
    """
    wanted = set(chunk)
    clusters = sorted({cluster for cluster, _ in chunk})
    first, last = date_of(chunk[0][1]), date_of(chunk[-1][1] + 1)
    old = [file for file in ledger.days(clusters, first, last) if (file.cluster, day_number(file.day)) in wanted]
    with telling_damage(file.path for file in old):
        return _combined(con, new_rows_sql, leftover_sql, old)


def _combined(
    con: duckdb.DuckDBPyConnection, new_rows_sql: str, leftover_sql: str, old: Sequence[DayFile]
) -> pa.Table:  # fmt: skip
    columns = ", ".join(f'"{name}"' for name in NAMES)
    sql = f"SELECT {columns} FROM ({new_rows_sql})"
    leftover = f"SELECT {columns} FROM ({leftover_sql})"
    if old:
        as_numbers = ", ".join(_as_number(name) for name in NAMES)
        con.execute(f"""
            CREATE OR REPLACE TEMP VIEW kept AS SELECT {columns} FROM (
              SELECT {as_numbers}, a, b FROM (
                SELECT *, {JOB_KEY} FROM {_rows_of(old)} WHERE state NOT IN {one_of(states.OWN)}))
            ANTI JOIN (SELECT {run_key()} FROM parsed) {SAME_RUN}""")
        sql += f" UNION ALL SELECT {columns} FROM kept"
        # A session whose job the ledger knows from an earlier run waits until that job's record is read again.
        leftover += " l ANTI JOIN (SELECT cluster, job_id FROM kept) k USING (cluster, job_id)"
        con.execute(
            f"INSERT INTO unjoined SELECT DISTINCT cluster, date FROM ({leftover_sql}) SEMI JOIN "
            "(SELECT cluster, job_id FROM kept WHERE job_id <> 0) k USING (cluster, job_id)"
        )
    sql += f" UNION ALL {leftover}"
    # Rows of segments alone have no record that tells them apart: the node is their name.
    key = ", ".join(f'"{name}" NULLS FIRST' for name in (*SORT_KEY, "job_name", "it_kwh"))
    table = con.sql(f"SELECT * FROM ({sql}) ORDER BY date, cluster, {key}").to_arrow_table()
    return pa.table([_cast(table[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def _as_number(name: str) -> str:
    """Days and times of the ledger as the whole numbers that the expression gives."""
    if name in ("submit", "start", "end"):
        return f'epoch("{name}")::BIGINT AS "{name}"'
    return "(date - DATE '1970-01-01')::BIGINT AS date" if name == "date" else f'"{name}"'


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_date32(kind):
        return column.cast(pa.int32()).cast(kind)
    if pa.types.is_timestamp(kind):
        return column.cast(pa.int64()).cast(kind)
    return column.cast(kind)


def _rows_of(files: Sequence[DayFile]) -> str:
    return parquet(file.path for file in files)
