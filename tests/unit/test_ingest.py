"""Each record once, its latest state, within the window; what is left over counted."""

from __future__ import annotations

import duckdb
import pytest
from helpers import DAY, NOON, parse, row, running, sacct_text
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_energy.ledger.ingest import Ingest
from slurm_energy.slurm.records import RawRecords
from slurm_energy.slurm.zone import zone

STATES = (
    running(ElapsedRaw=100), running(ElapsedRaw=1800), row(State="SUSPENDED", End="Unknown", ElapsedRaw=2000),
    row(State="FAILED", ElapsedRaw=3600),
)  # fmt: skip


@pytest.mark.parametrize("turn", [1, -1])
def test_of_a_job_that_ran_and_then_ended_the_end_counts_in_either_order(turn: int) -> None:
    parsed = parse([running(ElapsedRaw=1000), row()][::turn])
    assert (parsed.only["state"], parsed.only["elapsed_s"]) == ("COMPLETED", 3600)
    assert parsed.counts == (1, 0, 1, 0, 0, 0)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(range(len(STATES))), min_size=1, max_size=6))
def test_the_latest_state_wins_in_any_order_and_number(order: list[int]) -> None:
    parsed = parse([STATES[number] for number in order])
    assert parsed.only["state"] == STATES[max(order)]["State"]
    assert parsed.counts == (1, 0, len(order) - 1, 0, 0, 0)


def test_an_id_that_came_round_again_is_another_job() -> None:
    again = row(Start=NOON + 400 * DAY, User="ananya")
    parsed = parse([row(), again])
    assert [(record["user"], record["start"]) for record in parsed.records] == [
        ("emma", NOON),
        ("ananya", NOON + 400 * DAY),
    ]


def test_the_same_id_on_two_clusters_is_two_jobs() -> None:
    assert [record["cluster"] for record in parse([row(), row(Cluster="beta")]).records] == ["alpha", "beta"]


def test_a_task_with_and_without_its_raw_id_is_one_job() -> None:
    names = ("JobID", "Cluster", "User", "Account", "State", "Start", "ElapsedRaw", "AllocTRES")
    with_raw = sacct_text([row(JobID="12_3", JobIDRaw=15)], (*names, "JobIDRaw"))
    assert parse(with_raw + sacct_text([row(JobID="12_3")], names)).counts == (1, 0, 1, 0, 0, 0)


def test_a_task_is_not_the_job_that_has_its_array_s_number() -> None:
    rows = [row(JobID="12", JobIDRaw=12), row(JobID="12_0", JobIDRaw=13), row(JobID="12_1", JobIDRaw=12)]
    assert parse(rows).counts == (3, 0, 0, 0, 0, 0)


def test_a_real_dump_twice_is_the_dump_once() -> None:
    once = parse([row(JobID=number) for number in range(1, 9)])
    twice = parse([row(JobID=number) for number in (*range(1, 9), *range(8, 0, -1))])
    assert twice.records == once.records
    assert (twice.counts.records, twice.counts.repeated) == (8, 8)


def test_a_window_takes_what_ran_in_it() -> None:
    jobs = [
        (NOON - 100, 100, False), (NOON - 100, 101, True), (NOON, 10, True), (NOON + DAY - 1, 10, True), (NOON + DAY, 10, False),
        (NOON - DAY, 9 * DAY, True), (NOON, 0, True), (NOON - 1, 0, False), (NOON - 1, 1, False),
    ]  # fmt: skip
    rows = [row(JobID=number, Start=start, ElapsedRaw=elapsed) for number, (start, elapsed, _) in enumerate(jobs)]
    found = {record["job_id"] for record in parse(rows, window=(NOON, NOON + DAY)).records}
    assert found == {number for number, (_, _, inside) in enumerate(jobs) if inside}


def test_only_the_clusters_that_were_asked_for_are_taken() -> None:
    rows = [row(Cluster="alpha"), row(Cluster="o'hara"), row(Cluster="beta"), row(Cluster="")]
    assert [record["cluster"] for record in parse(rows, clusters=["o'hara", "beta"]).records] == ["beta", "o'hara"]
    assert parse(rows, clusters=["cluster"]).only["cluster"] == "cluster"


def test_each_row_is_counted_in_one_place() -> None:
    rows = [
        row(JobID=1), running(JobID=1, ElapsedRaw=5),
        row(JobID=2, State="PENDING", Start="Unknown", ElapsedRaw=0), row(JobID=3, State="ODD"),
        row(JobID=4, JobName="a|b"), row(JobID="4.batch"), row(JobID=5, End=NOON - 9),
    ]  # fmt: skip
    parsed = parse(sacct_text(rows) + "9|cut|o")
    assert parsed.counts == (2, 1, 1, 3, 0, 0)
    assert [record["job_id"] for record in parsed.records] == [1, 4]


def test_rows_from_a_live_source_are_read_as_those_of_a_file() -> None:
    con = duckdb.connect()
    ingest = Ingest(con, zone("UTC"), "cluster")
    rows = [
        (None, row(JobID=1)),
        (None, row(JobID=2, State="ODD")),
        (None, {"JobID": "3", "Elapsed": "00:01:00", "State": "RUNNING", "Start": str(NOON)}),
    ]
    ingest.add(RawRecords("sacct", rows=rows))
    ingest.add(RawRecords("sacct", rows=[(None, row(JobID=1)), (None, row(JobID="1.batch"))]))
    assert ingest.finish(None, None) == (2, 0, 1, 1, 0, 0)
    (aside,) = ingest.set_aside
    assert (aside.source, aside.line, aside.reason) == ("sacct", None, "State 'ODD' is unknown")
    assert "train" in aside.text
    assert con.execute("SELECT job_id, elapsed_s FROM parsed ORDER BY 1").fetchall() == [(1, 3600), (3, 60)]


def test_a_source_without_rows_is_no_error() -> None:
    ingest = Ingest(duckdb.connect(), zone("UTC"), "cluster")
    ingest.add(RawRecords("sacct"))
    assert ingest.finish(None, None) == (0, 0, 0, 0, 0, 0)
