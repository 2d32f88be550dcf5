"""What a power source is to the agent: counters of energy, and what stood in the way of others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

PACKAGE, DRAM, GPU, NODE = "package", "dram", "gpu", "node"
"""What a counter covers: CPU packages, memory, one GPU, or the whole node at its input (wall, or DC side of it)."""


class Unreadable(Exception):
    """A counter gave no reading this time: a gap, never 0 J. The message says which and why."""


class Counter(ABC):
    """One thing whose energy can be read, again and again, without opening anything anew.

    domain:     PACKAGE, DRAM, GPU or NODE
    name:       unique on the node and the same after a restart (`rapl:package-0`, `nvml:GPU-6f3a...`)
    device:     for a GPU its UUID (MIG: the parent's), else ''
    minor:      for a GPU its device minor number (/dev/nvidiaN), by which Slurm counts; else -1
    model:      for a GPU its product name, else ''
    range_uj:   where the count starts again from 0 (the value that is never shown), uJ; 0: it never does
    max_w:      more than this it cannot draw, W; a movement above it is a reset, not energy
    integrated: the count is made by this process out of power readings, so that nothing is known of the time when
                it did not run
    estimated:  a model, not a measurement
    """

    __slots__ = ("device", "domain", "estimated", "integrated", "max_w", "minor", "model", "name", "range_uj")

    def __init__(
        self, domain: str, name: str, *, device: str = "", minor: int = -1, model: str = "", range_uj: int = 0,
        max_w: float = 10_000.0, integrated: bool = False, estimated: bool = False,
    ) -> None:  # fmt: skip
        self.domain, self.name, self.device, self.minor, self.model = domain, name, device, minor, model
        self.range_uj, self.max_w, self.integrated, self.estimated = range_uj, max_w, integrated, estimated

    @abstractmethod
    def read(self, now_ns: int) -> int:
        """The count now, uJ from an arbitrary origin. now_ns: the monotonic clock, ns. Raises Unreadable."""

    def holders(self) -> list[int]:
        """Process ids that use a GPU, where that can be asked; else none. Not for every tick."""
        return []

    def close(self) -> None:  # noqa: B027  most counters hold nothing but a file
        """Lets go of files and threads."""


class Refusal(NamedTuple):
    """Something that is there but cannot be read: what, why, what an admin does about it, and the domain it covers."""

    what: str
    why: str
    remedy: str
    domain: str = ""


class Found(NamedTuple):
    """What a source found on this node: counters, refusals, and a note for people (versions, what is covered)."""

    counters: list[Counter]
    refused: list[Refusal]
    note: str = ""


class Trapezoid:
    """Energy out of power readings: the mean of two neighbouring readings times the time between them.

    A reading after more than `max_gap_s` of silence starts anew: what was drawn meanwhile is not known, and said so.
    """

    __slots__ = ("_last_ns", "_last_uw", "_uj", "max_gap_s")

    def __init__(self, max_gap_s: float = 30.0) -> None:
        self._last_ns, self._last_uw, self._uj, self.max_gap_s = 0, -1, 0, max_gap_s

    def add(self, power_uw: int, now_ns: int) -> int:
        """Takes a reading (uW at now_ns) and gives the energy so far, uJ. Raises Unreadable after a silence."""
        elapsed, before_uw = now_ns - self._last_ns, self._last_uw
        self._last_ns, self._last_uw = now_ns, power_uw
        if before_uw >= 0 and elapsed > self.max_gap_s * 1e9:
            raise Unreadable(
                f"no power reading for {elapsed // 1_000_000_000} s: what was drawn meanwhile is not known"
            )
        if before_uw >= 0 and elapsed > 0:
            self._uj += (power_uw + before_uw) * elapsed // 2_000_000_000
        return self._uj

    def lost(self) -> None:
        """Forgets the last reading: the next one does not reach over the gap."""
        self._last_uw = -1
