"""What a run of the aggregator is given, and what it says at its end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import date
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from slurm_energy.config import Config
from slurm_energy.factors.profile import Profile
from slurm_energy.ledger.ingest import Counts
from slurm_energy.slurm.records import RawRecords, SetAside

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many are done and of how many (0: not known)."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What to aggregate: the sources, the window in epoch seconds (whole days), and by which rules."""

    sources: Iterable[RawRecords]
    first: int | None = None
    last: int | None = None
    config: Config
    profile: Profile
    site: ZoneInfo
    plugin: str = "none"
    """The site's acct_gather_energy plugin."""
    account_parents: dict[str, str] = msgspec.field(default_factory=dict)
    clusters: tuple[str, ...] = ()
    measured_days: Collection[tuple[str, date]] = ()
    """UTC days of which new segments have come in, by cluster."""
    set_aside: tuple[SetAside, ...] = ()
    """What was set aside before: lines of segment files."""


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
