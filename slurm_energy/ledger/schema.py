"""The ledger's columns: one row per job, allocation (run) and day. The page docs/schema.md says the same."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa


class Column(NamedTuple):
    """Name, Arrow type, and what it holds with its unit."""

    name: str
    type: pa.DataType
    what: str


_TIME = pa.timestamp("s", tz="UTC")
COLUMNS = (
    Column("cluster", pa.string(), "Slurm cluster"),
    Column("date", pa.date32(), "day in the site's time zone"),
    Column("job_id", pa.int64(), "Slurm's job id (JobIDRaw); of an array task its own, not the array's"),
    Column("array_job_id", pa.int64(), "id of the array; null for a job that is no array task"),
    Column("array_task_id", pa.int32(), "index in the array; null for a job that is no array task"),
    Column("restart_count", pa.int32(), "how often Slurm had restarted the job; null where Slurm does not say"),
    Column("user", pa.string(), "user name"),
    Column("account", pa.string(), "Slurm account"),
    Column("project", pa.string(), "project by the site's rules; the account unless a rule says otherwise"),
    Column("sweep", pa.string(), "sweep the job belongs to; null for a single job"),
    Column("partition", pa.string(), "partition"),
    Column("qos", pa.string(), "quality of service"),
    Column("wckey", pa.string(), "workload characterization key"),
    Column("job_name", pa.string(), "job name, as the user typed it"),
    Column("state", pa.string(), "Slurm job state, without `by UID`"),
    Column("submit", _TIME, "submitted (UTC); null where the record does not say"),
    Column("start", _TIME, "started (UTC), or resized, whichever is later"),
    Column("end", _TIME, "ended (UTC); null while it runs"),
    Column("elapsed_s", pa.int64(), "seconds it ran on this day, suspended time left out"),
    Column("nodes", pa.int32(), "nodes allocated"),
    Column("cpus", pa.int32(), "CPUs allocated, as Slurm counts them"),
    Column("gpus", pa.int32(), "GPUs (GRES) allocated"),
    Column(
        "gpu_model", pa.string(), "GPU model; several joined by +; unknown where Slurm does not say; null without GPU"
    ),
    Column("gpu_h", pa.float64(), "GPU-hours of this day; a MIG slice counts as its share of a GPU"),
    Column("cpu_h", pa.float64(), "CPU-hours of this day"),
    Column("package_kwh", pa.float64(), "energy of the CPU packages, kWh"),
    Column("dram_kwh", pa.float64(), "energy of the memory, kWh"),
    Column("gpu_kwh", pa.float64(), "energy of the GPUs, kWh"),
    Column("other_kwh", pa.float64(), "what a node draws beyond these, where the whole node is measured, kWh"),
    Column("it_kwh", pa.float64(), "IT energy: package + dram + gpu + other, kWh"),
    Column("measured_kwh", pa.float64(), "the part of it_kwh that segments cover, kWh"),
    Column("slurm_kwh", pa.float64(), "the part of it_kwh that is Slurm's ConsumedEnergyRaw, kWh"),
    Column("estimated_kwh", pa.float64(), "the part of it_kwh that is rated power times time, kWh"),
    Column("pue", pa.float64(), "facility energy / IT energy"),
    Column("facility_kwh", pa.float64(), "facility energy: it_kwh x pue, kWh"),
    Column("carbon_g_per_kwh", pa.float64(), "carbon intensity used, gCO2e/kWh"),
    Column("co2e_g", pa.float64(), "emissions: facility_kwh x carbon_g_per_kwh, g CO2e"),
    Column("electricity_usd", pa.float64(), "facility_kwh x price of electricity, USD"),
    Column("cloud_low_usd", pa.float64(), "cloud-equivalent cost at the low (pre-emptible) price, USD; null: no price"),
    Column("cloud_high_usd", pa.float64(), "cloud-equivalent cost at the high (on-demand) price, USD; null: no price"),
    Column("provenance", pa.string(), "best source of the energy: measured, slurm, estimated or none"),
    Column("coverage", pa.float64(), "share of the node-seconds that was measured, 0 to 1"),
    Column("profile", pa.string(), "profile of factors used"),
)
NAMES = tuple(column.name for column in COLUMNS)
SCHEMA = pa.schema([pa.field(column.name, column.type) for column in COLUMNS])
SORT_KEY = ("project", "job_id", "start", "array_job_id", "array_task_id", "account", "user", "state")
"""The order of the rows in a day's file."""
REPEATING = (
    *(column.name for column in COLUMNS if pa.types.is_string(column.type)),
    "date", "array_task_id", "restart_count", "nodes", "cpus", "gpus", "other_kwh", "measured_kwh", "slurm_kwh", "pue",
    "carbon_g_per_kwh", "coverage",
)  # fmt: skip
"""Columns with few distinct values a day, which Parquet keeps as a dictionary."""
