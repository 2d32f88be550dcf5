"""The floor under `senergy aggregate`: bare DuckDB that reads the same file, splits days, prices and writes the same rows
and columns as sorted Parquet by day. No rules, no checks, no lock, no rename.

usage: python benchmarks/floor_aggregate.py LOG FOLDER
"""

from __future__ import annotations

import sys

import duckdb


def floor(log: str, folder: str) -> None:
    """One statement, as a person who knows DuckDB would write it for this one file."""
    con = duckdb.connect()
    con.execute(f"""
        COPY (
          WITH raw AS (
            SELECT * FROM read_csv('{log}', delim='|', header=true, quote='', all_varchar=true)
          ), typed AS (
            SELECT *, epoch(Start::TIMESTAMP)::BIGINT AS s, ElapsedRaw::BIGINT AS el,
              regexp_extract(AllocTRES, 'cpu=([0-9]+)', 1)::INTEGER AS cpus,
              coalesce(TRY_CAST(regexp_extract(AllocTRES, 'gres/gpu=([0-9]+)', 1) AS INTEGER), 0) AS gpus,
              nullif(regexp_extract(AllocTRES, 'gres/gpu:([a-z0-9]+)=', 1), '') AS gpu_model,
              TRY_CAST(regexp_extract(AllocTRES, 'mem=([0-9]+)G', 1) AS DOUBLE) AS mem_gb
            FROM raw
          ), spread AS (
            SELECT *, unnest(range(s // 86400, (s + greatest(el, 1) - 1) // 86400 + 1)) AS day FROM typed
          ), timed AS (
            SELECT *, least((day + 1) * 86400, s + el) - greatest(day * 86400, s) AS sec FROM spread
          ), energy AS (
            SELECT *, sec / 3600 * gpus AS gpu_h, sec / 3600 * cpus AS cpu_h, sec / 3.6e6 * cpus * 8.44 AS package_kwh,
              sec / 3.6e6 * mem_gb * 0.3725 AS dram_kwh, sec / 3.6e6 * gpus * 400 AS gpu_kwh FROM timed
          )
          SELECT Cluster AS cluster, DATE '1970-01-01' + day::INTEGER AS date, JobIDRaw::BIGINT AS job_id,
            TRY_CAST(split_part(JobID, '_', 1) AS BIGINT) AS array_job_id,
            TRY_CAST(split_part(JobID, '_', 2) AS INTEGER) AS array_task_id, NULL::INTEGER AS restart_count,
            "User" AS user, Account AS account, Account AS project, split_part(JobID, '_', 1) AS sweep,
            "Partition" AS partition, QOS AS qos, WCKey AS wckey, JobName AS job_name, State AS state,
            Submit::TIMESTAMP AS submit, Start::TIMESTAMP AS start, "End"::TIMESTAMP AS "end", sec AS elapsed_s,
            NNodes::INTEGER AS nodes, cpus, gpus, gpu_model, gpu_h, cpu_h, package_kwh, dram_kwh, gpu_kwh,
            0.0::DOUBLE AS other_kwh, package_kwh + dram_kwh + gpu_kwh AS it_kwh, 0.0::DOUBLE AS measured_kwh,
            0.0::DOUBLE AS slurm_kwh, package_kwh + dram_kwh + gpu_kwh AS estimated_kwh, 1.54::DOUBLE AS pue,
            it_kwh * 1.54 AS facility_kwh, 470.0::DOUBLE AS carbon_g_per_kwh, facility_kwh * 470 AS co2e_g,
            facility_kwh * 0.12 AS electricity_usd, gpu_h * 1.2 AS cloud_low_usd, gpu_h * 5.5 AS cloud_high_usd,
            'estimated' AS provenance, 0.0::DOUBLE AS coverage, 'site' AS profile
          FROM energy ORDER BY date, job_id
        ) TO '{folder}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (date), WRITE_PARTITION_COLUMNS true)""")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    floor(sys.argv[1], sys.argv[2])
