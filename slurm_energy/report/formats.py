"""Rows for machines: JSON, CSV, sacct's --parsable2, Markdown. What users typed is escaped in each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

FORMATS = ("table", "parsable2", "json", "csv", "markdown")


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row of totals with the shares by provenance as columns of their own."""
    found = {key: value for key, value in row.items() if not isinstance(value, (dict, list))}
    for name, share in row.get("provenance", {}).items():
        found[f"{name}_share"] = share
    return found


def to_json(value: Any) -> str:
    """Raw numbers; text that is not UTF-8 or holds control characters is escaped."""
    return json.dumps(value, indent=2, ensure_ascii=True, default=str)


def to_csv(rows: Sequence[dict[str, Any]], header: Sequence[str] = ()) -> str:
    """RFC 4180. Text that a spreadsheet would take for a formula gets an apostrophe before it.

    header: what is written where there are no rows.
    """
    out = io.StringIO()
    flats = [flat(row) for row in rows]
    if flats or header:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(flats[0] if flats else header)
        writer.writerows([[_no_formula(value) for value in row.values()] for row in flats])
    return out.getvalue()


def _no_formula(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = "".join(char if char in "\t\n" else printable(char) for char in value)  # csv quotes no \r before 3.13
    return f"'{text}" if text[:1] in tuple("=+-@\t") else text


def to_parsable2(rows: Sequence[dict[str, Any]], header: Sequence[str] = ()) -> str:
    r"""Header and rows with | between the fields; \, | and control characters in text are escaped by \.

    header: what is written where there are no rows.
    """
    flats = [flat(row) for row in rows]
    lines = ["|".join(flats[0] if flats else header)] if flats or header else []
    lines += ["|".join(_one_field(value) for value in row.values()) for row in flats]
    return "".join(line + "\n" for line in lines)


def _one_field(value: Any) -> str:
    if not isinstance(value, str):
        return "" if value is None else repr(value)
    return "".join(_escaped(char) for char in value)


def _escaped(char: str) -> str:
    if char in "\\|":
        return f"\\{char}"
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def to_markdown(header: Sequence[str], rows: Sequence[Sequence[str]], left: int, numbers: bool) -> str:
    """A table of texts; the first `left` columns aligned to the left, the others to the right where they are numbers."""
    lines = ["| " + " | ".join(escape(text.replace("\n", " ")) for text in header) + " |"]
    lines.append(
        "|" + "|".join(" ---: " if numbers and index >= left else " --- " for index in range(len(header))) + "|"
    )
    lines += ["| " + " | ".join(escape(text) for text in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


_MARKDOWN = str.maketrans(
    {**{mark: f"\\{mark}" for mark in "\\`*_[]~"}, **{mark: f"&#{ord(mark)};" for mark in "<>&|"}}
)


def escape(text: str) -> str:
    """Text for Markdown, out of which no markup, no HTML and no new table cell can come."""
    return printable(text).translate(_MARKDOWN)


def printable(text: str) -> str:
    """Text without control characters: no escape sequence of a job name reaches a terminal."""
    return "".join(char if char.isprintable() else "�" for char in text)
