"""The aggregation as one Ibis expression: job records in, ledger rows out, on whichever engine runs it.

Shapes: `jobs` has a row per allocation (records of slurm_energy.slurm.normalise, with project and sweep), `ratings` a
row per distinct shape of an allocation, `days` a row per day with the moments at which it begins and ends and the
factors that hold on it, `energy` what segments measured, by record and day (slurm_energy.ledger.measured).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis

from slurm_energy.accounting.equations import (
    cloud_usd,
    electricity_usd,
    emissions_g,
    facility_from_it_kwh,
    rated_energy_kwh,
)
from slurm_energy.ledger.schema import NAMES
from slurm_energy.units import J_PER_KWH, SECONDS_PER_HOUR

if TYPE_CHECKING:
    from ibis.expr.types import BooleanValue, FloatingValue, Table

MAX_OVER_RATED = 1.5
"""Slurm's figure is believed up to this multiple of the rated power of what it covers."""
MEASURED = {
    **{f"m_{name}": "float64" for name in ("package", "dram", "gpu", "other")},
    **{f"has_{name}": "boolean" for name in ("package", "dram", "gpu", "node")},
    "covered_s": "float64",
    **{f"{name}_covered_s": "float64" for name in ("package", "dram", "gpu")},
}
"""Columns of `energy` beside record and day: kWh, whether a domain was measured at all, node-seconds covered (by domain
too: nodes may have different sensors, and a GPU that is lost is no gap of the rest)."""
REACH = {
    "rapl": ("package", "dram"),
    "gpu": ("gpu",),
    "ipmi": ("package", "dram", "gpu", "other"),
    "xcc": ("package", "dram", "gpu", "other"),
    "pm_counters": ("package", "dram", "gpu", "other"),
}
"""What ConsumedEnergyRaw holds, by the site's acct_gather_energy plugin (Slurm documentation, slurm.conf(5))."""


def ledger_rows(jobs: Table, ratings: Table, days: Table, energy: Table | None, plugin: str, profile: str) -> Table:
    """Ledger rows of the days first_day..last_day of each job that `days` has too; times and days are whole numbers.

    energy: None where nothing was measured. plugin: the site's acct_gather_energy plugin, a key of REACH, or 'none'.
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
    hours = spread.seconds / SECONDS_PER_HOUR
    spread = spread.mutate(hours=hours, gpu_h=hours * spread.gpu_units, cpu_h=hours * spread.cpus)
    if energy is not None:
        spread = spread.left_join(energy, ["record", "day"])
    else:
        spread = spread.mutate(**{name: ibis.null(kind) for name, kind in MEASURED.items()})
    rows = _energy(_covered(spread), plugin)
    rows = rows.mutate(facility_kwh=facility_from_it_kwh(rows.it_kwh, rows.pue))
    # A GPU's cloud price includes its host; cores have a price of their own only where no GPU is.
    cores = ibis.ifelse(rows.gpus > 0, 0.0, rows.cpu_h)
    return rows.mutate(
        date=rows.day,
        co2e_g=emissions_g(rows.facility_kwh, rows.carbon_g_per_kwh),
        electricity_usd=electricity_usd(rows.facility_kwh, rows.electricity_usd_per_kwh),
        cloud_low_usd=cloud_usd(rows.hours, rows.cloud_low_usd_per_h) + cloud_usd(cores, rows.cpu_low_usd_per_h),
        cloud_high_usd=cloud_usd(rows.hours, rows.cloud_high_usd_per_h) + cloud_usd(cores, rows.cpu_high_usd_per_h),
        profile=ibis.literal(profile),
        elapsed_s=rows.seconds,
    ).select(*NAMES)


def _covered(table: Table) -> Table:
    """Adds `coverage`: the measured share of the row's node-seconds; a run of no length is covered if it was seen."""
    node_seconds = table.seconds * ibis.greatest(table.nodes, 1)
    length = ibis.greatest(node_seconds, 1).cast("float64")

    def share(seconds: FloatingValue) -> FloatingValue:
        return ibis.least(seconds.fill_null(0.0) / length, 1.0)  # least() and greatest() pass over nulls

    by_domain = {
        f"{name}_coverage": ibis.ifelse(node_seconds > 0, share(table[f"{name}_covered_s"]), 1.0)
        for name in ("package", "dram", "gpu")
    }
    whole = ibis.ifelse(node_seconds > 0, share(table.covered_s), table.covered_s * 0.0 + 1.0)
    return table.mutate(coverage=ibis.coalesce(whole, 0.0), seen=table.covered_s.notnull(), **by_domain)


def _energy(table: Table, plugin: str) -> Table:
    """IT energy by component: measured; else from Slurm where its figure is sane; else from rated power.

    Of a component that was measured for a part of the node-seconds the rest is estimated. Where the whole node is
    measured at its input nothing else is.
    """
    watts = {
        "package": table.cpus * table.cpu_core_w,
        "dram": table.mem_gb * table.dram_w_per_gb,
        "gpu": table.gpu_w,
    }  # fmt: skip
    believed = _believed(table, plugin, watts) & ~table.seen
    reach = REACH.get(plugin, ())
    whole_node = table.has_node.fill_null(False)
    parts, measured, estimated = {}, ibis.literal(0.0), ibis.literal(0.0)
    for component, rated_w in watts.items():
        has = table[f"has_{component}"].fill_null(False)
        got = table[f"m_{component}"].fill_null(0.0)
        rated = rated_energy_kwh(rated_w, table.hours)
        missing = ibis.ifelse(has | whole_node, rated * (1.0 - table[f"{component}_coverage"]), rated)
        # What a node modelled (sources with an estimate) comes with the segments, but is no measurement.
        modelled = ibis.ifelse(has, 0.0, got)
        guess = ibis.ifelse(modelled > 0, modelled, missing)
        if component in reach:
            guess = ibis.ifelse(believed, 0.0, guess)
        parts[component] = ibis.ifelse(has, got, 0.0) + guess
        measured = measured + ibis.ifelse(has, got, 0.0)
        estimated = estimated + guess
    parts["other"] = table.m_other.fill_null(0.0)
    measured = measured + parts["other"]
    share = table.seconds / ibis.greatest(table.elapsed_s, ibis.literal(1, "int64"))
    from_slurm = ibis.ifelse(believed, table.slurm_j / J_PER_KWH * share, 0.0)
    if reach:
        whole = "other" if "other" in reach else reach[0]
        parts[whole] = parts[whole] + from_slurm
    rated_at_all = watts["package"] + watts["dram"] + watts["gpu"] > 0
    return table.mutate(
        **{f"{name}_kwh": kwh for name, kwh in parts.items()},
        it_kwh=measured + estimated + from_slurm,
        measured_kwh=measured,
        slurm_kwh=from_slurm,
        estimated_kwh=estimated,
        provenance=ibis.cases(
            (measured > 0, "measured"),
            (believed, "slurm"),
            (rated_at_all | (estimated > 0), "estimated"),
            else_="none",
        ),
    )


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
