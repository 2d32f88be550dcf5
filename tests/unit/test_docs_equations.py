"""The worked examples of docs/equations.md."""

import doctest
from pathlib import Path

from slurm_energy.paper.tables import READ_DIFFERENTLY

PAGE = Path(__file__).parents[2] / "docs" / "equations.md"


def test_every_worked_example_of_the_equations_page_comes_out_as_written():
    failures, tried = doctest.testfile(str(PAGE), module_relative=False, verbose=False)

    assert failures == 0
    assert tried > 25


def test_the_page_lists_every_input_that_is_read_differently_from_print():
    text = PAGE.read_text(encoding="utf-8").split("## Where the paper disagrees with itself")[1]
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]

    assert len(rows) == len(READ_DIFFERENTLY)
