"""The site's time zone as the few dates on which its clock changes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_FIRST, _LAST, _STEP = 631152000, 4102444800, 7 * 86400  # 1990 to 2100, a look a week


class Change(NamedTuple):
    """At this moment (epoch seconds) the clock goes from one offset to UTC (seconds) to another."""

    at: int
    before: int
    after: int


def zone(name: str) -> ZoneInfo:
    """The named zone; '' for the system's own. Raises ValueError for a name that no zone has."""
    try:
        return ZoneInfo(name) if name else _system_zone()
    except (ZoneInfoNotFoundError, ValueError, IsADirectoryError) as error:
        said = repr(name) if name else f"'' (the environment's TZ = {os.environ.get('TZ', '')!r})"
        raise ValueError(f"{said} is not a time zone; write one like Europe/Berlin") from error


def _system_zone() -> ZoneInfo:
    name = os.environ.get("TZ", "").lstrip(":")
    if name and not name.startswith("/"):
        return ZoneInfo(name)
    local = Path(name or "/etc/localtime")
    _, found, key = str(local.resolve()).partition("zoneinfo/")
    if found:
        return ZoneInfo(key)
    if not local.exists():
        return ZoneInfo("UTC")
    with local.open("rb") as file:
        return ZoneInfo.from_file(file, key="localtime")


@cache
def changes(site: ZoneInfo) -> tuple[int, tuple[Change, ...]]:
    """The offset in 1990 (seconds east of UTC), and every change of it until 2100."""

    def offset(moment: int) -> int:
        return round(datetime.fromtimestamp(moment, site).utcoffset().total_seconds())  # type: ignore[union-attr]

    found: list[Change] = []
    low, before = _FIRST, offset(_FIRST)
    first = before
    while low < _LAST:
        high = low + _STEP
        after = offset(high)
        if after != before:
            under, over = low, high
            while over - under > 1:
                middle = (under + over) // 2
                under, over = (middle, over) if offset(middle) == before else (under, middle)
            found.append(Change(over, before, after))
        low, before = high, after
    return first, tuple(found)


def offset_sql(site: ZoneInfo, column: str, *, wall: bool) -> str:
    """SQL for the offset to UTC at an epoch second, or at a second of the wall clock counted as if it were UTC.

    A wall-clock second that came twice is taken for the first of the two.
    """
    first, found = changes(site)

    def tree(low: int, high: int) -> str:
        """The offset after `low` changes and before the change number `high`, found by halving."""
        if low == high:
            return str(found[low - 1].after if low else first)
        middle = (low + high) // 2
        change = found[middle]
        edge = change.at + (change.before if wall else 0)
        return f"CASE WHEN {column} < {edge} THEN {tree(low, middle)} ELSE {tree(middle + 1, high)} END"

    return tree(0, len(found))


def twice_sql(site: ZoneInfo, column: str) -> str:
    """SQL for: this epoch second is the first of two with the same time on the wall clock, 'after' being the second."""
    folds = [change for change in changes(site)[1] if change.after < change.before]
    return " OR ".join(
        f"({column} >= {fold.at - (fold.before - fold.after)} AND {column} < {fold.at})" for fold in folds
    )  # fmt: skip


def local_midnights(site: ZoneInfo, first_day: int, last_day: int) -> Sequence[int]:
    """Epoch seconds at which the days first_day..last_day+1 (days since 1970-01-01) begin on the site's wall clock."""
    found = []
    for day in range(first_day, last_day + 2):
        date = datetime.fromtimestamp(day * 86400, timezone.utc)
        found.append(round(datetime(date.year, date.month, date.day, tzinfo=site).timestamp()))
    return found
