"""A project's whole accounting: its figures by hand, what counts as one job, the model and the tune, other prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from helpers import DAY, NOON, aggregate_file, config, ledger_of, row, running, save

from slurm_energy.config import profile_of
from slurm_energy.factors.layers import load_profile
from slurm_energy.factors.profile import Profile
from slurm_energy.ledger.store import Ledger
from slurm_energy.report.errors import ReportError
from slurm_energy.report.project import project_report
from slurm_energy.report.sections import Section, project_sections
from slurm_energy.report.selection import Selection, open_rows

HOUR = 3600
NO_GPU = "billing=4,cpu=4,mem=16G,node=1"
CONTRACT = (
    "project", "start", "end", "profile", "jobs", "gpu_hours", "cpu_hours", "it_kwh", "facility_kwh", "co2e_kg", "co2e_lb",
    "electricity_usd", "cloud_low_usd", "cloud_high_usd", "provenance", "rnd", "development",
)  # fmt: skip
RND = {"models", "gpu_hours", "cloud_low_usd", "cloud_high_usd", "electricity_usd", "co2e_lb"}
DEVELOPMENT = {
    "span_days", "sweeps", "jobs", "shortest_s", "longest_s", "mean_s", "gpu_days", "mean_gpus", "gpu_models",
}  # fmt: skip
ENERGY = ("jobs", "gpu_hours", "cpu_hours", "it_kwh", "provenance")
PRICED = ("facility_kwh", "co2e_kg", "co2e_lb", "electricity_usd", "cloud_low_usd", "cloud_high_usd")


def of_ledger(
    ledger: Path,
    project: str = "lisa",
    priced: Profile | None = None,
    selection: Selection | None = None,
    **chosen: Any,
) -> dict[str, Any]:
    con = open_rows(Ledger(ledger), selection or Selection([project]), priced)
    return project_report(con, project, priced or load_profile("site"), **chosen)


def report(tmp_path: Path, rows: Iterable[Mapping[str, str]], **options: Any) -> dict[str, Any]:
    """The report on project lisa after these rows were aggregated."""
    chosen = {name: options.pop(name) for name in ("model", "sweep") if name in options}
    ledger_of(tmp_path, rows, **options)
    return of_ledger(tmp_path / "ledger", **chosen)


@pytest.fixture(scope="module")
def one_job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of job 7 alone."""
    folder = tmp_path_factory.mktemp("one-job")
    aggregate_file(save(folder / "jobs.txt", [row()]), folder / "ledger")
    return folder / "ledger"


def text(section: Section) -> str:
    return "\n".join(" ".join(cells) for cells in section.rows)


def rnd(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["what"]: one for one in found["rnd"]}


def test_the_keys_of_the_contract_are_there(tmp_path: Path) -> None:
    found = report(tmp_path, [row(JobID="7_1", JobIDRaw="8"), row(JobID="7_2", JobIDRaw="7")])
    assert set(CONTRACT) <= set(found)
    assert [one["what"] for one in found["rnd"]] == ["one model", "one tune", "all jobs"]
    assert all(set(one) >= RND for one in found["rnd"])
    assert set(found["development"]) == DEVELOPMENT
    assert set(found["provenance"]) == {"measured", "slurm", "estimated"}


def test_one_job_of_an_hour_comes_out_as_by_hand(tmp_path: Path) -> None:
    site = load_profile("site")
    kwh = (400 + 4 * site.cpu_core_w + 16 * site.dram_w_per_gb) / 1000
    found = report(tmp_path, [row()])
    assert (found["start"], found["end"]) == ("2026-11-24T12:00:00+00:00", "2026-11-24T13:00:00+00:00")
    assert (found["jobs"], found["gpu_hours"], found["cpu_hours"]) == (1, 1.0, 4.0)
    assert found["it_kwh"] == pytest.approx(kwh, rel=1e-12)
    assert found["facility_kwh"] == pytest.approx(kwh * site.pue, rel=1e-12)
    assert found["co2e_kg"] == pytest.approx(kwh * site.pue * site.carbon_g_per_kwh / 1000, rel=1e-12)
    assert found["co2e_lb"] == pytest.approx(found["co2e_kg"] / 0.45359237, rel=1e-12)
    assert found["electricity_usd"] == pytest.approx(kwh * site.pue * site.electricity_usd_per_kwh, rel=1e-12)
    assert found["cloud_low_usd"] == pytest.approx(site.gpu("a100").low_usd_per_h)
    assert found["provenance"] == {"measured": 0.0, "slurm": 0.0, "estimated": 1.0}
    assert found["factors"]["pue"] == pytest.approx(site.pue)
    assert found["factors"]["carbon_g_per_kwh"] == pytest.approx(site.carbon_g_per_kwh)
    assert found["profile"] == "site"


def test_the_shares_say_how_much_of_the_energy_is_slurm_s(tmp_path: Path) -> None:
    rows = [
        row(JobID="1", ConsumedEnergyRaw=1_800_000, AllocTRES=NO_GPU),
        row(JobID="2", AllocTRES=NO_GPU, Partition="other"),
    ]
    settings = (
        "[power.partition.gpu]\nexclusive = true\ncpu_core_w = 100.0\n[power.partition.other]\ncpu_core_w = 125.0"
    )
    found = report(tmp_path, rows, plugin="rapl", settings=settings)
    estimated = 0.5 + 16 * load_profile("site").dram_w_per_gb / 1000
    assert found["it_kwh"] == pytest.approx(0.5 + estimated)
    assert found["provenance"]["slurm"] == pytest.approx(0.5 / (0.5 + estimated))
    assert sum(found["provenance"].values()) == pytest.approx(1.0)
    shares = text(project_sections(found)[0])
    assert "% slurm" in shares
    assert "% estimated" in shares


# What counts as one job.


def test_a_requeued_job_counts_once_with_the_time_of_all_its_runs(tmp_path: Path) -> None:
    found = report(tmp_path, [row(State="REQUEUED", ElapsedRaw=HOUR), row(Start=NOON + 2 * HOUR, ElapsedRaw=3 * HOUR)])
    assert found["jobs"] == found["development"]["jobs"] == 1
    assert found["gpu_hours"] == 4.0
    assert found["development"]["shortest_s"] == found["development"]["longest_s"] == 4 * HOUR


def test_a_resized_job_counts_once(tmp_path: Path) -> None:
    found = report(tmp_path, [row(State="RESIZING"), row(Start=NOON + HOUR, NCPUS=8)])
    assert (found["jobs"], found["cpu_hours"]) == (1, 12.0)


def test_an_id_that_came_round_is_two_jobs(tmp_path: Path) -> None:
    found = report(tmp_path, [row(State="COMPLETED"), row(Start=NOON + 40 * DAY)])
    assert found["jobs"] == found["development"]["jobs"] == 2


def test_the_same_id_on_two_clusters_is_two_jobs(tmp_path: Path) -> None:
    found = report(tmp_path, [row(), row(Cluster="beta")])
    assert found["jobs"] == found["development"]["jobs"] == 2


def test_a_job_over_midnight_counts_once(tmp_path: Path) -> None:
    found = report(tmp_path, [row(ElapsedRaw=30 * HOUR)])
    assert (found["jobs"], found["gpu_hours"]) == (1, 30.0)
    assert found["development"]["longest_s"] == 30 * HOUR


def test_a_requeued_job_is_found_whole_as_the_model(tmp_path: Path) -> None:
    rows = [row(State="NODE_FAIL", ElapsedRaw=20 * HOUR), row(Start=NOON + DAY, ElapsedRaw=2 * HOUR), row(JobID="9")]
    found = report(tmp_path, rows)
    assert found["model"] == "7"
    assert rnd(found)["one model"]["gpu_hours"] == 22.0
    assert found["failed"]["jobs"] == 1
    assert found["failed"]["gpu_hours"] == 20.0


# The model and the tune.


def sweep(number: int, tasks: int, start: int, **fields: Any) -> list[dict[str, str]]:
    """An array; task t runs for t + 1 hours."""
    return [
        row(JobID=f"{number}_{task}", JobIDRaw=number + 1 + task, Start=start, ElapsedRaw=(task + 1) * HOUR, **fields)
        for task in range(tasks)
    ]


def test_the_tune_is_the_sweep_that_ended_last_and_the_model_its_longest_completed_job(tmp_path: Path) -> None:
    rows = [*sweep(100, 3, NOON + DAY), *sweep(200, 5, NOON), row(JobID="900", Start=NOON, ElapsedRaw=20 * HOUR)]
    found = report(tmp_path, rows)
    assert (found["tune"], found["model"]) == ("100", "100_2")
    assert (rnd(found)["one tune"]["models"], rnd(found)["one tune"]["gpu_hours"]) == (3, 6.0)
    assert rnd(found)["one model"]["gpu_hours"] == 3.0
    assert rnd(found)["all jobs"]["models"] == 9


def test_a_job_that_did_not_complete_is_not_the_model(tmp_path: Path) -> None:
    rows = [*sweep(100, 3, NOON), row(JobID="100_9", JobIDRaw="150", ElapsedRaw=9 * HOUR, State="TIMEOUT")]
    assert report(tmp_path, rows)["model"] == "100_2"


def test_other_ones_may_be_chosen(tmp_path: Path) -> None:
    rows = [*sweep(100, 3, NOON + DAY), *sweep(200, 5, NOON)]
    found = report(tmp_path, rows, sweep="200", model="100_1")
    assert (found["tune"], found["model"]) == ("200", "100_1")
    assert rnd(found)["one tune"]["models"] == 5
    assert rnd(found)["one model"]["gpu_hours"] == 2.0
    assert of_ledger(tmp_path / "ledger", sweep="200")["model"] == "200_4"


def test_a_part_of_a_het_job_is_the_model_by_its_displayed_id(tmp_path: Path) -> None:
    rows = [row(JobID="50+0", JobIDRaw="50"), row(JobID="50+1", JobIDRaw="51", ElapsedRaw=2 * HOUR)]
    assert rnd(report(tmp_path, rows, model="50+1"))["one model"]["gpu_hours"] == 2.0


@pytest.mark.parametrize("wrong", ["x", "7;", "7_", "7_x", "-7", "٣_٣", "", "7 OR 1=1"])
def test_a_model_that_is_no_job_id_is_refused(one_job: Path, wrong: str) -> None:
    with pytest.raises(ReportError, match="expected a job id such as 1234"):
        of_ledger(one_job, model=wrong)


@pytest.mark.parametrize("absent", ["8", "7_1", "99999999999999999999999999", "1_99999999999999999999"])
def test_a_model_that_is_not_there_is_told(one_job: Path, absent: str) -> None:
    with pytest.raises(ReportError, match="no such job"):
        of_ledger(one_job, model=absent)


@pytest.mark.parametrize("absent", ["nosuch", "it's", "' OR 1=1 --"])
def test_a_sweep_that_is_not_there_is_told(one_job: Path, absent: str) -> None:
    with pytest.raises(ReportError, match="--by sweep` lists"):
        of_ledger(one_job, sweep=absent)


def test_a_project_without_sweeps_has_its_longest_completed_job_and_no_tune(tmp_path: Path) -> None:
    found = report(tmp_path, [row(JobID="1"), row(JobID="2", ElapsedRaw=5 * HOUR), row(JobID="3")])
    assert (found["tune"], found["model"]) == (None, "2")
    assert [one["what"] for one in found["rnd"]] == ["one model", "all jobs"]
    assert found["development"]["sweeps"] == 0


def test_a_sweep_of_one_job_is_no_tune(tmp_path: Path) -> None:
    found = report(tmp_path, [row(JobID="1", Comment="sweep=alone"), row(JobID="2")])
    assert found["tune"] is None


def test_the_name_of_the_tune_is_shown_as_it_is_written(tmp_path: Path) -> None:
    found = report(tmp_path, [row(JobID=job, Comment="sweep=Lisa-Grid-A") for job in ("1", "2")])
    note = project_sections(found)[1].note
    assert note.startswith("The model is job 2 and the tune is sweep Lisa-Grid-A;")


# Projects that lack something.


def test_a_project_of_failed_jobs_only_has_no_model(tmp_path: Path) -> None:
    found = report(tmp_path, [row(JobID="1", State="FAILED"), row(JobID="2", State="OUT_OF_MEMORY")])
    assert found["model"] is None
    assert [one["what"] for one in found["rnd"]] == ["all jobs"]
    assert found["failed"]["jobs"] == 2
    assert found["failed"]["it_kwh"] == found["it_kwh"]
    assert project_sections(found)[1].note == ""


def test_failed_and_cancelled_jobs_are_named_apart(tmp_path: Path) -> None:
    rows = [
        row(JobID="1"), row(JobID="2", State="CANCELLED by 2001", ElapsedRaw=2 * HOUR),
        row(JobID="3", State="TIMEOUT", ElapsedRaw=3 * HOUR), row(JobID="4", State="PREEMPTED"),
    ]  # fmt: skip
    found = report(tmp_path, rows)
    assert (found["failed"]["jobs"], found["failed"]["gpu_hours"]) == (1, 3.0)
    assert (found["cancelled"]["jobs"], found["cancelled"]["gpu_hours"]) == (1, 2.0)
    shown = text(project_sections(found)[0])
    assert "Of it failed jobs 1 job, 3.00 GPU-h" in shown
    assert "Of it cancelled jobs 1 job, 2.00 GPU-h" in shown


def test_a_project_without_gpus_is_reported(tmp_path: Path) -> None:
    found = report(tmp_path, [row(AllocTRES=NO_GPU)])
    assert (found["gpu_hours"], found["cpu_hours"]) == (0.0, 4.0)
    assert found["it_kwh"] > 0
    assert found["development"]["gpu_models"] == {}
    assert found["model"] == "7"
    assert "GPU models, by GPU time none" in text(project_sections(found)[2])


def test_jobs_of_no_length_are_counted_and_divide_by_nothing(tmp_path: Path) -> None:
    found = report(tmp_path, [row(JobID="1", ElapsedRaw=0), row(JobID="2", ElapsedRaw=0, State="FAILED")])
    assert found["jobs"] == 2
    assert all(found[key] == 0 for key in (*PRICED, "it_kwh", "gpu_hours"))
    assert set(found["provenance"].values()) == {0.0}
    assert found["development"]["mean_gpus"] == 0
    assert "nothing: its jobs ran 0 s" in text(project_sections(found)[0])


def test_a_job_that_runs_is_counted_up_to_its_record_and_said(tmp_path: Path) -> None:
    found = report(tmp_path, [running(ElapsedRaw=2 * HOUR)])
    assert (found["jobs"], found["running_jobs"], found["gpu_hours"]) == (1, 1, 2.0)
    assert found["model"] is None
    assert "1 job was still running" in project_sections(found)[0].note


def test_a_job_that_runs_ends_in_the_report_where_its_record_does(tmp_path: Path) -> None:
    found = report(tmp_path, [running(ElapsedRaw=2 * HOUR)])
    assert found["end"] == "2026-11-24T14:00:00+00:00"
    assert found["development"]["mean_gpus"] == pytest.approx(1.0)


def test_a_job_that_runs_since_days_ends_where_its_record_does(tmp_path: Path) -> None:
    found = report(tmp_path, [running(ElapsedRaw=50 * HOUR), row(JobID="9")])
    assert found["end"] == "2026-11-26T14:00:00+00:00"
    assert found["development"]["span_days"] == pytest.approx(50 / 24)


def test_gpus_without_a_price_are_said(tmp_path: Path) -> None:
    # The profile strubell2019 prices every GPU as a P100; without that and without the packaged list it has no a100.
    settings = '[profiles.own]\nbase = "strubell2019"\nunknown_gpu_priced_as = "none"'
    rows = [row(JobID="1", ElapsedRaw=2 * HOUR), row(JobID="2", AllocTRES="cpu=4,gres/gpu:p100=1,mem=16G,node=1")]
    found = report(tmp_path, rows, settings=settings, profile="own")
    assert found["unpriced_gpu_hours"] == 2.0
    assert found["cloud_low_usd"] == pytest.approx(0.43)
    assert "2.00 GPU-hours are of models without a cloud price: A100-40GB." in project_sections(found)[0].note
    priced = of_ledger(tmp_path / "ledger", priced=profile_of(config(settings), "own"))
    assert priced["unpriced_gpu_hours"] == 2.0
    assert of_ledger(tmp_path / "ledger", priced=load_profile("site"))["unpriced_gpu_hours"] == 0.0


@pytest.mark.parametrize("name", ["O'Brien", 'a"b', "a;b", "$x", "%s", "{x}", "ü-日本"])
def test_a_project_of_any_name_is_found(tmp_path: Path, name: str) -> None:
    ledger_of(tmp_path, [row(Account=name), row(JobID="8")])
    assert of_ledger(tmp_path / "ledger", name)["jobs"] == 1


# Other days, other prices.


def test_only_the_selected_days_count(tmp_path: Path) -> None:
    ledger_of(tmp_path, [row(ElapsedRaw=36 * HOUR), row(JobID="9", Start=NOON - 3 * DAY)])
    middle = Selection(["lisa"], start=date(2026, 11, 25), end=date(2026, 11, 26))
    found = of_ledger(tmp_path / "ledger", selection=middle)
    assert (found["jobs"], found["gpu_hours"]) == (1, 24.0)


def test_another_profile_changes_prices_and_not_the_energy(tmp_path: Path) -> None:
    ledger_of(tmp_path, [row(), row(JobID="8", AllocTRES=NO_GPU, ElapsedRaw=7200)])
    stored, paper = of_ledger(tmp_path / "ledger"), of_ledger(tmp_path / "ledger", priced=load_profile("strubell2019"))
    assert {key: paper[key] for key in ENERGY} == {key: stored[key] for key in ENERGY}
    assert paper["profile"] == "strubell2019"
    assert paper["facility_kwh"] == pytest.approx(stored["it_kwh"] * 1.58, rel=1e-12)
    assert paper["co2e_lb"] == pytest.approx(paper["facility_kwh"] * 0.954, rel=1e-12)
    assert paper["electricity_usd"] == pytest.approx(paper["facility_kwh"] * 0.12, rel=1e-12)
    assert paper["cloud_high_usd"] == pytest.approx(1.46)


GREEN = """
[profiles.green]
base = "site"
pue = 1.1
carbon_g_per_kwh = 20.0
electricity_usd_per_kwh = 0.3
cpu_core_low_usd_per_h = 0.01
cpu_core_high_usd_per_h = 0.02
[profiles.green.cloud.A100-40GB]
low_usd_per_h = 1.0
high_usd_per_h = 2.0
[profiles.green.cloud.V100-16GB]
low_usd_per_h = 0.5
high_usd_per_h = 0.75
[[profiles.green.period]]
start = 2026-11-25
carbon_g_per_kwh = 500.0
[[profiles.green.period]]
start = 2026-11-26
pue = 1.3
electricity_usd_per_kwh = 0.01
"""


def test_repriced_is_the_same_as_aggregated_where_rated_powers_are_the_same(tmp_path: Path) -> None:
    gpus = ("a100=2", "v100=1", "a100_1g.5gb=3", "mystery=1")
    rows = [
        row(JobID=str(number), AllocTRES=f"cpu=4,gres/gpu:{gpu},mem=16G,node=1", ElapsedRaw=70 * HOUR)
        for number, gpu in enumerate(gpus, 1)
    ]
    rows += [row(JobID="20", AllocTRES=NO_GPU), row(JobID="21", AllocTRES="cpu=4,gres/gpu=1,mem=16G,node=1")]
    log = save(tmp_path / "jobs.txt", rows)
    aggregate_file(log, tmp_path / "site", settings=GREEN)
    aggregate_file(log, tmp_path / "green", settings=GREEN, profile="green")
    green = profile_of(config(GREEN), "green")
    repriced, direct = of_ledger(tmp_path / "site", priced=green), of_ledger(tmp_path / "green")
    assert repriced["profile"] == direct["profile"] == "green"
    assert repriced["unpriced_gpu_hours"] == direct["unpriced_gpu_hours"]
    for key in (*PRICED, "it_kwh"):
        assert repriced[key] == pytest.approx(direct[key], rel=1e-9), key
    for what, figures in rnd(direct).items():
        assert [rnd(repriced)[what][key] for key in sorted(RND)] == pytest.approx([figures[key] for key in sorted(RND)])


def test_days_of_several_profiles_are_named_both(tmp_path: Path) -> None:
    aggregate_file(save(tmp_path / "one.txt", [row()]), tmp_path / "ledger")
    other = save(tmp_path / "two.txt", [row(JobID="8", Start=NOON + 5 * DAY)])
    aggregate_file(other, tmp_path / "ledger", profile="strubell2019")
    found = of_ledger(tmp_path / "ledger")
    assert found["profile"] == "site, strubell2019"
    assert load_profile("site").pue < found["factors"]["pue"] < 1.58


def test_own_hardware_is_priced_by_the_gpus_in_use(tmp_path: Path) -> None:
    found = report(tmp_path, [row(JobID=str(number)) for number in range(1, 4)])
    assert found["own_hardware"]["gpus"] == 3
    assert found["own_hardware"]["usd"] == 3 * load_profile("site").own_gpu_usd
    assert found["own_hardware"]["cloud_low_usd"] == found["cloud_low_usd"]


def test_comparisons_are_the_paper_s_and_fit_the_emissions(tmp_path: Path) -> None:
    found = report(tmp_path, [row()])
    flight = next(one for one in found["comparisons"] if "NY-SF" in one["what"])
    assert flight["co2e_lb"] == 1984
    assert flight["times"] == pytest.approx(found["co2e_lb"] / 1984)
    assert len(found["comparisons"]) == 4
