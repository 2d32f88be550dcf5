"""Power as a known function of time, and its exact integral."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence


class Law(ABC):
    """Watts as a function of time in seconds from the start of the simulation, and the energy since then."""

    @abstractmethod
    def watts(self, t_s: float) -> float:
        """The power at t_s."""

    @abstractmethod
    def energy_uj(self, t_s: float) -> int:
        """From 0 to t_s, uJ, rounded down; never falls."""


class Constant(Law):
    def __init__(self, watts: float) -> None:
        self._uw = round(watts * 1_000_000)

    def watts(self, t_s: float) -> float:
        return self._uw / 1_000_000

    def energy_uj(self, t_s: float) -> int:
        return self._uw * max(0, round(t_s * 1e9)) // 1_000_000_000


class Steps(Law):
    """(from second, watts) pairs, the first at 0: each power holds until the next pair. Exact in integers."""

    def __init__(self, steps: Sequence[tuple[float, float]]) -> None:
        if not steps or steps[0][0] != 0:
            raise ValueError("the first step begins at 0")
        self._steps = [(round(at * 1e9), round(watts * 1_000_000)) for at, watts in steps]

    def watts(self, t_s: float) -> float:
        now = round(t_s * 1e9)
        return next(uw for at, uw in reversed(self._steps) if at <= max(now, 0)) / 1_000_000

    def energy_uj(self, t_s: float) -> int:
        now, total = max(0, round(t_s * 1e9)), 0
        for index, (at, uw) in enumerate(self._steps):
            until = min(now, self._steps[index + 1][0]) if index + 1 < len(self._steps) else now
            if until > at:
                total += uw * (until - at)
        return total // 1_000_000_000


class Sine(Law):
    """mean + swing * sin(2 pi t / period), swing <= mean."""

    def __init__(self, mean_w: float, swing_w: float, period_s: float) -> None:
        self._mean, self._swing, self._period = mean_w, min(swing_w, mean_w), period_s

    def watts(self, t_s: float) -> float:
        return self._mean + self._swing * math.sin(2 * math.pi * t_s / self._period)

    def energy_uj(self, t_s: float) -> int:
        t_s = max(0.0, t_s)
        turn = 2 * math.pi / self._period
        return int(1e6 * (self._mean * t_s + self._swing / turn * (1 - math.cos(turn * t_s))))


Laws = Law | Mapping[str, Law] | Callable[[str], Law] | None


def law_of(laws: Laws, name: str) -> Law:
    """The law of one counter: one for all, by the counter's name, or a usual one that differs by name."""
    if isinstance(laws, Law):
        return laws
    if callable(laws):
        return laws(name)
    if laws and name in laws:
        return laws[name]
    base = 20 if "dram" in name else 300 if "nvml" in name or "amdgpu" in name else 120
    return Constant(base + sum(name.encode()) % 17)
