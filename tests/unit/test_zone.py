"""The site's clock as a tree of dates, against the zone database itself."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pytest
from helpers import DAY, epoch
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_energy.slurm.zone import changes, local_midnights, offset_sql, twice_sql, zone

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe",
    "America/St_Johns", "America/Havana", "America/Sao_Paulo", "Pacific/Apia", "Africa/Casablanca",
)  # fmt: skip
EPOCH = date(1970, 1, 1)


def ask(sql: str, moments: list[int]) -> list[object]:
    """A SQL expression over `t` at each of these."""
    values = ", ".join(f"({number}, {moment}::BIGINT)" for number, moment in enumerate(moments))
    return [one for (one,) in duckdb.sql(f"SELECT {sql} FROM (VALUES {values}) v(n, t) ORDER BY n").fetchall()]


def offset(moment: int, site: ZoneInfo) -> int:
    found = datetime.fromtimestamp(moment, site).utcoffset()
    assert found is not None
    return int(found.total_seconds())


def test_berlin_changes_twice_a_year_at_one_in_the_morning_utc() -> None:
    found = [
        change for change in changes(zone("Europe/Berlin"))[1] if epoch("2026-01-01") <= change.at < epoch("2027-01-01")
    ]
    assert found == [(epoch("2026-03-29T01:00:00"), 3600, 7200), (epoch("2026-10-25T01:00:00"), 7200, 3600)]


@pytest.mark.parametrize("name", ZONES)
def test_the_offset_of_an_epoch_second_is_the_zone_database_s_around_every_change(name: str) -> None:
    site = zone(name)
    moments = [change.at + near for change in changes(site)[1] for near in (-1, 0, 1)] or [epoch("2026-01-01")]
    moments += list(range(epoch("1990-01-02"), epoch("2099-12-31"), 97 * DAY + 12_345))
    assert ask(offset_sql(site, "t", wall=False), moments) == [offset(moment, site) for moment in moments]


@pytest.mark.parametrize("name", ZONES)
def test_a_second_on_the_wall_is_the_first_that_shows_it(name: str) -> None:
    site = zone(name)
    moments = [change.at + near for change in changes(site)[1] for near in (-7201, -3600, -1, 0, 1, 3599, 3600, 7200)]
    moments.append(epoch("2026-11-24T12:00:00"))
    walls = [moment + offset(moment, site) for moment in moments]
    first = [
        round((datetime(1970, 1, 1) + timedelta(seconds=second)).replace(tzinfo=site, fold=0).timestamp())
        for second in walls
    ]
    found = ask(offset_sql(site, "t", wall=True), walls)
    assert [second - int(str(off)) for second, off in zip(walls, found, strict=True)] == first


@pytest.mark.parametrize("name", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_seconds_that_come_twice_on_the_wall_are_known(name: str) -> None:
    site = zone(name)
    folds = [change for change in changes(site)[1] if change.after < change.before]
    moments = [fold.at + near for fold in folds for near in (-3601, -1800, -1, 0, 1)]
    ambiguous = []
    for moment in moments:
        local = datetime.fromtimestamp(moment, site)
        ambiguous.append(local.fold == 0 and local.utcoffset() != local.replace(fold=1).utcoffset())
    assert ask(twice_sql(site, "t"), moments) == ambiguous
    assert any(ambiguous)


def test_a_zone_without_clock_changes_has_no_second_twice() -> None:
    assert twice_sql(zone("UTC"), "t") == ""
    assert twice_sql(zone("Asia/Kolkata"), "t") == ""
    assert ask(offset_sql(zone("Asia/Kolkata"), "t", wall=True), [0, epoch("2026-07-01")]) == [19_800, 19_800]


def lengths(site: str, first: str, count: int) -> list[int]:
    day = (date.fromisoformat(first) - EPOCH).days
    midnights = local_midnights(zone(site), day, day + count - 1)
    return [(after - before) // 60 for before, after in pairwise(midnights)]


def test_days_are_as_long_as_the_clock_makes_them() -> None:
    assert lengths("Europe/Berlin", "2026-03-28", 3) == [24 * 60, 23 * 60, 24 * 60]
    assert lengths("Europe/Berlin", "2026-10-24", 3) == [24 * 60, 25 * 60, 24 * 60]
    assert lengths("America/New_York", "2026-03-08", 1) == [23 * 60]
    assert lengths("America/New_York", "2026-11-01", 1) == [25 * 60]
    assert lengths("Australia/Lord_Howe", "2026-04-05", 1) == [24 * 60 + 30]
    assert lengths("Asia/Kolkata", "2026-03-29", 2) == [24 * 60, 24 * 60]
    assert lengths("Pacific/Apia", "2011-12-29", 3) == [24 * 60, 0, 24 * 60]  # the day that Samoa left out


def test_midnight_is_the_site_s() -> None:
    day = (date(2026, 11, 24) - EPOCH).days
    assert local_midnights(zone("Asia/Kolkata"), day, day)[0] == epoch("2026-11-23T18:30:00")


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(ZONES), st.integers(epoch("1990-01-02"), epoch("2099-12-01")))
def test_the_day_of_a_second_lies_between_its_midnights(name: str, moment: int) -> None:
    site = zone(name)
    day = (moment + offset(moment, site)) // DAY
    begin, end = local_midnights(site, day, day)
    assert begin <= moment < end


@pytest.mark.parametrize("name", ["Europe/Atlantis", "../../etc/passwd", "\0", "Europe", "europe berlin"])
def test_a_name_that_no_zone_has_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone; write one like Europe/Berlin"):
        zone(name)


def test_no_name_is_the_system_s_own_zone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    assert zone("").key == "America/New_York"
    monkeypatch.setenv("TZ", ":Asia/Kolkata")
    assert zone("").key == "Asia/Kolkata"
    monkeypatch.setenv("TZ", str(tmp_path / "gone"))
    assert zone("").key == "UTC"


def test_a_system_zone_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Nowhere/Land")
    with pytest.raises(ValueError, match=r"TZ = 'Nowhere/Land'. is not a time zone"):
        zone("")
