"""Rows of many days to files of one day each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from slurm_energy.ledger.calendar import date_of
from slurm_energy.ledger.durable import replace
from slurm_energy.ledger.schema import REPEATING
from slurm_energy.ledger.store import Ledger

DAYS_AT_ONCE = 31
ROW_GROUP = 2048
"""Rows that are read or passed over together: small, for a file is sorted by project and a report wants one of many."""


def chunks(affected: Sequence[tuple[str, int]]) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """The days in runs that fit in memory, each with how many went before."""
    ordered = sorted(affected, key=lambda item: (item[1], item[0]))
    at = 0
    while at < len(ordered):
        limit = ordered[at][1] + DAYS_AT_ONCE
        chunk = [item for item in ordered[at:] if item[1] < limit]
        yield at, chunk
        at += len(chunk)


def by_day(table: pa.Table, chunk: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int, pa.Table]]:
    """The table, which is sorted by date and cluster, cut into its days; empty where a day has lost its last row."""
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


def write_day(ledger: Ledger, cluster: str, day: int, table: pa.Table) -> bool | None:
    """Replaces a day's file; whether that changed anything, None where there is nothing and was nothing."""
    path = ledger.day_path(cluster, date_of(day))
    if not table.num_rows:
        existed = path.exists()
        path.unlink(missing_ok=True)
        return True if existed else None
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="snappy", use_dictionary=list(REPEATING), row_group_size=ROW_GROUP)
    return replace(path, buffer.getvalue())
