"""Totals by project, user, month, GPU model and so on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slurm_energy.report.errors import ReportError
from slurm_energy.report.selection import JOB
from slurm_energy.report.texts import FIGURES
from slurm_energy.report.totals import REAL, TOTALS, groups_of, rows_of

if TYPE_CHECKING:
    import duckdb

KEYS = {
    "project": "project",
    "user": '"user"',
    "account": "account",
    "month": "strftime(date, '%Y-%m')",
    "day": "strftime(date, '%Y-%m-%d')",
    "gpu": "coalesce(gpu_model, 'none')",
    "state": "state",
    "partition": '"partition"',
    "sweep": "coalesce(sweep, '')",
    "qos": "qos",
    "cluster": "cluster",
}
"""What --by takes, and the SQL for it."""
COLUMNS = ("project", "user", "account", "partition", "qos")
"""The keys that are columns of their own."""
_IN_TIME = ("month", "day")
_PARTS = frozenset({"month", "day", "gpu", "state"})
"""The keys by which the parts of one job may differ."""


def group_report(
    con: duckdb.DuckDBPyConnection, by: Sequence[str], sort: str | None = None, top: int | None = None
) -> list[dict[str, Any]]:  # fmt: skip
    """A row per group: its keys, then the totals (report.totals). In the order of time, else the most energy first.

    sort: a key or a total, or its header in the table; numbers fall, texts rise. top: only so many rows. Raises
    ReportError for an unknown name.
    """
    check_keys(by, sort)
    rows = groups_of(con, {key: KEYS[key] for key in by})
    rows.sort(key=lambda row: tuple(str(row[key]) for key in by))
    usual = next((key for key in by if key in _IN_TIME), "facility_kwh")
    wanted = _column(sort, by) if sort else usual
    if wanted in TOTALS:
        rows.sort(key=lambda row: -float(row[wanted]))
    else:
        rows.sort(key=lambda row: str(row[wanted]))
    return rows[:top] if top is not None else rows


def check_keys(by: Sequence[str], sort: str | None = None) -> None:
    """Raises ReportError for a key or a column to sort by that there is not."""
    for key in by:
        if key not in KEYS:
            raise ReportError(f"--by {key}: expected one or more of {', '.join(KEYS)}")
    if sort:
        _column(sort, by)


def _column(name: str, by: Sequence[str]) -> str:
    """The column that is meant: by its name in JSON and CSV or by its header."""
    known = {_squeezed(header): key for key, header in FIGURES.items()}
    known |= {_squeezed(key): key for key in (*TOTALS, *by)}
    try:
        return known[_squeezed(name)]
    except KeyError:
        raise ReportError(f"--sort {name}: expected one of {', '.join((*by, *TOTALS))}") from None


def _squeezed(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())


def jobs_in_all(con: duckdb.DuckDBPyConnection, by: Sequence[str]) -> int | None:
    """How many jobs the rows have, where one may be in several groups; None where the groups' jobs add up."""
    if not _PARTS & set(by):
        return None
    return int(rows_of(con, f"SELECT count(DISTINCT {JOB}) FILTER ({REAL}) AS jobs FROM rows")[0]["jobs"])
