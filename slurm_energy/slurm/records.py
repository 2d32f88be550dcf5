"""The shape in which every job source hands over its records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple


class SetAside(NamedTuple):
    """A row that could not be read: where it stood, why, and its text, so that nothing is lost."""

    source: str
    line: int | None
    reason: str
    text: str

    def __str__(self) -> str:
        """Where it stood and why, in one line."""
        place = f"{self.source}, line {self.line}" if self.line else self.source
        return f"{place}: {self.reason}"


class Table(NamedTuple):
    """Rows of text in a file that needs no further look: every line has exactly these columns."""

    path: Path
    columns: tuple[str, ...]
    delimiter: str
    skip: int
    line_of: Callable[[int], int]
    """The line in the original file of the row with this index (from 0)."""


class RawRecords(NamedTuple):
    """Job records as text under sacct's column names: whole tables in files, and single rows.

    A row of `rows` is (line or None, {column: text}).
    """

    source: str
    tables: tuple[Table, ...] = ()
    rows: Iterable[tuple[int | None, dict[str, str]]] = ()
    set_aside: tuple[SetAside, ...] = ()
