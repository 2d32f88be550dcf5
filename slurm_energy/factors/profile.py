"""A profile: a named set of factors, dated and with their sources, and what it says of a day and of a GPU."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from slurm_energy.factors.checks import ProfileError, check_number, check_order, near_match, wrong
from slurm_energy.factors.devices import Device, find_device, squeeze

__all__ = [
    "NUMBERS",
    "UNKNOWN_MODEL",
    "CloudPrice",
    "DayFactors",
    "GpuFactors",
    "Period",
    "Profile",
    "ProfileError",
    "check_gpu_watts",
]

UNKNOWN_MODEL = "unknown"
"""Model name of GPUs that Slurm counted without a type."""
NUMBERS = (
    "pue",
    "carbon_g_per_kwh",
    "electricity_usd_per_kwh",
    "cpu_core_w",
    "dram_w_per_gb",
    "any_gpu_w",
    "unknown_gpu_w",
    "cpu_core_low_usd_per_h",
    "cpu_core_high_usd_per_h",
    "own_gpu_usd",
)
"""Fields of a profile that are numbers."""


class CloudPrice(msgspec.Struct, frozen=True):
    """What a cloud asks for one whole device for one hour.

    low_usd_per_h:  pre-emptible or spot, USD/h, >= 0
    high_usd_per_h: on demand, USD/h, >= low_usd_per_h
    priced_as:      the device that the price is of, where nobody rents this one
    source:         with date
    """

    low_usd_per_h: float
    high_usd_per_h: float
    priced_as: str
    source: str


class Period(msgspec.Struct, frozen=True):
    """Factors that hold from a day on; None leaves a factor as it was before."""

    start: datetime.date
    pue: float | None = None
    carbon_g_per_kwh: float | None = None
    electricity_usd_per_kwh: float | None = None


class DayFactors(NamedTuple):
    """The dated factors of one day: pue >= 1, g CO2e/kWh >= 0, USD/kWh >= 0."""

    pue: float
    carbon_g_per_kwh: float
    electricity_usd_per_kwh: float


class GpuFactors(msgspec.Struct, frozen=True):
    """What one unit of a GRES type stands for.

    Watts and prices are of the whole device: multiply by `fraction` for what Slurm counted (1 but for MIG slices).

    model:          canonical device name, the type as written where it is not known, `unknown` without a type
    rated_w:        W, or None where neither the model nor the profile has a figure
    fraction:       0 < fraction <= 1
    low_usd_per_h, high_usd_per_h: USD/h, both None where the device has no price
    priced_as:      the device whose price it is, or None
    includes_cpu:   the rated power covers CPU and memory as well: do not add them
    """

    model: str
    rated_w: float | None
    fraction: float
    low_usd_per_h: float | None
    high_usd_per_h: float | None
    priced_as: str | None = None
    includes_cpu: bool = False


class Profile(msgspec.Struct, frozen=True):
    """A named set of factors. Values are checked when it is made: ProfileError (a ValueError) names the wrong one.

    pue:                     facility energy / IT energy, >= 1
    carbon_g_per_kwh:        g CO2e/kWh, >= 0
    electricity_usd_per_kwh: USD/kWh, >= 0
    cpu_core_w:              rated power of one allocated CPU core, W, >= 0
    dram_w_per_gb:           rated power of memory, W/GB, >= 0
    gpu_w:                   rated power by device name or GRES type, W, >= 0, before the packaged table
    any_gpu_w:               if set, the rated power of every GPU whatever its model, W, >= 0
    unknown_gpu_w:           rated power where the model, or its rated power, is not known, W, >= 0
    cloud:                   prices by device name
    unknown_gpu_priced_as:   price class of devices without a price, a key of `cloud`; None leaves them without
    cpu_core_low_usd_per_h, cpu_core_high_usd_per_h: price of a CPU core, USD/h; 0 where cores have none of their own
    own_gpu_usd:             purchase price by GPU of a server of one's own, USD, >= 0
    sources:                 where each field is from, with date
    periods:                 dated changes, by start
    """

    name: str
    pue: float
    carbon_g_per_kwh: float
    electricity_usd_per_kwh: float
    cpu_core_w: float
    dram_w_per_gb: float
    gpu_w: dict[str, float]
    any_gpu_w: float | None
    unknown_gpu_w: float | None
    cloud: dict[str, CloudPrice]
    unknown_gpu_priced_as: str | None
    cpu_core_low_usd_per_h: float
    cpu_core_high_usd_per_h: float
    own_gpu_usd: float
    sources: dict[str, str]
    periods: tuple[Period, ...]

    def __post_init__(self) -> None:
        for key in NUMBERS:
            value = getattr(self, key)
            if value is not None:
                check_number(key, value, key)
        for device, watts in self.gpu_w.items():
            check_gpu_watts(f"gpu_w.{device}", device, watts)
        for device, price in self.cloud.items():
            check_number(f"cloud.{device}.low_usd_per_h", price.low_usd_per_h)
            check_number(f"cloud.{device}.high_usd_per_h", price.high_usd_per_h)
            check_order(f"cloud.{device}.", "high_usd_per_h", price.low_usd_per_h, price.high_usd_per_h)
        check_order("", "cpu_core_high_usd_per_h", self.cpu_core_low_usd_per_h, self.cpu_core_high_usd_per_h)
        if self.unknown_gpu_priced_as is not None and self._price(self.unknown_gpu_priced_as) is None:
            hint = near_match(self.unknown_gpu_priced_as, self.cloud)
            raise wrong("unknown_gpu_priced_as", self.unknown_gpu_priced_as, f"a device that has a price{hint}")
        starts = [period.start for period in self.periods]
        if starts != sorted(set(starts)):
            raise ProfileError("period: expected one period for each start, in the order of their starts")
        for number, period in enumerate(self.periods, 1):
            for key in DayFactors._fields:
                if (value := getattr(period, key)) is not None:
                    check_number(f"period {number}: {key}", value, key)

    def on(self, day: datetime.date) -> DayFactors:
        """The dated factors of a day: for each the newest period that has started and sets it, else the profile's."""
        values = {key: getattr(self, key) for key in DayFactors._fields}
        for period in self.periods:
            if period.start > day:
                break
            for key in values:
                if (value := getattr(period, key)) is not None:
                    values[key] = value
        return DayFactors(**values)

    def gpu(self, gres_type: str | None) -> GpuFactors:
        """Rated power and price of a GPU by its GRES type (`a100`) or NVML name; None or '' is a GPU without a type.

        A figure that the profile gives for the type as written comes first, then one for the exact board, then one for
        the device (`gpu_w`, `cloud`), then the packaged rated power. Raises nothing: what is not known is None.
        """
        device = find_device(gres_type) if gres_type else None
        names = [gres_type, device.variant, device.name] if device and gres_type else [gres_type] if gres_type else []
        price = next((price for name in names if (price := self._price(name))), None)
        if price is None and self.unknown_gpu_priced_as is not None:
            price = self._price(self.unknown_gpu_priced_as)
        return GpuFactors(
            model=device.name if device else gres_type or UNKNOWN_MODEL,
            rated_w=self._watts(names, device),
            fraction=device.fraction if device else 1.0,
            low_usd_per_h=price.low_usd_per_h if price else None,
            high_usd_per_h=price.high_usd_per_h if price else None,
            priced_as=price.priced_as if price else None,
            includes_cpu=device.includes_cpu if device else False,
        )

    def _watts(self, names: Iterable[str], device: Device | None) -> float | None:
        if self.any_gpu_w is not None:
            return self.any_gpu_w
        own = {squeeze(key): watts for key, watts in self.gpu_w.items()}
        for name in names:
            if (watts := own.get(squeeze(name))) is not None:
                return watts
        if device is not None and device.rated_w is not None:
            return device.rated_w
        return self.unknown_gpu_w

    def _price(self, name: str) -> CloudPrice | None:
        if name in self.cloud:
            return self.cloud[name]
        wanted = squeeze(name)
        return next((price for key, price in self.cloud.items() if squeeze(key) == wanted), None)


def check_gpu_watts(where: str, device: str, value: object) -> float:
    """The watts that a profile gives for a device; ProfileError out of range, and for a slice of a device."""
    watts = check_number(where, value, "gpu_w")
    found = find_device(device)
    if found is not None and found.fraction != 1.0:
        raise wrong(where, value, f"the watts of the whole device, {found.name}; a slice gets its fraction of them")
    return watts
