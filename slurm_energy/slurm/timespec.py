"""Times as sacct's -S and -E take them (sacct(1), TIME FORMATS)."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_NAMED = {"midnight": time(0), "elevenses": time(11), "noon": time(12), "fika": time(15), "teatime": time(16)}
_NOW = re.compile(r"now(?:([+-])(\d+)\s*(second|minute|hour|day|week)?s?)?", re.IGNORECASE)
_ISO = re.compile(r"(\d{4})-(\d\d)(?:-(\d\d))?(?:[T ](\d\d):(\d\d)(?::(\d\d))?(?:\.\d+)?)?")
_US = re.compile(r"(\d\d)[/.](\d\d)(?:[/.](\d\d))?(?:-(.+))?")
_PACKED = re.compile(r"(\d\d)(\d\d)(\d\d)?(?:-(.+))?")
_CLOCK = re.compile(r"(\d\d?):(\d\d)(?::(\d\d))?\s*(am|pm)?", re.IGNORECASE)


def parse_time(text: str, now: datetime) -> datetime:
    """The moment that `text` means, in the time zone of `now` (which must have one).

    Takes what sacct takes: HH:MM[:SS] [AM|PM], MMDD[YY], MM/DD[/YY], MM.DD[.YY] (each with -HH:MM[:SS]),
    YYYY-MM[-DD[THH:MM[:SS]]], today, tomorrow, yesterday, midnight, noon, fika (15:00), teatime (16:00),
    now[{+|-}count[seconds|minutes|hours|days|weeks]], and epoch seconds as `uts=N`. A date without a year is of this
    year. Raises ValueError with the forms that are understood.
    """
    word = text.strip()
    try:
        moment = _parse(word, now)
    except ValueError:
        moment = None
    if moment is None:
        raise ValueError(
            f"{text!r} is not a time that sacct would take; write 2026-11-24, 2026-11-24T13:00, 11/24, now-7days or today"
        )
    return moment


def _parse(word: str, now: datetime) -> datetime | None:
    low = word.lower()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if low.startswith("uts=") and low[4:].isdigit():
        return datetime.fromtimestamp(int(low[4:]), now.tzinfo)
    shifts = {"today": 0, "yesterday": -1, "tomorrow": 1}
    if low in shifts:
        return midnight + timedelta(days=shifts[low])
    if low in _NAMED:
        return _at(midnight, _NAMED[low])
    if match := _NOW.fullmatch(low):
        sign, count, unit = match.groups()
        seconds = int(count or 0) * _UNITS[(unit or "second")[0]]
        # Arithmetic on the time line, not on the clock on the wall: now-24hours is 24 hours ago in March, too.
        return datetime.fromtimestamp(now.timestamp() + (-seconds if sign == "-" else seconds), now.tzinfo)
    if match := _ISO.fullmatch(word):
        year, month, day, hour, minute, second = (int(group) if group else None for group in match.groups())
        return midnight.replace(
            year=year or now.year,
            month=month or 1,
            day=day or 1,
            hour=hour or 0,
            minute=minute or 0,
            second=second or 0,
        )
    for pattern in (_US, _PACKED):
        if match := pattern.fullmatch(word):
            month_, day_, year_, clock = match.groups()
            date = midnight.replace(
                year=2000 + int(year_) if year_ else now.year, month=int(month_), day=int(day_)
            )  # fmt: skip
            return _at(date, _clock(clock)) if clock else date
    return _at(midnight, _clock(word))


def _clock(text: str) -> time:
    match = _CLOCK.fullmatch(text.strip())
    if not match:
        raise ValueError(text)
    hour, minute, second, half = match.groups()
    hours = int(hour)
    if half:
        if not 1 <= hours <= 12:
            raise ValueError(text)
        hours = hours % 12 + (12 if half.lower() == "pm" else 0)
    return time(hours, int(minute), int(second or 0))


def _at(date: datetime, clock: time) -> datetime:
    return date.replace(hour=clock.hour, minute=clock.minute, second=clock.second)
