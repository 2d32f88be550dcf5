"""Energy segments from the nodes: out of the inbox, checked line by line, each key once, into Parquet by UTC day.

    segments/cluster=NAME/2026-11-24.parquet     every segment of that day, in integer microjoules

An inbox file is removed once what it holds is safely there. The same file twice, or the same segment in two files,
ends as one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import date
from io import BytesIO
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from slurm_energy.folders import cluster_folder
from slurm_energy.ledger.damage import SEGMENTS_ADVICE, damaged
from slurm_energy.ledger.durable import replace, sync_folder
from slurm_energy.ledger.errors import LedgerError
from slurm_energy.ledger.store import Ledger
from slurm_energy.segment import DOMAINS, KEY, SCHEMA_VERSION, Segment
from slurm_energy.slurm.records import SetAside

_TEXT, _INT, _REAL = pa.string(), pa.int64(), pa.float64()


class Column(NamedTuple):
    """A column of the segments' files: its name, its type, and what it holds of a segment."""

    name: str
    type: pa.DataType
    get: Callable[[Segment], object]


def _plain(kind: pa.DataType, *names: str) -> list[Column]:
    """Columns that hold a field as it is."""
    return [Column(name, kind, attrgetter(name)) for name in names]


def _uj(domain: str) -> Column:
    return Column(f"{domain}_uj", _INT, lambda one: one.uj.get(domain, 0))


def _joined(name: str) -> Column:
    get = attrgetter(name)
    return Column(name, _TEXT, lambda one: ",".join(get(one)))


COLUMNS = (
    *_plain(_TEXT, "cluster", "node"),
    *_plain(_INT, "job_id", "restart_count"),
    Column("sluid", _TEXT, lambda one: one.sluid or ""),
    *_plain(_INT, "session_start"),
    *_plain(_TEXT, "user"),
    *_plain(_INT, "uid"),
    *_plain(_TEXT, "account", "partition", "hour"),
    *_plain(_INT, "start", "end"),
    *map(_uj, DOMAINS),
    Column("gpus", _TEXT, lambda one: msgspec.json.encode(one.gpus).decode()),
    *_plain(_INT, "cpu_time_ns", "samples"),
    *_plain(_REAL, "gap_s", "gpu_gap_s"),
    _joined("sources"),
    _joined("measured"),
    *_plain(_TEXT, "origin", "closed"),
    *_plain(pa.bool_(), "final"),
)
SCHEMA = pa.schema([(column.name, column.type) for column in COLUMNS])
_CLUSTER, _HOUR_OF = SCHEMA.get_field_index("cluster"), SCHEMA.get_field_index("hour")
_LARGEST_UJ = 1 << 60
_LARGEST = 1 << 62
_LONGEST_NAME = 200
"""Of a cluster or node, as bytes of a file name; Slurm's own are far shorter."""
_HOUR = re.compile(r"20\d\d-\d\d-\d\dT([01]\d|2[0-3])", re.ASCII)
UNBOOKED, UNREPORTED = "unbooked.json", "unreported.json"


class Taken(NamedTuple):
    """What came out of the inbox: segments, days that have new ones (by cluster), lines set aside."""

    segments: int
    days: set[tuple[str, date]]
    set_aside: tuple[SetAside, ...]


def take_in(ledger: Ledger, inbox: Path) -> Taken:
    """Moves what lies in the inbox into the ledger's segments. The caller holds `ledger.writer()`.

    Raises OSError where the inbox can be read but not emptied: its files would be read again each time. Raises LedgerError
    where a day that they belong to is damaged, before anything was moved.
    """
    files = sorted(_files(inbox))
    rows: list[tuple[object, ...]] = []
    bad: list[SetAside] = []
    for file in files:
        for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
            if not line:
                continue
            try:
                rows.append(_row(line))
            except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
                bad.append(
                    SetAside(str(file), number, f"not a segment: {error}", line.decode("utf-8", "backslashreplace"))
                )
    bad = _unreported(ledger, bad)
    new = _merged(ledger, rows)
    days = _unbooked(ledger) | new.keys()
    if days:  # remembered until the days are written, and before their segments are: a run that is cut off anywhere
        # after this is made good by the next one, which finds the segments already there
        replace(
            ledger.path / UNBOOKED, msgspec.json.encode(sorted((cluster, day.isoformat()) for cluster, day in days))
        )
    for key, content in new.items():
        path = segment_path(ledger, *key)
        replace(path, content)
        sync_folder(path.parent)
    for file in files:
        file.unlink()
    return Taken(len(rows), days, tuple(bad))


def booked(ledger: Ledger, but: Collection[tuple[str, date]] = ()) -> None:
    """Says that the days with new segments have been written, but for these, whose jobs' records are still to be read."""
    if but:
        replace(ledger.path / UNBOOKED, msgspec.json.encode(sorted((cluster, day.isoformat()) for cluster, day in but)))
    else:
        (ledger.path / UNBOOKED).unlink(missing_ok=True)
    (ledger.path / UNREPORTED).unlink(missing_ok=True)


def _unreported(ledger: Ledger, bad: list[SetAside]) -> list[SetAside]:
    """Bad lines, also those of a run that did not end: their files are gone from the inbox."""
    path = ledger.path / UNREPORTED
    try:
        earlier = msgspec.json.decode(path.read_bytes(), type=list[SetAside])
    except FileNotFoundError:
        earlier = []
    together = list(dict.fromkeys([*earlier, *bad]))
    if bad:
        replace(path, msgspec.json.encode(together))
    return together


def _unbooked(ledger: Ledger) -> set[tuple[str, date]]:
    """Days whose segments came in with a run that did not end."""
    try:
        found = msgspec.json.decode((ledger.path / UNBOOKED).read_bytes(), type=list[tuple[str, date]])
    except FileNotFoundError:
        return set()
    return set(found)


def _files(inbox: Path) -> Iterator[Path]:
    """Finished files: INBOX/CLUSTER/NODE/NAME.jsonl, and such as lie in the inbox itself. Links are not followed."""
    for folder, _, names in os.walk(inbox):
        for name in names:
            path = Path(folder) / name
            if name.endswith(".jsonl") and not name.startswith(".") and not path.is_symlink() and path.is_file():
                yield path


def _row(line: bytes) -> tuple[object, ...]:
    """A checked segment, in the order of SCHEMA. Raises msgspec's errors, and ValueError for impossible figures."""
    one = msgspec.json.decode(line, type=Segment)
    if one.schema != SCHEMA_VERSION:
        raise ValueError(f"schema {one.schema}; this program reads schema {SCHEMA_VERSION}")
    if not _HOUR.fullmatch(one.hour):
        raise ValueError(f"hour {one.hour!r}")
    date.fromisoformat(one.hour[:10])
    if any(not 0 < len(quote(name, safe="")) <= _LONGEST_NAME for name in (one.cluster, one.node)):
        raise ValueError("no name, or one that is too long, of cluster or node")
    numbers = (one.job_id, one.restart_count, one.session_start, one.uid, one.start, one.cpu_time_ns, one.samples)
    if any(not -1 <= number < _LARGEST for number in (*numbers, one.end)) or min(one.gap_s, one.gpu_gap_s) < 0:
        raise ValueError("negative or impossible figures")
    energy = [one.uj.get(domain, 0) for domain in DOMAINS]
    if any(not 0 <= uj < _LARGEST_UJ for uj in energy) or one.end < one.start:
        raise ValueError("negative or impossible figures")
    return tuple(column.get(one) for column in COLUMNS)


def segment_path(ledger: Ledger, cluster: str, day: date) -> Path:
    """Where the segments of a UTC day lie."""
    return ledger.path / "segments" / cluster_folder(cluster) / f"{day.isoformat()}.parquet"


def segment_files(ledger: Ledger, cluster: str, days: Sequence[date]) -> list[Path]:
    """The files that there are of these UTC days."""
    return [path for path in (segment_path(ledger, cluster, day) for day in days) if path.exists()]


def _read(path: Path) -> pa.Table | None:
    """A day's segments, None where there are none yet. Raises LedgerError where they are damaged."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        try:
            return pq.ParquetFile(file).read().cast(SCHEMA)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise LedgerError(damaged(path, (str(error).splitlines() or [repr(error)])[0], SEGMENTS_ADVICE)) from error


def _merged(ledger: Ledger, rows: Sequence[tuple[object, ...]]) -> dict[tuple[str, date], bytes]:
    """The files of the days that these segments change. Of two with one key the one that saw more counts."""
    by_day: dict[tuple[str, date], list[tuple[object, ...]]] = {}
    for row in rows:
        by_day.setdefault((str(row[_CLUSTER]), date.fromisoformat(str(row[_HOUR_OF])[:10])), []).append(row)
    changed = {}
    for key, new in by_day.items():
        path = segment_path(ledger, *key)
        columns = list(zip(*new, strict=True))
        table = pa.table(
            [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
        )
        if (before := _read(path)) is not None:
            table = pa.concat_tables([before, table])
        con = duckdb.connect()
        con.register("segments", table)
        keys = ", ".join(KEY)
        merged = con.sql(
            f'SELECT * FROM segments QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY samples DESC, "end" DESC, '
            f"package_uj + dram_uj + gpu_uj + other_uj DESC) = 1 ORDER BY {keys}"
        ).to_arrow_table()
        buffer = BytesIO()
        pq.write_table(merged.cast(SCHEMA), buffer, compression="zstd")
        if before is None or path.read_bytes() != buffer.getvalue():
            changed[key] = buffer.getvalue()
    return changed
