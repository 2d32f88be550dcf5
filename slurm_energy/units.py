"""Units: joules, kWh, grams and pounds of CO2e, USD, hours; what one is of another, and text for people."""

from __future__ import annotations

import math

LB_G = 453.59237
"""Grams in one avoirdupois pound, exact by the international yard and pound agreement of 1959."""

J_PER_KWH = 3_600_000.0
"""Joules in one kilowatt-hour, exact."""

UJ_PER_KWH = 3.6e12
"""Microjoules, the unit of the hardware counters, in one kilowatt-hour, exact."""

SECONDS_PER_HOUR = 3600.0
SECONDS_PER_DAY = 86_400.0


def format_kwh(kwh: float) -> str:
    """Energy as people read it, three significant digits: `0.034 kWh`, `118 kWh`, `82.3 MWh`, `1.20 GWh`.

    kwh: any sign. Raises ValueError where it is no finite number.
    """
    return _scaled(kwh, (("GWh", 1e6), ("MWh", 1e3), ("kWh", 1.0)))


def format_co2e(grams: float) -> str:
    """Mass of CO2e as people read it, three significant digits: `4.31 g`, `17.7 kg`, `35.6 t`, `12,300 t`.

    grams: any sign. Raises ValueError where it is no finite number.
    """
    return _scaled(grams, (("t", 1e6), ("kg", 1e3), ("g", 1.0)))


def format_usd(usd: float) -> str:
    """Money as people read it: `0.0042 USD`, `5.14 USD`, `9,870 USD`.

    Whole dollars from 100 on, cents below, three significant digits below a cent. usd: any sign. Raises ValueError
    where it is no finite number.
    """
    _check_finite(usd)
    if abs(usd) >= 99.995:
        return f"{_without_minus_zero(usd, 0)} USD"
    if usd == 0 or abs(usd) >= 0.01:
        return f"{_without_minus_zero(usd, 2)} USD"
    return f"{_three_digits(usd)} USD"


def format_hours(hours: float) -> str:
    """Hours with three significant digits, or thousands separators from 100 on: `0.05 h`, `1.50 h`, `239,942 h`.

    hours: any sign. Raises ValueError where it is no finite number.
    """
    _check_finite(hours)
    return f"{_three_digits(hours)} h"


def format_duration(seconds: float) -> str:
    """A span of time in its natural unit: `45 s`, `3 min`, `52.0 h`, `9.0 d`, `9,998 d`.

    Hours up to three days, for job lengths are thought of in hours. seconds: any sign. Raises ValueError where it is
    no finite number.
    """
    _check_finite(seconds)
    size = abs(seconds)
    if size < 59.5:
        return f"{_without_minus_zero(seconds, 0)} s"
    if size < 59.5 * 60:
        return f"{seconds / 60:.0f} min"
    if size < 71.95 * SECONDS_PER_HOUR:
        return f"{seconds / SECONDS_PER_HOUR:.1f} h"
    if size < 99.95 * SECONDS_PER_DAY:
        return f"{seconds / SECONDS_PER_DAY:.1f} d"
    return f"{seconds / SECONDS_PER_DAY:,.0f} d"


def _check_finite(value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{value!r}: expected a finite number")


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    """The largest unit in which the value, rounded to three digits, is at least one; else the smallest."""
    _check_finite(value)
    rounded = float(f"{value:.3g}")
    for name, size in units[:-1]:
        if abs(rounded) >= size:
            return f"{_three_digits(value / size)} {name}"
    name, size = units[-1]
    return f"{_three_digits(value / size)} {name}"


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    # Rounding first: 9.999 has one digit before the point, 10.0 has two.
    digits_before_point = math.floor(math.log10(abs(float(f"{value:.3g}")))) + 1
    text = f"{value:,.{max(0, 3 - digits_before_point)}f}"
    return text.rstrip("0") if digits_before_point <= 0 else text


def _without_minus_zero(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    return text if text.strip("-0.,") else text.lstrip("-")
