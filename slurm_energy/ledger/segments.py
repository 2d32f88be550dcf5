"""Energy segments from the nodes: out of the inbox, checked line by line, each key once, into Parquet by UTC day.

    segments/cluster=NAME/2026-11-24.parquet     every segment of that day, in integer microjoules

An inbox file is removed once what it holds is safely there. The same file twice, or the same segment in two files,
ends as one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from slurm_energy.ledger.store import Ledger, LedgerError, damaged, replace, sync_folder
from slurm_energy.slurm.records import SetAside

KEY = ("cluster", "node", "job_id", "restart_count", "sluid", "session_start", "hour")
"""What tells a segment from others."""
DOMAINS = ("package", "dram", "gpu", "other")
_TEXT, _INT = pa.string(), pa.int64()
SCHEMA = pa.schema(
    [
        ("cluster", _TEXT), ("node", _TEXT), ("job_id", _INT), ("restart_count", _INT), ("sluid", _TEXT),
        ("session_start", _INT), ("user", _TEXT), ("uid", _INT), ("account", _TEXT), ("partition", _TEXT), ("hour", _TEXT),
        ("start", _INT), ("end", _INT), ("package_uj", _INT), ("dram_uj", _INT), ("gpu_uj", _INT), ("other_uj", _INT),
        ("gpus", _TEXT), ("cpu_time_ns", _INT), ("samples", _INT), ("gap_s", pa.float64()), ("gpu_gap_s", pa.float64()), ("sources", _TEXT),
        ("measured", _TEXT), ("origin", _TEXT), ("closed", _TEXT), ("final", pa.bool_()),
    ]
)  # fmt: skip
_LARGEST_UJ = 1 << 60
_LARGEST = 1 << 62
_LONGEST_NAME = 200
"""Of a cluster or node, as bytes of a file name; Slurm's own are far shorter."""
_HOUR = re.compile(r"20\d\d-\d\d-\d\dT([01]\d|2[0-3])", re.ASCII)
UNBOOKED, UNREPORTED = "unbooked.json", "unreported.json"


class _Line(msgspec.Struct):
    """A line of a segment file; what is missing or of another type makes it a bad line."""

    schema: int
    cluster: str
    node: str
    job_id: int
    restart_count: int
    sluid: str | None
    session_start: int
    user: str
    uid: int
    account: str
    partition: str
    hour: str
    start: int
    end: int
    uj: dict[str, int]
    gpus: list[dict[str, str | int]]
    cpu_time_ns: int
    samples: int
    gap_s: float
    sources: list[str]
    final: bool
    gpu_gap_s: float = 0.0
    measured: tuple[str, ...] = ("package", "dram", "gpu")
    origin: str = "hook"
    closed: str = ""


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
    one = msgspec.json.decode(line, type=_Line)
    if one.schema != 1:
        raise ValueError(f"schema {one.schema}; this program reads schema 1")
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
    return (
        one.cluster, one.node, one.job_id, one.restart_count, one.sluid or "", one.session_start, one.user, one.uid,
        one.account, one.partition, one.hour, one.start, one.end, *energy, msgspec.json.encode(one.gpus).decode(),
        one.cpu_time_ns, one.samples, one.gap_s, one.gpu_gap_s, ",".join(one.sources), ",".join(one.measured), one.origin,
        one.closed, one.final,
    )  # fmt: skip


def segment_path(ledger: Ledger, cluster: str, day: date) -> Path:
    """Where the segments of a UTC day lie."""
    name = quote(cluster, safe="").replace(".", "%2E")
    return ledger.path / "segments" / f"cluster={name}" / f"{day.isoformat()}.parquet"


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
            raise LedgerError(damaged(path, (str(error).splitlines() or [repr(error)])[0])) from error


def _merged(ledger: Ledger, rows: Sequence[tuple[object, ...]]) -> dict[tuple[str, date], bytes]:
    """The files of the days that these segments change. Of two with one key the one that saw more counts."""
    by_day: dict[tuple[str, date], list[tuple[object, ...]]] = {}
    for row in rows:
        by_day.setdefault((str(row[0]), date.fromisoformat(str(row[10])[:10])), []).append(row)
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
