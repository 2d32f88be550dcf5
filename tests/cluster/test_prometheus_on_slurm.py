"""Prometheus over a real Slurm cluster: real jobs with the deploy hooks, a real agent and exporter for each slurmd, and a
ledger aggregated from the live accounting. Rules, dashboards and `senergy sd` are held to what Slurm's own commands say.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import NS, Node, moving
from conftest import REPOSITORY, started, unavailable, wait_until
from integration.live_prometheus import PANELS, Daemons, Prometheus, fill, filled, free_port, rules, until
from scenarios import BURN, steady

from slurm_energy.cli.sd import targets
from slurm_energy.slurm.nodes import Node as Listed

if TYPE_CHECKING:
    from conftest import Cluster

pytestmark = pytest.mark.cluster

pytest.importorskip("prometheus_client")

CLUSTER, NODES = "prom22", ("p1", "p2")
CORES = 0.2
"""What the CPU job keeps busy."""


class World:
    """The cluster with its agents and jobs, the exporters and Prometheus."""

    def __init__(self, cluster: Cluster, folder: Path, daemons: Daemons) -> None:
        self.cluster, self.daemons = cluster, daemons
        cgroups = Path("/sys/fs/cgroup")
        self.nodes = {name: Node(cluster, name, folder, cgroups, steady, options=("--period", "0.5")) for name in NODES}
        self.ports = {name: free_port() for name in NODES}
        self.jobs: dict[str, str] = {}
        self.closed: dict[str, tuple[str, str]] = {}
        """How the agents learned of jobs' begin and end, by job."""
        self.shipped_uj: dict[tuple[Any, ...], int] = {}
        """What has left the agents for jobs: each segment once."""
        self.ledger = cluster.files / "ledger"
        # About noon, so that no day and no month ends between the jobs and the look at the ledger.
        self.config = cluster.files / "site.toml"
        offset = 12 - datetime.now(timezone.utc).hour
        cluster.outside(self.config).write_text(f'[site]\ntimezone = "Etc/GMT{-offset:+d}"\n')
        self.prometheus: Prometheus

    def submit(self) -> None:
        """Two jobs that end at once, for the ledger, and three that stay: on CPUs, on GPUs, on both nodes."""
        cluster = self.cluster
        cluster.outside(cluster.files / "burn").write_text(BURN)
        two = ("-w", "p1,p2", "-N", "2", "--gres=gpu:1")
        plans: dict[str, tuple[str, tuple[str, ...], str]] = {
            "ended": ("sealice", ("-w", "p2", "--gres=gpu:1"), "sleep 2"),
            "ended-too": ("sebob", ("-w", "p2", "-c", "2"), "sleep 2"),
            "cpu": ("sealice", ("-w", "p1", "-c", "2"), f"perl {cluster.files}/burn {CORES} 300"),
            "gpu": ("sebob", ("-w", "p1", "--gres=gpu:2"), cluster.gate("gpu")),
            "two": ("sealice", ("-A", "vision", *two), "sleep 300"),
        }
        for label, (user, options, work) in plans.items():
            self.jobs[label] = cluster.submit(user, "-J", label, *options, wrap=work)
        for label in ("cpu", "gpu", "two"):
            cluster.wait(self.jobs[label], {"RUNNING"})

    def aggregate(self, *labels: str) -> None:
        """What a site does each night; once these jobs' last segments have left their agents."""
        cluster = self.cluster
        for label in labels:
            cluster.wait(self.jobs[label], {"COMPLETED"})
        inbox = cluster.files / "inbox"
        cluster.outside(inbox).mkdir(exist_ok=True)

        def shipped() -> bool:
            for node in self.nodes.values():
                outbox = ("--outbox", node.inside / "outbox", "--node", node.name)
                cluster.senergy("ship", "--once", *outbox, "--inbox", inbox, "--cluster", CLUSTER)
            files = cluster.outside(inbox).rglob("*.jsonl")
            segments = [json.loads(line) for file in files for line in file.read_text().splitlines()]
            for one in segments:
                if one["job_id"]:
                    key = tuple(one[name] for name in ("node", "job_id", "session_start", "start"))
                    self.shipped_uj[key] = sum(one["uj"].values())
            self.closed |= {str(one["job_id"]): (one["origin"], one["closed"]) for one in segments if one["final"]}
            return {self.jobs[label] for label in labels} <= self.closed.keys()

        wait_until("the segments", shipped, 30)
        cluster.senergy("aggregate", "--inbox", inbox, "--ledger", self.ledger, "--config", self.config)

    def listed(self) -> list[dict[str, Any]]:
        """What `senergy sd` prints, a group for each node."""
        found: list[dict[str, Any]] = json.loads(self.cluster.senergy("sd").stdout)
        return found

    def start_exporters(self, folder: Path) -> None:
        """And Prometheus. All nodes of this cluster are at one address, so each gets a port of its own."""
        source = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'exporters'}"}

        def exporter(name: str, kind: str, port: int, *options: str | Path) -> None:
            command = (sys.executable, "-m", f"slurm_energy_exporters.{kind}", *options)
            self.daemons.start(name, *command, "--web.listen-address", f"127.0.0.1:{port}", **source)

        for name, node in self.nodes.items():
            exporter(f"node-exporter-{name}", "node", self.ports[name], "--socket", node.socket)
        port, outside = free_port(), self.cluster.outside
        exporter("ledger-exporter", "ledger", port, "--ledger", outside(self.ledger), "--config", outside(self.config))
        groups = self.listed()
        for group in groups:
            host = group["targets"][0].rpartition(":")[0]
            group["targets"] = [f"{host}:{self.ports[group['labels']['node']]}"]
        self.prometheus = Prometheus(folder, groups, port, self.daemons)

    def running(self) -> set[tuple[str, str, str]]:
        """Job, user and account of the jobs that run, by squeue."""
        rows = self.cluster.run("squeue", "-h", "-t", "RUNNING", "-o", "%A|%u|%a").splitlines()
        return {(job, user, account) for job, user, account in (row.split("|") for row in rows)}

    def chosen(self) -> dict[str, str]:
        """What a person picks in the variables."""
        return {
            "cluster": CLUSTER, "node": "p1", "jobid": self.jobs["gpu"], "project": "lisa", "user": "sealice",
            "window": "month",
        }  # fmt: skip

    def watts(self, name: str, *counters: str) -> float:
        """By the law, which is constant. counters: all that count, where none is named."""
        node = self.nodes[name]
        return node.law_uj(counters or node.counted(), node.wall0, node.wall0 + NS) / 1e6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if not shutil.which("prometheus"):
        unavailable("prometheus is not installed (Debian's prometheus)")
    if not Path("/sys/fs/cgroup/cpuacct").is_dir():
        unavailable("no cgroup v1 is mounted on this machine")
    hooks = REPOSITORY / "deploy" / "slurm"
    options = (
        "--confinement", "cgroup/v1", "--nodes", ",".join(NODES),
        "--prolog", hooks / "prolog.d", "--epilog", hooks / "epilog.d",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("prometheus")
    daemons = Daemons(folder)
    with started(CLUSTER, 26810, None, sys.executable, *options) as cluster, contextlib.ExitStack() as stack:
        stack.callback(daemons.end)
        world = World(cluster, folder, daemons)
        for node in world.nodes.values():
            stack.callback(node.kill)
            node.start()
        stack.enter_context(moving(list(world.nodes.values())))
        world.submit()
        world.aggregate("ended", "ended-too")
        world.start_exporters(folder)
        prometheus = world.prometheus
        stack.callback(prometheus.end)
        try:
            until("all targets to be up", lambda: prometheus.value("sum(up)") == 3, 60)
            until("the ledger", lambda: prometheus.value("slurm_energy_ledger_up") == 1)
            until("jobs to have watts", lambda: prometheus.value("count(job:slurm_energy_power_watts:sum)") == 4)
            # The last of the rules to have a value: it looks back farthest.
            until("conservation", lambda: len(prometheus.instant("node:slurm_energy_conservation_error:ratio15m")) == 2)
        except BaseException:
            print(daemons.logs(), *(node.log() for node in world.nodes.values()), sep="\n")
            raise
        yield world


def test_senergy_sd_lists_the_nodes_that_sinfo_has(world: World) -> None:
    names = set(world.cluster.run("sinfo", "-h", "-N", "-o", "%N").split())
    assert names == set(NODES)
    expected = [group for name in NODES for group in targets([Listed(name, "127.0.0.1", name)], CLUSTER, 9854)]
    assert world.listed() == expected
    assert "p1, p2 are all at 127.0.0.1:9854" in world.cluster.senergy("sd").stderr


def test_prometheus_scrapes_the_exporter_of_each_node_and_the_ledgers(world: World) -> None:
    def up() -> bool:
        return {(one["metric"]["job"], one["metric"].get("node"), one["value"][1]) for one in ask("up")} == {
            ("slurm-energy-node", "p1", "1"), ("slurm-energy-node", "p2", "1"), ("slurm-energy-ledger", None, "1"),
        }  # fmt: skip

    ask = world.prometheus.instant
    until("all three to be up", up, 10)
    until("the agents to answer", lambda: world.prometheus.value("sum(slurm_energy_agent_up)") == 2, 10)


def test_the_jobs_that_slurm_runs_have_watts_that_belong_to_their_users(world: World) -> None:
    by_node = "sum by (cluster, node, jobid, run) (slurm_energy_job_power_watts)"
    join = f"{by_node} * on (cluster, node, jobid, run) group_left (user, account) slurm_energy_job_info"
    names = ("jobid", "user", "account")

    def found() -> set[tuple[str, ...]]:
        series = world.prometheus.instant(f"sum by (jobid, user, account) ({join}) > 0")
        return {tuple(one["metric"].get(name, "") for name in names) for one in series}

    jobs = world.jobs
    running = world.running()
    assert running == {
        (jobs["cpu"], "sealice", "lisa"), (jobs["gpu"], "sebob", "vision"), (jobs["two"], "sealice", "vision"),
    }  # fmt: skip
    until(f"{running}", lambda: found() == running, 10)
    nodes = [(one["metric"]["jobid"], one["metric"]["node"]) for one in world.prometheus.instant(join)]
    assert sorted(nodes) == sorted([(jobs["cpu"], "p1"), (jobs["gpu"], "p1"), (jobs["two"], "p1"), (jobs["two"], "p2")])


def test_the_watts_are_those_of_the_counters(world: World) -> None:
    ask = world.prometheus.value

    def near(query: str, expected: float, share: float = 0.02) -> None:
        until(f"{query} to be {expected:g}", lambda: abs(ask(query) - expected) <= share * expected, 30)

    for name in NODES:
        near(f'avg_over_time(node:slurm_energy_power_watts:sum{{node="{name}"}}[10s])', world.watts(name))
    near("avg_over_time(cluster:slurm_energy_power_watts:sum[10s])", sum(world.watts(name) for name in NODES))
    jobs_and_idle = "sum(job:slurm_energy_power_watts:sum) + sum(cluster:slurm_energy_idle_power_watts:sum)"
    near(f"avg_over_time(({jobs_and_idle})[10s:1s])", sum(world.watts(name) for name in NODES))
    assert ask("max(abs(node:slurm_energy_conservation_error:ratio15m))") < 1e-3


def test_a_gpu_job_has_the_watts_of_the_gpus_that_slurm_gave_it(world: World) -> None:
    job, ask = world.jobs["gpu"], world.prometheus
    held = {one["metric"]["gpu"] for one in ask.instant(f'slurm_energy_job_gpu_info{{jobid="{job}"}}')}
    text = world.cluster.run("scontrol", "-d", "show", "job", job)
    given = text.partition("(IDX:")[2].partition(")")[0]
    first, _, last = given.partition("-")
    minors = range(int(first), int(last) + 1) if last else [int(number) for number in given.split(",")]
    node = world.nodes["p1"]
    assert held == {node.device(minor) for minor in minors}
    expected = world.watts("p1", *(f"nvml:{device}" for device in held))
    query = f'sum(avg_over_time(slurm_energy_job_power_watts{{jobid="{job}",domain="gpu"}}[10s]))'
    until(f"{expected} W", lambda: abs(ask.value(query) - expected) <= 0.02 * expected, 30)


def test_the_cpu_job_uses_the_cpu_time_that_it_takes(world: World) -> None:
    query = f'rate(slurm_energy_job_cpu_seconds_total{{jobid="{world.jobs["cpu"]}"}}[20s])'
    until("its CPU time", lambda: abs(world.prometheus.value(query) - CORES) < 0.5 * CORES, 30)


def test_the_ledger_s_jobs_are_those_of_the_accounting(world: World) -> None:
    ask = world.prometheus.instant

    def counted(label: str) -> dict[str, float]:
        series = ask(f'slurm_energy_ledger_{label}_jobs{{cluster="{CLUSTER}",window="all"}}')
        return {one["metric"][label]: float(one["value"][1]) for one in series}

    until("users", lambda: {"sealice", "sebob"} <= set(counted("user")), 10)
    until("accounts", lambda: {"lisa", "vision"} <= set(counted("project")), 10)
    measured = f'slurm_energy_ledger_provenance_energy_joules{{cluster="{CLUSTER}",window="all",provenance="measured"}}'
    until("measured energy", lambda: world.prometheus.value(measured) > 0, 10)


@pytest.mark.parametrize("name", rules())
def test_a_recording_rule_gives_values_of_slurm_s_jobs(world: World, name: str) -> None:
    until(name, lambda: world.prometheus.has_data(name, True), 20)


@pytest.mark.parametrize(("file", "panel"), PANELS)
def test_a_panel_shows_something_while_jobs_run(world: World, file: Path, panel: dict[str, Any]) -> None:
    board = json.loads(file.read_text())
    for values in filled(board, world.prometheus, world.chosen()):
        for target in panel["targets"]:
            query = fill(target["expr"], values)
            assert "$" not in query
            until(query, lambda q=query, t=target: world.prometheus.has_data(q, bool(t.get("instant"))), 10)  # type: ignore[misc]


def test_a_job_that_ends_vanishes_and_goes_into_the_ledger(world: World) -> None:
    job, prometheus = world.jobs["gpu"], world.prometheus
    url = f"http://127.0.0.1:{world.ports['p1']}/metrics"

    def shown() -> str:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def booked() -> float:
        return prometheus.value(
            f'sum(slurm_energy_ledger_provenance_energy_joules{{cluster="{CLUSTER}",window="all",provenance="measured"}})'
        )

    def shipped() -> float:
        return sum(world.shipped_uj.values()) / 1e6

    assert f'jobid="{job}"' in shown()
    until("the first ledger", lambda: booked() > 0, 10)
    booked_before, shipped_before = booked(), shipped()
    world.cluster.open_gate("gpu")
    world.cluster.wait(job, {"COMPLETED"})
    until("its series to vanish from the exporter", lambda: f'jobid="{job}"' not in shown(), 15)
    until(
        "and from Prometheus", lambda: not prometheus.instant(f'{{__name__=~"slurm_energy_job_.*",jobid="{job}"}}'), 15
    )
    for label in ("cpu", "two"):
        assert f'jobid="{world.jobs[label]}"' in shown()
    counter = f'slurm_energy_job_energy_joules_total{{jobid="{job}"}}'
    scraped = prometheus.value(f"sum(max_over_time({counter}[10m]))")
    world.aggregate("gpu")
    assert world.closed[job] == ("hook", "epilog")
    joules = sum(uj for key, uj in world.shipped_uj.items() if str(key[1]) == job) / 1e6
    assert 0.7 * joules < scraped < 1.001 * joules  # it went on for a moment after the last scrape
    more = shipped() - shipped_before  # its own, and other jobs' where an hour ended meanwhile
    until(f"{more:.0f} J in the ledger", lambda: abs(booked() - booked_before - more) < 0.03 * more, 20)
    assert prometheus.value("max(max_over_time(abs(node:slurm_energy_conservation_error:ratio15m)[20s:1s]))") < 1e-3
    print(
        f"{booked() - booked_before:.1f} J booked, {more:.1f} J shipped, {joules:.1f} J of the job, {scraped:.1f} J scraped"
    )
