"""Energy at the wall, emissions and cost.

The equations are those of Strubell, Ganesh and McCallum, Energy and Policy Considerations for Deep Learning in NLP,
ACL 2019 (arXiv:1906.02243), unless a docstring says otherwise.

All that prices energy calls these functions, with numbers or with what stands for many of them: a column of a table, or
SQL (slurm_energy.accounting.sql). Ranges are checked where a number is given; what is in a table was checked on its way
in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, Protocol, TypeVar

EPA_LB_PER_KWH = 0.954
"""Mean CO2e of power consumed in the U.S., lb/kWh: EPA eGRID 2018, as used in Strubell et al. 2019, Eq. (2)."""

_ROUNDING_PCT = 0.5


class Quantity(Protocol):
    """What the equations compute with: a float, a column of numbers, or SQL for a number."""

    def __mul__(self: _Q, other: Any, /) -> _Q:
        """The product."""

    def __truediv__(self: _Q, other: Any, /) -> _Q:
        """The quotient."""


_Q = TypeVar("_Q", bound=Quantity)


def facility_energy_kwh(it_power_w: _Q, hours: _Q, pue: _Q) -> _Q:
    """Energy that the facility draws for a run, in kWh.

    Strubell et al. 2019, Eq. (1): p_t = PUE * t * (p_c + p_r + g * p_g) / 1000.

    it_power_w: mean power of all CPU sockets, DRAM and GPUs together, W, >= 0
    hours:      duration, h, >= 0
    pue:        facility energy / IT energy, >= 1
    Raises ValueError outside these ranges.
    """
    _at_least("it_power_w", it_power_w, 0)
    _at_least("hours", hours, 0)
    _at_least("pue", pue, 1)
    return pue * hours * it_power_w / 1000


def facility_from_it_kwh(it_kwh: _Q, pue: _Q) -> _Q:
    """Energy that the facility draws where the IT energy is known, in kWh: the PUE part of Eq. (1).

    it_kwh: energy of CPU sockets, DRAM and GPUs (or of the node at its wall plug), kWh, >= 0
    pue:    facility energy / IT energy, >= 1
    Raises ValueError outside these ranges.
    """
    _at_least("it_kwh", it_kwh, 0)
    _at_least("pue", pue, 1)
    return pue * it_kwh


def rated_energy_kwh(watts: _Q, hours: _Q) -> _Q:
    """Estimate of IT energy where nothing was measured, in kWh: rated power times time, without PUE.

    Devices rarely draw their rated power all the time, so this is on the high side for most jobs.

    watts: rated power of what the job held, W, >= 0
    hours: duration, h, >= 0
    Raises ValueError outside these ranges.
    """
    _at_least("watts", watts, 0)
    _at_least("hours", hours, 0)
    return watts * hours / 1000


def emissions_lb(facility_kwh: float, lb_per_kwh: float = EPA_LB_PER_KWH) -> float:
    """Operational emissions in pounds of CO2e.

    Strubell et al. 2019, Eq. (2): co2e = 0.954 * p_t.

    facility_kwh: energy with PUE, kWh, >= 0
    lb_per_kwh:   carbon intensity of the electricity, lb/kWh, >= 0
    Raises ValueError outside these ranges.
    """
    _at_least("facility_kwh", facility_kwh, 0)
    _at_least("lb_per_kwh", lb_per_kwh, 0)
    return lb_per_kwh * facility_kwh


def emissions_g(facility_kwh: _Q, g_per_kwh: _Q) -> _Q:
    """Operational emissions in grams of CO2e: Eq. (2) with the intensity in metric units.

    facility_kwh: energy with PUE, kWh, >= 0
    g_per_kwh:    carbon intensity of the electricity, g/kWh, >= 0
    Raises ValueError outside these ranges.
    """
    _at_least("facility_kwh", facility_kwh, 0)
    _at_least("g_per_kwh", g_per_kwh, 0)
    return g_per_kwh * facility_kwh


def electricity_usd(facility_kwh: _Q, usd_per_kwh: _Q) -> _Q:
    """Cost of the electricity in USD, on the facility's energy, that is, with PUE (Strubell et al. 2019, Table 4).

    facility_kwh: kWh, >= 0
    usd_per_kwh:  USD/kWh, >= 0
    Raises ValueError outside these ranges.
    """
    _at_least("facility_kwh", facility_kwh, 0)
    _at_least("usd_per_kwh", usd_per_kwh, 0)
    return usd_per_kwh * facility_kwh


def cloud_usd(device_hours: _Q, usd_per_device_hour: _Q) -> _Q:
    """What the same device-hours would have cost in a cloud, in USD (Strubell et al. 2019, Tables 3 and 4).

    device_hours:        devices times duration, h, >= 0
    usd_per_device_hour: USD/h, >= 0; the paper takes the pre-emptible price as low, the on-demand price as high
    Raises ValueError outside these ranges.
    """
    _at_least("device_hours", device_hours, 0)
    _at_least("usd_per_device_hour", usd_per_device_hour, 0)
    return device_hours * usd_per_device_hour


def carbon_intensity_of_mix(
    shares_pct: Mapping[str, float], factors_g: Mapping[str, float], other_g: float | None = None
) -> float:
    """Carbon intensity of an energy mix, in g CO2e/kWh: the mean of its sources' factors, weighted by share.

    Shares often sum to less than 100, for small sources are left out of the table. With `other_g` None the remainder
    is taken to emit like the named sources do on average: the result is the weighted sum divided by the sum of the
    shares. With `other_g` given, the remainder counts at that intensity. Shares that sum to a little more than 100, up
    to 100.5, are taken as rounded figures: there is no remainder then and the weighted sum is divided by their sum.

    shares_pct: share of each source, %, each >= 0, together > 0 (>= 0 with other_g) and <= 100.5
    factors_g:  g CO2e/kWh of each source named in shares_pct, >= 0; IPCC AR5 WG III annex III has life-cycle medians
    other_g:    g CO2e/kWh of the remainder, >= 0
    Raises ValueError outside these ranges or where a source has no factor.
    """
    total = 0.0
    weighted = 0.0
    for source, share in shares_pct.items():
        if source not in factors_g:
            raise ValueError(f"no carbon factor for the energy source {source!r}")
        _at_least(f"shares_pct[{source!r}]", share, 0)
        _at_least(f"factors_g[{source!r}]", factors_g[source], 0)
        total += share
        weighted += share * factors_g[source]
    if total > 100 + _ROUNDING_PCT:
        raise ValueError(f"shares_pct sum to {total:g}: expected at most 100")
    if other_g is not None:
        _at_least("other_g", other_g, 0)
        rest = max(0.0, 100 - total)
        return (weighted + rest * other_g) / (total + rest)
    if total <= 0:
        raise ValueError(f"shares_pct sum to {total:g}: expected more than 0")
    return weighted / total


def _at_least(name: str, value: object, least: float) -> None:
    if isinstance(value, Real) and not (math.isfinite(value) and float(value) >= least):
        raise ValueError(f"{name} = {value!r}: expected a finite number of at least {least:g}")
