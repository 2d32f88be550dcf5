"""The packaged reference tables, each read at most once and only when asked for."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

_DATA = Path(__file__).parent / "data"


@functools.cache
def read_table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of `factors/data/<name>.csv` as text by column heading, in file order.

    Raises FileNotFoundError where the package has no such table. Callers share the rows: do not change them.
    """
    with (_DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))
