"""Every format holds what users typed, and none lets it out as markup, formula, field or escape sequence."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_energy.report.formats import escape, flat, printable, to_csv, to_json, to_markdown, to_parsable2
from slurm_energy.report.sections import Section
from slurm_energy.report.terminal import show

HOSTILE = (
    "a|b",
    "two\nlines",
    "\x1b[31mred\x1b[0m",
    "\x9b31mred",
    "[bold]x[/bold]",
    "[link=http://x]y[/link]",
    "<script>alert(1)</script>",
    "=cmd()",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    'quo"te',
    "com,ma",
    "back\\slash|pipe",
    "`code` *b* _i_ ~~s~~ [l](http://x) ![i](y)",
    "&amp;",
    "right\u202eleft",
    "null\x00",
    "日本語 ü",
    "\r\rover",
)
names = st.one_of(st.sampled_from(HOSTILE), st.text())


def fields(line: str) -> list[str]:
    r"""The fields of a parsable2 line, read as the format says: \ takes the special meaning away."""
    parts = re.findall(r"((?:[^|\\]|\\.)*)(?:\||$)", line)
    return [unescape(part) for part in parts[: line_fields(line)]]


def line_fields(line: str) -> int:
    return len(re.sub(r"\\.", "", line).split("|"))


def unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        return match[1] if match[1] in "\\|" else match[0].encode("ascii").decode("unicode_escape")

    return re.sub(r"\\(x..|u....|U........|.)", one, text)


@given(names, st.floats(allow_nan=False), st.integers())
def test_parsable2_gives_back_every_name_and_number(name: str, number: float, count: int) -> None:
    header, line, *rest = to_parsable2([{"project": name, "kwh": number, "jobs": count, "none": None}]).split("\n")
    assert header == "project|kwh|jobs|none"
    assert rest == [""]
    found = fields(line)
    assert found[0] == name
    assert (float(found[1]), int(found[2]), found[3]) == (number, count, "")


@given(st.lists(names, max_size=4))
def test_parsable2_has_no_control_character_but_the_ends_of_its_rows(found: list[str]) -> None:
    text = to_parsable2([{"a": one, "b": 1} for one in found])
    assert all(char.isprintable() for char in text.replace("\n", ""))
    assert text.count("\n") == (len(found) + 1 if found else 0)


@given(st.lists(st.tuples(names, st.floats(allow_nan=False)), min_size=1, max_size=4))
def test_csv_gives_back_the_rows_and_the_names_but_for_what_is_not_printable(rows: list[tuple[str, float]]) -> None:
    text = to_csv([{"project": name, "kwh": number} for name, number in rows])
    header, *found = list(csv.reader(io.StringIO(text, newline="")))
    assert header == ["project", "kwh"]
    assert len(found) == len(rows)
    for (name, number), (shown, kwh) in zip(rows, found, strict=True):
        assert float(kwh) == number
        assert printable(shown.removeprefix("'")) in (printable(name), printable(name.removeprefix("'")))


@given(names)
def test_csv_has_no_formula_and_no_escape_sequence(name: str) -> None:
    (cell,) = list(csv.reader(io.StringIO(to_csv([{"project": name}]), newline="")))[1] or [""]
    assert cell[:1] not in ("=", "+", "-", "@", "\t")
    assert all(char.isprintable() or char in "\t\n" for char in cell)


def test_numbers_in_csv_are_no_formulas() -> None:
    assert to_csv([{"x": -1.5}]) == "x\n-1.5\n"


@given(names)
def test_json_gives_back_every_name_in_plain_ascii(name: str) -> None:
    text = to_json({"project": name, "kwh": 0.1 + 0.2})
    assert json.loads(text) == {"project": name, "kwh": 0.1 + 0.2}
    assert text.isascii()
    assert all(char.isprintable() for char in text.replace("\n", ""))


@given(st.lists(names, min_size=1, max_size=3))
def test_markdown_has_a_line_for_each_row_and_no_more_cells_than_the_header(found: list[str]) -> None:
    lines = to_markdown(("Project", "Jobs"), [(name, "1") for name in found], 1, True).split("\n")
    assert lines[:2] == ["| Project | Jobs |", "| --- | ---: |"]
    assert lines[-1] == ""
    assert len(lines) == len(found) + 3
    assert all(line.count("|") == 3 for line in lines[:-1])


@given(names)
def test_markdown_lets_out_neither_markup_nor_html(name: str) -> None:
    text = escape(name)
    assert not set("<>|") & set(text)
    assert all(char.isprintable() for char in text)
    without = re.sub(r"\\.", "", text)
    assert not set("`*_[]~\\") & set(without)
    assert re.fullmatch(r"(?:[^&]|&#\d+;)*", text)


def test_markdown_aligns_numbers_to_the_right_and_texts_to_the_left() -> None:
    assert to_markdown(("", "Value"), [("a", "b")], 1, False).split("\n")[1] == "| --- | --- |"
    assert to_markdown(("A\nB", "C", "D"), [], 2, True) == "| A B | C | D |\n| --- | --- | ---: |\n"


def test_shares_become_columns_and_lists_are_left_out() -> None:
    row: dict[str, Any] = {"a": 1, "provenance": {"slurm": 0.25, "estimated": 0.75}, "rnd": [1]}
    assert flat(row) == {"a": 1, "slurm_share": 0.25, "estimated_share": 0.75}
    assert to_csv([row]).startswith("a,slurm_share,estimated_share\n1,0.25,0.75")


def test_no_rows_are_no_text() -> None:
    assert to_csv([]) == to_parsable2([]) == ""


def shown(capsys: pytest.CaptureFixture[str], *sections: Section) -> str:
    show(sections)
    return capsys.readouterr().out


@pytest.mark.parametrize("name", HOSTILE)
def test_the_terminal_shows_a_name_as_text_wherever_it_stands(capsys: pytest.CaptureFixture[str], name: str) -> None:
    text = shown(capsys, Section(f"Title {name}.", ("Project", "Jobs"), [(name, "1")], f"Note {name}."))
    assert all(char.isprintable() for char in text.replace("\n", ""))
    assert f"Title {printable(name)}." in text
    assert f"Note {printable(name)}." in text
    assert f" {printable(name)} " in text or f" {printable(name).strip()} " in text


def test_in_a_pipe_a_long_name_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    name = "x" * 80
    assert name in shown(capsys, Section("", ("Project", "Jobs"), [(name, "1")]))


def lines_of(text: str) -> Sequence[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_the_terminal_aligns_numbers_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    rows = lines_of(shown(capsys, Section("", ("Name", "Number"), [("a", "1"), ("b", "1,000")])))
    assert rows[-1].endswith("1,000")
    assert len(rows[-1]) == len(rows[-2])
