"""Checks of what a profile's tables say, and the one error that they raise."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping


class ProfileError(ValueError):
    """A profile cannot be used; the message names the key, its value and what was expected."""


# What is expected of a number, and its least value.
RANGES: dict[str, tuple[float, str]] = {
    "pue": (1, "a number of at least 1 (facility / IT energy)"),
    "carbon_g_per_kwh": (0, "a number of at least 0 (g CO2e/kWh)"),
    "carbon_lb_per_kwh": (0, "a number of at least 0 (lb CO2e/kWh)"),
    "electricity_usd_per_kwh": (0, "a number of at least 0 (USD/kWh)"),
    "cpu_core_w": (0, "a number of at least 0 (W)"),
    "dram_w_per_gb": (0, "a number of at least 0 (W/GB)"),
    "any_gpu_w": (0, "a number of at least 0 (W)"),
    "unknown_gpu_w": (0, "a number of at least 0 (W)"),
    "gpu_w": (0, "a number of at least 0 (W)"),
    "cpu_core_low_usd_per_h": (0, "a number of at least 0 (USD/h)"),
    "cpu_core_high_usd_per_h": (0, "a number of at least 0 (USD/h)"),
    "low_usd_per_h": (0, "a number of at least 0 (USD/h)"),
    "high_usd_per_h": (0, "a number of at least 0 (USD/h)"),
    "own_gpu_usd": (0, "a number of at least 0 (USD)"),
}


def check_number(where: str, value: object, key: str = "") -> float:
    """The value as a float within the range of `key` (by default the last part of `where`); else ProfileError."""
    least, expected = RANGES[key or where.rpartition(".")[2]]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < least:
        raise wrong(where, value, expected)
    return float(value)


def check_text(where: str, value: object, expected: str) -> str:
    """The value where it is a string; else ProfileError."""
    if not isinstance(value, str):
        raise wrong(where, value, expected)
    return value


def check_table(where: str, value: object) -> Iterable[tuple[str, object]]:
    """Key and value pairs of a table; ProfileError where it is none."""
    if not isinstance(value, Mapping):
        raise wrong(where, value, "a table")
    return value.items()


def check_keys(where: str, table: Mapping[str, object], known: Iterable[str]) -> None:
    """ProfileError where the table has a key that is not known, with the nearest one that is."""
    names = list(known)
    for key in table:
        if key not in names:
            near = near_match(str(key), names) or f"; known are {', '.join(names)}"
            raise ProfileError(f"{where}{key}: unknown key{near}")


def check_order(where: str, key: str, low: float, high: float) -> None:
    """ProfileError where the high price is below the low one."""
    if high < low:
        raise wrong(where + key, high, f"at least the low price, {low!r}")


def near_match(name: str, names: Iterable[str]) -> str:
    """A hint at the name that was probably meant, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def as_toml(value: object) -> str:
    """The value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def wrong(where: str, value: object, expected: str) -> ProfileError:
    """The error that names key, value and what was expected."""
    return ProfileError(f"{where} = {as_toml(value)}: expected {expected}")
