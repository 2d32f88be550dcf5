"""The floor under `senergy report --project`: bare Python with DuckDB that only reads the same totals from the ledger.

usage: python benchmarks/floor_report.py LEDGER PROJECT
"""

from __future__ import annotations

import sys

import duckdb


def floor(ledger: str, project: str) -> tuple[float, ...]:
    """The totals of one project over all days."""
    row = (
        duckdb.connect()
        .execute(
            "SELECT count(DISTINCT hash(cluster, job_id, start)), sum(gpu_h), sum(cpu_h), sum(it_kwh), sum(facility_kwh), "
            "sum(co2e_g), sum(electricity_usd), sum(cloud_low_usd), sum(cloud_high_usd), "
            "sum(measured_kwh), sum(slurm_kwh), sum(estimated_kwh) "
            f"FROM read_parquet('{ledger}/days/*/*.parquet') WHERE project = ?",
            [project],
        )
        .fetchone()
    )
    return tuple(row or ())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(floor(sys.argv[1], sys.argv[2]))
