"""Profiles: named sets of factors, dated and with their sources, and how a site overrides them."""

from __future__ import annotations

import datetime
import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from slurm_energy.factors import carbon
from slurm_energy.factors.checks import (
    RANGES,
    ProfileError,
    as_toml,
    check_keys,
    check_number,
    check_order,
    check_table,
    check_text,
    near_match,
    wrong,
)
from slurm_energy.factors.cpus import find_cpu
from slurm_energy.factors.devices import Device, find_device, squeeze
from slurm_energy.factors.tables import read_table
from slurm_energy.units import LB_G

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "UNKNOWN_MODEL",
    "CloudPrice",
    "DayFactors",
    "GpuFactors",
    "Period",
    "Profile",
    "ProfileError",
    "load_profile",
    "profile_names",
]

_PROFILES = Path(__file__).parent / "profiles"

UNKNOWN_MODEL = "unknown"
"""Model name of GPUs that Slurm counted without a type."""


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
        for key in _NUMBERS:
            value = getattr(self, key)
            if value is not None:
                check_number(key, value, key)
        for device, watts in self.gpu_w.items():
            _gpu_watts(f"gpu_w.{device}", device, watts)
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

    def as_dict(self) -> dict[str, Any]:
        """Every field as plain values that JSON has, dates as ISO text, for a report that says what it used."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields

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


_NUMBERS = (
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
_OPTIONAL = ("any_gpu_w", "unknown_gpu_w", "unknown_gpu_priced_as")
_NONE = "none"
_CARBON_KEYS = ("carbon_g_per_kwh", "carbon_lb_per_kwh", "country", "egrid", "us_state")
_CPU_KEYS = ("cpu_core_w", "cpu")
_TABLES = ("gpu_w", "cloud", "sources")
_PERIOD_KEYS = ("start", "pue", *_CARBON_KEYS, "electricity_usd_per_kwh")
_PRICE_KEYS = ("low_usd_per_h", "high_usd_per_h", "devices", "source")
_KEYS = (
    *dict.fromkeys((*_NUMBERS, *_CARBON_KEYS, *_CPU_KEYS)),
    "unknown_gpu_priced_as",
    "packaged_cloud_prices",
    *_TABLES,
    "period",
)
_SOURCE_KEYS = (*_NUMBERS, "gpu_w", "cloud", "unknown_gpu_priced_as", "period")
_OVERRIDE_SOURCE = "set by the site"

_GRIDS: dict[str, tuple[Callable[[str], carbon.CarbonIntensity | None], Callable[[], list[str]], str]] = {
    "country": (
        carbon.country_intensity,
        carbon.known_countries,
        'a country\'s ISO code or English name, or "World"',
    ),
    "egrid": (carbon.egrid_intensity, carbon.known_egrid_subregions, "an EPA eGRID subregion such as CAMX"),
    "us_state": (carbon.us_state_intensity, carbon.known_us_states, "a U.S. state such as CA"),
}


def profile_names() -> list[str]:
    """Names of the packaged profiles, sorted."""
    return sorted(path.stem for path in _PROFILES.glob("*.toml"))


def load_profile(name: str, overrides: Mapping[str, object] | None = None) -> Profile:
    """A packaged profile, with a site's settings laid over it.

    name:      one of profile_names()
    overrides: a table as TOML gives it, with the keys of the packaged files: the fields of Profile, one of
               carbon_g_per_kwh, carbon_lb_per_kwh, country, egrid and us_state for the carbon intensity, cpu (a name
               from /proc/cpuinfo) in place of cpu_core_w, [gpu_w], [cloud.<device>], [sources] and [[period]].
               "none" unsets any_gpu_w, unknown_gpu_w and unknown_gpu_priced_as.
    Raises ProfileError where the name, a key or a value is wrong.
    """
    names = profile_names()
    if name not in names:
        raise ProfileError(f"profile = {as_toml(name)}: expected one of {', '.join(names)}{near_match(name, names)}")
    base = _packaged(name)
    if not overrides:
        return base.build(name)
    own = _read(overrides)
    return _merge(base, own).build(name)


class _Layer(msgspec.Struct):
    """One file or table of settings, checked, before defaults and equivalents are worked out."""

    values: dict[str, Any]
    gpu_w: dict[str, float]
    cloud: dict[str, dict[str, Any]]
    periods: tuple[Period, ...] | None
    sources: dict[str, str]

    def build(self, name: str) -> Profile:
        values = dict(self.values)
        cloud = _prices(self.cloud, packaged=values.pop("packaged_cloud_prices", False))
        for key in _OPTIONAL:
            values.setdefault(key, None)
        return Profile(
            name=name,
            gpu_w=dict(self.gpu_w),
            cloud=cloud,
            sources=dict(self.sources),
            periods=self.periods or (),
            **values,
        )


@functools.cache
def _packaged(name: str) -> _Layer:
    return _read(tomllib.loads((_PROFILES / f"{name}.toml").read_text(encoding="utf-8")))


def _read(table: Mapping[str, object]) -> _Layer:
    check_keys("", table, _KEYS)
    values: dict[str, Any] = {}
    derived: dict[str, str] = {}
    for key in _NUMBERS:
        if key in table and key not in _CARBON_KEYS and key not in _CPU_KEYS:
            values[key] = None if key in _OPTIONAL and table[key] == _NONE else check_number(key, table[key], key)
    if (grid := _carbon("", table)) is not None:
        values["carbon_g_per_kwh"], derived["carbon_g_per_kwh"] = grid
    if (cpu := _cpu(table)) is not None:
        values["cpu_core_w"], derived["cpu_core_w"] = cpu
    if "unknown_gpu_priced_as" in table:
        priced_as = check_text("unknown_gpu_priced_as", table["unknown_gpu_priced_as"], "a device name")
        values["unknown_gpu_priced_as"] = None if priced_as in ("", _NONE) else priced_as
    if "packaged_cloud_prices" in table:
        flag = table["packaged_cloud_prices"]
        if not isinstance(flag, bool):
            raise wrong("packaged_cloud_prices", flag, "true or false")
        values["packaged_cloud_prices"] = flag
    gpu_w = {
        device: _gpu_watts(f"gpu_w.{device}", device, watts)
        for device, watts in check_table("gpu_w", table.get("gpu_w", {}))
    }
    cloud = {device: _cloud(device, entry) for device, entry in check_table("cloud", table.get("cloud", {}))}
    periods = None
    if "period" in table:
        periods, derived["period"] = _periods(table["period"])
    sources = _sources(table.get("sources", {}))
    for key in (*values, *derived):
        if key in _SOURCE_KEYS:
            sources.setdefault(key, derived.get(key) or _OVERRIDE_SOURCE)
    return _Layer(values, gpu_w, cloud, periods, sources)


def _merge(base: _Layer, own: _Layer) -> _Layer:
    """The site's layer over the packaged one; both are left as they are."""
    cloud = {device: dict(entry) for device, entry in base.cloud.items()}
    spelled = {squeeze(device): device for device in cloud}
    for device, entry in own.cloud.items():
        key = spelled.get(squeeze(device), device)
        merged = {**cloud.get(key, {}), **entry}
        if "source" not in entry:
            merged["source"] = _OVERRIDE_SOURCE
        cloud[key] = merged
    sources = {**base.sources, **own.sources}
    for key, named in (("gpu_w", own.gpu_w), ("cloud", own.cloud)):
        if named and key not in own.sources:
            added = f"{_OVERRIDE_SOURCE}: {', '.join(named)}"
            sources[key] = f"{base.sources[key]}; {added}" if key in base.sources else added
    return _Layer(
        values={**base.values, **own.values},
        gpu_w={**base.gpu_w, **own.gpu_w},
        cloud=cloud,
        periods=base.periods if own.periods is None else own.periods,
        sources=sources,
    )


def _prices(cloud: Mapping[str, Mapping[str, Any]], packaged: bool) -> dict[str, CloudPrice]:
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
        price = CloudPrice(low, high, key, entry.get("source", _OVERRIDE_SOURCE))
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


def _carbon(where: str, table: Mapping[str, object]) -> tuple[float, str] | None:
    """Intensity in g/kWh and where it is from, of a table that may say it in one of five ways."""
    given = [key for key in _CARBON_KEYS if key in table]
    if not given:
        return None
    if len(given) > 1:
        raise ProfileError(f"{where}{' and '.join(given)}: expected only one of {', '.join(_CARBON_KEYS)}")
    key = given[0]
    value = table[key]
    if key == "carbon_g_per_kwh":
        return check_number(where + key, value, key), ""
    if key == "carbon_lb_per_kwh":
        pounds = check_number(where + key, value, key)
        return pounds * LB_G, f"{pounds!r} lb/kWh, set by the site"
    find, known, expected = _GRIDS[key]
    text = check_text(where + key, value, expected)
    found = find(text)
    if found is None:
        raise ProfileError(f"{where}{key} = {as_toml(text)}: expected {expected}{near_match(text.casefold(), known())}")
    return found.g_co2e_per_kwh, found.source


def _cpu(table: Mapping[str, object]) -> tuple[float, str] | None:
    if "cpu" not in table:
        return (check_number("cpu_core_w", table["cpu_core_w"], "cpu_core_w"), "") if "cpu_core_w" in table else None
    if "cpu_core_w" in table:
        raise ProfileError("cpu and cpu_core_w: expected only one of them")
    expected = "a processor's name as in /proc/cpuinfo"
    name = check_text("cpu", table["cpu"], expected)
    cpu = find_cpu(name)
    if cpu is None:
        raise wrong("cpu", name, f"{expected}; this one is not in the packaged table, give cpu_core_w in W instead")
    if cpu.w_per_core is None or cpu.per != "core":
        raise wrong("cpu", name, "one whose W per core is known; give cpu_core_w in W instead")
    return cpu.w_per_core, cpu.source


def _cloud(device: str, entry: object) -> dict[str, Any]:
    where = f"cloud.{device}"
    fields = dict(check_table(where, entry))
    check_keys(f"{where}.", fields, _PRICE_KEYS)
    price: dict[str, Any] = {
        key: check_number(f"{where}.{key}", fields[key]) for key in ("low_usd_per_h", "high_usd_per_h") if key in fields
    }
    if "source" in fields:
        price["source"] = check_text(f"{where}.source", fields["source"], "text")
    if "devices" in fields:
        devices = fields["devices"]
        if not isinstance(devices, list) or not all(isinstance(one, str) and one for one in devices):
            raise wrong(f"{where}.devices", devices, "a list of device names")
        price["devices"] = tuple(devices)
    return price


def _periods(entries: object) -> tuple[tuple[Period, ...], str]:
    """Periods by start, and where their carbon intensities are from."""
    if not isinstance(entries, list):
        raise wrong("period", entries, "a list of tables ([[period]])")
    periods: list[Period] = []
    notes: dict[datetime.date, str] = {}
    for number, entry in enumerate(entries, 1):
        where = f"period {number}: "
        fields = dict(check_table(f"period {number}", entry))
        check_keys(where, fields, _PERIOD_KEYS)
        if "start" not in fields:
            raise ProfileError(f"{where}start is missing: expected a day such as 2025-01-01")
        grid = _carbon(where, fields)
        numbers = {
            key: check_number(where + key, fields[key], key) if key in fields else None
            for key in ("pue", "electricity_usd_per_kwh")
        }
        if grid is None and all(value is None for value in numbers.values()):
            raise ProfileError(f"{where}expected at least one of {', '.join(_PERIOD_KEYS[1:])}")
        start = _day(f"{where}start", fields["start"])
        periods.append(Period(start=start, carbon_g_per_kwh=grid[0] if grid else None, **numbers))
        notes[start] = f"from {start}: {(grid[1] if grid else '') or _OVERRIDE_SOURCE}"
    periods.sort(key=lambda period: period.start)
    for one, other in itertools.pairwise(periods):
        if one.start == other.start:
            raise ProfileError(f"period: start = {one.start} is there twice: expected one period for each start")
    return tuple(periods), "; ".join(notes[period.start] for period in periods)


def _day(where: str, value: object) -> datetime.date:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    if isinstance(value, str):
        try:
            return datetime.date.fromisoformat(value)
        except ValueError:
            pass
    raise wrong(where, value, "a day such as 2025-01-01")


def _sources(entry: object) -> dict[str, str]:
    fields = dict(check_table("sources", entry))
    check_keys("sources.", fields, _SOURCE_KEYS)
    return {key: check_text(f"sources.{key}", value, "text") for key, value in fields.items()}


def _gpu_watts(where: str, device: str, value: object) -> float:
    watts = check_number(where, value, "gpu_w")
    found = find_device(device)
    if found is not None and found.fraction != 1.0:
        raise wrong(where, value, f"the watts of the whole device, {found.name}; a slice gets its fraction of them")
    return watts
