"""What a report must say of its numbers: what has no energy, no price, no record, no rows; and whose names it was given."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers import DAY, NOON, epoch, row, running, save
from test_cli import Done, figures, inside, quick
from test_segments import idle, segment

from slurm_energy.report.totals import HEADER, TOTALS

HOUR = 3600
CPUS = "billing=64,cpu=64,mem=256G,node=1"
MYSTERY = "cpu=4,gres/gpu:mystery9=2,gres/gpu=2,mem=16G,node=1"
NO_SITE = '[site]\ntimezone = "UTC"\n'


def home_of(
    home: Path,
    rows: Iterable[dict[str, str]],
    *options: str,
    settings: str = NO_SITE,
    measured: Iterable[dict[str, Any]] = (),
) -> Path:
    """A home with a ledger of these jobs and segments, and the settings in config.toml."""
    (home / "config.toml").write_text(settings, encoding="utf-8")
    (home / "inbox").mkdir(exist_ok=True)
    lines = "".join(json.dumps(one) + "\n" for one in measured)
    if lines:
        (home / "inbox" / "n1.jsonl").write_text(lines, encoding="utf-8")
    log = save(home / "jobs.txt", rows)
    quick(
        home,
        "aggregate",
        "--quiet",
        "--from",
        log,
        "--inbox",
        home / "inbox",
        "--config",
        home / "config.toml",
        *options,
    )
    return home


def report(home: Path, *arguments: str) -> str:
    """What a report prints that says nothing on stderr; each line with single blanks."""
    text = quick(home, "report", "--config", "config.toml", *arguments)
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


def found(home: Path, *arguments: str) -> dict[str, Any]:
    """The same as JSON."""
    one: dict[str, Any] = figures(quick(home, "report", "--config", "config.toml", "--json", *arguments))
    return one


def ended(home: Path, *arguments: str) -> Done[str]:
    return inside(home, "report", "--config", "config.toml", *arguments)


def cpu_only(number: int, **fields: Any) -> dict[str, str]:
    """Ten hours on 64 cores."""
    usual = {"Account": "cpuproj", "User": "ann", "NCPUS": 64, "AllocTRES": CPUS, "ElapsedRaw": 10 * HOUR}
    return row(JobID=str(number), Start=NOON + number * DAY, **{**usual, **fields})


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Priced as in the paper, which rates and prices GPUs only: five jobs without one, one with, and one of each."""
    rows = [*(cpu_only(number) for number in range(1, 6)), row(JobID="10", Account="gpuproj", User="bob")]
    rows += [row(JobID="20", Account="both", User="bob"), cpu_only(21, Account="both")]
    return home_of(tmp_path_factory.mktemp("paper"), rows, "--profile", "strubell2019")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of ten hours of which an agent saw one, one that no agent saw, two idle nodes, and a job without a record."""
    rows = [row(ElapsedRaw=10 * HOUR), row(JobID="8", Account="nlp", User="ananya")]
    seen = [
        segment(), idle(), idle(node="n2"), idle(node="n2", begin=NOON + HOUR),
        segment(555, node="n3", user="gus", account="ghost"),
    ]  # fmt: skip
    return home_of(tmp_path_factory.mktemp("measured"), rows, measured=seen)


# Energy and prices that are not known.


def test_jobs_that_the_profile_does_not_rate_are_said(paper: Path) -> None:
    said = "3,200 CPU-hours of 5 jobs have no energy: profile strubell2019 rates GPUs only; aggregate again under site."
    assert said in report(paper, "-p", "cpuproj")
    assert said in report(paper, "-p", "cpuproj", "--profile", "site")
    assert said in report(paper, "--by", "account", "-A", "cpuproj")
    assert said.replace(" of 5 jobs", "") in report(paper, "--by", "day", "-A", "cpuproj")
    one = found(paper, "-p", "cpuproj")
    assert (one["unrated_cpu_hours"], one["unrated_jobs"], one["it_kwh"]) == (3200.0, 5, 0.0)
    (line,) = csv.DictReader(io.StringIO(report(paper, "--csv", "-p", "cpuproj")))
    assert (float(line["unrated_cpu_hours"]), int(line["unrated_jobs"])) == (3200.0, 5)
    assert "have no energy" not in report(paper, "-p", "gpuproj")


def test_nothing_is_shown_as_a_price_where_none_is_known(paper: Path, tmp_path: Path) -> None:
    assert "Cloud equivalent -" in report(paper, "-p", "cpuproj")
    assert "3,200 CPU-hours of jobs without GPUs have no cloud price." in report(paper, "-p", "cpuproj")
    one = found(paper, "-p", "cpuproj")
    assert (one["cloud_low_usd"], one["cloud_high_usd"], one["cloud_price"]) == (None, None, "none")
    assert (one["unpriced_cpu_hours"], one["unpriced_gpu_hours"]) == (3200.0, 0.0)
    assert all(part["cloud_low_usd"] is None for part in one["rnd"])
    lines = csv.DictReader(io.StringIO(report(paper, "--csv", "--by", "project")))
    assert {line["project"]: line["cloud_low_usd"] == "" for line in lines} == {
        "cpuproj": True,
        "gpuproj": False,
        "both": False,
    }
    table = report(paper, "--by", "project")
    assert any(line.startswith("cpuproj 5 0 3,200 0 kWh") and line.endswith("0 - -") for line in table.splitlines())


def test_a_price_of_a_part_is_a_lower_bound(paper: Path) -> None:
    text = report(paper, "-p", "both")
    assert "Cloud equivalent >=0.43 USD to 1.46 USD" in text
    assert "the same GPU-hours in a cloud, low >=0.43" in text
    assert any(line.startswith("all jobs 2 1.00 >=0.43 >=1.46") for line in text.splitlines())
    assert any(line.startswith("one model 1 1.00 0.43 1.46") for line in text.splitlines())
    assert found(paper, "-p", "both")["cloud_price"] == "part"
    assert any(line.startswith("both 2") and line.endswith(">=0.43 >=1.46") for line in report(paper).splitlines())


def test_models_without_a_price_are_named(tmp_path: Path) -> None:
    home = home_of(tmp_path, [row(AllocTRES=MYSTERY), row(JobID="8")])
    said = "2.00 GPU-hours are of models without a cloud price: mystery9."
    assert said in report(home, "-p", "lisa")
    assert said in report(home, "--by", "user")
    one = found(home, "-p", "lisa")
    assert (one["unpriced_gpu_hours"], one["unpriced_gpu_models"], one["cloud_price"]) == (2.0, ["mystery9"], "part")


# Days, idle energy, records that have not come.


def test_the_days_of_a_project_are_the_site_s(tmp_path: Path) -> None:
    late = epoch("2026-11-24T23:30:00")
    home = home_of(tmp_path, [row(Start=late, ElapsedRaw=HOUR // 2)], settings='[site]\ntimezone = "Europe/Berlin"\n')
    assert report(home, "-p", "lisa").startswith("Project lisa, 2026-11-25 to 2026-11-25, profile site")
    one = found(home, "-p", "lisa")
    assert (one["first_day"], one["last_day"]) == ("2026-11-25", "2026-11-25")
    assert one["start"] == "2026-11-24T23:30:00+00:00"


def test_idle_energy_is_no_job(measured: Path) -> None:
    rows = {one["project"]: one for one in found(measured, "--idle")["rows"]}
    assert {name: one["jobs"] for name, one in rows.items()} == {"lisa": 1, "nlp": 1, "ghost": 0, "(idle)": 0}
    assert rows["(idle)"]["it_kwh"] == pytest.approx(0.15)


def test_who_asks_for_idle_energy_gets_it_and_its_totals_only(measured: Path) -> None:
    text = report(measured, "-p", "(idle)")
    assert text.startswith("Project (idle), 2026-11-24 to 2026-11-24")
    assert "Jobs 0" in text
    assert "IT energy 0.15 kWh" in text
    assert "R&D" not in text
    one = found(measured, "-p", "(idle)")
    assert (one["rnd"], one["development"], one["own_hardware"], one["start"]) == ([], None, None, None)
    assert found(measured, "-p", "(idle)", "--by", "project")["rows"][0]["project"] == "(idle)"


def test_energy_without_a_record_is_said(measured: Path) -> None:
    kwh = found(measured, "--by", "project")["rows"]
    early = next(one for one in kwh if one["project"] == "ghost")
    assert early["without_record_facility_kwh"] == early["facility_kwh"] > 0.42
    said = f"{early['facility_kwh']:.3f} kWh is of jobs whose record has not come yet."
    assert said in report(measured)
    assert said in report(measured, "-p", "ghost")
    assert "R&D" not in report(measured, "-p", "ghost")
    assert found(measured, "-p", "ghost")["jobs"] == 0
    assert "has not come yet" not in report(measured, "-p", "lisa")


def test_coverage_stands_beside_the_measured_share(measured: Path) -> None:
    assert "Agents covered" not in report(measured, "-p", "nlp")
    assert "Agents covered" not in report(measured, "-p", "(idle)")
    assert "Agents covered 10.0 % of the node time" in report(measured, "-p", "lisa")
    assert "agents covered 9.1 % of the node time" in report(measured)
    assert found(measured, "-p", "lisa")["coverage"] == pytest.approx(0.1, rel=1e-6)
    assert found(measured, "-p", "(idle)")["coverage"] is None
    lines = csv.DictReader(io.StringIO(report(measured, "--csv")))
    assert {line["project"]: line["coverage"][:3] for line in lines} == {"lisa": "0.1", "nlp": "0.0", "ghost": ""}


def test_coverage_is_by_node_time(tmp_path: Path) -> None:
    rows = [row(), row(JobID="8", NNodes=3, NodeList="n[1-3]", Start=NOON + HOUR)]
    home = home_of(tmp_path, rows, measured=[segment()])
    assert found(home, "-p", "lisa")["coverage"] == pytest.approx(0.25, rel=1e-6)


# Factors.


PERIOD = (
    NO_SITE
    + "[factors]\npue = 1.5\ncarbon_g_per_kwh = 100\n[[factors.period]]\nstart = 2026-11-25\ncarbon_g_per_kwh = 300\n"
)


def test_a_factor_that_changed_is_called_a_mean(tmp_path: Path) -> None:
    home = home_of(tmp_path, [row(), row(JobID="8", Start=NOON + DAY)], settings=PERIOD)
    text = report(home, "-p", "lisa")
    assert "Emissions (mean 200 gCO2e/kWh)" in text
    assert "Facility energy (PUE 1.5)" in text
    factors = found(home, "-p", "lisa")["factors"]
    assert [factors[f"carbon_g_per_kwh{end}"] for end in ("_min", "", "_max")] == pytest.approx([100, 200, 300])
    assert "Emissions (mean 200 gCO2e/kWh)" in report(home, "-p", "lisa", "--profile", "site")
    assert "Emissions (432.7 gCO2e/kWh)" in report(home, "-p", "lisa", "--profile", "strubell2019")


def test_without_energy_there_is_no_factor_to_show(paper: Path) -> None:
    lines = report(paper, "-p", "cpuproj").splitlines()
    assert "Facility energy 0 kWh" in lines
    assert "Electricity 0.00 USD" in lines


def test_rows_of_several_profiles_are_said(tmp_path: Path) -> None:
    home_of(tmp_path, [row(JobID="8", Start=NOON + 5 * DAY)], "--profile", "strubell2019")
    home = home_of(tmp_path, [row()])
    said = "Several profiles priced these rows: site and strubell2019."
    assert said in report(home, "-p", "lisa")
    assert said in report(home, "--by", "user")
    assert "Facility energy (PUE mean" in report(home, "-p", "lisa")


# Names.


@pytest.mark.parametrize(
    "arguments", [("--user", ""), ("-u", ","), ("-A", ""), ("-M", ""), ("-u", " , "), ("--by", "")]
)
def test_an_option_without_a_name_is_not_everybody(paper: Path, arguments: tuple[str, ...]) -> None:
    done = ended(paper, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no name in it" in done.stderr
    assert arguments[0].lstrip("-") in done.stderr


def test_blanks_around_a_name_are_no_part_of_it(paper: Path) -> None:
    assert {one["user"] for one in found(paper, "--by", "user", "-u", "ann, bob")["rows"]} == {"ann", "bob"}


@pytest.mark.parametrize("option", ["-p", "-u", "-A"])
@pytest.mark.parametrize("more", [(), ("--by", "month"), ("-S", "2030-01-01"), ("--csv",)])
def test_a_name_that_the_ledger_lacks_is_an_error(paper: Path, option: str, more: tuple[str, ...]) -> None:
    done = ended(paper, option, "nosuch", *more)
    column = {"-p": "project", "-u": "user", "-A": "account"}[option]
    assert (done.returncode, done.stdout) == (2, "")
    assert f"no jobs of {column} 'nosuch' in this ledger; `senergy report --by {column}`" in done.stderr


@pytest.mark.parametrize(("option", "name"), [("-p", "cpuproj"), ("-u", "ann"), ("-A", "cpuproj")])
@pytest.mark.parametrize(
    ("window", "where"),
    [
        (("-S", "2026-11-24", "-E", "2026-11-25"), "from 2026-11-24 to 2026-11-24"),
        (("-S", "2030-01-01"), "from 2030-01-01 on"),
        (("-E", "2026-11-25"), "up to 2026-11-24"),
    ],
)
def test_a_name_without_rows_in_these_days_is_told_with_its_days(
    paper: Path, option: str, name: str, window: tuple[str, ...], where: str
) -> None:
    done = ended(paper, option, name, *window)
    assert (done.returncode, done.stdout) == (0, "")
    column = {"-p": "project", "-u": "user", "-A": "account"}[option]
    last = "2026-12-15" if name == "ann" else "2026-11-29"
    assert (
        done.stderr == f"senergy: no jobs of {column} '{name}' {where}; the ledger has some from 2026-11-25 to {last}\n"
    )


def test_names_that_have_rows_but_none_together_are_told(paper: Path) -> None:
    done = ended(paper, "-u", "ann", "-A", "gpuproj", "--by", "user", "--json")
    assert (done.returncode, figures(done.stdout)) == (0, {"rows": []})
    assert "no jobs of user 'ann' in this selection; the ledger has some" in done.stderr
    assert "no jobs of account 'gpuproj' in this selection" in done.stderr


def test_of_two_names_one_without_rows_is_told_and_the_other_reported(paper: Path) -> None:
    done = ended(paper, "-p", "gpuproj", "-p", "cpuproj", "-E", "2026-11-25", "--json")
    assert [one["project"] for one in figures(done.stdout)["rows"]] == ["gpuproj"]
    assert "no jobs of project 'cpuproj' up to 2026-11-24" in done.stderr


@pytest.mark.parametrize("window", [("-E", "2026-11-25"), ("-S", "2030-01-01")])
def test_scripts_get_the_header_in_any_case(paper: Path, window: tuple[str, ...]) -> None:
    for form, mark in (("--csv", ","), ("-P", "|")):
        names = ended(paper, "-u", "ann", "--by", "user,month", form, *window).stdout
        assert names == mark.join(("user", "month", *HEADER)) + "\n"
        whole = ended(paper, "-p", "gpuproj", form).stdout.splitlines()[0]
        assert ended(paper, "-p", "cpuproj", form, *window).stdout == whole + "\n"
    nothing = figures(ended(paper, "-p", "cpuproj", "--json", *window).stdout)
    assert (nothing["project"], nothing["jobs"], nothing["rnd"]) == ("cpuproj", 0, [])


def test_a_header_is_that_of_its_rows(paper: Path) -> None:
    assert report(paper, "--by", "user", "--csv").splitlines()[0].split(",") == ["user", *HEADER]
    assert HEADER[: len(TOTALS)] == TOTALS


# Sums, small numbers, words.


def test_jobs_that_count_in_several_rows_are_told(tmp_path: Path) -> None:
    rows = [row(ElapsedRaw=30 * HOUR), row(JobID="9", State="NODE_FAIL"), row(JobID="9", Start=NOON + 2 * HOUR)]
    home = home_of(tmp_path, rows)
    said = "A job counts in each row that it has a part in; 2 jobs in all."
    assert said in report(home, "--by", "day")
    assert said in report(home, "--by", "state")
    assert said not in report(home, "--by", "month")
    assert said not in report(home, "--by", "user")


def test_small_use_is_not_nothing(tmp_path: Path) -> None:
    home = home_of(tmp_path, [row(ElapsedRaw=90)])
    cells = next(line for line in report(home).splitlines() if line.startswith("lisa"))
    assert cells.startswith("lisa 1 0.025 0.1 0.0")
    assert " 0 " not in cells
    lines = report(home, "-p", "lisa").splitlines()
    assert next(line for line in lines if line.startswith("all jobs 1 0.025 0.0"))
    assert "1 GPU of one's own, bought 2,500" in lines
    assert "Span 2 min" in lines


def test_without_gpus_cpus_are_counted_and_no_gpus_are_bought(paper: Path) -> None:
    text = report(paper, "-p", "cpuproj")
    assert "Models CPU-hours low USD" in text
    assert "all jobs 5 3,200 - -" in text
    assert "Own hardware" not in text
    assert "Own hardware" in report(paper, "-p", "gpuproj")


def test_jobs_that_ran_no_second_are_why_there_is_no_energy(tmp_path: Path, paper: Path) -> None:
    home = home_of(tmp_path, [row(ElapsedRaw=0)])
    assert "Energy known from nothing: its jobs ran 0 s" in report(home, "-p", "lisa")
    assert "nothing: no energy was recorded and no rated power is known" in report(paper, "-p", "cpuproj")


def test_a_suspended_job_is_not_running(tmp_path: Path) -> None:
    rows = [running(ElapsedRaw=60), running(JobID="8", State="SUSPENDED", ElapsedRaw=60)]
    home = home_of(tmp_path, rows)
    text = report(home, "-p", "lisa")
    assert "1 job was still running when the ledger was written. 1 job was suspended when" in text
    one = found(home, "-p", "lisa")
    assert (one["running_jobs"], one["suspended_jobs"]) == (1, 1)


def test_a_model_of_several_clusters_is_named_with_its_own(tmp_path: Path) -> None:
    home = home_of(tmp_path, [row(), row(Cluster="beta", ElapsedRaw=2 * HOUR), row(JobID="9")])
    text = report(home, "-p", "lisa", "--model", "7")
    assert "The model is job 7 of cluster beta; --model and --sweep choose others." in text
    assert "2 jobs have this id: clusters alpha and beta have such a job, -M chooses." in text
    one = found(home, "-p", "lisa", "--model", "7")
    assert (one["model"], one["model_cluster"], one["model_clusters"]) == ("7", "beta", ["alpha", "beta"])
    assert "The model is job 7;" in report(home, "-p", "lisa", "--model", "7", "-M", "alpha")
    assert "jobs have this id" not in report(home, "-p", "lisa", "--model", "9")


def test_a_model_whose_id_came_round_is_said(tmp_path: Path) -> None:
    home = home_of(tmp_path, [row(), row(Start=NOON + 40 * DAY, ElapsedRaw=2 * HOUR)])
    assert "2 jobs have this id: the id came round." in report(home, "-p", "lisa", "--model", "7")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("GPU-h", "gpu_hours"), ("cpu-h", "cpu_hours"), ("Energy", "facility_kwh"), ("CO2e", "co2e_kg"), ("Jobs", "jobs"),
        ("Electr. USD", "electricity_usd"), ("Cloud low USD", "cloud_low_usd"), ("User", "user"),
    ],
)  # fmt: skip
def test_groups_are_sorted_by_the_header_of_a_column_too(paper: Path, header: str, name: str) -> None:
    by = ("--by", "user", "--sort")
    assert found(paper, *by, header) == found(paper, *by, name)


def test_the_ledger_without_measurements_shows_no_empty_table(paper: Path) -> None:
    assert quick(paper, "ledger", "verify", "--config", "config.toml") == "no measured energy in this ledger yet\n"


def test_one_day_is_one_day(measured: Path) -> None:
    text = quick(measured, "ledger", "verify", "--config", "config.toml")
    assert text.endswith("1 day with measured energy, 0 off\n")
