"""Numbers as the tables show them: nothing that is there turns into 0, nothing that is not known into a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slurm_energy.units import format_hours

UNKNOWN = "-"
FIGURES = {
    "jobs": "Jobs", "gpu_hours": "GPU-h", "cpu_hours": "CPU-h", "facility_kwh": "Energy", "co2e_kg": "CO2e",
    "electricity_usd": "Electr.\nUSD", "cloud_low_usd": "Cloud\nlow USD", "cloud_high_usd": "Cloud\nhigh USD",
}  # fmt: skip
"""The totals that the table of groups has, and their headers."""


def number(value: float) -> str:
    """Counts whole, other numbers with three significant digits below 100; thousands separators."""
    if isinstance(value, int):
        return f"{value:,}"
    return format_hours(value).removesuffix(" h")


def column(values: Sequence[float | None]) -> list[str]:
    """A column of a table as the paper prints it, whole; with three digits where that would hide small use."""
    known = [abs(value) for value in values if value]
    whole = bool(known) and max(known) >= 100 and min(known) >= 1
    return [UNKNOWN if value is None else f"{value:,.0f}" if whole else number(float(value)) for value in values]


def plural(count: int, word: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def percent(share: float) -> str:
    """A share with one decimal; what is there is not 0, what lacks something is not all."""
    text = f"{100 * share:.1f}"
    if text == "0.0" and share > 0:
        text = "< 0.1"
    elif text == "100.0" and share < 1 - 1e-9:
        text = "> 99.9"
    return f"{text} %"


def shares(provenance: dict[str, float]) -> str:
    """`40.0 % measured, 60.0 % estimated`; '' where there is no energy."""
    return ", ".join(f"{percent(share)} {name}" for name, share in provenance.items() if share)


def covered(row: dict[str, Any]) -> str:
    """How much of the node time agents saw, where they saw some of it or a part of the energy is measured."""
    share = row["coverage"]
    if share is None or not (share or row["provenance"]["measured"]):
        return ""
    return f"{percent(share)} of the node time"


def priced(row: dict[str, Any], texts: str) -> str:
    """A cloud price: unknown where nothing has one, a lower bound where only a part has."""
    if row["cloud_price"] == "none":
        return UNKNOWN
    return f">={texts}" if row["cloud_price"] == "part" else texts


def several(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""
