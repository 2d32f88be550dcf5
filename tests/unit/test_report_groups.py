"""Totals by group: their sums are the whole, whatever the key; order, filters and names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from helpers import DAY, NOON, aggregate_file, config, epoch, row, running, save

from slurm_energy.config import profile_of
from slurm_energy.ledger.store import Ledger
from slurm_energy.report.errors import ReportError
from slurm_energy.report.formats import flat
from slurm_energy.report.groups import COLUMNS, KEYS, group_report
from slurm_energy.report.project import project_report
from slurm_energy.report.sections import group_section
from slurm_energy.report.selection import Selection, open_rows
from slurm_energy.report.totals import HEADER, TOTALS

HOUR = 3600
CPU_ONLY = "cpu=4,mem=16G,node=1"


def jobs() -> Iterator[dict[str, str]]:
    """Jobs of three users, two accounts, two clusters, three months; with GPUs of three models and without."""
    gpus = ("gres/gpu:a100=1", "gres/gpu:v100=2", "gres/gpu=1", "")
    for number in range(1, 49):
        gpu = gpus[number % 4]
        yield row(
            JobID=str(number), Cluster=("alpha", "beta")[number % 2], User=("emma", "ananya", "andrew")[number % 3],
            Account=("lisa", "nlp")[number % 5 == 0], Partition=("long", "short")[number % 7 == 0],
            QOS=("normal", "high")[number % 2], State=("COMPLETED", "FAILED", "CANCELLED by 7")[number % 3],
            Start=NOON + number * 36 * HOUR, ElapsedRaw=number * 1357,
            AllocTRES=f"{CPU_ONLY},{gpu}".rstrip(","), Comment=f"sweep=s{number % 4}" if number % 4 else "",
        )  # fmt: skip
    for task in range(3):
        yield row(JobID=f"900_{task}", JobIDRaw=900 + task, ElapsedRaw=5000)
    yield row(JobID="950", State="NODE_FAIL", ElapsedRaw=3 * HOUR)
    yield row(JobID="950", Start=NOON + 8 * HOUR, ElapsedRaw=30 * HOUR)
    yield running(JobID="960", ElapsedRaw=400)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("groups")
    aggregate_file(save(folder / "jobs.txt", jobs()), folder / "ledger")
    return folder / "ledger"


def groups(path: Path, *by: str, **options: Any) -> list[dict[str, Any]]:
    order = {name: options.pop(name) for name in ("sort", "top") if name in options}
    con = open_rows(Ledger(path), Selection(**options), None, [key for key in by if key in COLUMNS])
    return group_report(con, by, **order)


def whole(path: Path) -> dict[str, Any]:
    """Project lisa's own report."""
    con = open_rows(Ledger(path), Selection(["lisa"]), None)
    return project_report(con, "lisa", profile_of(config("")))


@pytest.mark.parametrize("key", sorted(KEYS))
def test_the_groups_sum_up_to_the_project(ledger: Path, key: str) -> None:
    rows, total = groups(ledger, key, projects=["lisa"]), whole(ledger)
    assert len(rows) > (0 if key in ("project", "account") else 1)
    for name in TOTALS:
        if name != "jobs":
            assert sum(one[name] for one in rows) == pytest.approx(total[name], rel=1e-12), name
    assert sum(one["unpriced_gpu_hours"] for one in rows) == pytest.approx(total["unpriced_gpu_hours"])
    energy = sum(one["it_kwh"] * one["provenance"]["estimated"] for one in rows)
    assert energy == pytest.approx(total["it_kwh"] * total["provenance"]["estimated"], rel=1e-12)


@pytest.mark.parametrize("key", ["user", "account", "partition", "gpu", "sweep", "qos", "cluster", "project"])
def test_what_a_job_has_once_counts_each_job_once(ledger: Path, key: str) -> None:
    assert sum(one["jobs"] for one in groups(ledger, key, projects=["lisa"])) == whole(ledger)["jobs"]


def test_a_requeued_job_is_one_job_in_each_state_that_its_runs_had(ledger: Path) -> None:
    rows = {one["state"]: one["jobs"] for one in groups(ledger, "state", projects=["lisa"])}
    assert rows["NODE_FAIL"] == 1
    assert sum(rows.values()) == whole(ledger)["jobs"] + 1


def test_a_job_over_midnight_is_one_job_on_each_of_its_days(tmp_path: Path) -> None:
    aggregate_file(save(tmp_path / "jobs.txt", [row(ElapsedRaw=36 * HOUR)]), tmp_path / "ledger")
    rows = groups(tmp_path / "ledger", "day")
    assert [(one["day"], one["jobs"], one["gpu_hours"]) for one in rows] == [
        ("2026-11-24", 1, 12.0),
        ("2026-11-25", 1, 24.0),
    ]
    assert [one["jobs"] for one in groups(tmp_path / "ledger", "month")] == [1]


def test_each_row_has_its_keys_first_and_then_the_totals(ledger: Path) -> None:
    for one in groups(ledger, "user", "month"):
        assert list(one)[: len(TOTALS) + 3] == ["user", "month", *TOTALS, "provenance"]
        assert list(flat(one)) == ["user", "month", *HEADER]


def test_several_keys_make_finer_groups(ledger: Path) -> None:
    fine = groups(ledger, "user", "cluster")
    assert len({(one["user"], one["cluster"]) for one in fine}) == len(fine) == 6
    emma = next(one for one in groups(ledger, "user") if one["user"] == "emma")
    assert sum(one["gpu_hours"] for one in fine if one["user"] == "emma") == pytest.approx(emma["gpu_hours"])


def test_gpu_models_have_their_names_and_none_is_a_group(ledger: Path) -> None:
    assert {one["gpu"] for one in groups(ledger, "gpu")} == {"A100-40GB", "V100-16GB", "unknown", "none"}


def test_single_jobs_are_the_sweep_without_a_name(ledger: Path) -> None:
    rows = groups(ledger, "sweep", projects=["lisa"])
    assert {one["sweep"] for one in rows} == {"", "s1", "s2", "s3", "900"}
    assert "(none)" in [cells[0] for cells in group_section(rows, ["sweep"], "site").rows]


def test_times_stand_in_their_order_and_other_groups_by_energy(ledger: Path) -> None:
    months = [one["month"] for one in groups(ledger, "month")]
    assert months == sorted(months)
    assert months[0] == "2026-11"
    energy = [one["facility_kwh"] for one in groups(ledger, "user")]
    assert energy == sorted(energy, reverse=True)


@pytest.mark.parametrize("total", TOTALS)
def test_sorted_by_a_total_the_largest_is_first(ledger: Path, total: str) -> None:
    values = [one[total] for one in groups(ledger, "user", "partition", sort=total)]
    assert values == sorted(values, reverse=True)


def test_sorted_by_a_key_the_order_is_that_of_the_alphabet(ledger: Path) -> None:
    assert [one["user"] for one in groups(ledger, "user", sort="user")] == ["ananya", "andrew", "emma"]


def test_only_the_first_groups_are_kept_after_sorting(ledger: Path) -> None:
    assert groups(ledger, "user", sort="jobs", top=2) == groups(ledger, "user", sort="jobs")[:2]
    assert len(groups(ledger, "user", top=99)) == 3


def test_unknown_names_are_told_with_those_there_are(ledger: Path) -> None:
    with pytest.raises(ReportError, match=r"--by colour: expected one or more of project, user, account"):
        groups(ledger, "colour")
    with pytest.raises(ReportError, match=r"--sort wattage: expected one of user, jobs, gpu_hours"):
        groups(ledger, "user", sort="wattage")
    with pytest.raises(ReportError, match="--sort cluster"):
        groups(ledger, "user", sort="cluster")


@pytest.mark.parametrize(
    ("chosen", "key", "only"),
    [
        ({"users": ["emma"]}, "user", {"emma"}),
        ({"users": ["emma", "andrew"]}, "user", {"emma", "andrew"}),
        ({"accounts": ["nlp"]}, "account", {"nlp"}),
        ({"clusters": ["beta"]}, "cluster", {"beta"}),
        ({"projects": ["lisa", "nlp"]}, "project", {"lisa", "nlp"}),
    ],
)
def test_only_the_chosen_rows_count(ledger: Path, chosen: dict[str, Any], key: str, only: set[str]) -> None:
    rows = groups(ledger, key, **chosen)
    assert {one[key] for one in rows} == only
    every = {one[key]: one for one in groups(ledger, key)}
    assert [one["it_kwh"] for one in rows] == [every[one[key]]["it_kwh"] for one in rows]


def test_conditions_hold_together(ledger: Path) -> None:
    rows = groups(ledger, "user", "cluster", users=["emma"], clusters=["alpha"], accounts=["lisa"])
    assert [(one["user"], one["cluster"]) for one in rows] == [("emma", "alpha")]
    assert groups(ledger, "user", users=["emma"], accounts=["nosuch"]) == []


def test_days_are_chosen_with_the_first_and_without_the_last(ledger: Path) -> None:
    rows = groups(ledger, "day", start=date(2026, 11, 25), end=date(2026, 11, 28))
    assert [one["day"] for one in rows] == ["2026-11-25", "2026-11-26", "2026-11-27"]


def test_days_and_months_are_those_of_the_site(tmp_path: Path) -> None:
    late = epoch("2026-11-30T23:30:00")
    log = save(tmp_path / "jobs.txt", [row(Start=late, ElapsedRaw=600)])
    aggregate_file(log, tmp_path / "berlin", timezone_name="Europe/Berlin")
    aggregate_file(log, tmp_path / "utc")
    assert [one["month"] for one in groups(tmp_path / "berlin", "month")] == ["2026-12"]
    assert [one["month"] for one in groups(tmp_path / "utc", "month")] == ["2026-11"]


def test_days_that_are_not_there_are_told_with_those_that_are(ledger: Path) -> None:
    with pytest.raises(ReportError, match="it has days from 2026-11-24 to 2027-0"):
        groups(ledger, "user", start=date(2030, 1, 1))


def test_a_cluster_that_is_not_there_is_told_with_those_that_are(ledger: Path) -> None:
    with pytest.raises(ReportError, match="it has the clusters alpha, beta"):
        groups(ledger, "user", clusters=["gamma"])


def test_a_ledger_that_is_not_there_is_told_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="run `senergy aggregate` first"):
        groups(tmp_path / "nowhere", "user")


def test_a_ledger_that_cannot_be_looked_into_is_told_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ReportError, match="symbolic links"):
        groups(tmp_path / "loop", "user")


def test_a_damaged_day_is_told_with_its_file_and_what_to_do(tmp_path: Path) -> None:
    aggregate_file(save(tmp_path / "jobs.txt", [row(), row(JobID="8", Start=NOON + DAY)]), tmp_path / "ledger")
    day = next(tmp_path.glob("ledger/days/*/2026-11-25.parquet"))
    day.write_bytes(day.read_bytes()[:-20])
    with pytest.raises(ReportError, match=r"2026-11-25\.parquet.*senergy aggregate -S"):
        groups(tmp_path / "ledger", "user")
    assert [one["user"] for one in groups(tmp_path / "ledger", "user", end=date(2026, 11, 25))] == ["emma"]


def test_unpriced_gpus_are_said_below_the_groups(tmp_path: Path) -> None:
    settings = '[profiles.own]\nbase = "strubell2019"\nunknown_gpu_priced_as = "none"'
    aggregate_file(save(tmp_path / "jobs.txt", [row()]), tmp_path / "ledger", settings=settings, profile="own")
    rows = groups(tmp_path / "ledger", "gpu")
    assert (rows[0]["unpriced_gpu_hours"], rows[0]["cloud_low_usd"]) == (1.0, 0.0)
    assert "1.00 GPU-hours are of models without a cloud price: A100-40GB." in group_section(rows, ["gpu"], "own").note
    assert group_section(rows, ["gpu"], "own").rows[0][-2:] == ("-", "-")


def test_groups_without_energy_say_that_nothing_is_known(tmp_path: Path) -> None:
    aggregate_file(save(tmp_path / "jobs.txt", [row(ElapsedRaw=0)]), tmp_path / "ledger")
    rows = groups(tmp_path / "ledger", "user")
    assert rows[0]["jobs"] == 1
    assert "known from: nothing" in group_section(rows, ["user"], "site").note
