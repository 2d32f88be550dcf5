"""Times of -S and -E, as sacct(1) lists them."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_energy.slurm.timespec import parse_time

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 24, 13, 45, 30, 250_000, BERLIN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-01", "2026-11-01T00:00:00"),
        ("2026-11", "2026-11-01T00:00:00"),
        ("2026-11-01T08:05", "2026-11-01T08:05:00"),
        ("2026-11-01T08:05:09", "2026-11-01T08:05:09"),
        ("2026-11-01 08:05:09", "2026-11-01T08:05:09"),
        ("1101", "2026-11-01T00:00:00"),
        ("110125", "2025-11-01T00:00:00"),
        ("11/01", "2026-11-01T00:00:00"),
        ("11/01/25", "2025-11-01T00:00:00"),
        ("11.01.25", "2025-11-01T00:00:00"),
        ("11/01/25-14:30", "2025-11-01T14:30:00"),
        ("1101-14:30:05", "2026-11-01T14:30:05"),
        ("16:00", "2026-11-24T16:00:00"),
        ("16:00:01", "2026-11-24T16:00:01"),
        ("4:00pm", "2026-11-24T16:00:00"),
        ("4:00 PM", "2026-11-24T16:00:00"),
        ("12:30am", "2026-11-24T00:30:00"),
        ("12:30PM", "2026-11-24T12:30:00"),
        ("midnight", "2026-11-24T00:00:00"),
        ("elevenses", "2026-11-24T11:00:00"),
        ("noon", "2026-11-24T12:00:00"),
        ("fika", "2026-11-24T15:00:00"),
        ("Teatime", "2026-11-24T16:00:00"),
        ("today", "2026-11-24T00:00:00"),
        ("yesterday", "2026-11-23T00:00:00"),
        ("tomorrow", "2026-11-25T00:00:00"),
        (" TODAY ", "2026-11-24T00:00:00"),
        ("02/29/24", "2024-02-29T00:00:00"),
    ],
)
def test_every_form_of_sacct_is_understood(text: str, expected: str) -> None:
    assert parse_time(text, NOW) == datetime.fromisoformat(expected).replace(tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("now", 0), ("now-90", -90), ("now+90seconds", 90), ("now-5minutes", -300), ("now-1hour", -3600),
        ("now-2days", -172_800), ("now+1week", 604_800), ("NOW-1WEEKS", -604_800),
    ],
)  # fmt: skip
def test_now_and_a_distance(text: str, seconds: int) -> None:
    assert parse_time(text, NOW).timestamp() == pytest.approx(NOW.timestamp() + seconds)


def test_epoch_seconds_are_taken_with_their_prefix() -> None:
    assert parse_time("uts=1795521600", NOW).timestamp() == 1_795_521_600


@pytest.mark.parametrize(
    "text",
    ["", "soon", "2026-13-01", "2026-02-30", "13/01", "02/29", "25:00", "13:00pm", "0:30am", "now-1month", "now+-1", "uts=",
     "2026-11-01T", "1", "123", "today-1", "11/01/2026"],
)  # fmt: skip
def test_what_sacct_does_not_take_is_refused_with_the_forms_that_it_does(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time that sacct would take; write 2026-11-24"):
        parse_time(text, NOW)


def test_24_hours_ago_is_24_hours_ago_on_the_day_of_a_clock_change() -> None:
    now = datetime(2026, 3, 29, 12, tzinfo=BERLIN)  # at 02:00 this day became 03:00
    assert parse_time("now-24hours", now).isoformat() == "2026-03-28T11:00:00+01:00"


def test_a_date_beyond_a_clock_change_is_midnight_on_the_wall_there() -> None:
    assert parse_time("2026-07-01", NOW).isoformat() == "2026-07-01T00:00:00+02:00"
    assert parse_time("yesterday", datetime(2026, 10, 26, 1, tzinfo=BERLIN)).isoformat() == "2026-10-25T00:00:00+02:00"


def test_the_second_of_an_hour_that_comes_twice_does_not_leak_into_midnight() -> None:
    twice = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)
    assert parse_time("today", twice).isoformat() == "2026-10-25T00:00:00+02:00"


@given(st.datetimes(datetime(1990, 1, 1), datetime(2099, 12, 31)))
def test_an_iso_time_comes_back_as_it_was_written(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    assert parse_time(moment.isoformat(), NOW).replace(tzinfo=None) == moment


@given(st.text(max_size=20))
def test_any_text_gives_a_time_in_the_site_s_zone_or_a_value_error(text: str) -> None:
    try:
        moment = parse_time(text, NOW)
    except ValueError:
        return
    assert moment.utcoffset() in (timedelta(hours=1), timedelta(hours=2))
