"""HPE Cray EX and XC: the node's own power monitoring, /sys/cray/pm_counters; anyone may read it.

`energy` is the node at its input, accelerators included; `cpu_energy`, `memory_energy` and `accelN_energy` are parts of
it. Resolution: 1 J, updated 10 times a second, each file with the time of its reading. `accelN` may be a package of two
dies that Slurm counts as two GPUs: see `gpu_map`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from slurm_energy.sources.base import DRAM, GPU, NODE, PACKAGE, Counter, Found, Refusal, Unreadable
from slurm_energy.sources.files import FileCounter, listing, refusal
from slurm_energy.sources.options import Options

NAME = "cray"
COVERS = "the node, its CPUs, memory and accelerators, from Cray's pm_counters"
REMEDY = "let the agent read /sys/cray/pm_counters: run it as root"
STALE_NS = 10_000_000_000
MAX_W = {NODE: 10_000.0, PACKAGE: 4000.0, DRAM: 2000.0, GPU: 3000.0}

_LINE = re.compile(rb"\s*(\d+)\s*J(?:\s+(\d+)\s*us)?\s*")


def find(options: Options) -> Found:
    """A counter for each energy file there."""
    folder = Path(options.sysfs_root, "cray", "pm_counters")
    counters: list[Counter] = []
    refused: list[Refusal] = []
    for file in listing(folder):
        if (domain := _covers(file.name)) is None:
            continue
        minor = int(file.name[5:-7]) if domain == GPU else -1
        device = f"accel{minor}" if domain == GPU else ""
        try:
            counters.append(
                PmCounter(file, domain, f"{NAME}:{file.name}", device=device, minor=minor, max_w=MAX_W[domain])
            )
        except OSError as error:
            refused.append(refusal(NAME, file, error, REMEDY, domain))
    return Found(counters, refused)


def _covers(name: str) -> str | None:
    if re.fullmatch(r"accel\d+_energy", name):
        return GPU
    return {"energy": NODE, "cpu_energy": PACKAGE, "memory_energy": DRAM}.get(name)


def parse(line: bytes) -> tuple[int, int]:
    """uJ and the time of the reading (us; 0 where the file has none) of `12345 J 1234567 us`. Raises ValueError."""
    match = _LINE.fullmatch(line)
    if not match:
        raise ValueError(f"expected '<number> J <number> us', found {line[:60]!r}")
    return int(match.group(1)) * 1_000_000, int(match.group(2) or 0)


class PmCounter(FileCounter):
    """A file of joules with the time of its reading; a time that stands still is no reading."""

    __slots__ = ("_moved_ns", "_stamp_us")

    def __init__(self, path: Path, domain: str, name: str, **facts: object) -> None:
        super().__init__(path, domain, name, **facts)
        self._stamp_us, self._moved_ns = -1, 0

    def read(self, now_ns: int) -> int:
        """The joules in the file as uJ. Raises Unreadable."""
        try:
            energy_uj, stamp_us = parse(os.pread(self._fd, 128, 0))
        except OSError as error:
            self._reopen(now_ns)
            raise Unreadable(f"{self._path}: {error.strerror}") from error
        except ValueError as error:
            raise Unreadable(f"{self._path}: {error}") from error
        if stamp_us != self._stamp_us:
            self._stamp_us, self._moved_ns = stamp_us, now_ns
        elif stamp_us and now_ns - self._moved_ns > STALE_NS:
            silent_s = (now_ns - self._moved_ns) // 1_000_000_000
            raise Unreadable(f"{self._path}: not updated for {silent_s} s")
        return energy_uj
