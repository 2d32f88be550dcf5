"""Counters that are a file in sysfs: opened once, read in place at each tick."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from slurm_energy.sources.base import Counter, Refusal, Trapezoid, Unreadable

AGAIN_NS = 30_000_000_000
"""A file that went away is opened anew at most so often."""


class FileCounter(Counter):
    """A file with one whole number of microjoules. Raises OSError where it cannot be opened."""

    __slots__ = ("_again_ns", "_fd", "_path")

    def __init__(self, path: Path, domain: str, name: str, **facts: Any) -> None:
        super().__init__(domain, name, **facts)
        self._path, self._again_ns = path, 0
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, now_ns: int) -> int:
        """The number in the file. Raises Unreadable."""
        return self._number(now_ns)

    def _number(self, now_ns: int) -> int:
        try:
            return int(os.pread(self._fd, 64, 0))
        except OSError as error:
            self._reopen(now_ns)
            raise Unreadable(f"{self._path}: {error.strerror}") from error
        except ValueError as error:
            raise Unreadable(f"{self._path}: not a number") from error

    def _reopen(self, now_ns: int) -> None:
        """A driver that was loaded anew has a new file of the same name."""
        if now_ns < self._again_ns:
            return
        self._again_ns = now_ns + AGAIN_NS
        with contextlib.suppress(OSError):
            old, self._fd = self._fd, os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            os.close(old)

    def close(self) -> None:
        """Closes the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PowerFile(FileCounter):
    """A file with one whole number of microwatts, integrated between readings."""

    __slots__ = ("_energy",)

    def __init__(self, path: Path, domain: str, name: str, **facts: Any) -> None:
        super().__init__(path, domain, name, integrated=True, **facts)
        self._energy = Trapezoid()

    def read(self, now_ns: int) -> int:
        """The energy since this process began, uJ. Raises Unreadable."""
        try:
            power_uw = self._number(now_ns)
            if power_uw < 0:
                raise Unreadable(f"{self._path}: {power_uw} uW")
        except Unreadable:
            self._energy.lost()
            raise
        return self._energy.add(power_uw, now_ns)


def text(path: Path) -> str:
    """What a small file says, stripped; '' where it is not there or does not read."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def number(path: Path) -> int:
    """The whole number in a small file; 0 where there is none."""
    said = text(path)
    return int(said) if re.fullmatch(r"\d{1,20}", said) else 0


def listing(folder: Path) -> list[Path]:
    """A folder's entries, `x2` before `x10`; [] where it is not there."""
    try:
        return sorted(folder.iterdir(), key=lambda path: natural(path.name))
    except OSError:
        return []


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts `x2` before `x10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def refusal(source: str, path: Path, error: OSError, remedy: str, domain: str) -> Refusal:
    """A file that is there and cannot be read, told so that an admin can act."""
    why = "permission denied" if isinstance(error, PermissionError) else (error.strerror or str(error))
    return Refusal(f"{source}: {path}", why, remedy, domain)
