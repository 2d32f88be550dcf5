"""`senergy aggregate`: job records to ledger days.

Records are read, typed and made unique (ingest), held against what the ledger has of the same jobs (the later state
wins), spread over days and priced (expression), and each day that changed is replaced whole (store). The same input
gives the same files, however often and in however many pieces it comes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date, datetime
from pathlib import Path

import duckdb
import msgspec
import pyarrow.compute as pc

from slurm_energy.config import Config, ConfigError
from slurm_energy.ledger import measured, merge
from slurm_energy.ledger.calendar import date_of, day_number
from slurm_energy.ledger.day_files import by_day, chunks, write_day
from slurm_energy.ledger.durable import replace, sync_folder
from slurm_energy.ledger.ingest import Ingest
from slurm_energy.ledger.run import Outcome, Progress, Run
from slurm_energy.ledger.run_tables import make_tables, make_views, rows_sql, take_days
from slurm_energy.ledger.store import Ledger
from slurm_energy.slurm.records import SetAside
from slurm_energy.sql import quoted


def aggregate(ledger: Ledger, run: Run, workdir: Path, progress: Progress = lambda *_: None) -> Outcome:
    """Brings the ledger up to date with the sources. The caller holds `ledger.writer()`.

    workdir: a folder for what does not fit in memory. Raises SourceError, LedgerError, ConfigError.
    """
    con = duckdb.connect()
    con.execute(f"SET temp_directory = {quoted(str(workdir))}")
    con.execute("SET memory_limit = '2500MB'")
    con.execute("SET TimeZone = 'UTC'")
    _check_pattern(con, run.config)
    ingest = Ingest(con, run.site, run.config.site.cluster)
    ingest.set_aside.extend(run.set_aside)
    for number, source in enumerate(run.sources):
        progress(f"reading {source.source}", number, 0)
        ingest.add(source)
    counts = ingest.finish(run.first, run.last, run.clusters)
    progress("comparing with the ledger", 0, 0)
    make_views(con, run)
    affected = merge.prepare(con, ledger, _window_days(run), _days_around(run.measured_days))
    written = unchanged = rows = 0
    days: list[date] = []
    if affected:
        make_tables(con, run, affected)
        measured.make_tables(con, ledger, run.site, affected)
        sql, leftover = rows_sql(con, run), measured.leftover_rows_sql(run.profile.name)
        outcomes: list[bool | None] = []
        with ThreadPoolExecutor(2) as pool:
            writes: list[Future[bool | None]] = []
            for done, chunk in chunks(affected):
                progress("writing days", done, len(affected))
                take_days(con, chunk[0][1], chunk[-1][1])
                table = merge.combined(con, sql, leftover, ledger, chunk)
                rows += table.num_rows
                if table.num_rows:
                    days += [pc.min(table["date"]).as_py(), pc.max(table["date"]).as_py()]
                outcomes += [write.result() for write in writes]  # one piece is written while the next is worked out
                writes = [pool.submit(write_day, ledger, *day) for day in by_day(table, chunk)]
            outcomes += [write.result() for write in writes]
        written, unchanged = outcomes.count(True), outcomes.count(False)
        for folder in {ledger.day_path(cluster, date.min).parent for cluster, _ in affected}:
            if folder.is_dir():
                sync_folder(folder)
    unused = con.execute("SELECT count(*) FROM parsed WHERE slurm_j > 0").fetchall()
    return Outcome(
        counts, tuple(ingest.set_aside), _save_set_aside(ledger, ingest.set_aside), written, unchanged, rows,
        int(unused[0][0]) if run.plugin == "none" else 0,
        min(days, default=None), max(days, default=None),
        _unjoined(con) if affected else frozenset(),
    )  # fmt: skip


def _check_pattern(con: duckdb.DuckDBPyConnection, config: Config) -> None:
    """Raises ConfigError where the engine does not take what Python takes, such as look-ahead."""
    pattern = config.sweeps.job_name
    try:
        con.execute(f"SELECT regexp_extract('', {quoted(pattern)})").fetchall()
    except duckdb.Error as error:
        said = str(error).splitlines()[0]
        raise ConfigError(
            f"{config.file}, [sweeps] job_name = {pattern!r}: expected a regular expression as RE2 takes it ({said})"
        ) from error


def _unjoined(con: duckdb.DuckDBPyConnection) -> frozenset[tuple[str, date]]:
    found = con.execute("SELECT DISTINCT cluster, day FROM unjoined").fetchall()
    return frozenset((cluster, date_of(int(day))) for cluster, day in found)


def _days_around(days: Collection[tuple[str, date]]) -> set[tuple[str, int]]:
    """The site's days that a UTC day may reach into: the one before and the one after are looked at, too."""
    return {(cluster, day_number(day) + shift) for cluster, day in days for shift in (-1, 0, 1)}


def _window_days(run: Run) -> tuple[int, int] | None:
    """The window as days since 1970-01-01, both inside; None where everything counts."""
    if run.first is None and run.last is None:
        return None

    def day(moment: int) -> int:
        return day_number(datetime.fromtimestamp(moment, run.site).date())

    return day(run.first) if run.first is not None else 0, day(run.last - 1) if run.last is not None else 1 << 20


def _save_set_aside(ledger: Ledger, rows: Sequence[SetAside]) -> Path | None:
    """Keeps the rows that could not be read; the same rows give the same file."""
    if not rows:
        return None
    lines = [msgspec.json.encode(row._asdict()) for row in rows]
    content = b"\n".join(lines) + b"\n"
    path = ledger.path / "set-aside" / f"{hashlib.sha256(content).hexdigest()[:16]}.jsonl"
    replace(path, content)
    return path
