"""Time as the agent sees it: one clock for energy, one for the hour on the label. Injectable."""

from __future__ import annotations

import os
import struct
import time

NS = 1_000_000_000
HOUR_NS = 3600 * NS


class Clock:
    """The machine's clocks. The monotonic one counts sleep too (CLOCK_BOOTTIME), for counters go on in it."""

    def monotonic_ns(self) -> int:
        """Never goes back."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wall_ns(self) -> int:
        """ns since 1970-01-01 UTC; may jump."""
        return time.time_ns()


class FileClock(Clock):
    """Both clocks out of a file of two 64-bit numbers (monotonic, wall; ns), which a test moves as fast as it likes."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _read(self) -> tuple[int, int]:
        monotonic, wall = struct.unpack("<qq", os.pread(self._file, 16, 0))
        return monotonic, wall

    def monotonic_ns(self) -> int:
        """The first number."""
        return self._read()[0]

    def wall_ns(self) -> int:
        """The second number."""
        return self._read()[1]


def hour_of(wall_ns: int) -> str:
    """The UTC hour that a moment is in: `2026-11-24T13`."""
    return time.strftime("%Y-%m-%dT%H", time.gmtime(wall_ns // NS))
