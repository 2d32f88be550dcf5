"""Every format holds what users typed, and none lets it out as markup, formula, field or escape sequence."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from slurm_energy.report import texts
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


def test_no_rows_are_no_text_but_for_the_header() -> None:
    assert to_csv([]) == to_parsable2([]) == ""
    assert (to_csv([], ["a", "b"]), to_parsable2([], ["a", "b"])) == ("a,b\n", "a|b\n")


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


# A terminal of few columns.

COLUMNS = (
    "User",
    "Month",
    "Jobs",
    "GPU-h",
    "CPU-h",
    "Energy",
    "CO2e",
    "Electr.\nUSD",
    "Cloud\nlow USD",
    "Cloud\nhigh USD",
)
WIDE_ROWS = [
    (
        f"user-{number:04}",
        "2026-11",
        "4,789",
        "239,942",
        "479,884",
        "82.3 MWh",
        "35.6 t",
        "9,870",
        ">=103,175",
        "350,315",
    )
    for number in range(3)
]
LONG = "a-project-with-a-name-of-many-words-that-goes-on-and-on"


def on_screen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, *sections: Section
) -> str:
    """What a terminal of so many columns gets."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    return shown(capsys, *sections)


@pytest.mark.parametrize("columns", [20, 60, 80, 100, 200])
def test_however_narrow_the_terminal_no_number_is_cut_and_no_name_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    text = on_screen(capsys, monkeypatch, columns, Section("By user, month", COLUMNS, WIDE_ROWS, left=2))
    lines = text.splitlines()
    for row in WIDE_ROWS:
        assert [line for line in lines if [cell for cell in re.split(r"\s{2,}", line.strip()) if cell] == list(row)], (
            row
        )
    assert "…" not in text


@pytest.mark.parametrize("columns", [60, 80])
def test_a_long_name_is_folded_so_that_the_numbers_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    row = (LONG, "中文" * 20, "4,789", "239,942")
    text = on_screen(capsys, monkeypatch, columns, Section("By", ("Project", "User", "Jobs", "GPU-h"), [row], left=2))
    table = [line for line in text.splitlines() if line.strip()]
    assert max(cell_len(line.rstrip()) for line in table) <= columns
    first, second = table[3].index("中"), table[3].index("4,789")
    assert "".join(line[:first].strip() for line in table[3:]) == LONG
    assert "".join(table[3:]).count("中") == 20
    assert second > first >= 14
    assert "239,942" in text


@pytest.mark.parametrize("columns", [60, 80])
def test_texts_beside_names_are_folded_between_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    cells = (
        "Of it failed jobs",
        "197 jobs, 10,232 GPU-h, 3.51 MWh, 1.52 t CO2e, 421 USD, and what else there is to say",
    )
    text = on_screen(capsys, monkeypatch, columns, Section("Project", ("", "Total"), [cells], numbers=False))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= columns
    assert " ".join(text.replace(cells[0], "").split()).endswith(cells[1])
    assert cells[0] in text


def test_a_long_title_is_left_to_the_terminal_and_a_note_is_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    title, note = f"Project {LONG}, 2017-10-02 to 2018-03-22, profile strubell2019", "some words " * 20
    lines = on_screen(capsys, monkeypatch, 60, Section(title, ("", "USD"), [("a", "1")], note)).splitlines()
    assert lines[0] == title
    assert max(len(line.rstrip()) for line in lines[1:]) <= 60


def test_a_section_without_rows_is_its_note(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, Section("Title", ("Name", "Number"), [])) == ""
    assert shown(capsys, Section("Title", ("Name", "Number"), [], "Nothing here.")) == "Nothing here.\n\n"


def test_in_a_pipe_nothing_is_folded_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert f" {'x' * 300} " in shown(capsys, Section("", ("Project", "Jobs"), [("x" * 300, "1")]))


# Numbers.


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (7, "7"), (4789, "4,789"), (0.0, "0"), (0.0042, "0.0042"), (0.5, "0.5"), (1.0, "1.00"), (4.93, "4.93")],
)
def test_small_numbers_have_three_digits_and_counts_are_whole(value: float, text: str) -> None:
    assert texts.number(value) == text


def test_a_column_is_whole_as_in_the_paper_unless_that_hides_something() -> None:
    assert texts.column([4.93, 118.4, 9870.2]) == ["5", "118", "9,870"]
    assert texts.column([0.4, 118.4, 9870.2]) == ["0.4", "118", "9,870"]
    assert texts.column([1.4, 2.6]) == ["1.40", "2.60"]
    assert texts.column([None, 0.0]) == ["-", "0"]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0.0 %"),
        (0.04, "4.0 %"),
        (0.00001, "< 0.1 %"),
        (0.99999, "> 99.9 %"),
        (1.0, "100.0 %"),
        (1 - 1e-15, "100.0 %"),
    ],
)
def test_a_share_is_neither_nothing_nor_all_where_it_is_a_little_or_most(share: float, text: str) -> None:
    assert texts.percent(share) == text


def test_one_is_one() -> None:
    assert [texts.plural(count, "job") for count in (0, 1, 2, 1000)] == ["0 jobs", "1 job", "2 jobs", "1,000 jobs"]
