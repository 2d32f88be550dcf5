"""Carbon intensity of electricity: as a number, or by country, region, eGRID subregion and U.S. state."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import msgspec

from slurm_energy.factors.checks import ProfileError, as_toml, check_number, check_text, near_match
from slurm_energy.factors.tables import read_table
from slurm_energy.units import LB_G

CARBON_KEYS = ("carbon_g_per_kwh", "carbon_lb_per_kwh", "country", "egrid", "us_state")
"""Keys that give a carbon intensity, each in another way."""


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


def known_countries() -> list[str]:
    """Every name that `country_intensity` knows, in lower case."""
    return sorted(_countries())


def known_egrid_subregions() -> list[str]:
    """Every name that `egrid_intensity` knows, in lower case."""
    return sorted(_us("subregion"))


def known_us_states() -> list[str]:
    """Every name that `us_state_intensity` knows, in lower case."""
    return sorted(_us("state"))


_GRIDS: dict[str, tuple[Callable[[str], CarbonIntensity | None], Callable[[], list[str]], str]] = {
    "country": (country_intensity, known_countries, 'a country\'s ISO code or English name, or "World"'),
    "egrid": (egrid_intensity, known_egrid_subregions, "an EPA eGRID subregion such as CAMX"),
    "us_state": (us_state_intensity, known_us_states, "a U.S. state such as CA"),
}


def intensity_of(where: str, table: Mapping[str, object]) -> tuple[float, str] | None:
    """Intensity in g/kWh and where it is from, of a table that may say it in one of five ways."""
    given = [key for key in CARBON_KEYS if key in table]
    if not given:
        return None
    if len(given) > 1:
        raise ProfileError(f"{where}{' and '.join(given)}: expected only one of {', '.join(CARBON_KEYS)}")
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
