"""Sections on a terminal: aligned tables in which no number is cut and no column is left out, however narrow it is."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slurm_energy.report.formats import printable
from slurm_energy.report.sections import Section

WIDTH = 100
WIDE = 200
"""In a pipe or a file nothing is folded."""
NAME = 14
"""A longer name is folded at this width, and no shorter, before the table grows wider than the terminal."""
_LEAST = 6
_ROOMY, _TIGHT = 3, 2
"""Columns of the terminal between two of the table, where there is room and where there is none."""


def show(sections: Iterable[Section], at_most: int | None = None) -> None:
    """Prints the sections to stdout; texts are never taken for markup. at_most: columns, in a pipe, too.

    A section without rows is its note alone. Where the terminal is too narrow for the numbers, lines are longer than it.
    """
    pipe = not sys.stdout.isatty()
    screen = min(WIDE if pipe else shutil.get_terminal_size((WIDTH, 24)).columns, at_most or 10**6)
    for section in sections:
        rows = [[printable(cell) for cell in row] for row in section.rows]
        widths, between = _widths(section, rows, None if pipe and at_most is None else screen)
        needed = sum(widths) + between * len(widths)
        console = Console(width=max(screen, needed), height=24, highlight=False)  # without a height a dumb one has 80
        if rows:
            console.print(Text(printable(section.title), style="bold"), soft_wrap=True)
            console.print(_table(section, rows, widths, between))
        if section.note:
            console.print(Text(printable(section.note), style="dim"), width=screen)
            console.print()


def _table(section: Section, rows: Sequence[Sequence[str]], widths: Sequence[int], between: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, between - _TIGHT))
    for index, (name, width) in enumerate(zip(section.header, widths, strict=True)):
        right = _is_number(section, index)
        table.add_column(
            Text(name), justify="right" if right else "left", no_wrap=right, overflow="fold", width=width
        )  # fmt: skip
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _is_number(section: Section, index: int) -> bool:
    return section.numbers and index >= section.left


def _widths(section: Section, rows: Sequence[Sequence[str]], screen: int | None) -> tuple[list[int], int]:
    """The width of each column: of numbers the longest; names share what is left of the screen, and have NAME at least.

    And the columns of the terminal between two.
    """
    whole = []
    for index, name in enumerate(section.header):
        lines = [*name.split("\n"), *(row[index] for row in rows)]
        whole.append(max(_LEAST, *map(cell_len, lines)))
    if screen is None or sum(whole) + _ROOMY * len(whole) <= screen:
        return whole, _ROOMY
    widths = [width if _is_number(section, index) else min(width, NAME) for index, width in enumerate(whole)]
    between = _ROOMY if sum(widths) + _ROOMY * len(widths) <= screen else _TIGHT
    free = screen - sum(widths) - between * len(widths)
    wanting = sorted((full - width, index) for index, (full, width) in enumerate(zip(whole, widths, strict=True)))
    for position, (lack, index) in enumerate(wanting):  # who lacks least first: what it leaves goes to the others
        given = max(0, min(lack, free // (len(wanting) - position)))
        widths[index] += given
        free -= given
    return widths, between
