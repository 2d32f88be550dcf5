"""Whole processes timed in turns, A B A B ..., so that a ratio holds although the machine's speed drifts."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Run(NamedTuple):
    """Wall seconds and peak resident memory (MB) of one process."""

    wall_s: float
    peak_mb: float


def run(command: Sequence[str]) -> Run:
    """Runs a command, its output thrown away. Raises CalledProcessError where it fails."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    code = os.waitstatus_to_exitcode(status)
    process.returncode = code
    if code:
        raise subprocess.CalledProcessError(code, command)
    return Run(wall, usage.ru_maxrss / 1024)


def in_turns(
    ours: Sequence[str], floor: Sequence[str], runs: int, before: Callable[[], None] = lambda: None
) -> tuple[list[Run], list[Run]]:
    """Both commands so many times in turns, after one run of each that does not count."""
    found: tuple[list[Run], list[Run]] = ([], [])
    for number in range(runs + 1):
        for command, results in ((ours, found[0]), (floor, found[1])):
            before()
            one = run(command)
            if number:
                results.append(one)
    return found


def tell(name: str, ours: list[Run], floor: list[Run], limit: float) -> bool:
    """Prints medians and the ratio pair by pair; whether the median ratio is within the limit."""
    ratios = [a.wall_s / b.wall_s for a, b in zip(ours, floor, strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"{name}: ours {statistics.median(r.wall_s for r in ours):.3f} s ({max(r.peak_mb for r in ours):.0f} MB), "
        f"floor {statistics.median(r.wall_s for r in floor):.3f} s ({max(r.peak_mb for r in floor):.0f} MB); "
        f"ratio {ratio:.2f} (min {min(ratios):.2f}, max {max(ratios):.2f}); wanted: at most {limit:g}"
    )
    return ratio <= limit


PYTHON = sys.executable
SENERGY = (PYTHON, "-m", "slurm_energy")
