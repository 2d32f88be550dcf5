"""The equations on SQL: text that stands for a number, with which slurm_energy.accounting.equations compute as with one.

So the statement that prices a report, and the one that prices a row of idle energy, are written by the functions that
the documentation shows.
"""

from __future__ import annotations

from slurm_energy.accounting.equations import emissions_g, facility_from_it_kwh


class Sql:
    """SQL for a number. What is computed from it is SQL again, each operand in brackets: the order is kept."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return f"({self._text})"

    def __mul__(self, other: Sql | float, /) -> Sql:
        return Sql(f"{self} * {_operand(other)}")

    def __truediv__(self, other: Sql | float, /) -> Sql:
        return Sql(f"{self} / {_operand(other)}")

    def __sub__(self, other: Sql | float, /) -> Sql:
        return Sql(f"{self} - {_operand(other)}")


def _operand(value: Sql | float) -> str:
    return str(value) if isinstance(value, Sql) else f"{float(value)!r}::DOUBLE"


def derived_columns(pue: str = "pue", carbon_g_per_kwh: str = "carbon_g_per_kwh") -> str:
    """SQL for the columns of a ledger row that follow from others: estimated_kwh, facility_kwh, co2e_g.

    Quicker than to read them, and bit by bit what the aggregator wrote. Where SQL for other factors is given, what the
    row's energy is under those.
    """
    it_kwh = Sql("it_kwh")
    facility = facility_from_it_kwh(it_kwh, Sql(pue))
    estimated = it_kwh - Sql("measured_kwh") - Sql("slurm_kwh")
    co2e = emissions_g(facility, Sql(carbon_g_per_kwh))
    return f"{estimated} AS estimated_kwh, {facility} AS facility_kwh, {co2e} AS co2e_g"
