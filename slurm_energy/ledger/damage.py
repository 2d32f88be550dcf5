"""A day file that cannot be read: which of several it is, and what to do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from slurm_energy.ledger.errors import LedgerError
from slurm_energy.sql import parquet


class Expected(NamedTuple):
    """What the files are of which one may be damaged: their columns, and what to do (fields path, day, next_day)."""

    columns: Callable[[], Sequence[str]]
    """Worked out only where a file has to be looked into, for the schema takes pyarrow."""
    advice: str


SEGMENTS_ADVICE = (
    "It holds what was measured on {day}: restore it from a backup. Without one, move it away (mv {path} {path}.damaged); "
    "the jobs of that day are estimated then"
)


def _ledger_columns() -> Sequence[str]:
    from slurm_energy.ledger.schema import NAMES

    return NAMES


LEDGER_DAYS = Expected(
    _ledger_columns,
    "Move it away (mv {path} {path}.damaged) and make the day anew from job records and segments: senergy aggregate "
    "-S {day} -E {next_day}",
)
"""The days of the ledger itself."""


@contextlib.contextmanager
def telling_damage(files: Iterable[Path], expected: Expected = LEDGER_DAYS) -> Iterator[None]:
    """Within it, DuckDB's failure over one of these day files is a LedgerError that names the file and what to do."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        if said := damage(files, expected):
            raise LedgerError(said) from error
        raise


def damage(files: Iterable[Path], expected: Expected = LEDGER_DAYS) -> str:
    """The first of these day files that cannot be read, and what to do; '' where all can be. Reads them whole.

    Raises OSError where one may not be read.
    """
    for path in files:
        if why := _unreadable(path, expected.columns()):
            return damaged(path, why, expected.advice)
    return ""


def damaged(path: Path, why: str, advice: str) -> str:
    """What to say of a day file that cannot be read. It is kept: who moves it away has the way back."""
    day = date.fromisoformat(path.stem)
    what_to_do = advice.format(path=path, day=day, next_day=day + timedelta(days=1))
    return f"{path} is damaged ({why}); it was left as it is. {what_to_do}"


def _unreadable(path: Path, columns: Sequence[str]) -> str:
    """Why a day file is none that can be read; '' where it can."""
    import duckdb

    path.open("rb").close()
    names = ", ".join(f'"{name}"' for name in columns)
    try:
        duckdb.connect().execute(f"SELECT bit_xor(hash({names})) FROM {parquet([path])}").fetchall()
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        return str(error).splitlines()[0]
    return ""
