"""`senergy aggregate`: job records to ledger days.

Records are read, typed and made unique (ingest), held against what the ledger has of the same jobs (the later state
wins), spread over days and priced (expression), and each day that changed is replaced whole (store). The same input
gives the same files, however often and in however many pieces it comes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import duckdb
import ibis
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from slurm_energy.config import Config, ConfigError
from slurm_energy.factors.profile import Profile
from slurm_energy.ledger import measured, merge
from slurm_energy.ledger.expression import ledger_rows
from slurm_energy.ledger.ingest import Counts, Ingest
from slurm_energy.ledger.projects import project_sql, sweep_sql
from slurm_energy.ledger.rating import Rater, Rating
from slurm_energy.ledger.schema import REPEATING
from slurm_energy.ledger.store import Ledger, replace, sync_folder
from slurm_energy.slurm.normalise import quoted
from slurm_energy.slurm.records import RawRecords, SetAside
from slurm_energy.slurm.zone import local_midnights, offset_sql

EPOCH = date(1970, 1, 1)
DAYS_AT_ONCE = 31
ROW_GROUP = 2048
"""Rows that are read or passed over together: small, for a file is sorted by project and a report wants one of many."""
Progress = Callable[[str, int, int], None]


class Outcome(NamedTuple):
    """What a run did."""

    counts: Counts
    set_aside: tuple[SetAside, ...]
    set_aside_file: Path | None
    days_written: int
    days_unchanged: int
    rows: int
    slurm_energy_unused: int
    first_day: date | None
    last_day: date | None
    unjoined: frozenset[tuple[str, date]] = frozenset()
    """Days with segments of jobs that the ledger knows and whose records this run did not read."""


class Job(NamedTuple):
    """What to aggregate: the sources, the window in epoch seconds (whole days), and by which rules."""

    sources: Iterable[RawRecords]
    first: int | None
    last: int | None
    config: Config
    profile: Profile
    site: ZoneInfo
    plugin: str
    account_parents: dict[str, str]
    clusters: tuple[str, ...] = ()
    measured_days: Collection[tuple[str, date]] = ()
    """UTC days of which new segments have come in, by cluster."""
    set_aside: tuple[SetAside, ...] = ()
    """What was set aside before: lines of segment files."""


def aggregate(ledger: Ledger, job: Job, workdir: Path, progress: Progress = lambda *_: None) -> Outcome:
    """Brings the ledger up to date with the sources. The caller holds `ledger.writer()`.

    workdir: a folder for what does not fit in memory. Raises SourceError, LedgerError, ConfigError.
    """
    con = duckdb.connect()
    con.execute(f"SET temp_directory = {quoted(str(workdir))}")
    con.execute("SET memory_limit = '2500MB'")
    con.execute("SET TimeZone = 'UTC'")
    _check_pattern(con, job.config)
    ingest = Ingest(con, job.site, job.config.site.cluster)
    ingest.set_aside.extend(job.set_aside)
    for number, source in enumerate(job.sources):
        progress(f"reading {source.source}", number, 0)
        ingest.add(source)
    counts = ingest.finish(job.first, job.last, job.clusters)
    progress("comparing with the ledger", 0, 0)
    _make_views(con, job)
    affected = merge.prepare(con, ledger, _window_days(job), _days_around(job.measured_days))
    written = unchanged = rows = 0
    if affected:
        _make_tables(con, job, affected)
        measured.make_tables(con, ledger, job.site, affected)
        sql, leftover = _rows_sql(con, job), measured.leftover_rows_sql(job.profile.name)
        outcomes: list[bool] = []
        with ThreadPoolExecutor(2) as pool:
            writes: list[Future[bool]] = []
            for done, chunk in _chunks(affected):
                progress("writing days", done, len(affected))
                _take_days(con, chunk[0][1], chunk[-1][1])
                table = merge.combined(con, sql, leftover, ledger, chunk)
                rows += table.num_rows
                outcomes += [write.result() for write in writes]  # one piece is written while the next is worked out
                writes = [pool.submit(_write_day, ledger, *day) for day in _by_day(table, chunk)]
            outcomes += [write.result() for write in writes]
        written, unchanged = sum(outcomes), len(outcomes) - sum(outcomes)
        for folder in {ledger.day_path(cluster, EPOCH).parent for cluster, _ in affected}:
            if folder.is_dir():
                sync_folder(folder)
    unused = con.execute("SELECT count(*) FROM parsed WHERE slurm_j > 0").fetchone()
    return Outcome(
        counts, tuple(ingest.set_aside), _save_set_aside(ledger, ingest.set_aside), written, unchanged, rows,
        int(unused[0]) if unused and job.plugin == "none" else 0,
        _date(affected[0][1]) if affected else None, _date(max(day for _, day in affected)) if affected else None,
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
    return frozenset((cluster, _date(int(day))) for cluster, day in found)


def _days_around(days: Collection[tuple[str, date]]) -> set[tuple[str, int]]:
    """The site's days that a UTC day may reach into: the one before and the one after are looked at, too."""
    return {(cluster, (day - EPOCH).days + shift) for cluster, day in days for shift in (-1, 0, 1)}


def _date(day: int) -> date:
    return EPOCH + timedelta(days=day)


def _window_days(job: Job) -> tuple[int, int] | None:
    """The window as days since 1970-01-01, both inside; None where everything counts."""
    if job.first is None and job.last is None:
        return None
    from datetime import datetime

    def day(moment: int) -> int:
        return (datetime.fromtimestamp(moment, job.site).date() - EPOCH).days

    return day(job.first) if job.first is not None else 0, day(job.last - 1) if job.last is not None else 1 << 20


def _make_views(con: duckdb.DuckDBPyConnection, job: Job) -> None:
    """`placed`: the records with the days that they touch."""
    local = f"start + ({offset_sql(job.site, 'start', wall=False)})"
    end = "start + greatest(span_s, 1) - 1"
    con.execute(f"""
        CREATE TEMP VIEW placed AS
        SELECT rowid AS record, *, ({local}) // 86400 AS first_day,
          ({end} + ({offset_sql(job.site, f"({end})", wall=False)})) // 86400 AS last_day
        FROM parsed""")


def _make_tables(con: duckdb.DuckDBPyConnection, job: Job, affected: Sequence[tuple[str, int]]) -> None:
    """What the expression joins: `ratings`, `days`, and `all_jobs`, of which `jobs` will be a part."""
    try:
        rater = Rater(job.profile, job.config.power)
    except ConfigError as error:
        raise ConfigError(f"{job.config.file}, {error}") from error
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
    con.register("days_arrow", _days_table(job, affected))
    con.execute("CREATE TEMP TABLE days AS SELECT * FROM days_arrow")
    con.execute(f"""
        CREATE TEMP VIEW all_jobs AS
        SELECT placed.*, shape, {project_sql(job.config, job.account_parents)} AS project, {sweep_sql(job.config)} AS sweep
        FROM placed JOIN shapes
          ON gpu_key = shape_key AND "partition" = shape_partition AND {nodes} = shape_nodes""")


def _rows_sql(con: duckdb.DuckDBPyConnection, job: Job) -> str:
    """The expression as DuckDB's SQL, which holds for whatever days `jobs` is narrowed to."""
    _take_days(con, 0, 0)
    backend = ibis.duckdb.from_connection(con)
    jobs, ratings, days = (backend.table(name) for name in ("jobs", "ratings", "days"))
    anything = con.execute("SELECT count(*) FROM energy").fetchall()  # fetchone would leave the connection in use
    energy = backend.table("energy") if anything[0][0] else None
    return str(ibis.to_sql(ledger_rows(jobs, ratings, days, energy, job.plugin, job.profile.name), dialect="duckdb"))


def _take_days(con: duckdb.DuckDBPyConnection, first: int, last: int) -> None:
    """Narrows `jobs` to these days, so that a piece of any ledger fits in memory."""
    con.execute(f"SET VARIABLE first_day = {first}")
    con.execute(f"SET VARIABLE last_day = {last}")
    con.execute(f"""
        CREATE OR REPLACE TEMP VIEW jobs AS
        SELECT * REPLACE (greatest(first_day, {first}) AS first_day, least(last_day, {last}) AS last_day)
        FROM all_jobs WHERE first_day <= {last} AND last_day >= {first}""")


def _days_table(job: Job, affected: Sequence[tuple[str, int]]) -> pa.Table:
    """Each cluster's day: when it begins and ends, and the factors that hold on it."""
    first, last = min(day for _, day in affected), max(day for _, day in affected)
    midnights = local_midnights(job.site, first, last)
    factors = {day: job.profile.on(_date(day)) for day in {day for _, day in affected}}
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


def _chunks(affected: Sequence[tuple[str, int]]) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """The days in runs that fit in memory, each with how many went before."""
    ordered = sorted(affected, key=lambda item: (item[1], item[0]))
    at = 0
    while at < len(ordered):
        limit = ordered[at][1] + DAYS_AT_ONCE
        chunk = [item for item in ordered[at:] if item[1] < limit]
        yield at, chunk
        at += len(chunk)


def _by_day(table: pa.Table, chunk: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int, pa.Table]]:
    """The table, which is sorted by cluster and date, cut into its days; empty where a day has lost its last row."""
    runs = pc.run_end_encode(table["date"].combine_chunks().cast(pa.int32())) if table.num_rows else None
    found: dict[tuple[str, int], pa.Table] = {}
    begin = 0
    for end in runs.run_ends.to_pylist() if runs is not None else ():
        part = table.slice(begin, end - begin)
        begin = end
        for cluster in part["cluster"].unique().to_pylist():
            same = (
                part
                if part["cluster"][0].as_py() == part["cluster"][-1].as_py()
                else part.filter(pc.equal(part["cluster"], cluster))
            )
            found[cluster, int(part["date"][0].cast(pa.int32()).as_py())] = same
    for key in chunk:
        yield *key, found.get(key, table.slice(0, 0))


def _write_day(ledger: Ledger, cluster: str, day: int, table: pa.Table) -> bool:
    """Replaces a day's file; whether that changed anything."""
    path = ledger.day_path(cluster, _date(day))
    if not table.num_rows:
        existed = path.exists()
        path.unlink(missing_ok=True)
        return existed
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="snappy", use_dictionary=list(REPEATING), row_group_size=ROW_GROUP)
    return replace(path, buffer.getvalue())


def _save_set_aside(ledger: Ledger, rows: Sequence[SetAside]) -> Path | None:
    """Keeps the rows that could not be read; the same rows give the same file."""
    if not rows:
        return None
    lines = [msgspec.json.encode(row._asdict()) for row in rows]
    content = b"\n".join(lines) + b"\n"
    path = ledger.path / "set-aside" / f"{hashlib.sha256(content).hexdigest()[:16]}.jsonl"
    replace(path, content)
    return path
