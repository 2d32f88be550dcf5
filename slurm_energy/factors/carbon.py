"""Carbon intensity of electricity by country, region, eGRID subregion, U.S. state and energy source."""

from __future__ import annotations

import functools

import msgspec

from slurm_energy.factors.tables import read_table


class CarbonIntensity(msgspec.Struct, frozen=True):
    """Yearly mean of one grid.

    name:             the country, subregion or state
    g_co2e_per_kwh:   >= 0
    year:             the year that the figure is for
    source:           place, year, basis (life-cycle or direct: not comparable), source and date
    """

    name: str
    g_co2e_per_kwh: float
    year: int
    source: str


def _intensity(row: dict[str, str], label: str) -> CarbonIntensity:
    source = f"{label} {row['year']}, {row['basis']}: {row['source']}, {row['source_date']}"
    return CarbonIntensity(
        name=row["name"],
        g_co2e_per_kwh=float(row["g_co2e_per_kwh"]),
        year=int(row["year"]),
        source=f"{source} ({row['note']})" if row["note"] else source,
    )


@functools.cache
def _countries() -> dict[str, CarbonIntensity]:
    found: dict[str, CarbonIntensity] = {}
    for row in read_table("carbon_countries"):
        intensity = _intensity(row, row["name"])
        for key in (row["iso2"], row["iso3"], row["name"]):
            if key:
                found[key.casefold()] = intensity
    return found


@functools.cache
def _us(kind: str) -> dict[str, CarbonIntensity]:
    found: dict[str, CarbonIntensity] = {}
    for row in read_table("carbon_us"):
        if row["kind"] != kind:
            continue
        intensity = _intensity(row, f"{row['code']} ({row['name']})")
        for key in (row["code"].casefold(), row["name"].casefold()):
            if key not in found or found[key].year < intensity.year:
                found[key] = intensity
    return found


def country_intensity(name: str) -> CarbonIntensity | None:
    """Life-cycle intensity of a country (`DE`, `DEU`, `Germany`) or region (`World`, `EU`), newest year packaged.

    Ember, through Our World in Data or the Green Web Foundation, CC BY 4.0. None where the name is not known.
    """
    return _countries().get(name.strip().casefold())


def egrid_intensity(subregion: str) -> CarbonIntensity | None:
    """Direct (smokestack) intensity of an EPA eGRID subregion (`CAMX`), newest year packaged; None where not known."""
    return _us("subregion").get(subregion.strip().casefold())


def us_state_intensity(state: str) -> CarbonIntensity | None:
    """Direct (smokestack) intensity of a U.S. state (`CA`, `California`), EPA eGRID; None where not known."""
    return _us("state").get(state.strip().casefold())


def energy_source_factors() -> dict[str, float]:
    """Life-cycle g CO2e/kWh by energy source: medians of IPCC AR5 WG III annex III, table A.III.2; oil from UK POST."""
    return {row["energy_source"]: float(row["g_co2e_per_kwh"]) for row in read_table("energy_sources")}


def known_countries() -> list[str]:
    """Every name that `country_intensity` knows, in lower case."""
    return sorted(_countries())


def known_egrid_subregions() -> list[str]:
    """Every name that `egrid_intensity` knows, in lower case."""
    return sorted(_us("subregion"))


def known_us_states() -> list[str]:
    """Every name that `us_state_intensity` knows, in lower case."""
    return sorted(_us("state"))
