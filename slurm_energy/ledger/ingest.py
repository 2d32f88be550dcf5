"""Job records of any source into one typed DuckDB table: each record once, its latest state, broken rows set aside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa

from slurm_energy.slurm import states
from slurm_energy.slurm.columns import RAW_COLUMNS
from slurm_energy.slurm.normalise import normalised_sql, table_sql
from slurm_energy.slurm.records import RawRecords, SetAside
from slurm_energy.sql import SAME_RUN, one_of, run_key


class Counts(NamedTuple):
    """What became of the rows of a source."""

    records: int
    waiting: int
    repeated: int
    set_aside: int
    elsewhere: int = 0
    """Of clusters that were not asked for."""
    outside: int = 0
    """Before or after the time that was asked for."""


class Ingest:
    """Fills the table `parsed` of a DuckDB connection."""

    def __init__(self, con: duckdb.DuckDBPyConnection, site: ZoneInfo, default_cluster: str) -> None:
        self.con, self.site, self.default_cluster = con, site, default_cluster
        self.set_aside: list[SetAside] = []
        empty = normalised_sql(f"SELECT * FROM ({_no_rows()})", site, default_cluster)
        con.execute(f"CREATE TEMP TABLE parsed AS {empty}")

    def add(self, raw: RawRecords) -> None:
        """Takes the records of a source; broken ones go to `set_aside` with their line."""
        self.set_aside.extend(raw.set_aside)
        for table in raw.tables:
            before = self._count()
            typed = normalised_sql(table_sql(table), self.site, self.default_cluster)
            self.con.execute(f"INSERT INTO parsed BY NAME {_no_steps(typed)}")
            if self._broken(before):
                numbered = normalised_sql(
                    table_sql(table, numbered=True), self.site, self.default_cluster, ", number, whole"
                )
                bad = self.con.execute(
                    f"SELECT number, reason, whole FROM ({numbered}) WHERE reason IS NOT NULL ORDER BY 1"
                )
                for number, reason, whole in bad.fetchall():
                    self.set_aside.append(SetAside(raw.source, table.line_of(number), reason, whole))
        self.add_rows(raw.source, raw.rows)
        self.con.execute("DELETE FROM parsed WHERE reason IS NOT NULL")

    def add_rows(self, source: str, rows: Iterable[tuple[int | None, Mapping[str, str]]]) -> None:
        """Takes single rows of text under sacct's names."""
        taken = list(rows)
        if not taken:
            return
        columns = {name: [_column(row, name) for _, row in taken] for name in RAW_COLUMNS}
        numbers = pa.array(range(len(taken)), pa.int64())
        arrow = pa.table({**{name: pa.array(texts, pa.string()) for name, texts in columns.items()}, "number": numbers})
        self.con.register("single_rows", arrow)
        typed = normalised_sql("SELECT * FROM single_rows", self.site, self.default_cluster, ", number")
        self.con.execute(f"CREATE TEMP TABLE single AS {_no_steps(typed)}")
        self.con.unregister("single_rows")
        bad = self.con.execute("SELECT number, reason FROM single WHERE reason IS NOT NULL ORDER BY number")
        for number, reason in bad.fetchall():
            line, row = taken[number]
            self.set_aside.append(SetAside(source, line, reason, "|".join(row.values())))
        self.con.execute("INSERT INTO parsed BY NAME SELECT * EXCLUDE (number) FROM single WHERE reason IS NULL")
        self.con.execute("DROP TABLE single")

    def finish(self, first: int | None, last: int | None, clusters: Sequence[str] = ()) -> Counts:
        """Drops what never started, what lies outside of [first, last) (epoch seconds), and earlier states.

        clusters: only these, where any are named.
        """
        con, read = self.con, self._count()
        if clusters:
            con.execute(f"DELETE FROM parsed WHERE cluster NOT IN {one_of(clusters)}")
        elsewhere = read - self._count()
        waiting = _number(con, "SELECT count(*) FROM parsed WHERE kind = 'waiting'")
        if waiting:
            con.execute("DELETE FROM parsed WHERE kind = 'waiting'")
        started = self._count()
        if first is not None:
            con.execute(f"DELETE FROM parsed WHERE start + greatest(span_s, 1) <= {first}")
        if last is not None:
            con.execute(f"DELETE FROM parsed WHERE start >= {last}")
        before = self._count()
        con.execute(
            f"CREATE TEMP TABLE twice AS SELECT * FROM (SELECT {run_key()} FROM parsed) GROUP BY ALL HAVING count(*) > 1"
        )
        if _number(con, "SELECT count(*) FROM twice"):
            con.execute(f"""
                DELETE FROM parsed WHERE rowid IN (
                  SELECT id FROM (
                    SELECT id, row_number() OVER (
                      PARTITION BY cluster, a, b, start
                      ORDER BY state IN {one_of(states.ENDED)} DESC, coalesce("end", 0) DESC, elapsed_s DESC, id DESC) AS place
                    FROM (SELECT rowid AS id, state, "end", elapsed_s, {run_key()} FROM parsed) SEMI JOIN twice {SAME_RUN})
                  WHERE place > 1)""")
        con.execute("DROP TABLE twice")
        kept = self._count()
        return Counts(kept, waiting, before - kept, len(self.set_aside), elsewhere, started - before)

    def _count(self) -> int:
        return _number(self.con, "SELECT count(*) FROM parsed")

    def _broken(self, before: int) -> int:
        return _number(self.con, f"SELECT count(*) FROM parsed WHERE reason IS NOT NULL AND rowid >= {before}") if (
            self._count() > before
        ) else 0  # fmt: skip


def _column(row: Mapping[str, str], name: str) -> str:
    """A field under our name for it, or under a synonym."""
    from slurm_energy.slurm.columns import SYNONYMS

    if row.get(name):
        return row[name]
    return next((row[other] for other, meaning in SYNONYMS.items() if meaning == name and row.get(other)), "")


def _no_rows() -> str:
    names = ", ".join(f"'' AS {name}" for name in RAW_COLUMNS)
    return f"SELECT {names} WHERE false"


def _no_steps(typed: str) -> str:
    return f"SELECT * FROM ({typed}) WHERE kind <> 'step'"


def _number(con: duckdb.DuckDBPyConnection, sql: str) -> int:
    return int(con.execute(sql).fetchall()[0][0])  # fetchone would leave the connection in use
