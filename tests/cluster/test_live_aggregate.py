"""`senergy aggregate` and `senergy report` against real Slurm, held to what the test works out from sacct by itself."""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import pandas as pd
import pytest
from common.waiting import until

if TYPE_CHECKING:
    from conftest import Cluster

pytestmark = pytest.mark.cluster

CONFIG = """
[[projects]]
project = "{comment}"

[[projects]]
project = "night"
job_name = "night-*"
"""
TREE = """
[[projects]]
project = "language"
account = "nlp"
"""
# Strubell et al. 2019: watts per GPU, PUE, lb CO2e per kWh, USD per kWh, USD per GPU-hour. Then the packaged defaults
# of a site: watts per core and per GB of memory; a Titan X and an M40 are rated 250 W each by NVIDIA.
GPU_W, PUE, LB_PER_KWH, USD_PER_KWH, LOW_USD, HIGH_USD = 216.961, 1.58, 0.954, 0.12, 0.43, 1.46
SITE_CORE_W, SITE_GB_W, SITE_GPU_W, SITE_PUE = 8.44, 0.078125, 250.0, 1.54
FIELDS = ("JobIDRaw", "User", "Account", "State", "Submit", "Start", "End", "ElapsedRaw", "NCPUS", "AllocTRES")
SAVED = (
    "JobID,JobIDRaw,Cluster,JobName,User,Account,Partition,QOS,WCKey,State,Submit,Start,End,ElapsedRaw,Suspended,"
    "NNodes,NCPUS,AllocTRES,NodeList,ConsumedEnergyRaw,Comment"
)
exactly: Callable[[float], Any] = lambda number: pytest.approx(number, rel=1e-9, abs=1e-12)  # noqa: E731


class Run(NamedTuple):
    """One line of sacct: a run of a job, or one of the sizes it had."""

    job: str
    user: str
    account: str
    state: str
    start: int
    end: int
    seconds: int
    cpus: int
    gpus: int
    memory_gb: float


def runs_by_sacct(cluster: Cluster) -> list[Run]:
    """What sacct says of every run that began; none of the fields holds a user's text."""
    text = cluster.run(
        "sacct", "-X", "-D", "-a", "-P", "-n", "-S", "now-1days", "-o", ",".join(FIELDS),
        SLURM_TIME_FORMAT="%s",
    )  # fmt: skip
    found = []
    for line in text.splitlines():
        row = dict(zip(FIELDS, line.split("|"), strict=True))
        if not row["Start"].isdigit():  # waits, or was cancelled before it began
            continue
        tres = dict(part.split("=") for part in row["AllocTRES"].split(","))
        start, submit, seconds = int(row["Start"]), int(row["Submit"]), int(row["ElapsedRaw"])
        if (
            submit > start
        ):  # Slurm 22.05 dates a resized job's later part back to the first start; Submit has the change
            start, seconds = submit, int(row["End"]) - submit
        memory = float(tres["mem"][:-1]) / {"M": 1024, "G": 1}[tres["mem"][-1]]
        found.append(
            Run(
                row["JobIDRaw"], row["User"], row["Account"], row["State"].split(" ")[0], start, int(row["End"]),
                seconds, int(row["NCPUS"]), int(tres.get("gres/gpu", "0")), memory,
            )
        )  # fmt: skip
    return found


class Sums(NamedTuple):
    """What a report says of some runs."""

    jobs: int
    gpu_hours: float
    cpu_hours: float


def sums(runs: Iterable[Run]) -> Sums:
    """Totals; all runs of a job together are one job."""
    runs = list(runs)
    gpu_s, cpu_s = sum(run.gpus * run.seconds for run in runs), sum(run.cpus * run.seconds for run in runs)
    return Sums(len({run.job for run in runs}), gpu_s / 3600, cpu_s / 3600)


def by(runs: Iterable[Run], field: str) -> dict[str, Sums]:
    """Totals of each group."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[getattr(run, field)].append(run)
    return {name: sums(members) for name, members in groups.items()}


def day_files(ledger: Path) -> dict[str, bytes]:
    """The ledger's days, byte for byte."""
    return {str(path.relative_to(ledger)): path.read_bytes() for path in sorted(ledger.glob("days/*/*.parquet"))}


def rows(ledger: Path) -> pd.DataFrame:
    """The ledger's rows, read as any program would read them."""
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    files = f"'{ledger}/days/*/*.parquet', hive_partitioning=false"
    return con.sql(f"SELECT * FROM read_parquet({files}) ORDER BY job_id, start, date").df()


class Accounted(NamedTuple):
    """A cluster whose jobs were aggregated twice: while one of them ran, and when all had ended."""

    cluster: Cluster
    ids: dict[str, str]
    ledger: Path
    """As the cluster sees it."""
    config: Path
    rows_while: pd.DataFrame
    rows: pd.DataFrame
    files: dict[str, bytes]
    runs: list[Run]

    def report(self, *options: str | Path, ledger: Path | None = None) -> Any:
        done = self.cluster.senergy("report", *options, "--json", "--ledger", ledger or self.ledger)
        return json.loads(done.stdout)

    def of_project(self, project: str) -> list[Run]:
        """The runs of a project, by the site's rules as a person would apply them."""
        special = {self.ids["comment"]: "aurora", self.ids["night"]: "night"}
        return [run for run in self.runs if special.get(run.job, run.account) == project]


@pytest.fixture(scope="module", params=["22", "26"], ids=["slurm22.05", "slurm26.05"])
def accounted(request: pytest.FixtureRequest) -> Accounted:
    cluster: Cluster = request.getfixturevalue(f"cluster{request.param}")
    ids = dict(request.getfixturevalue(f"jobs{request.param}"))
    ids["long"] = cluster.submit("sealice", "-J", "long", "--gres=gpu:m40:1", wrap=cluster.gate("long"))
    until("the long job to have run a while", lambda: cluster.lasted(ids["long"], 2))
    config, ledger = cluster.files / "rules.toml", cluster.files / "live"
    cluster.outside(config).write_text(CONFIG)
    nightly = ("aggregate", "--profile", "strubell2019", "--config", config, "--ledger", ledger, "--json")
    cluster.senergy(*nightly)
    rows_while = rows(cluster.outside(ledger))
    cluster.open_gate("long")
    cluster.wait(ids["long"])
    cluster.senergy(*nightly)
    outside = cluster.outside(ledger)
    return Accounted(
        cluster, ids, ledger, config, rows_while, rows(outside), day_files(outside), runs_by_sacct(cluster)
    )


def test_the_ledger_has_every_run_that_sacct_shows_and_no_other(accounted: Accounted) -> None:
    mine = sorted(
        (run.job, run.start, run.end, run.state, run.user, run.account, run.gpus, run.cpus) for run in accounted.runs
    )
    whole = accounted.rows.groupby(["job_id", "start"], as_index=False).first()  # a run over midnight has two rows
    columns = ["job_id", "start", "end", "state", "user", "account", "gpus", "cpus"]
    theirs = [
        (str(job), int(start.timestamp()), int(end.timestamp()), state, user, account, int(gpus), int(cpus))
        for job, start, end, state, user, account, gpus, cpus in whole[columns].itertuples(index=False)
    ]
    assert sorted(theirs) == mine
    # The sample holds what it is there for.
    states = [run.state for run in accounted.runs]
    assert {"COMPLETED", "FAILED", "CANCELLED", "REQUEUED", "RESIZING"} <= set(states)
    assert any(run.seconds == 0 for run in accounted.runs)


def test_the_ledger_counts_the_seconds_of_each_run_as_sacct_does(accounted: Accounted) -> None:
    seconds = accounted.rows.groupby(["job_id", "start"])[["elapsed_s", "gpu_h", "cpu_h"]].sum()
    for run in accounted.runs:
        row = seconds.loc[(int(run.job), pd.Timestamp(run.start, unit="s", tz="UTC"))]
        assert row["elapsed_s"] == run.seconds, run
        assert row["gpu_h"] * 3600 == exactly(run.gpus * run.seconds), run
        assert row["cpu_h"] * 3600 == exactly(run.cpus * run.seconds), run


def test_a_job_that_waited_and_was_cancelled_is_not_in_the_ledger(accounted: Accounted) -> None:
    assert int(accounted.ids["cancelled-waiting"]) not in set(accounted.rows["job_id"])


def test_each_name_is_stored_as_sacct_shows_it_whatever_is_in_it(accounted: Accounted) -> None:
    for label in ("pipe", "newline", "alphabets", "broken", "controls", "plain"):
        job = accounted.ids[label]
        shown = accounted.cluster.bytes_of("sacct", "-X", "-P", "-n", "-j", job, "-o", "JobName").decode()
        stored = set(accounted.rows.loc[accounted.rows["job_id"] == int(job), "job_name"])
        assert stored == {shown.removesuffix("\n")}, label


def test_types_of_gpu_are_told_apart_on_one_node_and_on_two(accounted: Accounted) -> None:
    model = accounted.rows.drop_duplicates("job_id").set_index("job_id")["gpu_model"]
    of = lambda label: model[int(accounted.ids[label])]  # noqa: E731
    assert (of("typed"), of("m40"), of("two-nodes")) == ("TITANX", "M40", "M40+TITANX")
    assert of("untyped") in ("TITANX", "M40")  # asked for without a type, given with one
    assert pd.isna(of("plain"))


def test_the_report_of_a_project_equals_what_sacct_adds_up_to(accounted: Accounted) -> None:
    wanted = sums(accounted.of_project("lisa"))
    report = accounted.report("--project", "lisa")
    kwh = GPU_W / 1000 * wanted.gpu_hours
    assert report["project"] == "lisa"
    assert report["profile"] == "strubell2019"
    assert report["jobs"] == wanted.jobs
    assert report["gpu_hours"] == exactly(wanted.gpu_hours)
    assert report["cpu_hours"] == exactly(wanted.cpu_hours)
    assert report["it_kwh"] == exactly(kwh)
    assert report["facility_kwh"] == exactly(PUE * kwh)
    assert report["co2e_lb"] == exactly(LB_PER_KWH * PUE * kwh)
    assert report["co2e_kg"] == exactly(LB_PER_KWH * 0.45359237 * PUE * kwh)
    assert report["electricity_usd"] == exactly(USD_PER_KWH * PUE * kwh)
    assert report["cloud_low_usd"] == exactly(LOW_USD * wanted.gpu_hours)
    assert report["cloud_high_usd"] == exactly(HIGH_USD * wanted.gpu_hours)
    assert report["provenance"]["estimated"] == exactly(1)


@pytest.mark.parametrize("project", ["aurora", "night", "vision"])
def test_rules_of_the_configuration_give_jobs_to_their_project(accounted: Accounted, project: str) -> None:
    wanted = sums(accounted.of_project(project))
    report = accounted.report("--project", project)
    assert wanted.jobs == 1
    assert (report["jobs"], report["gpu_hours"]) == (1, exactly(wanted.gpu_hours))


@pytest.mark.parametrize("key", ["user", "account", "state"])
def test_totals_of_groups_equal_what_sacct_adds_up_to(accounted: Accounted, key: str) -> None:
    wanted = by(accounted.runs, key)
    found = {row[key]: row for row in accounted.report("--by", key)["rows"]}
    assert set(found) == set(wanted)
    for name, group in wanted.items():
        row = found[name]
        assert (row["jobs"], row["gpu_hours"], row["cpu_hours"]) == (
            group.jobs, exactly(group.gpu_hours), exactly(group.cpu_hours),
        ), name  # fmt: skip
        assert row["it_kwh"] == exactly(GPU_W / 1000 * group.gpu_hours), name


@pytest.mark.parametrize("label", ["requeued", "resized"])
def test_a_job_with_two_runs_counts_once_with_the_hours_of_both(accounted: Accounted, label: str) -> None:
    runs = [run for run in accounted.runs if run.job == accounted.ids[label]]
    assert len(runs) == 2
    assert all(run.seconds > 0 for run in runs)
    config = accounted.cluster.files / f"{label}.toml"
    accounted.cluster.outside(config).write_text(f'[[projects]]\nproject = "alone"\njob_name = "{label}"\n')
    ledger = accounted.cluster.files / f"ledger-{label}"
    options = ("--config", config, "--ledger", ledger)
    accounted.cluster.senergy("aggregate", "-S", "now-1days", "--profile", "strubell2019", *options)
    report = accounted.report("--project", "alone", ledger=ledger)
    assert (report["jobs"], report["gpu_hours"]) == (1, exactly(sum(run.gpus * run.seconds for run in runs) / 3600))


def test_a_job_that_ran_at_the_first_aggregate_ends_up_once_in_its_final_state(accounted: Accounted) -> None:
    job = int(accounted.ids["long"])
    before = accounted.rows_while[accounted.rows_while["job_id"] == job]
    after = accounted.rows[accounted.rows["job_id"] == job]
    assert set(before["state"]) == {"RUNNING"}
    assert before["end"].isna().all()
    assert set(after["state"]) == {"COMPLETED"}
    assert after["start"].nunique() == 1
    assert not after.duplicated("date").any()
    assert after["elapsed_s"].sum() == next(run.seconds for run in accounted.runs if run.job == str(job))


def test_the_second_aggregate_leaves_the_rows_of_ended_jobs_as_they_were(accounted: Accounted) -> None:
    job = int(accounted.ids["long"])
    before, after = (
        frame[frame["job_id"] != job].reset_index(drop=True) for frame in (accounted.rows_while, accounted.rows)
    )
    pd.testing.assert_frame_equal(before, after)


def test_aggregating_again_right_away_changes_no_byte(accounted: Accounted) -> None:
    done = accounted.cluster.senergy(
        "aggregate", "--profile", "strubell2019", "--config", accounted.config, "--ledger", accounted.ledger, "--json"
    )
    assert json.loads(done.stdout)["days_written"] == 0
    assert day_files(accounted.cluster.outside(accounted.ledger)) == accounted.files


def test_the_profile_of_a_site_adds_cores_and_memory_to_the_gpus(accounted: Accounted) -> None:
    ledger = accounted.cluster.files / "site"
    config = accounted.cluster.files / "tree.toml"
    accounted.cluster.outside(config).write_text(TREE)
    options = ("--profile", "site", "--config", config, "--ledger", ledger)
    accounted.cluster.senergy("aggregate", "-S", "now-1days", *options)
    mine = [run for run in accounted.runs if run.account == "lisa"]
    joules = sum(
        run.seconds * (run.gpus * SITE_GPU_W + run.cpus * SITE_CORE_W + run.memory_gb * SITE_GB_W) for run in mine
    )
    report = accounted.report("--project", "language", ledger=ledger)  # the account's parent is nlp, says Slurm
    assert report["jobs"] == sums(mine).jobs
    assert report["it_kwh"] == exactly(joules / 3.6e6)
    assert report["facility_kwh"] == exactly(SITE_PUE * joules / 3.6e6)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_saved_file_of_the_same_jobs_gives_the_same_rows(accounted: Accounted, packed: bool) -> None:
    cluster = accounted.cluster
    text = cluster.bytes_of("sacct", "-X", "-D", "-a", "-P", "-S", "now-1days", "-o", SAVED)
    saved, ledger = cluster.files / f"saved-{packed}.txt", cluster.files / f"from-file-{packed}"
    if packed:
        text = gzip.compress(text)
    cluster.outside(saved).write_bytes(text)
    options = ("--profile", "strubell2019", "--config", accounted.config, "--ledger", ledger)
    cluster.senergy("aggregate", "--from", saved, *options)
    # Restarts is not among the columns that were saved.
    without = [name for name in accounted.rows.columns if name != "restart_count"]
    pd.testing.assert_frame_equal(rows(cluster.outside(ledger))[without], accounted.rows[without])


@pytest.mark.parametrize(
    ("label", "project", "rule"),
    [
        ("comment", "aurora", "rule 1"),
        ("night", "night", "rule 2"),
        ("typed", "lisa", "default"),
        ("vision", "vision", "default"),
        ("newline", "lisa", "default"),
    ],
)
def test_explain_says_which_rule_gave_a_job_to_its_project(
    accounted: Accounted, label: str, project: str, rule: str
) -> None:
    said = accounted.cluster.senergy("project", "explain", accounted.ids[label], "--config", accounted.config).stdout
    assert re.search(rf"\bproject {project}$", said, re.MULTILINE), said
    assert re.search(rf"{rule} .*: matches", said), said


def test_explain_knows_an_array_task_by_the_id_that_sacct_shows(accounted: Accounted) -> None:
    task = f"{accounted.ids['array']}_3"
    said = accounted.cluster.senergy("project", "explain", task, "--config", accounted.config).stdout
    assert f"job {task} of user sealice" in said
    assert re.search(r"\bproject lisa$", said, re.MULTILINE), said
    assert f"sweep: {accounted.ids['array']}" in said
