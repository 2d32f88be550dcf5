"""Sections on a terminal: aligned tables, at most 100 columns wide where the texts allow it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slurm_energy.report.formats import printable
from slurm_energy.report.sections import Section

WIDTH = 100
WIDE = 200
"""In a pipe or a file nothing is folded."""


def show(sections: Iterable[Section]) -> None:
    """Prints the sections to stdout; texts are never taken for markup."""
    width = max(shutil.get_terminal_size((WIDTH, 24)).columns, 60) if sys.stdout.isatty() else WIDE
    console = Console(width=width, highlight=False)
    for section in sections:
        title = Text(printable(section.title), style="bold")
        table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, padding=(0, 1))
        for index, name in enumerate(section.header):
            right = index >= section.left and section.numbers
            table.add_column(
                Text(name), justify="right" if right else "left", no_wrap=right, overflow="fold", min_width=6
            )
        for row in section.rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        console.print(table)
        if section.note:
            console.print(Text(printable(section.note), style="dim"))
            console.print()
