"""Rows that have to be put together again, by whether their fields can be what their columns say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import comb

from slurm_energy.slurm import states
from slurm_energy.slurm.columns import FREE_TEXT

MOST_READINGS = 5000
"""A row that could be read in more ways is nobody's job name any more."""
MOST_LINES = 64
"""So many lines at most are joined to a row."""
_TIME = re.compile(r"\d{1,11}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d|Unknown|None|INVALID|N/A|", re.IGNORECASE)
_PATTERNS = {
    "JobID": re.compile(r"\d+(_(\d+|\[[^|]*\])|\+\d+)?(\.[\w+]+)?"),
    "JobIDRaw": re.compile(r"\d+(\.[\w+]+)?"),
    "Submit": _TIME,
    "Eligible": _TIME,
    "Start": _TIME,
    "End": _TIME,
    "ElapsedRaw": re.compile(r"\d*"),
    "NNodes": re.compile(r"\d*"),
    "NCPUS": re.compile(r"\d*"),
    "ExitCode": re.compile(r"(\d+:\d+)?"),
    "AllocTRES": re.compile(r"([\w/]+(:[^=,]+)?=[^,=|]+(,|$))*"),
}


def is_plausible(row: Mapping[str, str]) -> bool:
    """True where every typed column holds text of its type and the state is one of Slurm's."""
    state = row.get("State")
    if state is not None and state.split(" ")[0].rstrip("+").upper() not in states.ALL:
        return False
    return all(pattern.fullmatch(row[name]) for name, pattern in _PATTERNS.items() if name in row)


def put_together(
    odd: Sequence[tuple[int, bytes]], columns: Sequence[str], delimiter: str
) -> tuple[list[tuple[int | None, dict[str, str]]], list[tuple[int, str, str]]]:
    """Joins lines that a newline in a job name tore apart, gives extra delimiters back to free text.

    odd: lines without their newline, each with its number. The rows that they make, each with the number of its first
    line; and the lines that make none: number, what is wrong, text.
    """
    rows: list[tuple[int | None, dict[str, str]]] = []
    others: list[tuple[int, str, str]] = []
    byte = delimiter.encode()
    at, first, last = 0, -1, -1  # first and last: lines of the row before
    while at < len(odd):
        number, text = odd[at]
        taken = 1
        while text.count(byte) < len(columns) - 1 and taken < MOST_LINES and at + taken < len(odd):
            following, more = odd[at + taken]
            if following != number + taken:
                break
            text, taken = text + b"\n" + more, taken + 1
        row = rejoin(text.decode("utf-8", "backslashreplace").split(delimiter), columns, delimiter)
        if row is not None:
            rows.append((number, row))
            at += taken
            first, last = number, number + taken - 1
            continue
        alone = odd[at][1].decode("utf-8", "backslashreplace")
        pieces = alone.split(delimiter)
        found = len(pieces)
        begins_like_a_row = is_plausible(dict(zip(columns, pieces[:-1] or pieces, strict=False)))
        goes_on = number == last + 1 and number - first < MOST_LINES and columns[-1] in FREE_TEXT
        at += 1
        if found <= 2 and found < len(columns) and goes_on and not begins_like_a_row:
            rows[-1][1][columns[-1]] += "\n" + alone  # a text of several lines at the end of a row
            last = number
        elif found == len(columns):  # some value is none that Slurm writes: the typing says which
            rows.append((number, dict(zip(columns, pieces, strict=True))))
        else:
            others.append((number, f"{found} fields where the header has {len(columns)}", alone))
    return rows, others


def rejoin(fields: Sequence[str], columns: Sequence[str], delimiter: str) -> dict[str, str] | None:
    """The row that the fields make when a free-text column held the delimiter; None where no reading is plausible.

    More fields than columns: the extra delimiters belong to a job name, comment or the like. Plausible readings that
    differ in those texts alone are as good as each other, and the first is taken; where they differ in anything else,
    such as the user, there is no telling and None is returned.
    """
    extra = len(fields) - len(columns)
    # Of free-text columns side by side the first takes all: where the border between two texts lies makes no difference.
    texts = [name in FREE_TEXT for name in columns]
    free = [index for index, text in enumerate(texts) if text and not (index and texts[index - 1])]
    if extra < 0 or (extra and (not free or comb(extra + len(free) - 1, extra) > MOST_READINGS)):
        return None
    found: dict[str, str] | None = None
    for reading in _readings(list(fields), columns, free, extra, delimiter):
        row = dict(zip(columns, reading, strict=True))
        if not is_plausible(row):
            continue
        if found is None:
            found = row
        elif any(row[name] != found[name] for name in columns if name not in FREE_TEXT):
            return None
    return found


def _readings(
    fields: list[str], columns: Sequence[str], free: Sequence[int], extra: int, delimiter: str
) -> Iterator[list[str]]:
    """All ways to give the extra delimiters to the free-text columns, the earlier columns first."""
    if not free or not extra:
        if not extra:
            yield fields
        return
    column = free[0]
    for taken in range(extra, -1, -1):
        if taken < extra and len(free) == 1:
            return
        joined = [*fields[:column], delimiter.join(fields[column : column + taken + 1]), *fields[column + taken + 1 :]]
        yield from _readings(joined, columns, free[1:], extra - taken, delimiter)
