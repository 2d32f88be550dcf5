"""The reports of the demo are, to the sign, what is kept here; `python tests/golden/regenerate.py` writes them anew."""

from __future__ import annotations

import re

import pytest
from regenerate import HERE, REPORTS, reports

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    return reports()


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


@pytest.mark.parametrize("name", [name for name in REPORTS if name.endswith((".txt", ".md"))])
def test_a_report_for_people_is_as_it_was(printed: dict[str, str], name: str) -> None:
    assert lines(printed[name]) == lines((HERE / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [name for name in REPORTS if not name.endswith((".txt", ".md"))])
def test_a_report_for_machines_is_as_it_was_but_for_the_last_digits_of_a_sum(
    printed: dict[str, str], name: str
) -> None:
    now, before = "\n".join(lines(printed[name])), (HERE / name).read_text(encoding="utf-8").rstrip()
    assert NUMBER.sub("#", now) == NUMBER.sub("#", before)
    assert [float(one) for one in NUMBER.findall(now)] == pytest.approx(
        [float(one) for one in NUMBER.findall(before)], rel=1e-12
    )


def test_nothing_else_lies_here() -> None:
    kept = {path.name for path in HERE.iterdir() if path.suffix not in (".py", "") and path.is_file()}
    assert kept == {*REPORTS, "node_scrape.txt"}  # the latter: regenerate_scrape.py
