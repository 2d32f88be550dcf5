"""Totals by project, user, month, GPU model and so on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slurm_energy.report.errors import ReportError
from slurm_energy.report.totals import SUMS, TOTALS, as_totals, rows_of

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


def group_report(
    con: duckdb.DuckDBPyConnection, by: Sequence[str], sort: str | None = None, top: int | None = None
) -> list[dict[str, Any]]:  # fmt: skip
    """A row per group: its keys, then the totals (report.totals). In the order of time, else the most energy first.

    sort: a key or a total; numbers fall, texts rise. top: only so many rows. Raises ReportError for an unknown name.
    """
    for key in by:
        if key not in KEYS:
            raise ReportError(f"--by {key}: expected one or more of {', '.join(KEYS)}")
    keys = ", ".join(f"{KEYS[key]} AS k_{key}" for key in by)
    found = rows_of(con, f"SELECT {keys}, {SUMS} FROM rows GROUP BY {', '.join(f'k_{key}' for key in by)}")
    rows: list[dict[str, Any]] = [{**{key: row[f"k_{key}"] for key in by}, **as_totals(row)} for row in found]
    rows.sort(key=lambda row: tuple(str(row[key]) for key in by))
    wanted = sort or next((key for key in by if key in _IN_TIME), "facility_kwh")
    if wanted not in (*by, *TOTALS):
        raise ReportError(f"--sort {wanted}: expected one of {', '.join((*by, *TOTALS))}")
    if wanted in TOTALS:
        rows.sort(key=lambda row: -float(row[wanted]))
    else:
        rows.sort(key=lambda row: str(row[wanted]))
    return rows[:top] if top is not None else rows
