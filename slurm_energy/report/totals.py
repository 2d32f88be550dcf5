"""The totals that every report gives, for any group of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slurm_energy.report.selection import JOB
from slurm_energy.units import LB_G

if TYPE_CHECKING:
    import duckdb

TOTALS = (
    "jobs", "gpu_hours", "cpu_hours", "it_kwh", "facility_kwh", "co2e_kg", "co2e_lb", "electricity_usd",
    "cloud_low_usd", "cloud_high_usd",
)  # fmt: skip
PROVENANCES = ("measured", "slurm", "estimated")

# fsum adds without losing small parts: the total of a year does not depend on the order of its rows.
SUMS = f"""
    count(DISTINCT {JOB}) FILTER (state <> 'NO_RECORD') AS jobs,
    fsum(gpu_h) AS gpu_hours, fsum(cpu_h) AS cpu_hours, fsum(it_kwh) AS it_kwh, fsum(facility_kwh) AS facility_kwh,
    fsum(co2e_g) / 1000 AS co2e_kg, fsum(co2e_g) AS co2e_g, fsum(electricity_usd) AS electricity_usd,
    coalesce(fsum(cloud_low_usd), 0) AS cloud_low_usd, coalesce(fsum(cloud_high_usd), 0) AS cloud_high_usd,
    fsum(measured_kwh) AS measured_kwh, fsum(slurm_kwh) AS slurm_kwh, fsum(estimated_kwh) AS estimated_kwh,
    coalesce(fsum(gpu_h) FILTER (cloud_low_usd IS NULL), 0) AS unpriced_gpu_hours"""


def rows_of(con: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    """The rows of a query as dicts."""
    done = con.execute(sql)
    names = [column[0] for column in done.description or ()]
    return [dict(zip(names, row, strict=True)) for row in done.fetchall()]


def as_totals(row: dict[str, Any]) -> dict[str, Any]:
    """A row of SUMS and `jobs` as a report's totals: raw numbers, shares of the energy by provenance."""
    energy = row["it_kwh"] or 0.0
    totals: dict[str, Any] = {
        name: row[name] if name != "co2e_lb" else (row["co2e_g"] or 0.0) / LB_G for name in TOTALS
    }
    totals = {name: 0.0 if value is None else value for name, value in totals.items()}
    totals["jobs"] = int(totals["jobs"])
    totals["provenance"] = {
        name: max(row[f"{name}_kwh"] or 0.0, 0.0) / energy if energy else 0.0 for name in PROVENANCES
    }  # fmt: skip
    totals["unpriced_gpu_hours"] = row["unpriced_gpu_hours"] or 0.0
    return totals
