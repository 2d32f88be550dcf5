"""The totals that every report gives, for any group of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from slurm_energy.report.selection import JOB
from slurm_energy.slurm import states
from slurm_energy.sql import one_of, quoted
from slurm_energy.units import LB_G

if TYPE_CHECKING:
    import duckdb

TOTALS = (
    "jobs", "gpu_hours", "cpu_hours", "it_kwh", "facility_kwh", "co2e_kg", "co2e_lb", "electricity_usd",
    "cloud_low_usd", "cloud_high_usd",
)  # fmt: skip
PROVENANCES = ("measured", "slurm", "estimated")
GAPS = (
    "unpriced_gpu_hours", "unpriced_cpu_hours", "unrated_cpu_hours", "unrated_jobs", "without_record_facility_kwh",
)  # fmt: skip
"""What the totals lack or hold beside jobs with a record; each is a key of the totals."""
HEADER = (*TOTALS, *GAPS, "coverage", "node_hours", "cloud_price", *(f"{name}_share" for name in PROVENANCES))
"""The columns of the totals in CSV and --parsable2."""

REAL = f"state NOT IN {one_of(states.OWN)}"
"""What a row is that is of a job with a record; idle energy and segments without a record ran 0 s."""
_UNRATED = "it_kwh = 0 AND cpu_h > 0"
# fsum adds without losing small parts: the total of a year does not depend on the order of its rows.
_SUMS = f"""
    count(DISTINCT {JOB}) FILTER ({REAL}) AS jobs,
    fsum(gpu_h) AS gpu_hours, fsum(cpu_h) AS cpu_hours, fsum(it_kwh) AS it_kwh, fsum(facility_kwh) AS facility_kwh,
    fsum(co2e_g) / 1000 AS co2e_kg, fsum(co2e_g) AS co2e_g, fsum(electricity_usd) AS electricity_usd,
    coalesce(fsum(cloud_low_usd), 0) AS cloud_low_usd, coalesce(fsum(cloud_high_usd), 0) AS cloud_high_usd,
    fsum(measured_kwh) AS measured_kwh, fsum(slurm_kwh) AS slurm_kwh, fsum(estimated_kwh) AS estimated_kwh,
    fsum(gpu_h) FILTER (cloud_low_usd IS NULL) AS unpriced_gpu_hours,
    fsum(cpu_h) FILTER (gpu_model IS NULL AND cloud_high_usd = 0) AS unpriced_cpu_hours,
    count(cloud_low_usd) FILTER (gpu_model IS NOT NULL OR cloud_high_usd > 0) AS priced_rows,
    fsum(cpu_h) FILTER ({_UNRATED}) AS unrated_cpu_hours,
    fsum(facility_kwh) FILTER (state = {quoted(states.NO_RECORD)}) AS without_record_facility_kwh,
    sum(elapsed_s * greatest(nodes, 1) * coverage) AS covered_s, sum(elapsed_s * greatest(nodes, 1)) AS node_s"""
_LACKING = f"""
    count(DISTINCT {JOB}) FILTER ({_UNRATED}) AS unrated_jobs,
    list(DISTINCT stored_profile) FILTER ({_UNRATED}) AS unrated_profiles,
    list(DISTINCT gpu_model) FILTER (cloud_low_usd IS NULL) AS unpriced_gpu_models"""
"""Dear to count, hence looked for only where the sums say that there is something."""


def rows_of(con: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    """The rows of a query as dicts."""
    done = con.execute(sql)
    names = [column[0] for column in done.description or ()]
    return [dict(zip(names, row, strict=True)) for row in done.fetchall()]


def totals_of(con: duckdb.DuckDBPyConnection, where: str = "true") -> dict[str, Any]:
    """The totals of the rows that this SQL condition holds for: _as_totals."""
    return groups_of(con, {}, where)[0]


def groups_of(con: duckdb.DuckDBPyConnection, keys: Mapping[str, str], where: str = "true") -> list[dict[str, Any]]:
    """A row per group: its keys, then the totals. keys: SQL by name; without any the totals of all rows."""
    columns = "".join(f"{sql} AS k_{name}, " for name, sql in keys.items())
    by = f" GROUP BY {', '.join(f'k_{name}' for name in keys)}" if keys else ""
    found = rows_of(con, f"SELECT {columns}{_SUMS} FROM rows WHERE {where}{by}")
    lacking: dict[tuple[Any, ...], dict[str, Any]] = {}
    if any(row["unrated_cpu_hours"] or row["unpriced_gpu_hours"] for row in found):
        gaps = f"({where}) AND ({_UNRATED} OR cloud_low_usd IS NULL)"
        for row in rows_of(con, f"SELECT {columns}{_LACKING} FROM rows WHERE {gaps}{by}"):
            lacking[tuple(row[f"k_{name}"] for name in keys)] = row
    rows = []
    for row in found:
        key = tuple(row[f"k_{name}"] for name in keys)
        rows.append({**dict(zip(keys, key, strict=True)), **_as_totals(row, lacking.get(key, {}))})
    return rows


def _as_totals(row: dict[str, Any], lacking: dict[str, Any]) -> dict[str, Any]:
    """A row of _SUMS as a report's totals: raw numbers, shares of the energy by provenance, and what they lack.

    lacking: the row of _LACKING, or {}. coverage: the share of the jobs' node-seconds that agents saw; None where the
    jobs ran 0 s. cloud_price: whether all, a part or none of the use has a cloud price; known() leaves out what is none.
    """
    energy = row["it_kwh"] or 0.0
    totals: dict[str, Any] = {
        name: row[name] if name != "co2e_lb" else (row["co2e_g"] or 0.0) / LB_G for name in TOTALS
    }
    totals = {name: 0.0 if value is None else value for name, value in totals.items()}
    totals["jobs"] = int(totals["jobs"])
    totals["provenance"] = {
        name: max(row[f"{name}_kwh"] or 0.0, 0.0) / energy if energy else 0.0 for name in PROVENANCES
    }  # fmt: skip
    totals.update({name: row.get(name) or 0.0 for name in GAPS})
    totals["unrated_jobs"] = int(lacking.get("unrated_jobs") or 0)
    totals["coverage"] = float(row["covered_s"]) / float(row["node_s"]) if row["node_s"] else None
    totals["node_hours"] = float(row["node_s"] or 0) / 3600
    unpriced = totals["unpriced_gpu_hours"] + totals["unpriced_cpu_hours"] > 0
    totals["cloud_price"] = "none" if not row["priced_rows"] else "part" if unpriced else "all"
    for name in ("unpriced_gpu_models", "unrated_profiles"):
        totals[name] = sorted(lacking.get(name) or ())
    return totals


def known(totals: dict[str, Any]) -> dict[str, Any]:
    """The totals with null for the cloud's costs where no price is known at all."""
    if totals["cloud_price"] != "none":
        return totals
    return {**totals, "cloud_low_usd": None, "cloud_high_usd": None}
