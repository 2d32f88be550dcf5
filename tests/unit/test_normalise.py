"""What each value of a job record means: ids, states, times, durations, sizes, energy; and what is not believed."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import COLUMNS, DAY, FIXTURES, NOON, VERSIONS, epoch, parse, parse_each, row, running, sacct_text, wall
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_energy.slurm import states

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
HOUR = 3600


def without_raw_id(*rows: dict[str, str]) -> str:
    return sacct_text(rows, [name for name in COLUMNS if name != "JobIDRaw"])


@pytest.mark.parametrize(
    ("shown", "raw", "ids"),
    [
        ("7", "7", (7, None, None)),
        ("12_3", "15", (15, 12, 3)),
        ("12_0", "12", (12, 12, 0)),
        ("12+0", "12", (12, None, None)),
        ("12+1", "13", (13, None, None)),
    ],
)
def test_an_id_is_that_of_slurm_and_an_array_task_has_its_array_s_beside_it(
    shown: str, raw: str, ids: tuple[Any, ...]
) -> None:
    found = parse([row(JobID=shown, JobIDRaw=raw)]).only
    assert (found["job_id"], found["array_job_id"], found["array_task_id"]) == ids


@pytest.mark.parametrize(
    ("shown", "ids"),
    [
        ("7", (7, None, None)),
        ("12_3", (12, 12, 3)),
        ("12+0", (12, None, None)),
        ("12+1", (13, None, None)),
        ("12+10", (22, None, None)),
    ],
)
def test_without_jobidraw_the_displayed_id_says_enough(shown: str, ids: tuple[Any, ...]) -> None:
    found = parse(without_raw_id(row(JobID=shown))).only
    assert (found["job_id"], found["array_job_id"], found["array_task_id"]) == ids


def test_the_parts_of_a_heterogeneous_job_are_two_allocations() -> None:
    rows = [row(JobID="12+0", NCPUS=1), row(JobID="12+1", NCPUS=2)]
    assert [(r["job_id"], r["cpus"]) for r in parse(without_raw_id(*rows)).records] == [(12, 1), (13, 2)]


def test_array_tasks_that_wait_are_counted_as_waiting() -> None:
    tasks = ("12_[0-9%2]", "12_[1,3-5]", "12_[0-100:10]", "12_[1,3,5,...]")
    rows = [row(JobID=one, JobIDRaw=12, State="PENDING", Start="Unknown", ElapsedRaw=0, AllocTRES="") for one in tasks]
    assert parse(rows).counts == (0, 4, 0, 0, 0, 0)


def test_what_is_no_job_id_is_set_aside_and_shown() -> None:
    ids = ("abc", "", "12+", "12_", "1_x", "99999999999999999999", "12 13", "1_000x", "12_3+1")
    parsed = parse(without_raw_id(*(row(JobID=one) for one in ids)))
    assert parsed.reasons == [f"JobID '{one}' is not a job id" for one in ids]


def test_a_step_is_no_allocation_whatever_else_it_says() -> None:
    steps = ("7.batch", "7.extern", "7.0", "12+0.0", "12_3.batch", "7.interactive")
    parsed = parse([row(), *(row(JobID=one, JobIDRaw=one, State="", Account="", Start="rubbish") for one in steps)])
    assert parsed.only["job_id"] == 7
    assert parsed.counts == (1, 0, 0, 0, 0, 0)


def test_every_run_of_a_requeued_job_is_a_record() -> None:
    runs = [
        row(State="REQUEUED", ElapsedRaw=100),
        row(Start=NOON + 500),
        row(State="NODE_FAIL", Start=NOON + 200, ElapsedRaw=9),
    ]
    parsed = parse(runs)
    assert [(r["state"], r["start"], r["elapsed_s"]) for r in parsed.records] == [
        ("REQUEUED", NOON, 100), ("NODE_FAIL", NOON + 200, 9), ("COMPLETED", NOON + 500, 3600),
    ]  # fmt: skip
    assert parsed.counts.repeated == 0


def test_a_state_is_its_first_word() -> None:
    states_of = {
        "CANCELLED by 1001": "CANCELLED", "CANCELLED by 0": "CANCELLED", "CANCELLED+": "CANCELLED", "completed": "COMPLETED",
        "OUT_OF_MEMORY": "OUT_OF_MEMORY", "NODE_FAIL": "NODE_FAIL", "PREEMPTED": "PREEMPTED",
    }  # fmt: skip
    assert [one["state"] for one in parse_each(row(State=text) for text in states_of)] == list(states_of.values())


def test_an_unknown_state_is_set_aside_with_its_line_and_its_text() -> None:
    texts = ("MELTED", "", "by 1001", "COMPLETEDX")
    rows = [row(JobID=number, State=text) for number, text in enumerate(texts)]
    parsed = parse([row(JobID=9), *rows])
    assert [(aside.line, aside.reason) for aside in parsed.set_aside] == [
        (number, f"State '{text}' is unknown") for number, text in enumerate(texts, 3)
    ]
    assert [aside.text for aside in parsed.set_aside] == sacct_text(rows, header=False).splitlines()
    assert parsed.set_aside[0].source.endswith("jobs.txt")
    assert parsed.counts == (1, 0, 0, 4, 0, 0)


def test_every_state_of_slurm_is_known() -> None:
    names = sorted(states.ALL)
    found = parse_each(row(State=name) for name in names)
    assert [one["state"] for one in found] == names
    assert {one["state"] for one in found if one["end"] is not None} == states.ENDED


def test_a_running_job_has_no_end_yet() -> None:
    found = parse([running()]).only
    assert (found["end"], found["elapsed_s"], found["span_s"]) == (None, 3600, 3600)


def test_a_job_that_never_started_is_counted_as_waiting() -> None:
    starts = ("Unknown", "None", "INVALID", "N/A", "", "0")
    fields = {"ElapsedRaw": 0, "Submit": NOON, "AllocTRES": "", "NodeList": "None assigned"}
    rows = [row(State=s, Start=start, **fields) for s in ("PENDING", "CANCELLED by 1001") for start in starts]
    assert parse(rows).counts == (0, len(rows), 0, 0, 0, 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_waiting_jobs_of_a_real_cluster_are_those_that_never_started(version: str) -> None:
    parsed = parse(FIXTURES / version / "sacct-X-P.txt")
    assert {32, 33, 34}.isdisjoint(record["job_id"] for record in parsed.records)
    assert parsed.counts.waiting == 3


def test_a_job_that_ran_but_has_no_start_is_set_aside() -> None:
    assert parse([row(Start="Unknown")]).reasons == ["it ran for 3600 s but has no Start"]


def test_a_time_that_is_none_is_set_aside_with_its_column() -> None:
    texts = ("yesterday", "2026-13-24T10:00:00", "2026-11-24T25:00:00", "24/11/2026", "1e99x")
    cases = [(name, text) for name in ("Submit", "Start", "End") for text in texts]
    assert parse_each(row(**{name: text}) for name, text in cases) == [
        f"{name} '{text}' is neither YYYY-MM-DDTHH:MM:SS nor epoch seconds" for name, text in cases
    ]


def test_a_job_of_no_time_is_a_record_of_no_time() -> None:
    found = parse([row(ElapsedRaw=0)]).only
    assert (found["elapsed_s"], found["span_s"], found["end"]) == (0, 0, NOON)


def test_suspended_time_lengthens_the_span_not_the_run() -> None:
    seconds = {"00:00:04": 4, "01:00:00": 3600, "2-01:00:00": 2 * DAY + 3600, "4": 4, "": 0, "0": 0, "00:00:00": 0}
    found = parse_each(row(Suspended=text, End=NOON + 3600 + more) for text, more in seconds.items())
    assert [(one["elapsed_s"], one["span_s"]) for one in found] == [(3600, 3600 + more) for more in seconds.values()]


def test_a_job_suspended_for_longer_than_it_ran_is_a_job() -> None:
    found = parse([row(ElapsedRaw=0, Suspended="00:00:04", End=NOON + 4)]).only
    assert (found["elapsed_s"], found["span_s"]) == (0, 4)


def test_a_suspension_or_an_elapsed_time_that_is_no_duration_is_set_aside() -> None:
    texts = ("soon", "1:x", "x-00:00:01")
    cases = [("Suspended", text) for text in texts] + [("ElapsedRaw", text) for text in texts]
    assert parse_each(row(**{name: text, "End": NOON + 3600}) for name, text in cases) == [
        f"{name} '{text}' is not a duration" for name, text in cases
    ]


def test_start_and_end_do_where_the_elapsed_time_is_missing() -> None:
    assert parse([row(ElapsedRaw="", End=NOON + 50, Suspended="00:00:20")]).only["elapsed_s"] == 30
    assert parse([running(ElapsedRaw="")]).reasons == ["neither ElapsedRaw nor End says how long it ran"]


def test_an_end_before_the_start_is_set_aside() -> None:
    assert parse([row(End=NOON - 1)]).reasons == [f"End '{NOON - 1}' is before Start '{NOON}'"]
    assert parse([row(ElapsedRaw="", End=NOON - 1)]).reasons == ["it ends before it starts"]


JUMPS = [
    ({"Start": epoch("2150-01-01")}, "is not between 1990 and 2100"),
    ({"Start": epoch("1989-12-31T23:59:59")}, "is not between 1990 and 2100"),
    ({"Start": 5}, "is not between 1990 and 2100"),
    ({"Start": "2150-01-01T00:00:00", "End": "2150-01-01T01:00:00", "Submit": "2150-01-01T00:00:00"}, "is not between 1990 and 2100"),
    ({"ElapsedRaw": 30 * 365 * DAY}, "a run of more than 20 years is not believable"),
    ({"End": epoch("2150-01-01")}, "a run of more than 20 years is not believable"),
    ({"Suspended": "9000-00:00:00"}, "a run of more than 20 years is not believable"),
    ({"ElapsedRaw": 3 * DAY, "End": NOON + DAY}, "is a day or more longer than Start to End"),
    ({"End": NOON + 9 * DAY, "Suspended": "01:00:00"}, "Start to End is a day or more longer than ElapsedRaw and Suspended say"),
]  # fmt: skip


def test_a_clock_that_jumped_is_set_aside_not_priced() -> None:
    found = parse_each(row(**fields) for fields, _ in JUMPS)
    assert [isinstance(one, str) and reason in one for one, (_, reason) in zip(found, JUMPS, strict=True)] == [
        True
    ] * len(JUMPS)


def test_a_run_of_30_years_that_still_runs_is_not_believed() -> None:
    assert parse([running(ElapsedRaw=30 * 365 * DAY)]).reasons == ["a run of more than 20 years is not believable"]


def test_a_run_of_a_few_years_is() -> None:
    assert parse([running(ElapsedRaw=5 * 365 * DAY)]).only["elapsed_s"] == 5 * 365 * DAY


# Resized jobs


@pytest.mark.parametrize("version", VERSIONS)
def test_the_parts_of_a_resized_job_follow_each_other(version: str) -> None:
    first, second = (r for r in parse(FIXTURES / version / "sacct-X-P.txt").records if r["job_id"] == 24)
    assert (first["state"], second["state"]) == ("RESIZING", "COMPLETED")
    assert first["end"] == second["start"] == first["start"] + first["elapsed_s"]
    assert second["end"] == second["start"] + second["elapsed_s"]
    assert (first["elapsed_s"], second["elapsed_s"]) == (2, 6)


def test_a_resized_job_that_still_runs_counts_from_the_change() -> None:
    found = parse([running(Start=NOON, Submit=NOON + 1000, ElapsedRaw=1500)]).only
    assert (found["start"], found["elapsed_s"]) == (NOON + 1000, 500)


def test_a_job_submitted_before_it_started_was_not_resized() -> None:
    assert parse([row(Submit=NOON)]).only["start"] == NOON
    assert parse([row(Submit=NOON + 3601)]).only["elapsed_s"] == 3600  # nonsense, but no resize: it had ended


# Clock changes


@pytest.mark.parametrize(
    ("site", "starts"),
    [
        (
            BERLIN,
            [
                epoch("2026-10-24T22:00:00", BERLIN),  # over the hour that comes twice
                epoch("2026-03-28T22:00:00", BERLIN),  # over the hour that is not there
                epoch("2026-10-25T02:30:00", BERLIN), epoch("2026-10-25T02:30:00", BERLIN, fold=1),
            ],
        ),
        (
            NEW_YORK,
            [
                epoch("2026-10-31T22:00:00", NEW_YORK), epoch("2026-03-07T22:00:00", NEW_YORK),
                epoch("2026-11-01T01:15:00", NEW_YORK), epoch("2026-11-01T01:15:00", NEW_YORK, fold=1),
            ],
        ),
        ("Asia/Kolkata", [NOON]),
        ("Australia/Lord_Howe", [epoch("2026-04-05T01:45:00", "Australia/Lord_Howe", fold=1)]),
    ],
)  # fmt: skip
def test_the_wall_clock_gives_the_same_seconds_as_epoch_time(site: str, starts: list[int]) -> None:
    long = 8 * HOUR
    rows = [row(Start=start, ElapsedRaw=long, Submit=start - DAY) for start in starts]
    rows += [{**one, **{name: wall(int(one[name]), site) for name in ("Submit", "Start", "End")}} for one in rows]
    for found, start in zip(parse_each(rows, site), starts * 2, strict=True):
        assert (found["start"], found["end"], found["elapsed_s"], found["span_s"]) == (start, start + long, long, long)


def test_an_end_in_the_second_of_two_hours_agrees_with_the_elapsed_time() -> None:
    start = epoch("2026-10-24T20:00:00", BERLIN)
    end = epoch("2026-10-25T02:30:00", BERLIN, fold=1)
    found = parse(
        [row(Submit=wall(start, BERLIN), Start=wall(start, BERLIN), End=wall(end, BERLIN), ElapsedRaw=end - start)],
        BERLIN,
    ).only
    assert (found["start"], found["end"]) == (start, end)


@pytest.mark.parametrize("state", ["COMPLETED", "RUNNING"])
def test_a_job_that_waited_through_the_clock_change_was_not_resized(state: str) -> None:
    submit = epoch("2026-10-25T02:50:00", BERLIN)
    start = epoch("2026-10-25T02:10:00", BERLIN, fold=1)  # 20 minutes later, 40 earlier on the wall
    end = start + 3 * HOUR
    shown = row(
        State=state, Submit=wall(submit, BERLIN), Start=wall(start, BERLIN), ElapsedRaw=3 * HOUR,
        End=wall(end, BERLIN) if state == "COMPLETED" else "Unknown",
    )  # fmt: skip
    found = parse([shown], BERLIN).only
    assert found["elapsed_s"] == 3 * HOUR
    if state == "COMPLETED":
        assert (found["start"], found["end"]) == (start, end)


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(
        [(BERLIN, "2026-10-25T00:00:00"), (BERLIN, "2026-03-29T00:00:00"), (NEW_YORK, "2026-11-01T04:00:00")]
    ),
    st.lists(
        st.tuples(st.integers(0, 4 * HOUR), st.integers(0, 4 * HOUR), st.integers(0, 9000)), min_size=50, max_size=100
    ),
)
def test_no_job_of_the_night_is_lost_or_longer_than_it_was(
    where: tuple[str, str], jobs: list[tuple[int, int, int]]
) -> None:
    site, night = where
    rows = []
    for number, (begin, elapsed, waited) in enumerate(jobs, 1):
        start = epoch(night) + begin
        rows.append(
            row(
                JobID=number, Submit=wall(start - waited, site), Start=wall(start, site), End=wall(start + elapsed, site),
                ElapsedRaw=elapsed,
            )
        )  # fmt: skip
    parsed = parse(rows, site)
    assert parsed.reasons == []
    assert [(r["elapsed_s"], r["span_s"]) for r in parsed.records] == [(elapsed, elapsed) for _, elapsed, _ in jobs]


def test_a_resize_in_epoch_seconds_is_seen_on_the_night_of_the_clock_change_too() -> None:
    start = epoch("2026-10-25T02:10:00", BERLIN)
    found = parse([row(Start=start, Submit=start + 600, ElapsedRaw=HOUR)], BERLIN).only
    assert (found["start"], found["elapsed_s"]) == (start + 600, HOUR - 600)


# Sizes, names, energy


def test_sizes_come_from_alloctres_where_their_columns_are_missing() -> None:
    names = [name for name in COLUMNS if name not in ("NCPUS", "NNodes")]
    found = parse(sacct_text([row(AllocTRES="billing=9,cpu=16,mem=1.50G,node=3")], names)).only
    assert (found["cpus"], found["nodes"], found["mem_gb"]) == (16, 3, 1.5)


def test_slurm_s_joules_are_a_number_or_none() -> None:
    joules = {
        "0": None, "": None, "360000": 360_000.0, "18446744073709551614": None, "18446744073709551615": None,
        "4294967294": None, "4294967295": None, "1.2K": None, "N/A": None,
    }  # fmt: skip
    assert [one["slurm_j"] for one in parse_each(row(ConsumedEnergyRaw=text) for text in joules)] == list(
        joules.values()
    )


def test_joules_may_stand_in_alloctres_instead() -> None:
    tres = "cpu=4,energy={},mem=1G,node=1"
    assert parse([row(ConsumedEnergyRaw="", AllocTRES=tres.format(5000))]).only["slurm_j"] == 5000
    assert parse([row(ConsumedEnergyRaw=0, AllocTRES=tres.format(5000))]).only["slurm_j"] == 5000
    assert parse([row(ConsumedEnergyRaw=7, AllocTRES=tres.format(5000))]).only["slurm_j"] == 7
    assert parse([row(ConsumedEnergyRaw=0, AllocTRES=tres.format(2**64 - 2))]).only["slurm_j"] is None


def test_a_record_that_names_no_cluster_is_of_the_site_s() -> None:
    assert parse([row(Cluster="")], cluster="o'hara").only["cluster"] == "o'hara"


def test_a_cluster_s_name_that_no_folder_can_have_is_set_aside() -> None:
    assert parse([row(Cluster="x" * 81)]).records == []
    assert "is longer than a name can be" in parse([row(Cluster="ж" * 60)]).reasons[0]
    assert parse([row(Cluster="x" * 40)]).only["cluster"] == "x" * 40


def test_texts_pass_through_unchanged() -> None:
    texts = {
        "User": "o'brien", "Account": 'a"b', "Partition": "gpu;drop", "QOS": "%s", "WCKey": "*paper",
        "NodeList": "n[001-003,010],gpu5", "JobName": "имя $(x) {0}", "Comment": "project=aurora, sweep=lr1",
    }  # fmt: skip
    found = parse([row(**texts)]).only
    ours = ("user", "account", "partition", "qos", "wckey", "node_list", "job_name", "comment")
    assert [found[name] for name in ours] == list(texts.values())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"AllocTRES": "billing=4,cpu=4,mem=nan,node=1"}, "memory"),
        ({"AllocTRES": "billing=4,cpu=4,mem=inf,node=1"}, "memory"),
        ({"AllocTRES": "billing=4,cpu=4,mem=-8G,node=1"}, "memory"),
        ({"AllocTRES": "billing=4,cpu=4,mem=1e30G,node=1"}, "memory"),
        ({"NCPUS": "-4"}, "CPUs"),
        ({"NCPUS": "999999999"}, "CPUs"),
        ({"NCPUS": "four"}, "NCPUS"),
        ({"NNodes": "one"}, "NNodes"),
    ],
)
def test_a_size_that_no_machine_has_is_set_aside_and_poisons_no_sum(fields: dict[str, str], said: str) -> None:
    found = parse([row(), row(JobID="8", JobIDRaw="8", **fields)])
    assert [one["job_id"] for one in found.records] == [7]
    assert len(found.set_aside) == 1
    assert said in found.set_aside[0].reason
