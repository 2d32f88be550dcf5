"""The aggregation as one Ibis expression: job records in, ledger rows out, on whichever engine runs it.

Shapes: `jobs` has a row per allocation (records of slurm_energy.slurm.normalise, with project and sweep), `ratings` a
row per distinct shape of an allocation, `days` a row per day with the moments at which it begins and ends and the
factors that hold on it. Measured segments join in `_energy`, before Slurm's figure and the rated power.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis

from slurm_energy.ledger.schema import NAMES

if TYPE_CHECKING:
    from ibis.expr.types import BooleanValue, FloatingValue, Table

J_PER_KWH = 3_600_000.0
MAX_OVER_RATED = 1.5
"""Slurm's figure is believed up to this multiple of the rated power of what it covers."""
REACH = {
    "rapl": ("package", "dram"),
    "gpu": ("gpu",),
    "ipmi": ("package", "dram", "gpu", "other"),
    "xcc": ("package", "dram", "gpu", "other"),
    "pm_counters": ("package", "dram", "gpu", "other"),
}
"""What ConsumedEnergyRaw holds, by the site's acct_gather_energy plugin (Slurm documentation, slurm.conf(5))."""


def ledger_rows(jobs: Table, ratings: Table, days: Table, plugin: str, profile: str) -> Table:
    """Ledger rows of the days first_day..last_day of each job that `days` has too; times and days are whole numbers.

    plugin: the site's acct_gather_energy plugin, a key of REACH, or 'none'.
    """
    rated = jobs.inner_join(ratings, "shape")
    spread = rated.mutate(day=ibis.range(rated.first_day, rated.last_day + 1).unnest()).inner_join(
        days, ["cluster", "day"]
    )

    # The elapsed seconds are spread over the span evenly; whole seconds, and their sum is the elapsed time exactly.
    begin = ibis.greatest(spread.day_start - spread.start, ibis.literal(0, "int64"))
    until = ibis.least(spread.day_end - spread.start, spread.span_s)
    span = ibis.greatest(spread.span_s, ibis.literal(1, "int64"))
    spread = spread.mutate(seconds=(spread.elapsed_s * until // span) - (spread.elapsed_s * begin // span))
    hours = spread.seconds / 3600.0
    spread = spread.mutate(hours=hours, gpu_h=hours * spread.gpu_units, cpu_h=hours * spread.cpus)
    energy = _energy(spread, plugin)
    energy = energy.mutate(facility_kwh=energy.it_kwh * energy.pue)
    # A GPU's cloud price includes its host; cores have a price of their own only where no GPU is.
    cores = ibis.ifelse(energy.gpus > 0, 0.0, energy.cpu_h)
    return energy.mutate(
        date=energy.day,
        co2e_g=energy.facility_kwh * energy.carbon_g_per_kwh,
        electricity_usd=energy.facility_kwh * energy.electricity_usd_per_kwh,
        cloud_low_usd=energy.hours * energy.cloud_low_usd_per_h + cores * energy.cpu_low_usd_per_h,
        cloud_high_usd=energy.hours * energy.cloud_high_usd_per_h + cores * energy.cpu_high_usd_per_h,
        coverage=ibis.literal(0.0),
        profile=ibis.literal(profile),
        elapsed_s=energy.seconds,
    ).select(*NAMES)


def _energy(table: Table, plugin: str) -> Table:
    """IT energy by component, from Slurm where its figure is sane, the rest and everything else from rated power."""
    package_w = table.cpus * table.cpu_core_w
    dram_w = table.mem_gb * table.dram_w_per_gb
    believed = _believed(table, plugin, {"package": package_w, "dram": dram_w, "gpu": table.gpu_w})
    reach = REACH.get(plugin, ())

    def rated(component: str, watts: FloatingValue) -> FloatingValue:
        estimate = table.hours * watts / 1000.0
        return ibis.ifelse(believed, 0.0, estimate) if component in reach else estimate

    from_slurm = ibis.ifelse(
        believed,
        table.slurm_j / J_PER_KWH * table.seconds / ibis.greatest(table.elapsed_s, ibis.literal(1, "int64")),
        0.0,
    )
    parts = {
        "package": rated("package", package_w),
        "dram": rated("dram", dram_w),
        "gpu": rated("gpu", table.gpu_w),
        "other": ibis.literal(0.0),
    }
    estimated = parts["package"] + parts["dram"] + parts["gpu"]
    if reach:
        whole = "other" if "other" in reach else reach[0]
        parts[whole] = parts[whole] + from_slurm
    return table.mutate(
        **{f"{name}_kwh": kwh for name, kwh in parts.items()},
        it_kwh=estimated + from_slurm,
        measured_kwh=ibis.literal(0.0),
        slurm_kwh=from_slurm,
        estimated_kwh=estimated,
        provenance=ibis.cases(
            (believed, "slurm"), (package_w + dram_w + table.gpu_w > 0, "estimated"), else_="none"
        ),
    )  # fmt: skip


def _believed(table: Table, plugin: str, rated_w: dict[str, FloatingValue]) -> BooleanValue:
    """Whether Slurm's joules are taken: whole nodes only, and a mean power that the hardware can draw."""
    if plugin not in REACH:
        return ibis.literal(False)
    covered = [watts for component, watts in rated_w.items() if component in REACH[plugin]]
    limit = sum(covered[1:], covered[0]) * MAX_OVER_RATED
    whole_nodes = table.exclusive | (
        (table.cpus_per_node > 0) & (table.nodes > 0) & (table.cpus >= table.nodes * table.cpus_per_node)
    )
    sane = (table.slurm_j > 0) & (table.elapsed_s > 0) & (table.slurm_j <= limit * table.elapsed_s) & whole_nodes
    if plugin == "gpu":  # Slurm's GPU plugin reads AMD devices only
        sane = sane & table.gpu_model.startswith("MI")
    return sane.fill_null(False)
