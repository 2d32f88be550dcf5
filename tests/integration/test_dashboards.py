"""A real Prometheus with the shipped configuration, over the real exporters: rules give values, every panel has data.

Two real agents on simulated counters, with simulated jobs told of by the real hook script; a ledger of the case study and
of jobs of this month. Only times differ from what is shipped: scrapes each second, and windows of the rules in seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from common.processes import Daemons, environment, free_port
from common.required import unavailable
from common.waiting import until
from integration.live_prometheus import BOARDS, PANELS, ROOT, Prometheus, fill, filled, rules
from sim.law import Constant
from sim.sysfs import SimNode

from slurm_energy.sd import targets
from slurm_energy.slurm.nodes import Node

pytest.importorskip("prometheus_client")
pytest.importorskip("duckdb")

HOOKS = {
    "prolog": ROOT / "deploy/slurm/prolog.d/50-slurm-energy",
    "epilog": ROOT / "deploy/slurm/epilog.d/50-slurm-energy",
}
WATTS = {"package": 80.0, "dram": 8.0, "gpu": 250.0}
JOBS = {  # by node: job, user, account, GPUs
    "n1": (("7", "emma", "lisa", "0"), ("8", "anna", "nlp", "1")),
    "n2": (("7", "emma", "lisa", ""),),
}
CHOSEN = {"cluster": "alpha", "node": "n1", "jobid": "7", "project": "lisa", "user": "emma", "window": "month"}
"""What a person picks in the variables."""
CORES = 1.5
"""What each job keeps busy on each of its nodes."""


class LiveNode:
    """A simulated /sys and cgroup tree with a real agent and a real node exporter."""

    def __init__(self, name: str, folder: Path, daemons: Daemons, gpus: int) -> None:
        self.name, self.folder, self.daemons = name, folder, daemons
        folder.mkdir()
        self.sim = SimNode(folder / "sys", packages=2, nvidia=gpus, law=self.law)
        self.hooks, self.socket, self.port = folder / "hooks", folder / "agent.sock", free_port()
        self.base = folder / "cgroup" / "system.slice" / "slurmstepd.scope"
        self.base.mkdir(parents=True)
        self.cpu_us: dict[Path, float] = {}
        # Of the platform's node: two packages with their memory, and the GPUs.
        self.watts = 2 * (WATTS["package"] + WATTS["dram"]) + gpus * WATTS["gpu"]

    @staticmethod
    def law(name: str) -> Constant:
        kind = "gpu" if name.startswith("nvml") else "dram" if name.endswith("/dram") else "package"
        return Constant(WATTS[kind])

    def start(self) -> None:
        (self.folder / "config.toml").write_text("[agent]\ncpus = 8\nmem_bytes = 68719476736\ngroup = ''\n")
        self.hooks.mkdir()
        self.start_agent()
        self.daemons.start(
            f"node-exporter-{self.name}", sys.executable, "-m", "slurm_energy_exporters.node", "--socket", self.socket,
            "--web.listen-address", f"127.0.0.1:{self.port}", PYTHONPATH=f"{ROOT}:{ROOT / 'exporters'}",
        )  # fmt: skip
        until(f"the agent of {self.name}", self.socket.exists)
        for job, user, account, gpus in JOBS[self.name]:
            self.hook("prolog", job, user, account, gpus)

    def start_agent(self) -> None:
        """The first one, or the next after a kill."""
        self.agent = self.daemons.start(
            f"agent-{self.name}", sys.executable, "-m", "slurm_energy", "agent", "--config", self.folder / "config.toml",
            "--node", self.name, "--cluster", "alpha", "--period", "0.5", "--hooks", self.hooks, "--socket", self.socket,
            "--state-dir", self.folder / "state", "--outbox", self.folder / "outbox", "--cgroup-root",
            self.folder / "cgroup", "--sysfs-root", self.sim.root,
            PYTHONPATH=f"{ROOT}:{ROOT / 'tests/sim/fakelib'}", SENERGY_SIM_NVML=str(self.sim.root / "nvml"),
        )  # fmt: skip

    def hook(self, event: str, job: str, user: str, account: str, gpus: str) -> None:
        """A job comes or goes: its cgroup, and the real script with what slurmd gives it."""
        folder = self.base / f"job_{job}"
        if event == "prolog":
            (folder / "step_0").mkdir(parents=True)
            self.cpu_us[folder] = 0.0
            self.count(folder, 0)
            (folder / "memory.current").write_text(f"{1 << 30}\n")
        given = {
            "SLURM_JOB_ID": job, "SLURM_JOB_RESTART_COUNT": "0", "SLURM_JOB_UID": "1000", "SLURM_JOB_USER": user,
            "SLURM_JOB_ACCOUNT": account, "SLURM_JOB_PARTITION": "gpu", "SLURM_CLUSTER_NAME": "alpha",
            "SLURMD_NODENAME": self.name, "SLURM_JOB_CPUS_PER_NODE": "4", "SENERGY_HOOKS": str(self.hooks),
            "SLURM_JOB_GPUS": gpus,
        }  # fmt: skip
        subprocess.run(["sh", HOOKS[event]], env={**environment(), **given}, check=True)
        if event == "epilog":
            self.cpu_us.pop(folder)
            shutil.rmtree(folder)

    def count(self, folder: Path, seconds: float) -> None:
        self.cpu_us[folder] += seconds * 1e6
        file = os.open(folder / "cpu.stat", os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(
            file, f"usage_usec {round(self.cpu_us[folder])}\nuser_usec 1\nsystem_usec 2\n".encode().ljust(96, b"\n"), 0
        )
        os.close(file)


def ledger(folder: Path) -> Path:
    """A ledger of the case study, of two jobs of this month and one of the last, by the commands that a person types."""
    senergy = [sys.executable, "-m", "slurm_energy"]
    (folder / "config.toml").write_text('[site]\ntimezone = "UTC"\ncluster = "alpha"\n')

    def run(*arguments: str | Path) -> None:
        done = subprocess.run(
            [*senergy, *arguments], env=environment(), capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert done.returncode == 0, done.stderr

    run("demo", "--write", folder / "lisa.txt")
    header = (folder / "lisa.txt").read_text().partition("\n")[0]
    now = datetime.now(timezone.utc)
    first = max(now - timedelta(hours=2), now.replace(day=1, hour=0, minute=0, second=0))
    last = max(now - timedelta(minutes=5), first + timedelta(seconds=1))
    before = now.replace(day=1, hour=6, minute=0, second=0) - timedelta(days=5)
    lines = [header]
    for number, user, account, gpus, begin, end in (
        ("11", "emma", "lisa", 4, first, last),
        ("12", "anna", "nlp", 1, first, last),
        ("10", "emma", "lisa", 1, before, before + timedelta(hours=3)),
    ):
        fields = {
            "JobID": number, "JobIDRaw": number, "Cluster": "alpha", "User": user, "Account": account, "Partition": "gpu",
            "QOS": "normal", "JobName": "train", "State": "COMPLETED", "Submit": f"{begin:%Y-%m-%dT%H:%M:%S}",
            "Start": f"{begin:%Y-%m-%dT%H:%M:%S}", "End": f"{end:%Y-%m-%dT%H:%M:%S}",
            "ElapsedRaw": str(round((end - begin).total_seconds())), "NNodes": "1", "NCPUS": "8",
            "AllocTRES": f"billing=8,cpu=8,gres/gpu:a100={gpus},gres/gpu={gpus},mem=64G,node=1", "NodeList": "n1",
        }  # fmt: skip
        lines.append("|".join(fields.get(name, "") for name in header.split("|")))
    (folder / "now.txt").write_text("\n".join(lines) + "\n")
    for log in ("lisa.txt", "now.txt"):
        run("aggregate", "--from", folder / log, "--config", folder / "config.toml", "--ledger", folder / "ledger")
    return folder / "ledger"


class World:
    """All of it, running."""

    def __init__(self, prometheus: Prometheus, nodes: dict[str, LiveNode], daemons: Daemons) -> None:
        self.prometheus, self.nodes, self.daemons = prometheus, nodes, daemons


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if not shutil.which("prometheus"):
        unavailable("prometheus is not installed (Debian's prometheus)")
    folder = tmp_path_factory.mktemp("dashboards")
    daemons = Daemons(folder)
    nodes = {name: LiveNode(name, folder / name, daemons, gpus) for name, gpus in (("n1", 2), ("n2", 0))}
    stop = threading.Event()

    def compute() -> None:
        while not stop.wait(0.1):
            for one in nodes.values():
                for job in list(one.cpu_us):
                    with contextlib.suppress(OSError, KeyError):
                        one.count(job, 0.1 * CORES)

    mover = threading.Thread(target=compute, daemon=True)
    with contextlib.ExitStack() as stack:
        stack.callback(daemons.end)
        for one in nodes.values():
            stack.enter_context(one.sim.running())
            one.start()
        mover.start()
        stack.callback(mover.join, 5)
        stack.callback(stop.set)
        port = free_port()
        daemons.start(
            "ledger-exporter", sys.executable, "-m", "slurm_energy_exporters.ledger", "--ledger", ledger(folder), "--config",
            folder / "config.toml", "--web.listen-address", f"127.0.0.1:{port}",
            PYTHONPATH=f"{ROOT}:{ROOT / 'exporters'}",
        )  # fmt: skip
        groups = [targets([Node(name, "127.0.0.1", name)], "alpha", one.port)[0] for name, one in nodes.items()]
        prometheus = Prometheus(folder, groups, port, daemons)
        stack.callback(prometheus.end)
        try:
            prometheus.wait_for_all(3, 120)
        except BaseException:
            print(daemons.logs())
            raise
        yield World(prometheus, nodes, daemons)


@pytest.mark.parametrize("name", rules())
def test_a_recording_rule_gives_values(world: World, name: str) -> None:
    until(name, lambda: world.prometheus.has_data(name, True), 20)


def test_no_rule_and_no_alert_fails(world: World) -> None:
    groups = world.prometheus.get("rules")["groups"]
    assert not {rule["name"]: rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")}
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}


def test_the_watts_are_those_of_the_counters_and_belong_to_somebody(world: World) -> None:
    ask = world.prometheus.value
    truth = sum(one.watts for one in world.nodes.values())

    def near(query: str, expected: float, share: float = 0.02) -> None:
        until(f"{query} to be {expected:g}", lambda: abs(ask(query) - expected) <= share * expected, 45)

    near("avg_over_time(cluster:slurm_energy_power_watts:sum[10s])", truth)
    near("avg_over_time(cluster:slurm_energy_co2e_grams_per_hour:sum[10s])", truth / 1000 * 1.54 * 472.94)
    near("avg_over_time(cluster:slurm_energy_electricity_usd_per_hour:sum[10s])", truth / 1000 * 1.54 * 0.12)
    near("cluster:slurm_energy_kwh:increase1h * 3.6e6", 20 * truth, 0.1)  # an hour of 20 s
    parts = "avg_over_time((sum(job:slurm_energy_power_watts:sum) + sum(cluster:slurm_energy_idle_power_watts:sum))[10s:1s])"
    near(parts, truth)
    assert ask('sum(account:slurm_energy_power_watts:sum{account="nlp"})') > WATTS["gpu"] * 0.9
    assert ask("max(abs(node:slurm_energy_conservation_error:ratio15m))") < 1e-3


@pytest.mark.parametrize(("file", "panel"), PANELS)
def test_a_panel_s_queries_give_data(world: World, file: Path, panel: dict[str, Any]) -> None:
    board = json.loads(file.read_text())
    for values in filled(board, world.prometheus, CHOSEN):
        for target in panel["targets"]:
            query = fill(target["expr"], values)
            assert "$" not in query
            until(query, lambda q=query, t=target: world.prometheus.has_data(q, bool(t.get("instant"))), 10)  # type: ignore[misc]


def test_jobs_ran_in_every_window_that_a_person_can_pick(world: World) -> None:
    for file in BOARDS:
        board = json.loads(file.read_text())
        found = {values.get("window") for values in filled(board, world.prometheus, CHOSEN)}
        assert found == {
            "management": {"month", "last_month"}, "projects": {"month", "last_month", "all"},
        }.get(file.stem, {None})  # fmt: skip


def test_last_month_is_its_one_job(world: World) -> None:
    found = world.prometheus.instant('slurm_energy_ledger_project_gpu_seconds{window="last_month",cluster="alpha"} > 0')
    assert {(one["metric"]["project"], one["value"][1]) for one in found} == {("lisa", "10800")}


@pytest.mark.parametrize(("file", "panel"), PANELS)
def test_legends_links_and_columns_name_labels_that_the_answer_has(
    world: World, file: Path, panel: dict[str, Any]
) -> None:
    values = filled(json.loads(file.read_text()), world.prometheus, CHOSEN)[0]
    all_labels: set[str] = set()
    for target in panel["targets"]:
        found = world.prometheus.instant(fill(target["expr"], values))
        labels = {label for one in found for label in one["metric"]}
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels
        all_labels |= labels
    shown = json.dumps(panel)
    assert set(re.findall(r"__field\.labels\.(\w+)", shown)) <= all_labels
    if panel["type"] != "table":
        return
    order = next(one["options"] for one in panel["transformations"] if one["id"] == "organize")
    columns = set(order["renameByName"].values())
    excluded = set(order["excludeByName"]) - {"Time", "__name__"}
    assert {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]} <= all_labels | columns
    assert excluded <= all_labels
    assert set(order["indexByName"]) - set(order["renameByName"]) == all_labels - excluded - {"__name__"}
    assert set(re.findall(r"__data\.fields\.(\w+)", shown)) <= all_labels - excluded
    assert set(re.findall(r"var-\w+=\$\{(\w+)\}", shown)) <= set(values)


def test_a_job_that_ends_vanishes_and_its_node_adds_up(world: World) -> None:
    node, ask = world.nodes["n1"], world.prometheus.instant
    node.hook("epilog", *JOBS["n1"][1])
    until("job 8 to vanish", lambda: not ask('job:slurm_energy_power_watts:sum{jobid="8"}'))
    assert ask('job:slurm_energy_power_watts:sum{jobid="7"}')
    until("its energy to stay in the hour's", lambda: ask('account:slurm_energy_kwh:increase1h{account="nlp"}'), 5)
    until("some looks at the node's joules", lambda: adds_up(world, "n1"), 20)


def test_an_agent_that_is_killed_is_an_alert_and_has_no_watts(world: World) -> None:
    node, ask = world.nodes["n2"], world.prometheus.instant
    node.agent.kill()
    node.agent.wait(10)
    until("the alert to be pending", lambda: ask('ALERTS{alertname="SlurmEnergyAgentDown",node="n2"}'))
    assert not ask('slurm_energy_node_power_watts{node="n2"}')
    assert not ask('ALERTS{alertname=~"SlurmEnergyAgent(Down|Stuck)",node="n1"}')
    until("the count on the dashboard", lambda: world.prometheus.value("count(slurm_energy_agent_up == 0)") == 1)


def test_an_agent_that_is_killed_and_started_again_adds_up(world: World) -> None:
    node = world.nodes["n2"]
    if node.agent.poll() is None:
        node.agent.kill()
        node.agent.wait(10)
    node.start_agent()
    until("watts", lambda: world.prometheus.instant('slurm_energy_node_power_watts{node="n2"}'))
    until("some looks at the node's joules", lambda: adds_up(world, "n2"), 40)


def adds_up(world: World, node: str) -> bool:
    """Whether Prometheus has ten new values of what the rule on conservation says; fails where one is wrong."""
    rule = f'node:slurm_energy_conservation_error:ratio15m{{node="{node}"}}'
    wrong = world.prometheus.value(f"max_over_time(abs({rule})[10s:1s])")
    assert not wrong > 1e-3, wrong
    return world.prometheus.value(f"count_over_time({rule}[10s])") >= 9
