"""From a saved file to ledger days: split at midnight, priced, later states in place of earlier ones, the same bytes."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    COLUMNS,
    DAY,
    FIXTURES,
    NOON,
    VERSIONS,
    aggregate_file,
    days_of,
    epoch,
    files,
    ledger_of,
    ledger_rows,
    row,
    running,
    sacct_text,
    save,
    utc,
    wall,
)  # fmt: skip
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slurm_energy.cli import main
from slurm_energy.config import ConfigError
from slurm_energy.ledger.schema import NAMES, SCHEMA
from slurm_energy.ledger.store import Ledger
from slurm_energy.slurm.zone import zone

MIDNIGHT = epoch("2026-11-24")
BERLIN, NEW_YORK, KOLKATA = "Europe/Berlin", "America/New_York", "Asia/Kolkata"
CPU_ONLY = "billing=4,cpu=4,mem=16G,node=1"
WATTS = """
[factors]
pue = 1.5
carbon_g_per_kwh = 100
electricity_usd_per_kwh = 0.2
cpu_core_w = 10
dram_w_per_gb = 0.5
[factors.gpu_w]
a100 = 400
"""
"""A job of row() draws 4 x 10 W + 16 x 0.5 W + 400 W = 448 W."""
WHOLE = WATTS + "[power.partition.gpu]\nexclusive = true\n"


def only(rows: list[dict[str, Any]]) -> dict[str, Any]:
    (one,) = rows
    return one


def day(text: str) -> date:
    return date.fromisoformat(text)


# What a row holds


def test_a_job_within_a_day_is_one_row_with_all_that_it_was(tmp_path: Path) -> None:
    found = only(ledger_of(tmp_path, [row(JobID="12_3", JobIDRaw=15, Comment="project=x sweep=lr1")], settings=WATTS))
    assert tuple(found) == NAMES
    texts = ("cluster", "user", "account", "project", "sweep", "partition", "qos", "job_name", "state", "profile")
    assert [found[name] for name in texts] == [
        "alpha",
        "emma",
        "lisa",
        "lisa",
        "lr1",
        "gpu",
        "normal",
        "train",
        "COMPLETED",
        "site",
    ]
    assert [found[name] for name in ("job_id", "array_job_id", "array_task_id", "restart_count")] == [15, 12, 3, None]
    assert [found[name] for name in ("submit", "start", "end")] == [utc(NOON - 60), utc(NOON), utc(NOON + 3600)]
    assert [found[name] for name in ("date", "elapsed_s", "nodes", "cpus", "gpus")] == [
        day("2026-11-24"),
        3600,
        1,
        4,
        1,
    ]


def test_energy_emissions_and_cost_follow_from_watts_and_time(tmp_path: Path) -> None:
    found = only(ledger_of(tmp_path, [row(ElapsedRaw=1800)], settings=WATTS))
    kwh = {"package_kwh": 0.020, "dram_kwh": 0.004, "gpu_kwh": 0.200, "other_kwh": 0.0, "it_kwh": 0.224}
    assert {name: found[name] for name in kwh} == pytest.approx(kwh)
    derived = {
        "facility_kwh": 0.336, "co2e_g": 33.6, "electricity_usd": 0.0672, "gpu_h": 0.5, "cpu_h": 2.0, "pue": 1.5,
        "carbon_g_per_kwh": 100.0, "measured_kwh": 0.0, "slurm_kwh": 0.0, "estimated_kwh": 0.224, "coverage": 0.0,
    }  # fmt: skip
    assert {name: found[name] for name in derived} == pytest.approx(derived)
    assert found["provenance"] == "estimated"


def test_dated_factors_hold_on_their_days(tmp_path: Path) -> None:
    text = WATTS + "[[factors.period]]\nstart = 2026-11-25\npue = 1.2\n"
    rows = ledger_of(tmp_path, [row(Start=MIDNIGHT + DAY - 3600, ElapsedRaw=7200)], settings=text)
    assert [(one["date"].day, one["pue"]) for one in rows] == [(24, 1.5), (25, 1.2)]


def test_the_price_of_cores_counts_only_where_no_gpu_brings_them(tmp_path: Path) -> None:
    text = WATTS.replace(
        "[factors.gpu_w]", "cpu_core_low_usd_per_h = 0.02\ncpu_core_high_usd_per_h = 0.05\n[factors.gpu_w]"
    )
    gpu, cpu, unknown = ledger_of(
        tmp_path,
        [row(JobID=1), row(JobID=2, AllocTRES=CPU_ONLY), row(JobID=3, AllocTRES="cpu=4,gres/gpu:zx81=1")],
        settings=text,
    )
    assert (cpu["cloud_low_usd"], cpu["cloud_high_usd"]) == (pytest.approx(0.08), pytest.approx(0.2))
    assert 0 < gpu["cloud_low_usd"] <= gpu["cloud_high_usd"]
    assert (unknown["cloud_low_usd"], unknown["cloud_high_usd"], unknown["gpu_model"]) == (None, None, "zx81")


def test_a_cpu_job_has_no_energy_under_the_paper_and_says_so(tmp_path: Path) -> None:
    gpu, cpu = ledger_of(tmp_path, [row(JobID=1), row(JobID=2, AllocTRES=CPU_ONLY)], profile="strubell2019")
    assert (cpu["provenance"], cpu["it_kwh"], cpu["gpu_model"], cpu["profile"]) == ("none", 0.0, None, "strubell2019")
    assert (gpu["provenance"], gpu["it_kwh"]) == ("estimated", pytest.approx(0.216961))


def test_a_gh200_is_not_given_its_cpu_power_twice(tmp_path: Path) -> None:
    found = only(ledger_of(tmp_path, [row(AllocTRES="cpu=72,mem=480G,gres/gpu:gh200=1,gres/gpu=1,node=1", NCPUS=72)]))
    assert (found["package_kwh"], found["dram_kwh"]) == (0.0, 0.0)
    assert found["it_kwh"] == found["gpu_kwh"] > 0


def test_the_hardware_of_nodes_and_partitions_is_the_configuration_s(tmp_path: Path) -> None:
    text = WATTS + '[power.partition.fat]\ncpu_core_w = 5\n[[power.nodes]]\nnames = "n[001-003,010]"\ncpu_core_w = 20\n'
    rows = [
        row(JobID=1, NodeList="x1"), row(JobID=2, Partition="fat", NodeList="x1"), row(JobID=3, Partition="fat", NodeList="n[001,010]"),
        row(JobID=4, Partition="fat", NodeList="n[001-003,010],gpu5", NNodes=5), row(JobID=5, NodeList="None assigned"),
    ]  # fmt: skip
    found = [one["package_kwh"] for one in ledger_of(tmp_path, rows, settings=text)]
    assert found == pytest.approx([0.04, 0.02, 0.08, 0.068, 0.04])


def test_projects_follow_the_site_s_rules_and_its_tree_of_accounts(tmp_path: Path) -> None:
    text = "[[projects]]\nproject = '{comment}'\n[[projects]]\nproject = 'cs'\naccount = 'cs'\n"
    rows = [row(JobID=1), row(JobID=2, Comment="project=aurora"), row(JobID=3, Account="phys")]
    found = ledger_of(tmp_path, rows, settings=text, parents={"lisa": "nlp", "nlp": "cs"})
    assert [one["project"] for one in found] == ["cs", "aurora", "phys"]


# Days


def test_a_job_over_midnight_has_a_row_a_day_and_they_are_the_job(tmp_path: Path) -> None:
    rows = ledger_of(tmp_path, [row(Start=MIDNIGHT + DAY - 600, ElapsedRaw=DAY + 1000)], settings=WATTS)
    assert [(one["date"].day, one["elapsed_s"]) for one in rows] == [(24, 600), (25, DAY), (26, 400)]
    assert {(one["start"], one["end"]) for one in rows} == {(utc(MIDNIGHT + DAY - 600), utc(MIDNIGHT + 2 * DAY + 400))}
    assert sum(one["it_kwh"] for one in rows) == pytest.approx(0.448 * (DAY + 1000) / 3600)


def test_midnight_belongs_to_the_day_that_it_begins(tmp_path: Path) -> None:
    jobs = [
        (MIDNIGHT, DAY, [24]),
        (MIDNIGHT, DAY + 1, [24, 25]),
        (MIDNIGHT - 1, 1, [23]),
        (MIDNIGHT - 1, 2, [23, 24]),
        (MIDNIGHT, 0, [24]),
    ]
    rows = ledger_of(
        tmp_path, [row(JobID=number, Start=start, ElapsedRaw=s) for number, (start, s, _) in enumerate(jobs)]
    )
    for number, (_, elapsed, days) in enumerate(jobs):
        mine = [one for one in rows if one["job_id"] == number]
        assert [one["date"].day for one in mine] == days
        assert sum(one["elapsed_s"] for one in mine) == elapsed


def test_a_day_is_as_long_as_the_site_s_clock_makes_it(tmp_path: Path) -> None:
    for site, first, seconds in [
        (BERLIN, "2026-10-25", 25 * 3600), (BERLIN, "2026-03-29", 23 * 3600), (NEW_YORK, "2026-11-01", 25 * 3600),
        (NEW_YORK, "2026-03-08", 23 * 3600), (KOLKATA, "2026-03-29", 24 * 3600),
    ]:  # fmt: skip
        start = epoch(first, site)
        folder = tmp_path / f"{site.replace('/', '-')}{first}"
        folder.mkdir()
        job = row(
            Start=wall(start - 3600, site),
            Submit=wall(start - 7200, site),
            End=wall(start + seconds + 3600, site),
            ElapsedRaw=seconds + 7200,
        )
        rows = ledger_of(folder, [job], timezone_name=site)
        assert [one["elapsed_s"] for one in rows] == [3600, seconds, 3600]
        assert rows[1]["date"] == day(first)


def test_a_half_hour_zone_has_its_own_midnight(tmp_path: Path) -> None:
    rows = ledger_of(tmp_path, [row(Start=epoch("2026-11-24T18:00:00"), ElapsedRaw=3600)], timezone_name=KOLKATA)
    assert [(one["date"].day, one["elapsed_s"]) for one in rows] == [(24, 1800), (25, 1800)]


def test_suspended_time_is_no_run_time_on_any_day(tmp_path: Path) -> None:
    job = row(Start=MIDNIGHT + DAY - 3600, ElapsedRaw=3600, Suspended="01:00:00", End=MIDNIGHT + DAY + 3600)
    rows = ledger_of(tmp_path, [job])
    assert [(one["date"].day, one["elapsed_s"]) for one in rows] == [(24, 1800), (25, 1800)]


@settings(max_examples=4, deadline=None)
@given(
    st.sampled_from([(BERLIN, "2026-10-22"), (NEW_YORK, "2026-03-06"), (KOLKATA, "2026-11-24"), ("UTC", "2026-11-24")]),
    st.lists(
        st.tuples(st.integers(0, 5 * DAY), st.integers(0, 5 * DAY), st.integers(0, 3 * DAY)), min_size=20, max_size=60
    ),
)
def test_the_seconds_of_the_days_are_the_elapsed_time_exactly(
    tmp_path_factory: pytest.TempPathFactory, where: tuple[str, str], jobs: list[tuple[int, int, int]]
) -> None:
    site, first = where
    begin = epoch(first, site)
    rows = [
        row(
            JobID=number,
            Start=begin + start,
            ElapsedRaw=elapsed,
            Suspended=suspended,
            End=begin + start + elapsed + suspended,
        )
        for number, (start, elapsed, suspended) in enumerate(jobs, 1)
    ]
    found = ledger_of(tmp_path_factory.mktemp("days"), rows, timezone_name=site)
    for number, (start, elapsed, suspended) in enumerate(jobs, 1):
        mine = [one for one in found if one["job_id"] == number]
        assert sum(one["elapsed_s"] for one in mine) == elapsed
        begins = datetime.fromtimestamp(begin + start, zone(site)).date()
        ends = datetime.fromtimestamp(begin + start + max(elapsed + suspended, 1) - 1, zone(site)).date()
        assert days_of(mine) == [date.fromordinal(one) for one in range(begins.toordinal(), ends.toordinal() + 1)]
        for one in mine:
            midnight = epoch(one["date"].isoformat(), site)
            following = epoch(date.fromordinal(one["date"].toordinal() + 1).isoformat(), site)
            there = min(following, begin + start + elapsed + suspended) - max(midnight, begin + start)
            assert 0 <= one["elapsed_s"] <= max(there, 0)


# Requeued, resized, array and heterogeneous jobs


@pytest.mark.parametrize("version", VERSIONS)
def test_a_real_dump_becomes_a_ledger(version: str, tmp_path: Path) -> None:
    outcome = aggregate_file(FIXTURES / version / "sacct-X-P.txt", tmp_path / "ledger")
    assert (outcome.rows, outcome.days_written, outcome.set_aside, outcome.counts.waiting) == (30, 1, (), 3)
    rows = ledger_rows(tmp_path / "ledger")
    assert [one["elapsed_s"] for one in rows if one["job_id"] == 24] == [2, 6]
    assert [(one["state"], one["elapsed_s"]) for one in rows if one["job_id"] == 2] == [
        ("REQUEUED", 0),
        ("COMPLETED", 3),
    ]
    assert {one["sweep"] for one in rows if one["array_job_id"] == 13} == {"13"}
    assert sorted(one["array_task_id"] for one in rows if one["array_job_id"] == 13) == list(range(6))
    assert [(one["cpus"], one["gpu_model"]) for one in rows if one["job_id"] in (20, 21)] == [(1, None), (2, "M40")]
    mixed = only([one for one in rows if one["job_id"] == 15])
    assert (mixed["gpus"], mixed["gpu_model"], mixed["nodes"]) == (4, "M40+TITANX", 2)
    assert only([one for one in rows if one["job_id"] == 26])["end"] is None


def test_a_real_dump_with_steps_makes_the_same_ledger_as_one_without(tmp_path: Path) -> None:
    text = (FIXTURES / "24.11" / "sacct-X-P.txt").read_bytes()
    steps = b"7.batch|7.batch|hpc24||lisa||||batch|COMPLETED|0:0|1|1|1|9|8|00:00:00|1|1|cpu=1,mem=64M,node=1||n1|900||||s4\n"
    aggregate_file(save(tmp_path / "a.txt", text), tmp_path / "a")
    aggregate_file(save(tmp_path / "b.txt", text + steps), tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_the_two_records_of_a_resized_job_do_not_count_a_second_twice(tmp_path: Path) -> None:
    rows = [
        row(State="RESIZING", NNodes=2, ElapsedRaw=1000),
        row(Start=NOON, Submit=NOON + 1000, ElapsedRaw=3000, End=NOON + 3000),  # as 22.05 prints it
    ]
    found = ledger_of(tmp_path, rows)
    assert [(one["start"], one["elapsed_s"]) for one in found] == [(utc(NOON), 1000), (utc(NOON + 1000), 2000)]
    assert sum(one["gpu_h"] for one in found) == pytest.approx(3000 / 3600)


# Later states, pieces, windows


@pytest.mark.parametrize("turn", [1, -1])
def test_a_job_that_ended_replaces_itself_running_whichever_dump_comes_first(turn: int, tmp_path: Path) -> None:
    dumps = [[running(ElapsedRaw=3600), row(JobID=8)], [row(ElapsedRaw=2 * DAY), row(JobID=9)]][::turn]
    for number, rows in enumerate(dumps):
        aggregate_file(save(tmp_path / f"{number}.txt", rows), tmp_path / "ledger")
    found = ledger_rows(tmp_path / "ledger")
    assert [(one["job_id"], one["state"], one["date"].day) for one in found] == [
        (7, "COMPLETED", 24), (8, "COMPLETED", 24), (9, "COMPLETED", 24), (7, "COMPLETED", 25), (7, "COMPLETED", 26),
    ]  # fmt: skip
    aggregate_file(save(tmp_path / "all.txt", dumps[0] + dumps[1]), tmp_path / "at-once")
    assert files(tmp_path / "at-once") == files(tmp_path / "ledger")


def test_a_later_record_of_a_running_job_replaces_all_its_days(tmp_path: Path) -> None:
    ledger_of(tmp_path, [running(ElapsedRaw=2 * DAY, User="emma")])
    found = ledger_of(tmp_path, [running(ElapsedRaw=3 * DAY, User="ananya")])
    assert {one["user"] for one in found} == {"ananya"}
    assert sum(one["elapsed_s"] for one in found) == 3 * DAY


def test_an_older_dump_does_not_undo_a_newer_state_of_a_job_that_still_runs(tmp_path: Path) -> None:
    newer = ledger_of(tmp_path, [running(ElapsedRaw=3 * DAY)])
    assert ledger_of(tmp_path, [running(ElapsedRaw=2 * DAY)]) == newer


def test_a_job_that_turned_out_shorter_leaves_no_day_behind(tmp_path: Path) -> None:
    ledger_of(tmp_path, [running(ElapsedRaw=3 * DAY)])
    found = ledger_of(tmp_path, [row(ElapsedRaw=3600)])  # its node had died long before Slurm knew
    assert [(one["date"].day, one["elapsed_s"]) for one in found] == [(24, 3600)]
    assert list(files(tmp_path / "ledger")) == ["days/cluster=alpha/2026-11-24.parquet"]


def test_the_factors_of_the_last_run_hold(tmp_path: Path) -> None:
    ledger_of(tmp_path, [row()], settings=WATTS)
    found = only(ledger_of(tmp_path, [row()], settings=WATTS.replace("pue = 1.5", "pue = 1.1")))
    assert found["pue"] == 1.1


PIECES = [
    row(JobID=1, Start=MIDNIGHT - 5000, ElapsedRaw=9000),
    running(JobID=2, ElapsedRaw=100),
    row(JobID=2, ElapsedRaw=DAY),
    row(JobID=3, JobName="a|b", Cluster="beta"),
    row(JobID=3, Start=NOON + 30 * DAY),
    row(JobID="12_0", JobIDRaw=13, Suspended="00:10:00", End=NOON + 4200),
    row(JobID="12_1", JobIDRaw=12, State="CANCELLED by 1001"),
    row(JobID="20+1", JobIDRaw=21, AllocTRES=CPU_ONLY),
]


@settings(max_examples=3, deadline=None)
@given(st.data())
def test_pieces_that_overlap_in_any_order_make_the_same_bytes_as_the_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    aggregate_file(save(folder / "whole.txt", PIECES), folder / "whole")
    parts = data.draw(st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6), min_size=1, max_size=2))
    missing = [one for one in PIECES if all(one not in part for part in parts)]
    for number, part in enumerate(data.draw(st.permutations([*parts, [*missing, PIECES[0]]]))):
        aggregate_file(save(folder / f"{number}.txt", part), folder / "pieces")
    assert files(folder / "pieces") == files(folder / "whole")


def test_aggregating_twice_writes_nothing_the_second_time(tmp_path: Path) -> None:
    path = save(tmp_path / "jobs.txt", PIECES)
    first = aggregate_file(path, tmp_path / "ledger")
    before = {name: (tmp_path / "ledger" / name).stat().st_mtime_ns for name in files(tmp_path / "ledger")}
    second = aggregate_file(path, tmp_path / "ledger")
    assert (first.days_written, first.days_unchanged) == (5, 0)
    assert (second.days_written, second.days_unchanged) == (0, 5)
    assert {name: (tmp_path / "ledger" / name).stat().st_mtime_ns for name in files(tmp_path / "ledger")} == before


def test_a_window_writes_no_half_day_outside_of_it(tmp_path: Path) -> None:
    rows = [
        row(JobID=1, Start=MIDNIGHT - DAY, ElapsedRaw=3 * DAY), row(JobID=2, Start=MIDNIGHT - DAY, ElapsedRaw=100),
        row(JobID=3), row(JobID=4, Start=MIDNIGHT + DAY, ElapsedRaw=100),
    ]  # fmt: skip
    found = ledger_of(tmp_path, rows, window=(MIDNIGHT, MIDNIGHT + DAY))
    assert [(one["job_id"], one["date"].day, one["elapsed_s"]) for one in found] == [(1, 24, DAY), (3, 24, 3600)]


def test_a_window_leaves_the_other_jobs_of_days_that_are_there(tmp_path: Path) -> None:
    early, late = row(JobID=2, Start=MIDNIGHT - 1000, ElapsedRaw=10), row(JobID=3, Start=MIDNIGHT + DAY, ElapsedRaw=10)
    ledger_of(tmp_path, [running(JobID=1, Start=MIDNIGHT - 500, ElapsedRaw=2 * DAY), early, late])
    found = ledger_of(
        tmp_path, [row(JobID=1, Start=MIDNIGHT - 500, ElapsedRaw=2 * DAY)], window=(MIDNIGHT, MIDNIGHT + DAY)
    )
    assert [(one["job_id"], one["date"].day) for one in found] == [(1, 23), (2, 23), (1, 24), (1, 25), (3, 25)]
    assert {one["state"] for one in found} == {"COMPLETED"}
    assert sum(one["elapsed_s"] for one in found if one["job_id"] == 1) == 2 * DAY


def test_a_window_adds_a_job_to_the_days_that_are_there_and_to_no_others(tmp_path: Path) -> None:
    ledger_of(tmp_path, [row(JobID=3, Start=MIDNIGHT + DAY, ElapsedRaw=10)])
    found = ledger_of(tmp_path, [row(JobID=1, ElapsedRaw=3 * DAY)], window=(MIDNIGHT, MIDNIGHT + DAY))
    assert [(one["job_id"], one["date"].day) for one in found] == [(1, 24), (1, 25), (3, 25)]


def test_windows_day_by_day_make_the_ledger_of_the_whole(tmp_path: Path) -> None:
    path = save(tmp_path / "jobs.txt", [one for one in PIECES if one["Start"] < str(NOON + DAY)])
    aggregate_file(path, tmp_path / "whole")
    for shift in (1, -1, 0):
        aggregate_file(path, tmp_path / "days", window=(MIDNIGHT + shift * DAY, MIDNIGHT + (shift + 1) * DAY))
    assert files(tmp_path / "days") == files(tmp_path / "whole")


@pytest.mark.xfail(strict=True, reason="wall-clock times of a running job do not say which of the two hours it was")
def test_a_running_and_an_ended_record_of_the_doubled_hour_are_one_job(tmp_path: Path) -> None:
    start = epoch("2026-10-25T02:10:00", BERLIN, fold=1)
    fields = {"Submit": wall(start - DAY, BERLIN), "Start": wall(start, BERLIN)}
    ledger_of(tmp_path, [running(**fields, ElapsedRaw=600)], timezone_name=BERLIN)
    found = ledger_of(tmp_path, [row(**fields, End=wall(start + 7200, BERLIN), ElapsedRaw=7200)], timezone_name=BERLIN)
    assert [(one["state"], one["elapsed_s"]) for one in found] == [("COMPLETED", 7200)]


# Clusters


def test_each_cluster_has_its_own_days(tmp_path: Path) -> None:
    rows = ledger_of(tmp_path, [row(Cluster="beta"), row(Cluster="alpha"), row(Cluster="beta", JobID=8)])
    assert [(one["cluster"], one["job_id"]) for one in rows] == [("alpha", 7), ("beta", 7), ("beta", 8)]
    assert list(files(tmp_path / "ledger")) == [
        "days/cluster=alpha/2026-11-24.parquet",
        "days/cluster=beta/2026-11-24.parquet",
    ]


def test_no_cluster_s_name_leads_out_of_the_ledger_or_into_another_s_days(tmp_path: Path) -> None:
    names = [
        "../x",
        ".",
        "..",
        "a/b",
        "a\\b",
        "%2e",
        "42",
        "007",
        "2026-01-01",
        "o'hara",
        '"',
        "é🙂",
        " ",
        "[a]*?",
        "null",
        "alpha",
        "x" * 80,
    ]
    ledger_of(tmp_path, [row(Cluster=name) for name in names])
    outside = {one.name for one in tmp_path.iterdir()}
    found = ledger_of(tmp_path, [row(Cluster=name, JobID=8) for name in names])
    assert sorted((one["cluster"], one["job_id"]) for one in found) == sorted(
        (name, number) for name in names for number in (7, 8)
    )
    assert {one.name for one in tmp_path.iterdir()} == outside == {"jobs.txt", "ledger"}
    assert len(files(tmp_path / "ledger")) == len(names)
    assert {file.cluster for file in Ledger(tmp_path / "ledger").days()} == set(names)


def test_a_cluster_without_a_name_keeps_its_days(tmp_path: Path) -> None:
    nameless = '[site]\ncluster = ""'
    ledger_of(tmp_path, [row(Cluster="")], settings=nameless)
    found = ledger_of(tmp_path, [row(Cluster="", JobID=8)], settings=nameless)
    assert [(one["cluster"], one["job_id"]) for one in found] == [("", 7), ("", 8)]


# Slurm's own energy


SANE_J = 448 * 3600 * 0.8


def slurm_energy(tmp_path: Path, plugin: str, settings_text: str = WHOLE, **fields: Any) -> dict[str, Any]:
    job = row(**{"ConsumedEnergyRaw": round(SANE_J), **fields})
    return only(ledger_of(tmp_path, [job], settings=settings_text, plugin=plugin))


@pytest.mark.parametrize("plugin", ["ipmi", "xcc", "pm_counters"])
def test_a_plugin_that_sees_the_whole_node_is_all_the_energy(plugin: str, tmp_path: Path) -> None:
    found = slurm_energy(tmp_path, plugin)
    assert found["provenance"] == "slurm"
    assert found["it_kwh"] == found["slurm_kwh"] == pytest.approx(0.448 * 0.8)
    assert (found["estimated_kwh"], found["gpu_kwh"], found["other_kwh"]) == (0.0, 0.0, pytest.approx(0.448 * 0.8))


def test_under_rapl_the_gpus_are_added_and_marked_as_estimated(tmp_path: Path) -> None:
    found = slurm_energy(tmp_path, "rapl", ConsumedEnergyRaw=50 * 3600)
    assert found["provenance"] == "slurm"
    assert (found["slurm_kwh"], found["estimated_kwh"], found["it_kwh"]) == (
        pytest.approx(0.05), pytest.approx(0.4), pytest.approx(0.45),
    )  # fmt: skip
    assert (found["package_kwh"], found["dram_kwh"], found["gpu_kwh"]) == (pytest.approx(0.05), 0.0, pytest.approx(0.4))


def test_under_the_gpu_plugin_amd_is_believed_and_the_host_is_added(tmp_path: Path) -> None:
    tres = "cpu=4,mem=16G,gres/gpu:mi250x=1,gres/gpu=1,node=1"
    amd = slurm_energy(tmp_path, "gpu", AllocTRES=tres, ConsumedEnergyRaw=300 * 3600)
    assert (amd["provenance"], amd["gpu_kwh"], amd["package_kwh"]) == ("slurm", pytest.approx(0.3), pytest.approx(0.04))


def test_nvidia_energy_is_never_in_slurm_s_figure(tmp_path: Path) -> None:
    found = slurm_energy(tmp_path, "gpu", ConsumedEnergyRaw=300 * 3600)
    assert (found["provenance"], found["slurm_kwh"], found["gpu_kwh"]) == ("estimated", 0.0, pytest.approx(0.4))


def test_without_a_plugin_the_figure_is_not_used_and_that_is_counted(tmp_path: Path) -> None:
    path = save(tmp_path / "jobs.txt", [row(ConsumedEnergyRaw=900), row(JobID=8)])
    assert aggregate_file(path, tmp_path / "none", settings=WHOLE).slurm_energy_unused == 1
    assert aggregate_file(path, tmp_path / "ipmi", settings=WHOLE, plugin="ipmi").slurm_energy_unused == 0
    assert [one["provenance"] for one in ledger_rows(tmp_path / "none")] == ["estimated", "estimated"]


def test_a_figure_that_the_hardware_cannot_draw_is_not_believed(tmp_path: Path) -> None:
    wrong = [0, "", -5, "nan", "inf", 2**32 - 2, 2**32 - 1, 2**64 - 2, 2**64 - 1, round(448 * 3600 * 1.51), 10**15]
    rows = [row(JobID=number, ConsumedEnergyRaw=joules) for number, joules in enumerate(wrong)]
    found = ledger_of(tmp_path, rows, settings=WHOLE, plugin="ipmi")
    assert [(one["provenance"], one["slurm_kwh"]) for one in found] == [("estimated", 0.0)] * len(wrong)
    assert [one["it_kwh"] for one in found] == pytest.approx([0.448] * len(wrong))


def test_slurm_s_no_value_is_not_believed_where_it_could_be_drawn(tmp_path: Path) -> None:
    found = ledger_of(tmp_path, [row(ElapsedRaw=90 * DAY, ConsumedEnergyRaw=2**32 - 2)], settings=WHOLE, plugin="ipmi")
    assert {one["provenance"] for one in found} == {"estimated"}  # 552 W would be sane


def test_a_figure_up_to_half_over_the_rated_power_is(tmp_path: Path) -> None:
    assert slurm_energy(tmp_path, "ipmi", ConsumedEnergyRaw=round(448 * 3600 * 1.49))["provenance"] == "slurm"


def test_a_figure_is_believed_for_whole_nodes_only(tmp_path: Path) -> None:
    text = (
        WATTS
        + "[power.partition.part]\ncpus_per_node = 64\n[power.partition.alone]\ncpus_per_node = 64\nexclusive = true\n"
    )
    jobs: list[tuple[dict[str, Any], str]] = [
        ({"Partition": "gpu"}, "estimated"),  # nobody says how large its nodes are
        ({}, "estimated"),
        ({"NCPUS": 63}, "estimated"),
        ({"NCPUS": 64}, "slurm"),
        ({"NCPUS": 64, "NNodes": 2}, "estimated"),
        ({"NCPUS": 128, "NNodes": 2}, "slurm"),
        ({"NNodes": "", "AllocTRES": "cpu=4,mem=16G,gres/gpu:a100=1"}, "estimated"),
        ({"Partition": "alone"}, "slurm"),
    ]
    rows = [
        row(**{"JobID": n, "Partition": "part", "ConsumedEnergyRaw": round(SANE_J), **one})
        for n, (one, _) in enumerate(jobs)
    ]
    found = ledger_of(tmp_path, rows, settings=text, plugin="ipmi")
    assert [one["provenance"] for one in found] == [provenance for _, provenance in jobs]


def test_nodes_of_different_sizes_are_whole_only_all_together(tmp_path: Path) -> None:
    text = (
        WATTS
        + '[[power.nodes]]\nnames = "s1"\ncpus_per_node = 64\n[[power.nodes]]\nnames = "b1"\ncpus_per_node = 128\n'
    )
    rows = [
        row(JobID=number, NNodes=2, NodeList="b1,s1", NCPUS=cpus, ConsumedEnergyRaw=9000)
        for number, cpus in enumerate((128, 191, 192))
    ]
    found = ledger_of(tmp_path, rows, settings=text, plugin="ipmi")
    assert [one["provenance"] for one in found] == ["estimated", "estimated", "slurm"]


def test_slurm_s_figure_is_spread_over_the_days_and_sums_up(tmp_path: Path) -> None:
    job = row(Start=MIDNIGHT + DAY - 600, ElapsedRaw=1800, ConsumedEnergyRaw=300_000)
    rows = ledger_of(tmp_path, [job], settings=WHOLE, plugin="ipmi")
    assert [one["slurm_kwh"] * 3.6e6 for one in rows] == pytest.approx([100_000, 200_000])


@pytest.mark.parametrize("plugin", ["none", "rapl", "ipmi", "gpu"])
def test_every_row_s_parts_are_its_energy(plugin: str, tmp_path: Path) -> None:
    rows = [
        row(JobID=number, ElapsedRaw=1000 * number, AllocTRES=tres, ConsumedEnergyRaw=joules)
        for number, (tres, joules) in enumerate(
            [
                (t, j)
                for t in (CPU_ONLY, row()["AllocTRES"], "gres/gpu:mi250x=2,cpu=4,mem=1G,node=1", "", "gres/gpu=3")
                for j in (0, 7000, 10**9)
            ]
        )
    ]
    for one in ledger_of(tmp_path, rows, settings=WHOLE, plugin=plugin):
        parts = one["package_kwh"] + one["dram_kwh"] + one["gpu_kwh"] + one["other_kwh"]
        sources = one["measured_kwh"] + one["slurm_kwh"] + one["estimated_kwh"]
        assert parts == pytest.approx(one["it_kwh"], abs=1e-12)
        assert sources == pytest.approx(one["it_kwh"], abs=1e-12)
        assert (one["slurm_kwh"] > 0) == (one["provenance"] == "slurm" and one["elapsed_s"] > 0)
        if one["provenance"] == "none":
            assert one["it_kwh"] == 0


# Rows set aside, the file of the ledger, the command


def test_bad_rows_are_kept_with_place_and_reason_and_the_rest_counts(tmp_path: Path) -> None:
    path = save(
        tmp_path / "jobs.txt",
        sacct_text([row(JobID=1), row(JobID=2, State="MELTED"), row(JobID=3, End=5), row(JobID=4)]) + "5|cut|x",
    )
    outcome = aggregate_file(path, tmp_path / "ledger")
    assert outcome.counts == (2, 0, 0, 3, 0, 0)
    assert outcome.set_aside_file is not None
    assert outcome.set_aside_file.parent == tmp_path / "ledger" / "set-aside"
    kept = [json.loads(line) for line in outcome.set_aside_file.read_text().splitlines()]
    assert sorted((one["line"], one["reason"]) for one in kept) == [
        (3, "State 'MELTED' is unknown"), (4, f"End '5' is before Start '{NOON}'"), (6, f"3 fields where the header has {len(COLUMNS)}"),
    ]  # fmt: skip
    assert {one["source"] for one in kept} == {str(path)}
    assert (
        next(one["text"] for one in kept if one["line"] == 3)
        == sacct_text([row(JobID=2, State="MELTED")]).splitlines()[1]
    )
    assert aggregate_file(path, tmp_path / "ledger").set_aside_file == outcome.set_aside_file


def test_a_file_of_nothing_but_bad_rows_writes_no_day(tmp_path: Path) -> None:
    outcome = aggregate_file(save(tmp_path / "jobs.txt", [row(State="MELTED")]), tmp_path / "ledger")
    assert (outcome.days_written, outcome.rows, outcome.first_day, files(tmp_path / "ledger")) == (0, 0, None, {})


def test_a_day_s_file_has_the_schema_and_the_order_that_the_page_says(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    ledger_of(tmp_path, [row(JobID=9), row(JobID=10), row(JobID=1), row(JobID=9, Start=NOON - 5000)])
    table = pq.read_table(tmp_path / "ledger/days/cluster=alpha/2026-11-24.parquet", partitioning=None)
    assert table.schema.names == list(NAMES)
    assert table.cast(SCHEMA).equals(
        Ledger(tmp_path / "ledger").arrow()
    )  # Parquet has no seconds; nothing else differs
    assert list(zip(table["job_id"].to_pylist(), table["start"].to_pylist(), strict=True)) == [
        (1, utc(NOON)), (9, utc(NOON - 5000)), (9, utc(NOON)), (10, utc(NOON)),
    ]  # fmt: skip


def test_a_job_of_years_is_spread_over_all_of_them(tmp_path: Path) -> None:
    rows = ledger_of(tmp_path, [running(Start=MIDNIGHT - 400 * DAY, ElapsedRaw=400 * DAY)])
    assert len(rows) == 400
    assert {one["elapsed_s"] for one in rows} == {DAY}


@pytest.fixture
def quiet_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No configuration of this machine."""
    (tmp_path / "config.toml").write_text('[site]\ntimezone = "UTC"\n')
    monkeypatch.setenv("SENERGY_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("SENERGY_LEDGER", str(tmp_path / "ledger"))
    return tmp_path


def test_the_command_ends_with_0_where_all_went_in(quiet_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(quiet_home / "jobs.txt", [row(), running(ElapsedRaw=5)])
    assert main(["aggregate", "--from", str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {name: said[name] for name in ("records", "waiting", "repeated", "set_aside", "days_written", "first_day")} == {
        "records": 1, "waiting": 0, "repeated": 1, "set_aside": 0, "days_written": 1, "first_day": "2026-11-24",
    }  # fmt: skip


def test_the_command_ends_with_1_where_rows_were_set_aside_and_says_which(
    quiet_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(quiet_home / "jobs.txt", [row(), row(JobID=8, State="MELTED")])
    assert main(["aggregate", "--from", str(path), "-q"]) == 1
    said = capsys.readouterr().err
    assert f"{path}, line 3: State 'MELTED' is unknown" in said
    assert "set-aside" in said
    assert len(ledger_rows(quiet_home / "ledger")) == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--from", "{tmp}/gone.txt"], "gone.txt: no such file"),
        (["--from", "{tmp}/bare.txt"], "no header line"),
        (["--from", "{tmp}/jobs.txt", "--profile", "green"], "no profile 'green'"),
        (["--from", "{tmp}/jobs.txt", "-S", "2026-11-24", "-E", "2026-11-23"], "the end is not after the start"),
        (["--from", "{tmp}/jobs.txt", "-S", "soon"], "is not a time that sacct would take"),
        (["--from", "{tmp}/jobs.txt", "--config", "{tmp}/bad.toml"], "[site] timezone"),
    ],
)
def test_the_command_ends_with_2_and_one_word_of_advice(
    arguments: list[str], text: str, quiet_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(quiet_home / "jobs.txt", [row()])
    save(quiet_home / "bare.txt", [row()], header=False)
    (quiet_home / "bad.toml").write_text('[site]\ntimezone = "Mars/Olympus"\n')
    assert main(["aggregate", *(one.format(tmp=quiet_home) for one in arguments)]) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert text in said
    assert "Traceback" not in said
    assert not (quiet_home / "ledger" / "days").exists()


def test_the_command_s_window_is_of_whole_days(quiet_home: Path) -> None:
    path = save(quiet_home / "jobs.txt", [row(Start=NOON + shift * DAY, JobID=8 + shift) for shift in (-1, 0, 1)])
    assert main(["aggregate", "--from", str(path), "-S", "2026-11-24T13:00", "-E", "2026-11-24T13:01", "-q"]) == 0
    assert days_of(ledger_rows(quiet_home / "ledger")) == [day("2026-11-24")]


def test_a_cpu_that_nobody_knows_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give cpu_core_w in W instead"):
        aggregate_file(
            save(tmp_path / "jobs.txt", [row()]), tmp_path / "ledger", settings='[power.partition.gpu]\ncpu = "Abacus"'
        )


@settings(max_examples=4, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="|\0"), max_size=20), min_size=20, max_size=40))
@example(
    [
        "'",
        '"',
        "\n",
        "\r",
        "\r\n",
        "{",
        "%s",
        "\u2028",
        "\ufeff",
        "a\nb\nc",
        "=1+1",
        "\\n",
        "$(x)",
        "\t",
        "\x1f",
        "\x85",
        "JobID",
    ]
)
def test_any_job_name_comes_out_of_the_ledger_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    rows = [row(JobID=number, JobName=name) for number, name in enumerate(names)]
    found = ledger_of(tmp_path_factory.mktemp("names"), rows)
    assert {one["job_id"]: one["job_name"] for one in found} == dict(enumerate(names))
