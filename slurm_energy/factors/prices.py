"""Cloud prices by device: the packaged ones, a site's own, and those of devices that are priced as another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slurm_energy.factors.checks import RANGES, ProfileError, check_order
from slurm_energy.factors.devices import squeeze
from slurm_energy.factors.profile import CloudPrice
from slurm_energy.factors.tables import read_table

SITE_SOURCE = "set by the site"
"""What is said to be the source of a figure that a site gave without one."""


def prices_of(cloud: Mapping[str, Mapping[str, Any]], packaged: bool) -> dict[str, CloudPrice]:
    """Prices by device: the packaged ones, those given, then the devices that are priced as another."""
    prices: dict[str, CloudPrice] = {}
    if packaged:
        for row in read_table("cloud_prices"):
            if row["device"] != "cpu-core":
                source = f"low {row['low_source']}; high {row['high_source']} ({row['date']})"
                prices[row["device"]] = CloudPrice(
                    float(row["low_usd_per_h"]), float(row["high_usd_per_h"]), row["device"], source
                )
    spelled = {squeeze(device): device for device in prices}
    given: set[str] = set()
    for device, entry in cloud.items():
        key = spelled.get(squeeze(device), device)
        before = prices.get(key)
        low = entry.get("low_usd_per_h", before.low_usd_per_h if before else None)
        high = entry.get("high_usd_per_h", before.high_usd_per_h if before else None)
        for side, value in (("low_usd_per_h", low), ("high_usd_per_h", high)):
            if value is None:
                raise ProfileError(f"cloud.{device}.{side} is missing: expected {RANGES[side][1]}")
        check_order(f"cloud.{device}.", "high_usd_per_h", low, high)
        price = CloudPrice(low, high, key, entry.get("source", SITE_SOURCE))
        for one in (key, *entry.get("devices", ())):
            prices[one] = price
            given.add(squeeze(one))
    if packaged:
        for row in read_table("gpu_equivalents"):
            if squeeze(row["device"]) not in given:
                model, factor = prices[row["priced_as"]], float(row["factor"])
                prices[row["device"]] = CloudPrice(
                    model.low_usd_per_h * factor,
                    model.high_usd_per_h * factor,
                    row["priced_as"],
                    f"{model.source}; priced as {row['priced_as']}: {row['reason']} ({row['confidence']})",
                )
    return prices
