"""The ledger as sums per day file, kept in memory: a day that changed costs the reading of one file.

Everything that a scrape shows adds up over days but the number of jobs: a job that crosses midnight, was requeued or
resized has several rows. Those few runs are kept one by one, and joined to jobs as the reports do; all others are
counted where they lie. Names become labels here: printable, of bounded length, with `(none)` for the empty one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from slurm_energy.accounting.sql import derived_columns
from slurm_energy.ledger.store import DayFile, Ledger
from slurm_energy.slurm import states
from slurm_energy.sql import JOB_KEY, one_of, parquet, quoted

if TYPE_CHECKING:
    from datetime import tzinfo

    import duckdb

LEVELS = {"project": "project", "user": '"user"'}
"""What is summed by, and its column."""
BATCH = 50
"""Files read in one go."""
MAX_LABEL = 128
SUMS = (
    "gpu_h", "cpu_h", "it_kwh", "facility_kwh", "co2e_g", "electricity_usd", "cloud_low_usd", "cloud_high_usd",
    "measured_kwh", "slurm_kwh", "estimated_kwh",
)  # fmt: skip


class Signature(NamedTuple):
    """What changes when a file is replaced."""

    inode: int
    mtime_ns: int
    size: int


class Found(NamedTuple):
    """What lies in the ledger's folder: its days with their signatures, those of the rows set aside, when runs ended well."""

    days: dict[DayFile, Signature]
    aside: dict[Path, Signature]
    runs: dict[str, int]


def look(ledger: Ledger) -> Found:
    """What is there now. Raises OSError or LedgerError where the ledger is not there or may not be read."""
    for folder in [ledger.path / "days", *(ledger.path / "days").glob("cluster=*")]:
        with os.scandir(folder):  # a glob would be silent of what may not be read
            pass
    days = {file: _signature(file.path) for file in ledger.days()}
    aside = {}
    if (ledger.path / "set-aside").is_dir():
        with os.scandir(ledger.path / "set-aside"):
            pass
        aside = {path: _signature(path) for path in sorted((ledger.path / "set-aside").glob("*.jsonl"))}
    return Found(days, aside, ledger.read_state())


def _signature(path: Path) -> Signature:
    status = path.stat()
    return Signature(status.st_ino, status.st_mtime_ns, status.st_size)


class DaySums:
    """Sums of every day file by project and by user, in an in-memory database that follows the folder."""

    def __init__(self, ledger: Ledger, zone: tzinfo) -> None:
        import duckdb

        self.ledger, self.zone = ledger, zone
        self.files_read = 0
        """Day files read since the start."""
        self.con: duckdb.DuckDBPyConnection = duckdb.connect()
        for setting in ("enable_external_file_cache = false", "threads = 2", "TimeZone = 'UTC'"):
            with contextlib.suppress(duckdb.Error):  # older ones have no such cache
                self.con.execute(f"SET {setting}")
        sums = ", ".join(f"{name} DOUBLE" for name in SUMS)
        for level in LEVELS:
            self.con.execute(f"CREATE TABLE {level}_sums (file INT, idle BOOL, name TEXT, jobs BIGINT, {sums})")
        self.con.execute(
            'CREATE TABLE runs (file INT, a BIGINT, b BIGINT, start BIGINT, again BOOL, project TEXT, "user" TEXT)'
        )
        self.con.execute("CREATE TABLE files (file INT, cluster TEXT, day DATE)")
        self._known: dict[DayFile, tuple[int, Signature]] = {}
        self._next = 0

    def follow(self, found: Found) -> bool:
        """Reads what is new or changed, forgets what is gone; whether there was any.

        Raises OSError or duckdb.Error where a file cannot be read; the next call tries it again.
        """
        gone = [file for file, (_, signature) in self._known.items() if found.days.get(file) != signature]
        if gone:
            numbers = ", ".join(str(self._known.pop(file)[0]) for file in gone)
            for table in (*(f"{level}_sums" for level in LEVELS), "runs", "files"):
                self.con.execute(f"DELETE FROM {table} WHERE file IN ({numbers})")
        fresh = [file for file in found.days if file not in self._known]
        for at in range(0, len(fresh), BATCH):
            self._read(fresh[at : at + BATCH], found)
        return bool(gone or fresh)

    def _read(self, files: Sequence[DayFile], found: Found) -> None:
        numbered = dict(enumerate(files, self._next))
        self._next += len(files)
        con = self.con
        con.execute("BEGIN")
        try:
            con.executemany(
                "INSERT INTO files VALUES (?, ?, ?)",
                [(number, label(file.cluster), file.day) for number, file in numbered.items()],
            )
            self._rows(numbered)
            for level, column in LEVELS.items():
                con.execute(_SUMS.format(level=level, column=column))
            con.execute(_RUNS)
            con.execute("DROP TABLE raw; DROP TABLE several")
            con.execute("COMMIT")
        except BaseException:
            con.execute("ROLLBACK")
            raise
        self.files_read += len(files)
        self._known.update({file: (number, found.days[file]) for number, file in numbered.items()})

    def _rows(self, numbered: dict[int, DayFile]) -> None:
        """The rows of the files, their names as labels, and which of them may belong to a job of several rows."""
        con = self.con
        parts = []
        for number, file in numbered.items():
            midnight = datetime(file.day.year, file.day.month, file.day.day, tzinfo=self.zone)
            next_day = file.day + timedelta(days=1)
            ends = datetime(next_day.year, next_day.month, next_day.day, tzinfo=self.zone)
            parts.append(
                f"SELECT {number} AS file, {round(midnight.timestamp())} AS low, {round(ends.timestamp())} AS high, "
                f"{_COLUMNS} FROM {parquet([file.path])}"
            )
        con.execute(f"CREATE TEMP TABLE raw AS {' UNION ALL '.join(parts)}")
        for column in LEVELS.values():
            names = [row[0] for row in con.execute(f"SELECT DISTINCT {column} FROM raw").fetchall()]
            odd = [(name, label(name)) for name in names if label(name) != name]
            con.execute("CREATE OR REPLACE TEMP TABLE odd (name TEXT, label TEXT)")
            if odd:
                con.executemany("INSERT INTO odd VALUES (?, ?)", odd)
                con.execute(f"UPDATE raw SET {column} = label FROM odd WHERE {column} IS NOT DISTINCT FROM name")
        con.execute(
            "CREATE TEMP TABLE several AS SELECT file, a, b FROM raw WHERE NOT idle GROUP BY ALL HAVING count(*) > 1"
        )


_COLUMNS = f"""
    project, "user", state = {quoted(states.IDLE)} AS idle, {JOB_KEY}, epoch("start")::BIGINT AS start,
    epoch("end")::BIGINT AS ends, state IN {one_of(states.AGAIN)} AS again, restart_count, gpu_h, cpu_h, it_kwh,
    electricity_usd, cloud_low_usd, cloud_high_usd, measured_kwh, slurm_kwh, {derived_columns()}"""
# A run that began and ended within its day, was no restart, may not go on, and is alone with its id there is a job.
_ALONE = """NOT (start <= low OR ends IS NULL OR ends > high OR again OR coalesce(restart_count, 1) > 0
    OR EXISTS (FROM several s WHERE s.file = raw.file AND s.a = raw.a AND s.b = raw.b))"""
_SUMS = f"""
    INSERT INTO {{level}}_sums SELECT file, idle, {{column}}, count(*) FILTER (NOT idle AND {_ALONE}),
    {", ".join(f"coalesce(fsum({name}), 0)" for name in SUMS)} FROM raw GROUP BY file, idle, {{column}}"""
_RUNS = f"""
    INSERT INTO runs SELECT DISTINCT file, a, b, start, again, project, "user" FROM raw
    WHERE NOT idle AND NOT ({_ALONE})"""


def label(name: str | None) -> str:
    """A name as a label's value: control characters are replaced, its length is bounded."""
    if not name:
        return "(none)"
    shown = "".join(char if char.isprintable() else "�" for char in name[: MAX_LABEL + 1])
    return shown if len(shown) <= MAX_LABEL else shown[: MAX_LABEL - 1] + "…"


def count_lines(paths: Iterable[Path]) -> int:
    """Lines of these files. Raises OSError."""
    total = 0
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total += block.count(b"\n")
    return total
