"""The ledger's metrics: the numbers of `senergy report`, a bounded number of series, one reading per change."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from common.processes import free_port
from common.waiting import until
from helpers import DAY, NOON, aggregate_file, epoch, row, running, save
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from slurm_energy_exporters.ledger_collector import LedgerCollector
from slurm_energy_exporters.ledger_sums import MAX_LABEL, label
from slurm_energy_exporters.metrics import LEDGER, WINDOWS

from slurm_energy.ledger.store import Ledger
from slurm_energy.report.groups import group_report
from slurm_energy.report.selection import Selection, open_rows
from slurm_energy.slurm.zone import zone

HOUR = 3600
SITE = zone("Europe/Berlin")
NOW = epoch("2026-12-10 08:00")
FIGURES = {
    "jobs": ("jobs", 1), "gpu_seconds": ("gpu_hours", 3600), "cpu_seconds": ("cpu_hours", 3600),
    "it_energy_joules": ("it_kwh", 3.6e6), "facility_energy_joules": ("facility_kwh", 3.6e6),
    "co2e_grams": ("co2e_kg", 1000), "electricity_usd": ("electricity_usd", 1),
    "cloud_low_usd": ("cloud_low_usd", 1), "cloud_high_usd": ("cloud_high_usd", 1),
}  # fmt: skip
HOSTILE = 'ev"il\\\n{}\x1b[31m# HELP x'
Samples = dict[str, dict[tuple[str, ...], float]]


def jobs() -> Iterator[dict[str, str]]:
    """Two clusters, seven accounts, four users, three months; jobs over midnight, requeued, resized, arrays, running."""
    for number in range(1, 81):
        yield row(
            JobID=str(number), Cluster=("alpha", "beta")[number % 2],
            User=("emma", "ananya", "andrew", "wei")[number % 4], Account=f"account{number % 7}",
            Start=NOON - 30 * DAY + number * 13 * HOUR, ElapsedRaw=number * 1357,
            AllocTRES=f"cpu=4,mem=16G,node=1{',gres/gpu:a100=1' if number % 3 else ''}",
        )  # fmt: skip
    for task in range(3):
        yield row(JobID=f"900_{task}", JobIDRaw=900 + task, ElapsedRaw=50000)
    yield row(JobID="950", State="NODE_FAIL", ElapsedRaw=3 * HOUR)
    yield row(JobID="950", Start=NOON + 8 * HOUR, ElapsedRaw=30 * HOUR)
    yield row(JobID="951", State="PREEMPTED", Start=NOON, ElapsedRaw=2 * HOUR)
    yield row(JobID="951", Start=NOON + 8 * DAY, ElapsedRaw=HOUR)
    yield row(JobID="952", Start=NOON - 12 * DAY, ElapsedRaw=HOUR)  # an id that came round
    yield row(JobID="952", Start=NOON + 12 * DAY, ElapsedRaw=HOUR)
    yield running(JobID="960", ElapsedRaw=400)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    aggregate_file(save(folder / "jobs.txt", jobs()), folder / "ledger", timezone_name="Europe/Berlin")
    Ledger(folder / "ledger").write_state({"local": RUN, "alpha,beta": RUN - 5})
    return folder / "ledger"


@pytest.fixture
def ledger(whole: Path, tmp_path: Path) -> Path:
    """One's own copy."""
    return Path(shutil.copytree(whole, tmp_path / "ledger"))


def collector(path: Path, **options: Any) -> LedgerCollector:
    return LedgerCollector(Ledger(path), SITE, **{"now": lambda: NOW, **options})


def scrape(source: LedgerCollector) -> Samples:
    """What Prometheus gets: by metric's name, by the labels' values in the order of the contract."""
    registry = CollectorRegistry()
    registry.register(source)
    text = generate_latest(registry).decode()
    order = {metric.name: metric.labels for metric in LEDGER}
    found: Samples = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        for sample in family.samples:
            assert set(sample.labels) == set(order[sample.name])
            key = tuple(sample.labels[name] for name in order[sample.name])
            assert key not in found[sample.name]
            found[sample.name][key] = sample.value
    return found


SPANS: dict[str, dict[str, date]] = {
    "all": {},
    "month": {"start": date(2026, 12, 1), "end": date(2027, 1, 1)},
    "last_month": {"start": date(2026, 11, 1), "end": date(2026, 12, 1)},
}
RUN = int(NOW) - HOUR


def reported(path: Path, *by: str, window: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """The rows of `senergy report --by`, by their keys."""
    con = open_rows(Ledger(path), Selection(**SPANS[window]), None, [key for key in by if key != "cluster"])
    return {tuple(one[key] for key in by): one for one in group_report(con, by)}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("level", "by"), [("cluster", []), ("project", ["project"]), ("user", ["user"])])
def test_every_figure_is_that_of_the_report(whole: Path, level: str, by: list[str], window: str) -> None:
    found = scrape(collector(whole))
    rows = reported(whole, "cluster", *by, window=window)
    assert len(rows) >= 2
    for name, (total, unit) in FIGURES.items():
        samples = {
            key[:-1]: value
            for key, value in found[f"slurm_energy_ledger_{level}_{name}"].items()
            if key[-1] == window
        }  # fmt: skip
        assert samples == {key: pytest.approx(one[total] * unit, rel=1e-9) for key, one in rows.items()}, name


@pytest.mark.parametrize("window", WINDOWS)
def test_provenance_is_that_of_the_report(whole: Path, window: str) -> None:
    found = scrape(collector(whole))["slurm_energy_ledger_provenance_energy_joules"]
    for (cluster,), one in reported(whole, "cluster", window=window).items():
        for name, share in one["provenance"].items():
            assert found[cluster, window, name] == pytest.approx(share * one["it_kwh"] * 3.6e6, rel=1e-9, abs=1e-3)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("level", ["project", "user"])
def test_provenance_of_projects_and_users_is_that_of_the_report(whole: Path, level: str, window: str) -> None:
    found = scrape(collector(whole))[f"slurm_energy_ledger_{level}_provenance_energy_joules"]
    rows = reported(whole, "cluster", level, window=window)
    assert rows
    for key, one in rows.items():
        for name, share in one["provenance"].items():
            assert found[(*key, window, name)] == pytest.approx(share * one["it_kwh"] * 3.6e6, rel=1e-9, abs=1e-3)


def test_provenance_of_other_is_what_is_left(whole: Path) -> None:
    every, few = scrape(collector(whole)), scrape(collector(whole, top=2))
    for level in ("project", "user"):
        metric = f"slurm_energy_ledger_{level}_provenance_energy_joules"
        assert len({key[1] for key in few[metric]}) == 3
        for window in WINDOWS:
            for name in ("measured", "slurm", "estimated"):
                sums = [sum(v for k, v in of[metric].items() if k[2:] == (window, name)) for of in (every, few)]
                assert sums[0] == pytest.approx(sums[1])


def test_every_metric_of_the_contract_is_there_and_no_other(whole: Path) -> None:
    assert set(scrape(collector(whole))) == {metric.name for metric in LEDGER}


def test_the_month_is_the_sites_own_and_turns_without_a_reading(whole: Path) -> None:
    clock = [epoch("2026-11-30 22:59")]  # in Berlin one minute before December
    source = collector(whole, now=lambda: clock[0])
    before = scrape(source)["slurm_energy_ledger_cluster_it_energy_joules"]
    november = before["alpha", "month"]
    read = source.sums.files_read
    clock[0] += 120
    after = scrape(source)["slurm_energy_ledger_cluster_it_energy_joules"]
    assert after["alpha", "month"] != november
    assert after["alpha", "all"] == before["alpha", "all"]
    assert source.sums.files_read == read


def without(key: tuple[str, ...]) -> tuple[str, ...]:
    """A series' labels but for its window."""
    return tuple(value for value in key if value not in WINDOWS)


@pytest.mark.parametrize("when", ["2027-01-01 08:00", "2026-12-31 23:01", "2027-02-01 00:30"])
def test_a_month_in_which_nothing_ran_yet_is_0_and_the_last_one_is_whole(whole: Path, when: str) -> None:
    december = scrape(collector(whole))
    found = scrape(collector(whole, now=lambda: epoch(when)))
    first = when < "2027-01-31"
    for name, samples in found.items():
        windowed = {key: value for key, value in samples.items() if "month" in key}
        if windowed:
            shown = {window: {without(key) for key in samples if window in key} for window in WINDOWS}
            assert shown["all"] == shown["month"] == shown["last_month"]
        assert not any(value for key, value in windowed.items())
        for key, value in samples.items():
            if "last_month" in key:
                before = tuple("month" if one == "last_month" else one for one in key)
                assert value == pytest.approx(december[name][before] if first else 0), (name, key)
    assert sum(1 for samples in found.values() for key in samples if "month" in key) > 100


def test_a_cluster_that_never_ran_a_job_is_shown_with_0(ledger: Path) -> None:
    import pyarrow.parquet as pq

    day = Ledger(ledger).days(["alpha"])[-1]
    table = pq.ParquetFile(day.path).read()
    path = Ledger(ledger).day_path("new", day.day)
    path.parent.mkdir()
    pq.write_table(table.slice(0, 0), path)
    found = scrape(collector(ledger))
    for name in ("cluster_jobs", "cluster_co2e_grams", "idle_energy_joules"):
        assert found[f"slurm_energy_ledger_{name}"]["new", "month"] == 0


def test_the_first_and_other_add_up_and_are_counted(whole: Path) -> None:
    every, few = scrape(collector(whole)), scrape(collector(whole, top=2))
    for level, of in (("project", 8), ("user", 4)):
        for name in FIGURES:
            metric = f"slurm_energy_ledger_{level}_{name}"
            shown = {key[1] for key in few[metric]}
            assert len(shown) == 3
            assert "other" in shown
            for window in WINDOWS:
                total = sum(value for key, value in every[metric].items() if key[2] == window)
                assert sum(value for key, value in few[metric].items() if key[2] == window) == pytest.approx(total)
        assert few["slurm_energy_ledger_groups_folded"][level,] == of - 2
        assert every["slurm_energy_ledger_groups_folded"][level,] == 0


def test_a_project_that_leads_in_the_last_month_is_shown_though_it_is_small_in_all(tmp_path: Path) -> None:
    rows = [row(JobID=str(n), Account=f"old{n}", Start=NOON - 60 * DAY, ElapsedRaw=80000) for n in range(1, 4)]
    rows.append(row(JobID="9", Account="lately", Start=NOON, ElapsedRaw=600))
    aggregate_file(save(tmp_path / "jobs.txt", rows), tmp_path / "ledger")
    found = scrape(collector(tmp_path / "ledger", top=1))["slurm_energy_ledger_project_jobs"]
    assert found["alpha", "lately", "last_month"] == 1
    assert found["alpha", "lately", "month"] == 0


def test_a_project_that_leads_in_this_month_is_shown_though_it_is_small_in_all(tmp_path: Path) -> None:
    rows = [row(JobID=str(n), Account=f"old{n}", Start=NOON - 40 * DAY, ElapsedRaw=80000) for n in range(1, 4)]
    rows.append(row(JobID="9", Account="new", Start=NOON + 10 * DAY, ElapsedRaw=600))
    aggregate_file(save(tmp_path / "jobs.txt", rows), tmp_path / "ledger")
    found = scrape(collector(tmp_path / "ledger", top=1))["slurm_energy_ledger_project_jobs"]
    assert found == {
        ("alpha", "new", "all"): 1, ("alpha", "new", "month"): 1, ("alpha", "new", "last_month"): 0,
        ("alpha", "other", "all"): 3, ("alpha", "other", "month"): 0, ("alpha", "other", "last_month"): 0,
    }  # fmt: skip


def test_users_are_left_out_for_privacy(whole: Path) -> None:
    source = collector(whole, users=False)
    found = scrape(source)
    assert not [name for name, samples in found.items() if "_user_" in name and samples]
    assert set(found["slurm_energy_ledger_groups_folded"]) == {("project",)}
    registry = CollectorRegistry()
    registry.register(source)
    assert b"emma" not in generate_latest(registry)


def test_each_file_is_read_once_and_a_changed_day_costs_one(ledger: Path, tmp_path: Path) -> None:
    source = collector(ledger)
    days = len(Ledger(ledger).days())
    first = scrape(source)
    assert scrape(source) == first
    assert source.sums.files_read == days
    aggregate_file(save(tmp_path / "more.txt", [row(JobID="5000")]), tmp_path / "other", timezone_name="Europe/Berlin")
    (changed,) = Ledger(tmp_path / "other").days()
    target = Ledger(ledger).day_path("alpha", changed.day)
    changed.path.replace(target)
    again = scrape(source)
    assert source.sums.files_read == days + 1
    assert again == scrape(collector(ledger))
    assert again != first
    target.unlink()
    fewer = scrape(source)
    assert source.sums.files_read == days + 1
    assert fewer["slurm_energy_ledger_day_files"]["alpha",] == first["slurm_energy_ledger_day_files"]["alpha",] - 1
    assert fewer == scrape(collector(ledger))


def test_a_scrape_of_an_unchanged_ledger_opens_no_parquet(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = collector(ledger)
    scrape(source)
    monkeypatch.setattr(source.sums, "_read", lambda *_: pytest.fail("read again"))
    scrape(source)


def test_idle_energy_is_no_job(ledger: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    before = scrape(collector(ledger))
    day = Ledger(ledger).days(["alpha"])[-1]
    table = pq.ParquetFile(day.path).read()
    idle = {**table.to_pylist()[0], "state": "IDLE", "project": "(idle)", "user": "", "job_id": 0, "it_kwh": 2.5}
    pq.write_table(pa.concat_tables([table, pa.Table.from_pylist([idle], table.schema)]), day.path)
    after = scrape(collector(ledger))
    assert after["slurm_energy_ledger_idle_energy_joules"]["alpha", "all"] == 2.5 * 3.6e6
    assert after["slurm_energy_ledger_idle_energy_joules"]["beta", "all"] == 0
    for name, samples in before.items():
        if "idle" not in name and "last_write" not in name:
            assert after[name] == pytest.approx(samples), name


def test_freshness_and_rows_set_aside(ledger: Path) -> None:
    (ledger / "set-aside").mkdir(exist_ok=True)
    for name, lines in (("a", 3), ("b", 4)):
        (ledger / "set-aside" / f"{name}.jsonl").write_text("{}\n" * lines)
    days = Ledger(ledger).days(["beta"])
    os.utime(days[0].path, (NOW - 5, NOW - 5))
    source = collector(ledger)
    found = scrape(source)
    assert found["slurm_energy_ledger_set_aside_rows"][()] == 7
    assert found["slurm_energy_ledger_day_files"]["beta",] == len(days)
    last = epoch(f"{days[-1].day} 00:00", "Europe/Berlin") + DAY
    assert found["slurm_energy_ledger_last_day_timestamp_seconds"]["beta",] == last
    newest = max(file.path.stat().st_mtime for file in days)
    assert found["slurm_energy_ledger_last_write_timestamp_seconds"]["beta",] == pytest.approx(newest)
    assert found["slurm_energy_ledger_last_run_timestamp_seconds"] == {("local",): RUN, ("alpha,beta",): RUN - 5}
    Ledger(ledger).write_state({"local": RUN + 60})
    assert scrape(source)["slurm_energy_ledger_last_run_timestamp_seconds"] == {("local",): RUN + 60}
    (ledger / "set-aside" / "c.jsonl").write_text("{}\n")
    assert scrape(source)["slurm_energy_ledger_set_aside_rows"][()] == 8


def test_a_quiet_cluster_s_ledger_is_as_fresh_as_its_last_run(tmp_path: Path) -> None:
    aggregate_file(save(tmp_path / "jobs.txt", [row(Start=NOON - 60 * DAY)]), tmp_path / "ledger")
    assert not scrape(collector(tmp_path / "ledger"))["slurm_energy_ledger_last_run_timestamp_seconds"], "out of a file"
    Ledger(tmp_path / "ledger").write_state({"local": RUN})
    found = scrape(collector(tmp_path / "ledger"))
    assert found["slurm_energy_ledger_last_run_timestamp_seconds"]["local",] == RUN
    assert NOW - found["slurm_energy_ledger_last_day_timestamp_seconds"]["alpha",] > 40 * DAY


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_accepts_it(whole: Path) -> None:
    registry = CollectorRegistry()
    registry.register(collector(whole))
    done = subprocess.run(["promtool", "check", "metrics"], input=generate_latest(registry), capture_output=True)
    assert (done.returncode, (done.stdout + done.stderr).decode()) == (0, "")


def test_a_ledger_that_cannot_be_read_is_down_and_comes_back(ledger: Path) -> None:
    source = collector(ledger)
    good = scrape(source)
    day = Ledger(ledger).days()[0].path
    content = day.read_bytes()
    day.write_bytes(b"PAR1 not a parquet file")
    for _ in range(2):
        assert scrape(source) == {"slurm_energy_ledger_up": {(): 0}}
    day.write_bytes(content)
    (ledger / "state.json").rename(ledger / "kept")
    (ledger / "state.json").write_text("{")
    assert scrape(source) == {"slurm_energy_ledger_up": {(): 0}}
    (ledger / "kept").rename(ledger / "state.json")
    back = scrape(source)
    del (
        back["slurm_energy_ledger_last_write_timestamp_seconds"],
        good["slurm_energy_ledger_last_write_timestamp_seconds"],
    )
    assert back == good
    assert good["slurm_energy_ledger_up"] == {(): 1}


@pytest.mark.parametrize("make", [lambda _: None, lambda path: path.write_text("a file"), lambda path: path.mkdir()])
def test_no_ledger_is_down(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "ledger")
    assert scrape(collector(tmp_path / "ledger")) == {"slurm_energy_ledger_up": {(): 0}}


def test_hostile_names_are_safe_labels_and_other_is_not_taken(tmp_path: Path) -> None:
    names = [HOSTILE, "other", "x" * 5000, "", "(none)", "ünï", "a,b=c"]
    rows = [
        row(JobID=str(number), Account=name.replace("\n", " "), User=name.replace("\n", " "), Cluster="al pha")
        for number, name in enumerate(names, 1)
    ]
    aggregate_file(save(tmp_path / "jobs.txt", rows), tmp_path / "ledger")
    found = scrape(collector(tmp_path / "ledger"))["slurm_energy_ledger_project_jobs"]
    shown = {key[1]: value for key, value in found.items() if key[2] == "all"}
    assert sum(shown.values()) == len(names)
    assert shown["other"] == 1
    assert shown["ünï"] == shown["a,b=c"] == 1
    assert all(name.isprintable() and len(name) <= MAX_LABEL for name in shown)


@pytest.mark.parametrize("name", [HOSTILE, "\0", "a\nb", "\u202e", "y" * 1000])
def test_a_label_is_printable_and_bounded(name: str) -> None:
    assert label(name).isprintable()
    assert 0 < len(label(name)) <= MAX_LABEL


# The command and its units.

EXPORTER = [sys.executable, "-m", "slurm_energy_exporters.ledger"]
UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
ADMIN = ("slurm-energy-ledger-exporter.service", "slurm-energy-aggregate.service", "slurm-energy-aggregate.timer")


def test_the_command_serves_the_ledger_until_it_is_told_to_stop(ledger: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[site]\ntimezone = "Europe/Berlin"\n')
    port = free_port()
    command = [*EXPORTER, "--ledger", ledger, "--config", tmp_path / "config.toml", "--no-users", "--top", "3"]
    process = subprocess.Popen([*command, "--web.listen-address", f"127.0.0.1:{port}"], stderr=subprocess.PIPE)

    def answer() -> str:
        assert process.poll() is None
        url = f"http://127.0.0.1:{port}/metrics"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as given:
            return str(given.read().decode())
        return ""

    try:
        text = until("its answer", answer, 20)
        assert "slurm_energy_ledger_up 1" in text
        assert 'project="other"' in text
        assert "emma" not in text
        names = {family.name for family in text_string_to_metric_families(text)}
        assert names <= {metric.name for metric in LEDGER}
    finally:
        process.terminate()
        assert process.wait(10) == 0
        assert process.stderr
        process.stderr.close()


@pytest.mark.parametrize("arguments", [["--top", "0"], ["--top", "x"], ["--config", "/no/such.toml"], ["--no-such"]])
def test_a_wrong_flag_or_configuration_ends_with_2(arguments: list[str]) -> None:
    done = subprocess.run([*EXPORTER, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units_of_the_admin_node_and_calls_them_hardened(tmp_path: Path) -> None:
    for name in ADMIN:
        text = re.sub(r"/usr/local/bin/senergy[\w-]*", "/bin/true", (UNITS / name).read_text())
        (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "verify", *(tmp_path / name for name in ADMIN)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "slurm-energy" in line]) == (0, [])
    for name in ADMIN[:2]:
        command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNITS / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "unrecognized option" in done.stderr:
            continue
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
        assert found
        assert float(found[1]) <= 1.5


def test_the_units_of_the_admin_node_run_as_the_services_user_and_catch_up() -> None:
    exporter, aggregate, timer = ((UNITS / name).read_text() for name in ADMIN)
    for text in (exporter, aggregate):
        for line in ("User=slurm-energy", "CapabilityBoundingSet=", "NoNewPrivileges=yes", "ProtectSystem=strict"):
            assert f"\n{line}\n" in text
    assert "\nReadWritePaths=" not in exporter
    assert "StateDirectory=" not in exporter + aggregate  # it would give the folder another owner
    assert "\nExecStart=/usr/local/bin/senergy aggregate --quiet\n" in aggregate
    assert "\nSuccessExitStatus=1\n" in aggregate
    assert "\nPersistent=yes\n" in timer
    assert "\nRandomizedDelaySec=" in timer
