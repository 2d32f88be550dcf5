"""The ledger as the page shows it: months, and the projects of a month. Read again only where its files changed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from slurm_energy.report.errors import ReportError

if TYPE_CHECKING:
    from datetime import tzinfo

    from slurm_energy.ledger.store import DayFile, Ledger

MAX_PROJECTS = 200
"""Rows of the table; the others are one row more."""
ADDED = (
    "jobs", "gpu_hours", "cpu_hours", "it_kwh", "facility_kwh", "co2e_kg", "co2e_lb", "electricity_usd", "cloud_low_usd",
    "cloud_high_usd", "unpriced_gpu_hours",
)  # fmt: skip


class History:
    """Answers from the ledger; callable from several threads, one of which reads at a time."""

    def __init__(self, ledger: Ledger, zone: tzinfo) -> None:
        self.ledger, self.zone = ledger, zone
        self._lock = threading.Lock()
        self._signature: object = None
        self._kept: dict[str, dict[str, Any]] = {}
        self.readings = 0
        """How often the Parquet was read."""

    def months(self) -> dict[str, Any]:
        """Totals of every month that the ledger has, in order of time."""
        return self._answer("months", lambda days: {"rows": self._groups("month", days)})

    def projects(self, month: str = "") -> dict[str, Any]:
        """Totals by project of a month (`2026-11`), of the whole ledger (`all`), or of the last month that it has."""
        return self._answer(f"projects {month}", lambda days: self._projects(days, month))

    def _answer(self, key: str, make: Callable[[list[DayFile]], dict[str, Any]]) -> dict[str, Any]:
        with self._lock:
            try:
                days = self.ledger.days()
                signature = [(file.path, (status := file.path.stat()).st_mtime_ns, status.st_size) for file in days]
                today = datetime.now(self.zone).date()
                if (signature, today) != self._signature:
                    self._kept.clear()
                    self._signature = (signature, today)
                if key not in self._kept:
                    self._kept[key] = {"error": "", "this_month": f"{today:%Y-%m}", **make(days)}
                return self._kept[key]
            except ImportError as error:  # a compute node, where only the agent's needs are installed
                said = f"this needs {error.name}; it comes with pip install 'slurm-energy[admin]'"
            except (ReportError, OSError) as error:
                said = str(error)
            self._signature = None
            return {"error": said, "this_month": "", "rows": []}

    def _groups(self, by: str, days: list[DayFile], start: date | None = None, end: date | None = None) -> list[Any]:
        from slurm_energy.report.groups import group_report
        from slurm_energy.report.selection import Selection, open_rows

        con = open_rows(self.ledger, Selection(start=start, end=end), None, ["project"])
        self.readings += 1
        try:
            return group_report(con, [by])
        finally:
            con.close()

    def _projects(self, days: list[DayFile], month: str) -> dict[str, Any]:
        months = sorted({f"{file.day:%Y-%m}" for file in days}, reverse=True)
        chosen = month or (months[0] if months else "all")
        if chosen != "all" and chosen not in months:
            raise ReportError("the ledger has no such month")
        start = date.fromisoformat(f"{chosen}-01") if chosen != "all" else None
        end = (start + timedelta(days=32)).replace(day=1) if start else None
        rows = self._groups("project", days, start, end)
        rest = rows[MAX_PROJECTS:]
        return {
            "month": chosen,
            "months": months,
            "last_day": str(max(file.day for file in days)) if days else "",
            "rows": rows[:MAX_PROJECTS],
            "folded": len(rest),
            "other": _sum(rest),
            "total": _sum(rows),
        }


def _sum(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of totals added up, their provenance by energy."""
    total: dict[str, Any] = {name: sum(row[name] for row in rows) for name in ADDED}
    energy = total["it_kwh"]
    names = rows[0]["provenance"] if rows else ()
    total["provenance"] = {
        name: sum(row["it_kwh"] * row["provenance"][name] for row in rows) / energy if energy else 0.0 for name in names
    }
    return total
