"""Settings laid over one another, a site's table over a packaged file, and the profile that comes of them."""

from __future__ import annotations

import datetime
import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from slurm_energy.factors.carbon import CARBON_KEYS, intensity_of
from slurm_energy.factors.checks import (
    ProfileError,
    as_toml,
    check_keys,
    check_number,
    check_table,
    check_text,
    near_match,
    wrong,
)
from slurm_energy.factors.cpus import CPU_KEYS, EXPECTED, core_watts
from slurm_energy.factors.devices import squeeze
from slurm_energy.factors.prices import SITE_SOURCE, prices_of
from slurm_energy.factors.profile import NUMBERS, Period, Profile, check_gpu_watts

_PROFILES = Path(__file__).parent / "profiles"

_OPTIONAL = ("any_gpu_w", "unknown_gpu_w", "unknown_gpu_priced_as")
_NONE = "none"
_TABLES = ("gpu_w", "cloud", "sources")
_PERIOD_KEYS = ("start", "pue", *CARBON_KEYS, "electricity_usd_per_kwh")
_PRICE_KEYS = ("low_usd_per_h", "high_usd_per_h", "devices", "source")
KEYS = (
    *dict.fromkeys((*NUMBERS, *CARBON_KEYS, *CPU_KEYS)),
    "unknown_gpu_priced_as",
    "packaged_cloud_prices",
    *_TABLES,
    "period",
)
"""Every key that a profile may have."""
_SOURCE_KEYS = (*NUMBERS, "gpu_w", "cloud", "unknown_gpu_priced_as", "period")


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
        cloud = prices_of(self.cloud, packaged=values.pop("packaged_cloud_prices", False))
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
    return _read(msgspec.toml.decode((_PROFILES / f"{name}.toml").read_bytes()))


def _read(table: Mapping[str, object]) -> _Layer:
    check_keys("", table, KEYS)
    values: dict[str, Any] = {}
    derived: dict[str, str] = {}
    for key in NUMBERS:
        if key in table and key not in CARBON_KEYS and key not in CPU_KEYS:
            values[key] = None if key in _OPTIONAL and table[key] == _NONE else check_number(key, table[key], key)
    if (grid := intensity_of("", table)) is not None:
        values["carbon_g_per_kwh"], derived["carbon_g_per_kwh"] = grid
    if (cpu := _core_watts(table)) is not None:
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
        device: check_gpu_watts(f"gpu_w.{device}", device, watts)
        for device, watts in check_table("gpu_w", table.get("gpu_w", {}))
    }
    cloud = {device: _cloud(device, entry) for device, entry in check_table("cloud", table.get("cloud", {}))}
    periods = None
    if "period" in table:
        periods, derived["period"] = _periods(table["period"])
    sources = _sources(table.get("sources", {}))
    for key in (*values, *derived):
        if key in _SOURCE_KEYS:
            sources.setdefault(key, derived.get(key) or SITE_SOURCE)
    return _Layer(values, gpu_w, cloud, periods, sources)


def _merge(base: _Layer, own: _Layer) -> _Layer:
    """The site's layer over the packaged one; both are left as they are."""
    cloud = {device: dict(entry) for device, entry in base.cloud.items()}
    spelled = {squeeze(device): device for device in cloud}
    for device, entry in own.cloud.items():
        key = spelled.get(squeeze(device), device)
        merged = {**cloud.get(key, {}), **entry}
        if "source" not in entry:
            merged["source"] = SITE_SOURCE
        cloud[key] = merged
    sources = {**base.sources, **own.sources}
    for key, named in (("gpu_w", own.gpu_w), ("cloud", own.cloud)):
        if named and key not in own.sources:
            added = f"{SITE_SOURCE}: {', '.join(named)}"
            sources[key] = f"{base.sources[key]}; {added}" if key in base.sources else added
    return _Layer(
        values={**base.values, **own.values},
        gpu_w={**base.gpu_w, **own.gpu_w},
        cloud=cloud,
        periods=base.periods if own.periods is None else own.periods,
        sources=sources,
    )


def _core_watts(table: Mapping[str, object]) -> tuple[float, str] | None:
    """Watts by core and where they are from, of a table that may give them or name a processor."""
    if "cpu" not in table:
        return (check_number("cpu_core_w", table["cpu_core_w"], "cpu_core_w"), "") if "cpu_core_w" in table else None
    if "cpu_core_w" in table:
        raise ProfileError("cpu and cpu_core_w: expected only one of them")
    return core_watts(check_text("cpu", table["cpu"], EXPECTED))


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
        grid = intensity_of(where, fields)
        numbers = {
            key: check_number(where + key, fields[key], key) if key in fields else None
            for key in ("pue", "electricity_usd_per_kwh")
        }
        if grid is None and all(value is None for value in numbers.values()):
            raise ProfileError(f"{where}expected at least one of {', '.join(_PERIOD_KEYS[1:])}")
        start = _day(f"{where}start", fields["start"])
        periods.append(Period(start=start, carbon_g_per_kwh=grid[0] if grid else None, **numbers))
        notes[start] = f"from {start}: {(grid[1] if grid else '') or SITE_SOURCE}"
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
