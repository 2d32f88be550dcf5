"""When a snapshot is no longer of now: one rule for all who show live watts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slurm_energy.agent.snapshot import Snapshot

PERIODS, GRACE_S = 3, 5.0
"""An agent that has not looked at its counters for so many of its periods and seconds is stuck."""


def age_s(snapshot: Snapshot, now_s: float) -> float:
    """Seconds since the agent looked at its counters; negative where the clock was set back since."""
    return now_s - snapshot.wall_ns / 1e9


def too_old(seconds: float, period_s: float) -> bool:
    """Whether a look so many seconds ago, or ahead, is none of now for an agent that looks every `period_s`."""
    return abs(seconds) > PERIODS * period_s + GRACE_S


def is_old(snapshot: Snapshot, now_s: float) -> bool:
    """Whether its watts are none of now, whichever way the clock went."""
    return too_old(age_s(snapshot, now_s), snapshot.period_s)
