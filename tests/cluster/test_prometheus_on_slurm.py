"""Prometheus over real Slurm clusters: real jobs with the deploy hooks, a real agent and exporter for each slurmd, and a
ledger aggregated from the live accounting. Rules, dashboards and `senergy sd` are held to what Slurm's own commands say.

On Slurm 22.05 with cgroup v1 the exporters are scraped as they come, on 26.05 with cgroup v2 by TLS, with a client
certificate and a password.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import ssl
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import NS, Node, moving
from common.processes import Daemons, free_port
from common.required import unavailable
from common.waiting import until
from conftest import REPOSITORY, install_requirements, started
from integration.live_prometheus import PANELS, Prometheus, fill, filled, rules
from scenarios import BURN, steady
from unit.exporter_harness import make_certificates

if TYPE_CHECKING:
    from conftest import Cluster

pytestmark = pytest.mark.cluster

pytest.importorskip("prometheus_client")
bcrypt = pytest.importorskip("bcrypt")

CORES = 0.2
"""What the CPU job keeps busy."""


class World:
    """The cluster with its agents and jobs, the exporters and Prometheus."""

    def __init__(self, cluster: Cluster, names: Sequence[str], folder: Path, cgroups: Path, daemons: Daemons) -> None:
        self.cluster, self.daemons = cluster, daemons
        self.nodes = {name: Node(cluster, name, folder, cgroups, steady, options=("--period", "0.5")) for name in names}
        self.first, self.second = names
        self.ports = {name: free_port() for name in names}
        self.guard: Guard | None = None
        """What the exporters ask for who scrapes them."""
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
        first, second = self.first, self.second
        two = ("-w", f"{first},{second}", "-N", "2", "--gres=gpu:1")
        plans: dict[str, tuple[str, tuple[str, ...], str]] = {
            "ended": ("sealice", ("-w", second, "--gres=gpu:1"), "sleep 2"),
            "ended-too": ("sebob", ("-w", second, "-c", "2"), "sleep 2"),
            "cpu": ("sealice", ("-w", first, "-c", "2"), f"perl {cluster.files}/burn {CORES} 300"),
            "gpu": ("sebob", ("-w", first, "--gres=gpu:2"), cluster.gate("gpu")),
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
                cluster.senergy("ship", "--once", *outbox, "--inbox", inbox, "--cluster", cluster.name)
            files = cluster.outside(inbox).rglob("*.jsonl")
            segments = [json.loads(line) for file in files for line in file.read_text().splitlines()]
            for one in segments:
                if one["job_id"]:
                    key = tuple(one[name] for name in ("node", "job_id", "session_start", "start"))
                    self.shipped_uj[key] = sum(one["uj"].values())
            self.closed |= {str(one["job_id"]): (one["origin"], one["closed"]) for one in segments if one["final"]}
            return {self.jobs[label] for label in labels} <= self.closed.keys()

        until("the segments", shipped, 30)
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
            guard = ("--web.config.file", self.guard.web_config) if self.guard else ()
            self.daemons.start(name, *command, "--web.listen-address", f"127.0.0.1:{port}", *guard, **source)

        for name, node in self.nodes.items():
            exporter(f"node-exporter-{name}", "node", self.ports[name], "--socket", node.socket)
        port, outside = free_port(), self.cluster.outside
        exporter("ledger-exporter", "ledger", port, "--ledger", outside(self.ledger), "--config", outside(self.config))
        groups = self.listed()
        for group in groups:
            host = group["targets"][0].rpartition(":")[0]
            group["targets"] = [f"{host}:{self.ports[group['labels']['node']]}"]
        self.prometheus = Prometheus(folder, groups, port, self.daemons, self.guard.jobs() if self.guard else None)

    def running(self) -> set[tuple[str, str, str]]:
        """Job, user and account of the jobs that run, by squeue."""
        rows = self.cluster.run("squeue", "-h", "-t", "RUNNING", "-o", "%A|%u|%a").splitlines()
        return {(job, user, account) for job, user, account in (row.split("|") for row in rows)}

    def chosen(self) -> dict[str, str]:
        """What a person picks in the variables."""
        return {
            "cluster": self.cluster.name, "node": self.first, "jobid": self.jobs["gpu"], "project": "lisa", "user": "sealice",
            "window": "month",
        }  # fmt: skip

    def watts(self, name: str, *counters: str) -> float:
        """By the law, which is constant. counters: all that count, where none is named."""
        node = self.nodes[name]
        return node.law_uj(counters or node.counted(), node.wall0, node.wall0 + NS) / 1e6


class Guard:
    """TLS, a client certificate and a password: the exporters' side, and Prometheus' as the shipped file has it."""

    PASSWORD = "correct horse"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_certificates(folder)
        hashed = bcrypt.hashpw(self.PASSWORD.encode(), bcrypt.gensalt(5)).decode()
        self.web_config = folder / "web.yml"
        self.web_config.write_text(
            "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  client_ca_file: ca.pem\n"
            f"  client_auth_type: RequireAndVerifyClientCert\nbasic_auth_users:\n  prometheus: {hashed}\n"
        )
        for name, password in (("password", self.PASSWORD), ("wrong", "incorrect horse")):
            (folder / name).write_text(password)

    def scraping(self, password: str = "password", **tls: Any) -> dict[str, Any]:
        """What prometheus.yml says of a job."""
        pair = {"cert_file": str(self.folder / "client.pem"), "key_file": str(self.folder / "client.key")}
        return {
            "scheme": "https", "tls_config": {"ca_file": str(self.folder / "ca.pem"), **(tls or pair)},
            "basic_auth": {"username": "prometheus", "password_file": str(self.folder / password)},
        }  # fmt: skip

    def jobs(self) -> dict[str, dict[str, Any]]:
        """The two shipped ones ("" is what both have more), and two that are not to be let in."""
        return {
            "": self.scraping(),
            "wrong-password": self.scraping("wrong"),
            "no-certificate": self.scraping(insecure_skip_verify=False),
        }

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
        return context


def page(world: World, name: str) -> str:
    """What the exporter of a node shows to those whom it lets in."""
    request = urllib.request.Request(f"http://127.0.0.1:{world.ports[name]}/metrics")
    context = None
    if world.guard:
        request.full_url = request.full_url.replace("http:", "https:")
        token = base64.b64encode(f"prometheus:{Guard.PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        context = world.guard.client()
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        return str(answer.read().decode())


@pytest.fixture(scope="module", params=["22.05", "26.05"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if not shutil.which("prometheus"):
        unavailable("prometheus is not installed (Debian's prometheus)")
    old = request.param == "22.05"
    if old and not Path("/sys/fs/cgroup/cpuacct").is_dir():
        unavailable("no cgroup v1 is mounted on this machine")
    root = None if old else request.getfixturevalue("root26")
    names, port = (("p1", "p2"), 26810) if old else (("q1", "q2"), 27310)
    python = sys.executable if old else "/opt/venv/bin/python"
    hooks = REPOSITORY / "deploy" / "slurm"
    options = (
        "--confinement", "cgroup/v1" if old else "cgroup/v2", "--nodes", ",".join(names),
        "--prolog", hooks / "prolog.d", "--epilog", hooks / "epilog.d",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("prometheus")
    daemons = Daemons(folder)
    with started(f"prom{request.param[:2]}", port, root, python, *options) as cluster, contextlib.ExitStack() as stack:
        stack.callback(daemons.end)
        if not old:
            install_requirements(cluster)
        cgroups = Path("/sys/fs/cgroup") if old else cluster.outside(Path("/mnt/cgroup2"))
        world = World(cluster, names, folder, cgroups, daemons)
        if not old:
            (folder / "guard").mkdir()
            world.guard = Guard(folder / "guard")
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
            prometheus.wait_for_all(4, 60)
        except BaseException:
            print(daemons.logs(), *(node.log() for node in world.nodes.values()), sep="\n")
            raise
        yield world


def test_who_has_the_wrong_password_or_no_certificate_gets_nothing(world: World) -> None:
    if world.guard is None:
        pytest.skip("this one's exporters let everybody in")
    ask = world.prometheus
    until("both to be refused", lambda: ask.value('count(up{job=~"wrong-password|no-certificate"} == 0)') == 2, 20)
    errors = {
        one["labels"]["job"]: one["lastError"] for one in ask.get("targets", state="active")["activeTargets"]
    }  # fmt: skip
    assert "401" in errors["wrong-password"]
    assert errors["no-certificate"]  # the handshake is cut off: an alert, or a connection that is reset
    assert "HTTP status" not in errors["no-certificate"]
    assert {errors[name] for name in ("slurm-energy-node", "slurm-energy-ledger")} == {""}


def test_senergy_sd_lists_the_nodes_that_sinfo_has(world: World) -> None:
    names = set(world.cluster.run("sinfo", "-h", "-N", "-o", "%N").split())
    assert names == set(world.nodes)
    assert [(group["targets"], group["labels"]["node"]) for group in world.listed()] == [
        (["127.0.0.1:9854"], name) for name in world.nodes
    ]
    assert {group["labels"]["cluster"] for group in world.listed()} == {world.cluster.name}
    assert f"{world.first}, {world.second} are all at 127.0.0.1:9854" in world.cluster.senergy("sd").stderr


def test_prometheus_scrapes_the_exporter_of_each_node_and_the_ledgers(world: World) -> None:
    def up() -> bool:
        return {(one["metric"]["job"], one["metric"].get("node"), one["value"][1]) for one in ask('up{job=~"slurm-energy-.*"}')} == {
            *(("slurm-energy-node", name, "1") for name in world.nodes), ("slurm-energy-ledger", None, "1"),
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
    first, second = world.first, world.second
    assert sorted(nodes) == sorted([(jobs[label], first) for label in ("cpu", "gpu", "two")] + [(jobs["two"], second)])


def test_the_watts_are_those_of_the_counters(world: World) -> None:
    ask = world.prometheus.value

    def near(query: str, expected: float, share: float = 0.02) -> None:
        until(f"{query} to be {expected:g}", lambda: abs(ask(query) - expected) <= share * expected, 30)

    for name in world.nodes:
        near(f'avg_over_time(node:slurm_energy_power_watts:sum{{node="{name}"}}[10s])', world.watts(name))
    near("avg_over_time(cluster:slurm_energy_power_watts:sum[10s])", sum(world.watts(name) for name in world.nodes))
    jobs_and_idle = "sum(job:slurm_energy_power_watts:sum) + sum(cluster:slurm_energy_idle_power_watts:sum)"
    near(f"avg_over_time(({jobs_and_idle})[10s:1s])", sum(world.watts(name) for name in world.nodes))
    assert ask("max(abs(node:slurm_energy_conservation_error:ratio15m))") < 1e-3


def test_a_gpu_job_has_the_watts_of_the_gpus_that_slurm_gave_it(world: World) -> None:
    job, ask = world.jobs["gpu"], world.prometheus
    held = {one["metric"]["gpu"] for one in ask.instant(f'slurm_energy_job_gpu_info{{jobid="{job}"}}')}
    text = world.cluster.run("scontrol", "-d", "show", "job", job)
    given = text.partition("(IDX:")[2].partition(")")[0]
    first, _, last = given.partition("-")
    minors = range(int(first), int(last) + 1) if last else [int(number) for number in given.split(",")]
    node = world.nodes[world.first]
    assert held == {node.device(minor) for minor in minors}
    expected = world.watts(world.first, *(f"nvml:{device}" for device in held))
    query = f'sum(avg_over_time(slurm_energy_job_power_watts{{jobid="{job}",domain="gpu"}}[10s]))'
    until(f"{expected} W", lambda: abs(ask.value(query) - expected) <= 0.02 * expected, 30)


def test_the_cpu_job_uses_the_cpu_time_that_it_takes(world: World) -> None:
    query = f'rate(slurm_energy_job_cpu_seconds_total{{jobid="{world.jobs["cpu"]}"}}[20s])'
    until("its CPU time", lambda: abs(world.prometheus.value(query) - CORES) < 0.5 * CORES, 30)


def test_the_ledger_s_jobs_are_those_of_the_accounting(world: World) -> None:
    ask = world.prometheus.instant

    def counted(label: str) -> dict[str, float]:
        series = ask(f'slurm_energy_ledger_{label}_jobs{{cluster="{world.cluster.name}",window="all"}}')
        return {one["metric"][label]: float(one["value"][1]) for one in series}

    until("users", lambda: {"sealice", "sebob"} <= set(counted("user")), 10)
    until("accounts", lambda: {"lisa", "vision"} <= set(counted("project")), 10)
    measured = f'slurm_energy_ledger_provenance_energy_joules{{cluster="{world.cluster.name}",window="all",provenance="measured"}}'
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

    def shown() -> str:
        return page(world, world.first)

    def booked() -> float:
        return prometheus.value(
            f'sum(slurm_energy_ledger_provenance_energy_joules{{cluster="{world.cluster.name}",window="all",provenance="measured"}})'
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
