"""A copy of those lines of a file that need no look, and where each of them stood."""

from __future__ import annotations

import os
import tempfile
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from slurm_energy.slurm.records import Table


class GoodLines:
    """The good lines of a file: a file of their own, and of each the number that it had in the first one."""

    def __init__(self, folder: Path, columns: Sequence[str], delimiter: str) -> None:
        self.columns, self.delimiter = tuple(columns), delimiter
        self._file = tempfile.NamedTemporaryFile("wb", prefix="good-", dir=folder, delete=False)  # noqa: SIM115
        self._last = b""
        self._count, self._next_line = 0, -1
        self._rows: list[int] = []
        self._lines: list[int] = []

    def add(self, number: int, line: bytes) -> None:
        """The next good line, without its newline, and its number."""
        if number != self._next_line:  # remember only where a run of adjacent lines begins
            self._rows.append(self._count)
            self._lines.append(number)
        self._file.write(line + b"\n")
        self._count, self._next_line, self._last = self._count + 1, number + 1, line

    def take_back(self, number: int) -> list[tuple[int, bytes]]:
        """The newest line with its number, out of the copy again; nothing where another line was the newest."""
        if self._next_line != number + 1:
            return []
        self._file.seek(-len(self._last) - 1, os.SEEK_CUR)
        self._file.truncate()
        self._count, self._next_line = self._count - 1, -1
        if self._rows[-1] == self._count:
            self._rows.pop()
            self._lines.pop()
        return [(number, self._last)]

    def done(self) -> Table:
        """The copy, whole."""
        self._file.close()
        return Table(Path(self._file.name), self.columns, self.delimiter, 0, self.line_of)

    def line_of(self, row: int) -> int:
        """The number of the line that is this row of the copy."""
        run = bisect_right(self._rows, row) - 1
        return self._lines[run] + row - self._rows[run]
