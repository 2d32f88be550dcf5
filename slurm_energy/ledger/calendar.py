"""Days as the ledger's statements count them: whole numbers from 1970-01-01 on."""

from __future__ import annotations

from datetime import date, timedelta

_FIRST = date(1970, 1, 1)


def day_number(day: date) -> int:
    """How many days after 1970-01-01."""
    return (day - _FIRST).days


def date_of(number: int) -> date:
    """The day that is so many days after 1970-01-01: day_number() back."""
    return _FIRST + timedelta(days=number)
