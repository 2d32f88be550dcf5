"""Names that a report was asked for and that have no rows in it: unknown ones are errors, others are told with their days."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

from slurm_energy.report.errors import ReportError
from slurm_energy.report.formats import printable
from slurm_energy.report.selection import Selection
from slurm_energy.sql import one_of, parquet

if TYPE_CHECKING:
    import duckdb

    from slurm_energy.ledger.store import Ledger


def asked(selection: Selection) -> list[tuple[str, str]]:
    """Column and name of each project, user and account asked for."""
    names = {"project": selection.projects, "user": selection.users, "account": selection.accounts}
    return [(column, name) for column, given in names.items() for name in dict.fromkeys(given)]


def without_rows(ledger: Ledger, selection: Selection, con: duckdb.DuckDBPyConnection | None) -> list[str]:
    """A sentence for each name that the ledger has, but not in this selection; [] where all are in it.

    con: with the view `rows`, which has the columns asked for; None where the selection has no day. Only where a name is
    missing all of the ledger is read. Raises ReportError for a name that the ledger lacks altogether: a misspelt name
    must not look like one that used nothing.
    """
    missing = asked(selection)
    if con is not None:
        here = {
            (column, name)
            for column in dict.fromkeys(column for column, _ in missing)
            for (name,) in con.execute(f'SELECT DISTINCT "{column}" FROM rows').fetchall()
        }
        missing = [one for one in missing if one not in here]
    if not missing:
        return []
    spans = _spans(ledger, missing)
    for column, name in missing:
        if (column, name) not in spans:
            raise ReportError(
                f"no jobs of {column} {name!r} in this ledger; `senergy report --by {column}` lists the {column}s"
            )
    where = _where(selection)
    return [
        f"no jobs of {column} {name!r} {where}; the ledger has some from {spans[column, name][0]} to {spans[column, name][1]}"
        for column, name in missing
    ]


def _spans(ledger: Ledger, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], tuple[date, date]]:
    """The first and the last day of each of these names that the ledger has."""
    import duckdb

    found: dict[tuple[str, str], tuple[date, date]] = {}
    files = parquet(file.path for file in ledger.days())
    for column in dict.fromkeys(column for column, _ in names):
        of_it = one_of(name for one, name in names if one == column)
        rows = duckdb.execute(
            f'SELECT "{column}", min(date), max(date) FROM {files} WHERE "{column}" IN {of_it} GROUP BY 1'
        ).fetchall()
        found |= {(column, name): (first, last) for name, first, last in rows}
    return found


def _where(selection: Selection) -> str:
    """The days and clusters that were asked for."""
    parts = []
    if selection.clusters:
        parts.append(f"on {', '.join(map(printable, selection.clusters))}")
    if selection.start is not None:
        parts.append(f"from {selection.start}" + ("" if selection.end else " on"))
    if selection.end is not None:
        parts.append(f"{'' if selection.start else 'up '}to {selection.end - timedelta(days=1)}")
    return " ".join(parts) or "in this selection"
