"""The node agent on real clusters: real jobs, the deploy scripts as Prolog and Epilog, and counters with a known law.

On each cluster all scenarios run side by side, on nodes of their own. What a job should have got is worked out from the
law and the moments of its session, which sacct has to agree with, and from nothing that the agent splits energy with.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest
from agents import CPUS, DOMAINS, HOUR_NS, NS, PACKAGE_IDLE_W, Node, Session, moving, sessions_of
from common.required import unavailable
from common.waiting import until
from conftest import REPOSITORY, install_requirements, started
from scenarios import NODES, PART_OF, SCENARIOS, World

from slurm_energy.agent.agent import SCAN_NS

pytestmark = pytest.mark.cluster

SCAN_S = SCAN_NS / NS
"""How often an agent looks for jobs that no hook announced, and for folders that are left behind."""


def close_to(uj: float, share: float = 0.01) -> Any:
    return pytest.approx(uj, rel=share)


class Record(NamedTuple):
    """A run of a job as sacct has it; `array` is 12 for job 12_3."""

    job: int
    array: int
    state: str
    start: int
    end: int
    sluid: str


class Ran(NamedTuple):
    """Everything that came out of a cluster."""

    world: World
    outcomes: dict[str, Future[Any]]
    last_s: float
    open_uj: dict[str, int]
    sessions: list[Session]
    records: list[Record]
    shipped: list[str]
    aggregated: dict[str, Any]
    again: dict[str, Any]
    verified: list[dict[str, Any]]
    rows: list[dict[str, Any]]

    def of(self, label: str, node: str = "") -> list[Session]:
        """A job's sessions, once it is sure that its scenario went as planned."""
        self.outcomes[PART_OF.get(label, label)].result()
        job = self.world.ids[label]
        jobs = {job, *(one.job for one in self.records if one.array == job)}
        nodes = {self.world.names[node]} if node else set(self.world.names.values())
        return [one for one in self.sessions if one.job in jobs and one.node in nodes]

    def one(self, label: str, node: str = "") -> Session:
        found = self.of(label, node)
        assert len(found) == 1, found
        return found[0]

    def node(self, session: Session) -> Node:
        return next(node for node in self.world.nodes.values() if node.name == session.node)

    def record(self, session: Session) -> Record:
        """sacct's record of the session: by SLUID, else the one of that job that began next to it."""
        moment = session.begin // NS - (self.node(session).clock_ns or 0) // NS
        found = [one for one in self.records if one.job == session.job and one.sluid in ("", session.sluid)]
        return min(found, key=lambda one: abs(one.start - moment))


def play(world: World) -> tuple[dict[str, Future[Any]], float, dict[str, int]]:
    """All scenarios at once, and the agents' end; their outcomes, the last moment of the law, what no segment holds."""
    nodes = list(world.nodes.values())
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(Node.start, nodes))
    with moving(nodes) as last:
        with ThreadPoolExecutor(len(SCENARIOS)) as pool:
            outcomes = {label: pool.submit(scenario, world) for label, scenario in SCENARIOS.items()}
        for node in nodes:  # the last Epilogs, and jobs that have none
            until(f"no job on {node.name}", lambda n=node: (now := n.snapshot()) is None or not now.jobs, 30)
    for node in nodes:
        looked = node.ticks()
        until(f"{node.name} to see its last count", lambda n=node, t=looked: n.ticks() > t + 1)
        node.kill(signal.SIGTERM)
    for node in nodes:  # an hour later: the idle energy of the open hour leaves, too
        node.clock_ns = (node.clock_ns or 0) + HOUR_NS
        node.set_clock(node.clock_ns)
        node.start()
        node.kill(signal.SIGTERM)
        node.clock_ns -= HOUR_NS
    return outcomes, last[0], {node.name: node.open_uj() for node in nodes}


def collect(world: World, outcomes: dict[str, Future[Any]], last_s: float, open_uj: dict[str, int]) -> Ran:
    """Ships what the agents left, joins it to the live accounting, and reads what came out."""
    cluster = world.cluster
    inbox, ledger = cluster.files / "inbox", cluster.files / "ledger"
    cluster.outside(inbox).mkdir()
    shipped = []
    for node in world.nodes.values():
        where = ("--outbox", node.inside / "outbox", "--inbox", inbox, "--cluster", cluster.name, "--node", node.name)
        shipped.append(cluster.senergy("ship", "--once", *where).stdout)
    files = sorted(cluster.outside(inbox).rglob("*.jsonl"))
    segments = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    kept = cluster.outside(cluster.files / "kept")
    shutil.copytree(cluster.outside(inbox), kept)
    # A time zone in which it is about noon, for the node whose clock is ahead must not be in another day.
    hours = 12 - datetime.now(timezone.utc).hour
    config = cluster.files / "site.toml"
    cluster.outside(config).write_text(f'[site]\ntimezone = "Etc/GMT{-hours:+d}"\n')
    options = ("--ledger", ledger, "--config", config)

    def aggregate() -> Any:
        return json.loads(cluster.senergy("aggregate", "--inbox", inbox, "--json", *options).stdout)

    first = aggregate()
    shutil.copytree(kept, cluster.outside(inbox), dirs_exist_ok=True)  # everything comes a second time
    again = aggregate()
    verified = json.loads(cluster.senergy("ledger", "verify", "--json", *options).stdout)
    files_sql = f"'{cluster.outside(ledger)}/days/*/*.parquet', hive_partitioning=false"
    rows = duckdb.sql(f"SELECT * FROM read_parquet({files_sql})").df().to_dict("records")

    old = "22." in cluster.run("sinfo", "-V")
    fields = ["JobIDRaw", "JobID", "State", "Start", "End", *([] if old else ["SLUID"])]
    text = cluster.run(
        "sacct", "-X", "-D", "-a", "-P", "-n", "-S", "now-1days", "-o", ",".join(fields), SLURM_TIME_FORMAT="%s"
    )
    records = []
    for line in text.splitlines():
        raw, job, state, start, end, *sluid = line.split("|")
        if start.isdigit():
            array = int(job.split("_")[0]) if "_" in job else 0
            records.append(Record(int(raw), array, state.split(" ")[0], int(start), int(end), "".join(sluid)))
    return Ran(
        world, outcomes, last_s, open_uj, sessions_of(segments), records, shipped, first, again, verified, rows
    )  # fmt: skip


@pytest.fixture(scope="module", params=["22.05", "26.05"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """What came out of this machine's own Slurm with cgroup v1, and of Slurm 26.05 with cgroup v2."""
    old = request.param == "22.05"
    if old and not Path("/sys/fs/cgroup/cpuacct").is_dir():
        unavailable("no cgroup v1 is mounted on this machine")
    root = None if old else request.getfixturevalue("root26")
    prefix, port = ("a", 30810) if old else ("b", 31810)
    python = sys.executable if old else "/opt/venv/bin/python"
    names = ",".join(f"{prefix}{number}" for number in range(1, len(NODES) + 1))
    hooks = REPOSITORY / "deploy" / "slurm"
    options = (
        "--confinement", "cgroup/v1" if old else "cgroup/v2", "--nodes", names,
        "--prolog", hooks / "prolog.d", "--epilog", hooks / "epilog.d",
    )  # fmt: skip
    with started(f"agents{request.param[:2]}", port, root, python, *options) as cluster:
        if not old:
            install_requirements(cluster)
        cgroup_root = Path("/sys/fs/cgroup") if old else cluster.outside(Path("/mnt/cgroup2"))
        world = World(cluster, prefix, tmp_path_factory.mktemp("nodes"), cgroup_root)
        try:
            yield collect(world, *play(world))
        finally:
            for node in world.nodes.values():
                node.kill()
                if not node.slurmd():  # a scenario went wrong; without it nothing ends its jobs
                    node.start_slurmd()


def test_the_segments_of_a_node_hold_every_microjoule_that_its_counters_moved(ran: Ran) -> None:
    for label, node in ran.world.nodes.items():
        sessions = [one for one in ran.sessions if one.node == node.name]
        moved = sum(node.moved(name, ran.last_s) for name in node.counted())
        assert moved > 1e9, label
        assert sum(one.total for one in sessions) + ran.open_uj[node.name] == moved, label
        for kind in ("package", "dram", "gpu"):
            counted = sum(node.moved(name, ran.last_s) for name in node.counted(kind))
            assert sum(one.uj[kind] for one in sessions) == counted, (label, kind)
        for minor in range(4):
            device = node.device(minor)
            assert sum(one.gpus.get(device, 0) for one in sessions) == node.moved(f"nvml:{device}", ran.last_s), label


ALONE = ("array", "requeue", "hour", "restarted", "orphan", "survived", "missed", "unhooked")


@pytest.mark.parametrize("label", ALONE)
def test_a_job_alone_on_its_node_gets_what_the_law_says_from_its_begin_to_its_end(ran: Ran, label: str) -> None:
    for one in ran.of(label):
        node = ran.node(one)
        assert one.end - one.begin > 10 * NS
        for kind in ("package", "dram", "gpu"):
            if label == "unhooked" and kind != "package":
                continue  # it has not asked for the node, so that its unused memory and GPUs are idle
            assert one.uj[kind] == close_to(node.law_uj(node.counted(kind), one.begin, one.end)), kind
        if label == "array":  # the only node with a meter for all of it
            assert one.total == close_to(node.law_uj(["rapl:psys"], one.begin, one.end))
            assert one.uj["other"] > 0


def test_sessions_begin_and_end_when_sacct_says(ran: Ran) -> None:
    for outcome in ran.outcomes.values():
        outcome.result()
    jobs = [one for one in ran.sessions if one.job]
    assert len(jobs) == 16  # 3 tasks, 2 runs of the requeued one, 2 nodes of one
    for one in jobs:
        record, ahead = ran.record(one), ran.node(one).clock_ns or 0
        begin, end = (one.begin - ahead) / NS - record.start, (one.end - ahead) / NS - record.end
        assert -0.5 < begin < (1.5 if one.segments[0]["origin"] == "hook" else SCAN_S + 1.5), one
        if record.state == "REQUEUED":  # sacct has the moment when it was told to end, with KillWait=2
            assert -0.5 < end < 4.5, one
        elif record.job != ran.world.ids["orphan"]:  # of which Slurm learns later than the agent
            assert -1.5 < end < 1.5, one
        assert (one.sluid == "") == (record.sluid == "")


def test_jobs_that_share_a_node_get_the_idle_floor_by_cpus_and_the_rest_by_cpu_time(ran: Ran) -> None:
    half, quarter = ran.one("half"), ran.one("quarter")
    start = min(half.begin, quarter.begin)
    seen = [(start, {"half": 0, "quarter": 0}), *ran.outcomes["shared"].result()]
    node = ran.node(half)
    watts = node.law_uj(node.counted("package"), node.wall0, node.wall0 + NS) / 1e6
    for one, label, cpus in ((half, "half", 2), (quarter, "quarter", 4)):
        expected = PACKAGE_IDLE_W * cpus / CPUS * (one.end - one.begin) / 1e3
        for (begin, before), (end, after) in pairwise(seen):
            used = {name: after[name] - before[name] for name in before}
            length = (one.end if after is seen[-1][1] else min(end, one.end)) - max(begin, one.begin)
            expected += (watts - PACKAGE_IDLE_W) * used[label] / max(sum(used.values()), 1e-9) * max(length, 0) / 1e3
        assert one.uj["package"] == close_to(expected)
    assert half.uj["package"] > 1.05 * quarter.uj["package"]  # a busy machine gives burners less than they ask for
    assert half.segments[0]["cpu_time_ns"] / quarter.segments[0]["cpu_time_ns"] == pytest.approx(2, rel=0.2)


def test_gpus_belong_to_the_job_that_holds_them_on_each_of_its_nodes(ran: Ran) -> None:
    held = ran.outcomes["gpu"].result()
    for label, nodes in (("gpus", ("gpu1", "gpu2")), ("gpu", ("gpu1",))):
        for where in nodes:
            one, node = ran.one(label, where), ran.world.nodes[where]
            devices = [node.device(minor) for minor in held[label][node.name]]
            assert len(devices) == (2 if label == "gpus" else 1)
            assert set(one.gpus) == set(devices)
            for device in devices:
                assert one.gpus[device] == close_to(node.law_uj([f"nvml:{device}"], one.begin, one.end))
            assert one.uj["gpu"] == sum(one.gpus.values())


def test_each_task_of_an_array_is_a_job_of_its_own(ran: Ran) -> None:
    tasks = ran.of("array")
    assert len({one.job for one in tasks}) == len(tasks) == 3
    assert all(before.end <= after.begin for before, after in pairwise(tasks))


def test_a_requeued_job_has_a_session_for_each_run(ran: Ran) -> None:
    first, second = ran.of("requeue")
    assert (first.restart, second.restart) == (0, 1)
    assert first.end <= second.begin
    assert [one.segments[-1]["closed"] for one in (first, second)] == ["epilog", "epilog"]
    assert ran.record(first) != ran.record(second)


def test_a_job_across_an_hour_has_a_segment_in_each_and_they_add_up(ran: Ran) -> None:
    one = ran.one("hour")
    node = ran.node(one)
    before, after = one.segments
    boundary = one.end // HOUR_NS * HOUR_NS
    assert [part["hour"] for part in one.segments] == [
        time.strftime("%Y-%m-%dT%H", time.gmtime(moment // NS)) for moment in (boundary - NS, boundary)
    ]
    assert before["end"] == after["start"] == boundary
    assert (before["final"], after["final"]) == (False, True)
    for part in one.segments:
        expected = node.law_uj(node.counted(), part["start"], part["end"])
        assert part["end"] - part["start"] > 5 * NS
        assert sum(part["uj"].values()) == close_to(expected)


def test_a_job_outlives_its_slurmd_and_ends_with_its_epilog(ran: Ran) -> None:
    one = ran.one("restarted")
    assert ran.record(one).state == "COMPLETED"
    assert [part["closed"] for part in one.segments if part["final"]] == ["epilog"]


def test_a_job_whose_epilog_never_came_is_closed_as_an_orphan(ran: Ran) -> None:
    one = ran.one("orphan")
    assert [part["closed"] for part in one.segments if part["final"]] == ["orphan"]
    assert -1 < (one.end - ran.outcomes["orphan"].result()) / NS < SCAN_S + 1.5
    assert f"job {one.job} is gone without an Epilog" in ran.node(one).log()


def test_an_agent_that_was_killed_goes_on_with_the_job_and_learns_of_an_end_that_it_missed(ran: Ran) -> None:
    survived, missed = ran.one("survived"), ran.one("missed")
    for one in (survived, missed):
        assert [part["closed"] for part in one.segments if part["final"]] == ["epilog"]
    assert "going on after" in ran.node(missed).log()


def test_a_job_that_no_hook_announced_is_discovered(ran: Ran) -> None:
    one = ran.one("unhooked")
    assert {part["origin"] for part in one.segments} == {"discovered"}
    assert one.segments[-1]["closed"] == "orphan"
    assert len(one.gpus) == 2  # as its processes' environment says


def test_the_ledger_has_each_jobs_energy_in_the_row_of_its_record(ran: Ran) -> None:
    jobs = [one for one in ran.sessions if one.job]
    for record in {ran.record(one) for one in jobs}:
        sessions = [one for one in jobs if ran.record(one) == record]
        rows = [row for row in ran.rows if row["job_id"] == record.job and abs(epoch(row["start"]) - record.start) < 1]
        assert {row["user"] for row in rows} == {"sealice"}
        assert {row["provenance"] for row in rows} == {"measured"}
        total = sum(one.total for one in sessions)
        assert sum(row["measured_kwh"] for row in rows) * 3.6e12 == pytest.approx(total, rel=1e-9), record
        if record.job == ran.world.ids["hour"]:  # its node's clock does not agree with sacct's
            continue
        if {part["origin"] for one in sessions for part in one.segments} | {record.state} <= {"hook", "COMPLETED"}:
            assert sum(row["it_kwh"] for row in rows) * 3.6e12 == close_to(total), (record, rows)
            for domain in DOMAINS:
                kwh = sum(row[f"{domain}_kwh"] for row in rows)
                assert kwh * 3.6e12 == close_to(sum(one.uj[domain] for one in sessions), 0.02), (record, domain)


def epoch(moment: Any) -> float:
    return moment.timestamp() if hasattr(moment, "timestamp") else float(moment)


def test_the_ledger_has_each_nodes_energy_and_says_so(ran: Ran) -> None:
    assert not ran.aggregated["set_aside"]
    assert all(day["holds"] for day in ran.verified)
    by_node: dict[str, int] = {}
    for day in ran.verified:
        for name, uj in day["by_node_uj"].items():
            by_node[name] = by_node.get(name, 0) + uj
    law = {
        node.name: sum(node.sim.energy_uj(name, ran.last_s) for name in node.counted())
        for node in ran.world.nodes.values()
    }
    assert by_node == {name: close_to(uj, 0.001) for name, uj in law.items()}
    assert sum(row["measured_kwh"] for row in ran.rows) * 3.6e12 == close_to(sum(law.values()), 0.001)
    assert not [row for row in ran.rows if row["state"] == "NO_RECORD"]


def test_what_was_shipped_twice_counts_once(ran: Ran) -> None:
    assert len(ran.shipped) == len(NODES)
    assert all("0 stayed behind, 0 left alone" in text for text in ran.shipped)
    assert ran.aggregated["days_written"] >= 1
    assert ran.again["days_written"] == 0
