"""From counts that wrap, stall and restart to energy moved: what a counter moved since last time, or a gap."""

from __future__ import annotations

from slurm_energy.sources.base import Counter, Unreadable

SHOWN_NS = 200_000_000
"""Power is shown over this at least: a hook wakes the agent at any moment, and counters move in steps of some ms."""
PEAK_NS = 500_000_000


class Meter:
    """One counter and what it showed last."""

    __slots__ = (
        "counter",
        "gaps",
        "last",
        "last_ns",
        "limit_uw",
        "lost",
        "peak_uw",
        "rate_ns",
        "rate_uj",
        "rate_uw",
        "total_uj",
        "why",
    )

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.limit_uw = int(counter.max_w * 1_000_000)
        self.last: int | None = None
        self.last_ns = 0
        self.peak_uw = self.rate_uw = 0
        self.total_uj = 0
        self.rate_ns = self.rate_uj = 0
        """When the power that is shown was last worked out (0: never), and the total then."""
        self.gaps = 0
        self.why = ""
        self.lost = False
        """Whether what the last gap hides is lost for good; else the next reading has it."""

    @property
    def watts(self) -> float:
        """What the counter draws, over the last interval that was long enough."""
        return self.rate_uw / 1e6

    def advance(self, now_ns: int) -> int | None:
        """What the counter moved since the last call, uJ; None for a gap: no reading, or a movement that cannot be.

        A count below the last one is a wrap where the counter has a range, and a reset otherwise. A movement that the
        hardware cannot make in the time, or a time in which it may have wrapped more than once, is a gap: the true
        figure is not known, and none is made up.
        """
        try:
            count = self.counter.read(now_ns)
        except Unreadable as error:
            self.gaps += 1
            self.why = str(error)
            self.lost = self.counter.integrated
            self.rate_ns = 0
            return None
        before, before_ns = self.last, self.last_ns
        self.last, self.last_ns = count, now_ns
        if before is None:
            return 0
        elapsed = max(now_ns - before_ns, 1)
        moved = count - before
        span = self.counter.range_uj
        if moved < 0 and span:
            moved += span
        # The most it can have moved: by its rating, or by what it was ever seen to draw if that is less.
        limit_uw = self.limit_uw
        ambiguous = span and min(limit_uw, 2 * self.peak_uw or limit_uw) * elapsed >= span * 1_000_000_000
        # A counter's own clock may lag behind ours: two seconds of grace.
        if moved < 0 or ambiguous or moved * 1_000_000_000 > limit_uw * (elapsed + 2_000_000_000):
            self.gaps += 1
            self.lost = True
            self.rate_ns = 0
            self.why = (
                "it went back" if moved < 0 else "it may have wrapped more than once" if ambiguous else "it jumped"
            )
            return None
        if not self.rate_ns:
            self.rate_ns, self.rate_uj = before_ns, self.total_uj
        self.total_uj += moved
        shown = now_ns - self.rate_ns
        if shown >= SHOWN_NS or not self.rate_uw:
            self.rate_uw = (self.total_uj - self.rate_uj) * 1_000_000_000 // max(shown, 1)
            self.rate_ns, self.rate_uj = now_ns, self.total_uj
            if shown >= PEAK_NS:
                self.peak_uw = max(self.peak_uw, self.rate_uw)
        self.why = ""
        return moved
