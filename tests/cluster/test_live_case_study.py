"""The paper's case study in a real slurmdbd, read back by real sacct, accounted, and held against the log file.

The 4789 jobs cannot be run again, but Slurm's accounting can be made to remember them: they are put into the tables of
a second cluster, gypsum, as slurmctld would have had them stored.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from conftest import Cluster

pytestmark = pytest.mark.cluster

STATES = {"COMPLETED": 3, "CANCELLED": 4, "FAILED": 5, "TIMEOUT": 6, "OUT_OF_MEMORY": 11}  # slurm.h, enum job_states
NO_VAL = 0xFFFFFFFE
WINDOW = ("-S", "2017-09-01", "-E", "2018-04-01")
COLUMNS = (
    "id_job", "id_array_job", "id_array_task", "het_job_id", "het_job_offset", "account", "id_assoc", "id_user",
    "id_group", "job_name", "partition", "nodelist", "nodes_alloc", "cpus_req", "id_qos", "id_wckey", "wckey",
    "id_resv", "priority", "state", "state_reason_prev", "kill_requid", "time_submit", "time_eligible", "time_start",
    "time_end", "tres_alloc", "tres_req",
)  # fmt: skip


def epoch(text: str) -> int:
    """A time of the log, which is in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp())


class Database:
    """slurmdbd's own tables."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def ask(self, sql: str) -> list[list[str]]:
        script = self.cluster.files / "script.sql"
        self.cluster.outside(script).write_text(sql)
        client = (
            f"mariadb --no-defaults --batch --skip-column-names --socket={self.cluster.folder}/mysql/sock slurm_acct"
        )
        return [line.split("\t") for line in self.cluster.run("sh", "-c", f"{client} < {script}").splitlines()]

    def tres_text(self, text: str, ids: dict[str, str]) -> str:
        """AllocTRES as it is stored: ids for names, memory in megabytes."""
        parts = dict(part.split("=") for part in text.split(","))
        assert parts["mem"].endswith("G")
        parts["mem"] = str(int(parts["mem"][:-1]) * 1024)
        return ",".join(
            f"{ids[name]}={count}" for name, count in sorted(parts.items(), key=lambda part: int(ids[part[0]]))
        )


def remember(cluster: Cluster, log: list[dict[str, str]]) -> None:
    """Puts the jobs of the log into the accounting of a cluster gypsum."""
    cluster.run("sacctmgr", "-i", "add", "cluster", "gypsum")
    cluster.run("sacctmgr", "-i", "add", "account", "lisa", "cluster=gypsum")
    users = sorted({job["User"] for job in log})
    for user in users:
        cluster.run("sacctmgr", "-i", "add", "user", user, "account=lisa", "cluster=gypsum")
    database = Database(cluster)
    assoc = dict(database.ask("select user, id_assoc from gypsum_assoc_table where acct = 'lisa' and user <> ''"))
    qos = dict(database.ask("select name, id from qos_table"))
    tres = dict(database.ask("select if(name = '', type, concat(type, '/', name)), id from tres_table"))
    rows = []
    for job in log:
        array, task = job["JobID"].split("_")
        state, _, who = job["State"].partition(" by ")
        text = database.tres_text(job["AllocTRES"], tres)
        values: tuple[Any, ...] = (
            job["JobIDRaw"], array, task, 0, NO_VAL, job["Account"], assoc[job["User"]], 2001 + users.index(job["User"]),
            2000, job["JobName"], job["Partition"], job["NodeList"], job["NNodes"], job["NCPUS"], qos[job["QOS"]], 0, "",
            0, 1, STATES[state], 0, who or None, epoch(job["Submit"]), epoch(job["Submit"]), epoch(job["Start"]),
            epoch(job["End"]), text, text,
        )  # fmt: skip
        rows.append("(" + ",".join("null" if value is None else f"'{value}'" for value in values) + ")")
    columns = ",".join(f"`{name}`" for name in COLUMNS)
    database.ask(f"insert into gypsum_job_table ({columns}) values\n" + ",\n".join(rows) + ";")


class Study(NamedTuple):
    """The log, the cluster that remembers its jobs, and the two ledgers, as the cluster sees them."""

    cluster: Cluster
    log: list[str]
    from_sacct: Path
    from_file: Path

    def report(self, ledger: Path, *options: str) -> Any:
        done = self.cluster.senergy(
            "report", "--project", "lisa", "--profile", "strubell2019", "--json", "--ledger", ledger, *options
        )
        return json.loads(done.stdout)

    def days(self, ledger: Path) -> dict[str, bytes]:
        outside = self.cluster.outside(ledger)
        return {str(path.relative_to(outside)): path.read_bytes() for path in sorted(outside.glob("days/*/*.parquet"))}


@pytest.fixture(scope="module")
def study(cluster22: Cluster) -> Study:
    files = cluster22.files
    log = files / "lisa.txt"
    cluster22.senergy("demo", "--write", log)
    lines = cluster22.outside(log).read_text(encoding="utf-8").splitlines()
    names = lines[0].split("|")
    remember(cluster22, [dict(zip(names, line.split("|"), strict=True)) for line in lines[1:]])
    found = Study(cluster22, lines, files / "gypsum-sacct", files / "gypsum-file")
    cluster22.senergy("aggregate", "-M", "gypsum", *WINDOW, "--profile", "strubell2019", "--ledger", found.from_sacct)
    cluster22.senergy("aggregate", "--from", log, "--profile", "strubell2019", "--ledger", found.from_file)
    return found


def test_real_sacct_prints_the_very_lines_of_the_log(study: Study) -> None:
    printed = study.cluster.run(
        "sacct", "-X", "-P", "-a", "-M", "gypsum", *WINDOW, "-o", study.log[0].replace("|", ",")
    )
    lines = printed.splitlines()
    assert lines[0] == study.log[0]
    assert len(lines) == 1 + 4789
    assert sorted(lines[1:]) == sorted(study.log[1:])


def test_the_report_from_live_sacct_equals_the_report_from_the_file(study: Study) -> None:
    live, file = study.report(study.from_sacct), study.report(study.from_file)
    assert live["jobs"] == 4789
    assert live["gpu_hours"] == pytest.approx(239_942, rel=1e-9)
    assert_same(live, file, "report")


def test_both_ledgers_have_the_same_bytes_on_every_day(study: Study) -> None:
    live, file = study.days(study.from_sacct), study.days(study.from_file)
    assert len(live) == 172 + 1  # the first job starts at nine in the morning
    assert list(live) == list(file)
    assert [day for day in live if live[day] != file[day]] == []


def test_aggregating_the_half_year_again_writes_no_day(study: Study) -> None:
    options = ("-M", "gypsum", *WINDOW, "--profile", "strubell2019", "--ledger", study.from_sacct, "--json")
    before = study.days(study.from_sacct)
    assert json.loads(study.cluster.senergy("aggregate", *options).stdout)["days_written"] == 0
    assert study.days(study.from_sacct) == before


def test_a_month_aggregated_by_itself_is_that_month_of_the_half_year(study: Study) -> None:
    ledger = study.cluster.files / "gypsum-december"
    december = ("-S", "2017-12-01", "-E", "2018-01-01")
    study.cluster.senergy("aggregate", "-M", "gypsum", *december, "--profile", "strubell2019", "--ledger", ledger)
    alone, whole = study.days(ledger), study.days(study.from_sacct)
    assert len(alone) == 31
    assert [day for day in alone if alone[day] != whole[day]] == []
    assert_same(study.report(ledger, *december), study.report(study.from_sacct, *december), "report of December")


def assert_same(one: Any, other: Any, where: str) -> None:
    """Equal in all keys, texts and numbers, these to 1e-9."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}: {key}")
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{where} #{index}")
    elif isinstance(one, float) and isinstance(other, (int, float)):
        assert one == pytest.approx(other, rel=1e-9, abs=0), where
    else:
        assert one == other, where
