"""Rows with more delimiters than columns: given back to the texts that users type, or to nobody."""

from __future__ import annotations

import time

import pytest
from helpers import COLUMNS, row
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_energy.slurm.plausible import is_plausible, rejoin

TEXT = st.text("ab|\n'\"` é", max_size=12)


def fields(columns: tuple[str, ...] = COLUMNS, **values: object) -> list[str]:
    return "|".join({**row(), **{name: str(value) for name, value in values.items()}}[name] for name in columns).split(
        "|"
    )


@pytest.mark.parametrize(
    ("name", "text", "fits"),
    [
        ("JobID", "12", True), ("JobID", "12_3", True), ("JobID", "12_[1-9%2]", True), ("JobID", "12+1", True),
        ("JobID", "12.batch", True), ("JobID", "12+0.3", True), ("JobID", "", False), ("JobID", "x", False),
        ("State", "CANCELLED by 1001", True), ("State", "CANCELLED+", True), ("State", "running", True),
        ("State", "lisa", False), ("State", "", False),
        ("Start", "2026-11-24T19:41:17", True), ("Start", "1795549277", True), ("Start", "Unknown", True),
        ("Start", "None", True), ("Start", "INVALID", True), ("Start", "2026-11-24", False),
        ("ElapsedRaw", "3600", True), ("ElapsedRaw", "", True), ("ElapsedRaw", "-1", False), ("NCPUS", "many", False),
        ("AllocTRES", "", True), ("AllocTRES", "cpu=1,gres/gpu:a100=2", True), ("AllocTRES", "lisa", False),
        ("JobIDRaw", "12.batch", True), ("JobIDRaw", "12_3", False),
    ],
)  # fmt: skip
def test_a_column_holds_only_text_of_its_type(name: str, text: str, fits: bool) -> None:
    assert is_plausible({**row(), name: text}) is fits


def test_a_delimiter_in_a_job_name_goes_back_to_it() -> None:
    assert rejoin(fields(JobName="a|b||c"), COLUMNS, "|") == row(JobName="a|b||c")


def test_a_delimiter_in_the_comment_does_not_go_to_the_job_name() -> None:
    assert rejoin(fields(Comment="x|y", JobName="a"), COLUMNS, "|") == row(JobName="a", Comment="x|y")


def test_delimiters_in_two_texts_are_told_apart_by_what_stands_between_them() -> None:
    assert rejoin(fields(JobName="a|b", Comment="|y|"), COLUMNS, "|") == row(JobName="a|b", Comment="|y|")


@settings(deadline=None)
@given(TEXT, TEXT)
def test_nothing_but_the_texts_depends_on_them(name: str, comment: str) -> None:
    assert rejoin(fields(JobName=name, Comment=comment), COLUMNS, "|") == row(JobName=name, Comment=comment)


def test_where_the_border_between_two_texts_lies_makes_no_difference() -> None:
    columns = (*COLUMNS[:-1], "Comment", "SubmitLine", "SLUID")
    given_back = rejoin([*fields(Comment="x|y"), "sbatch", "s1"], columns, "|")
    assert given_back is not None
    assert given_back["SLUID"] == "s1"
    assert given_back["Comment"] + "|" + given_back["SubmitLine"] == "x|y|sbatch"
    assert {name: given_back[name] for name in COLUMNS[:-1]} == {name: row()[name] for name in COLUMNS[:-1]}


def test_a_row_that_may_belong_to_two_users_is_not_guessed() -> None:
    columns = ("JobID", "JobName", "User", "Account", "Comment", "State")
    torn = ["7", "train", "emma", "lisa", "x", "y", "COMPLETED"]  # a pipe in the comment, or in the job name
    assert rejoin(torn, columns, "|") is None


def test_a_job_name_that_imitates_a_whole_row_does_not_change_the_real_one() -> None:
    fake = "x|COMPLETED|1|2|3|4|00:00:00|1|1|cpu=1|n1|0"
    found = rejoin(fields(JobName=fake), COLUMNS, "|")
    assert found is None or {**found, "JobName": "", "Comment": ""} == {**row(JobName=""), "Comment": ""}


def test_fewer_fields_than_columns_are_no_row() -> None:
    assert rejoin(fields()[:-1], COLUMNS, "|") is None


def test_more_fields_and_no_text_that_could_hold_them_are_no_row() -> None:
    columns = tuple(name for name in COLUMNS if name not in ("JobName", "Comment"))
    assert rejoin([*fields(columns), "more"], columns, "|") is None


def test_a_name_of_delimiters_only_takes_no_time() -> None:
    columns = ("JobName", "User", "Comment", "Account", "SubmitLine", "QOS", "WorkDir", *COLUMNS[9:-1])
    began = time.process_time()
    assert rejoin("|".join(["|" * 150, *(row()[name] for name in columns[7:])]).split("|"), columns, "|") is None
    assert time.process_time() - began < 1.0
