"""Conservation, proved: the energy of the ledger's measured rows is the energy of the segments, day by day.

Segments are integers; their sum per node and day is exact, and every one of them is booked once: to a job's row, to a
session without a record, or to idle. The ledger holds kWh as 64-bit floats, hence a tolerance of rounding, no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import duckdb

from slurm_energy.ledger.calendar import date_of, day_number
from slurm_energy.ledger.damage import telling_damage
from slurm_energy.ledger.measured import MEASURED_UJ, SEGMENT_DAYS, local_days
from slurm_energy.ledger.store import Ledger
from slurm_energy.slurm import states
from slurm_energy.sql import parquet, quoted
from slurm_energy.units import UJ_PER_KWH

TOLERANCE = 1e-9
"""Relative; sums of some thousand floats stay far below."""


class Day(NamedTuple):
    """One cluster and day: what the segments of its nodes sum to (uJ), what the ledger has as measured (kWh)."""

    cluster: str
    day: date
    nodes: int
    segments_uj: int
    ledger_kwh: float
    idle_kwh: float
    without_record_kwh: float
    by_node_uj: dict[str, int]

    @property
    def difference_kwh(self) -> float:
        """Ledger less segments."""
        return self.ledger_kwh - self.segments_uj / UJ_PER_KWH

    @property
    def holds(self) -> bool:
        """Whether they are equal but for rounding."""
        return abs(self.difference_kwh) <= TOLERANCE * max(self.segments_uj / UJ_PER_KWH, 1e-6)


def verify(ledger: Ledger, site: ZoneInfo) -> Iterator[Day]:
    """Every day of which there are segments, or measured rows, in order. Modelled energy (estimates) is left out.

    Raises LedgerError where a day's file is damaged.
    """
    segments = sorted((ledger.path / "segments").glob("cluster=*/????-??-??.parquet"))
    with telling_damage(file.path for file in ledger.days()), telling_damage(segments, SEGMENT_DAYS):
        yield from _days(ledger, site, segments)


def _days(ledger: Ledger, site: ZoneInfo, segments: Sequence[Path]) -> Iterator[Day]:
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    by_day: dict[tuple[str, int], dict[str, int]] = {}
    if segments:
        parts = " + ".join(MEASURED_UJ.values())
        found = con.execute(
            f"SELECT cluster, {local_days(site)} AS day, node, sum({parts})::HUGEINT "
            f"FROM {parquet(segments)} GROUP BY ALL ORDER BY ALL"
        )
        for cluster, day, node, uj in found.fetchall():
            by_day.setdefault((cluster, int(day)), {})[node] = int(uj)
    have = {(file.cluster, day_number(file.day)): file.path for file in ledger.days()}
    for cluster, day in sorted({*by_day, *have}):
        nodes = by_day.get((cluster, day), {})
        kwh = idle = without = 0.0
        if (cluster, day) in have:
            row = con.execute(
                f"SELECT fsum(measured_kwh), fsum(measured_kwh) FILTER (state = {quoted(states.IDLE)}), "
                f"fsum(measured_kwh) FILTER (state = {quoted(states.NO_RECORD)}) FROM {parquet([have[cluster, day]])}"
            ).fetchall()[0]
            kwh, idle, without = (float(value or 0.0) for value in row)
        if nodes or kwh:
            yield Day(cluster, date_of(day), len(nodes), sum(nodes.values()), kwh, idle, without, nodes)
