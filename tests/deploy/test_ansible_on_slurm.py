"""The playbook on a real Slurm cluster whose hosts run systemd, with jobs running: twice, an upgrade, and out again.

What is simulated is /sys/class/powercap of the compute nodes. Units, hooks, timer, users and rights are the real ones.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import ansible_run
import bare_root
import pytest
import slurm_hosts
from ansible_run import DEPLOY, Played
from common.processes import free_port
from common.required import unavailable
from common.waiting import until
from sim.law import Constant
from sim.sysfs import SimNode
from slurm_hosts import ADMIN, COMPUTE, CPUS, LOGIN

pytestmark = pytest.mark.cluster

NEW = "99.9.9"
WATTS = {"package": 2 * 100.0, "dram": 2 * 10.0}
DAEMONS = {
    **dict.fromkeys(COMPUTE, ("slurm-energy-agent", "slurm-energy-ship", "slurm-energy-node-exporter")),
    ADMIN: ("slurm-energy-ledger-exporter",),
}
"""The units that are to run, by host."""
INBOX, LEDGER = "/shared/slurm-energy/inbox", "/shared/slurm-energy/ledger"


class World:
    """The cluster, the runs of the playbook, and jobs that lived through them."""

    def __init__(self, site: slurm_hosts.Site, sims: dict[str, SimNode], folder: Path) -> None:
        self.site, self.sims, self.folder = site, sims, folder
        self.ports = {name: free_port() for name in (*COMPUTE, ADMIN)}
        self.played: dict[str, Played] = {}
        self.jobs: dict[str, str] = {}
        self.came: set[str] = set()
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.source = ansible_run.source(folder / "source")
        self.wheel = ansible_run.wheel(self.source, folder / "wheel")

    def play(self, label: str, *options: str, **variables: Any) -> Played:
        """A run of deploy/ansible/site.yml, as an admin's command has it."""

        def host(name: str, **more: Any) -> dict[str, Any]:
            return {
                "entered_by": self.site.hosts[name].enter(), "ansible_connection": "entered",
                "ansible_python_interpreter": "/usr/bin/python3", **more,
            }  # fmt: skip

        def listens(name: str) -> list[str]:
            return [f"--web.listen-address=127.0.0.1:{self.ports[name]}"]

        groups = {
            "slurm_energy_admin": {ADMIN: host(ADMIN, slurm_energy_ledger_exporter_options=listens(ADMIN))},
            "slurm_energy_compute": {
                name: host(name, slurm_energy_node_exporter_options=listens(name)) for name in COMPUTE
            },
            "slurm_energy_login": {LOGIN: host(LOGIN)},
        }
        inventory = {name: {"hosts": found} for name, found in groups.items()}
        given = {
            "slurm_energy_source": str(self.wheel), "slurm_energy_inbox": INBOX, "slurm_energy_ledger": LEDGER,
            "slurm_energy_uid": 981, "slurm_energy_gid": 981, "slurm_energy_readers": ["emma"],
            "slurm_energy_site": {"cluster": "alpha", "timezone": "UTC"},
            "slurm_energy_factors": {"pue": 1.21, "country": "DE"}, "slurm_energy_sd": True,
            "slurm_energy_agent": {
                "cpus": CPUS, "mem_bytes": slurm_hosts.MEMORY_MB << 20, "checkpoint_s": 2.0, "flush_s": 2.0,
            },
            **variables,
        }  # fmt: skip
        played = ansible_run.play(self.folder, DEPLOY / "ansible/site.yml", inventory, given, options)
        self.played[label] = played
        return played

    def top(self, name: str) -> dict[str, Any]:
        """What the agent of a node shows."""
        done = self.site.hosts[name].run("senergy", "top", "--once", "--json", check=False)
        return json.loads(done.stdout)[0] if done.returncode == 0 else {"jobs": []}

    def job(self, label: str, name: str) -> dict[str, Any]:
        """A job as the agent of a node shows it; empty where it does not."""
        found = [one for one in self.top(name)["jobs"] if one["job_id"] == int(self.jobs[label])]
        return found[0] if found else {}

    def submit(self, label: str, name: str, work: str) -> None:
        self.jobs[label] = self.site.submit(label, name, CPUS // 2, work)

    def live_through_it(self) -> None:
        """All that is done to the cluster, in the order of docs/install.md."""
        site = self.site
        (site.shared / "slurm-energy").mkdir()
        self.submit("early", "n1", ":")
        assert self.play("check", "--check").sum("changed") > 20
        self.play("first")
        until("the agent to find the job that ran", lambda: self.job("early", "n1"))
        site.write_conf(hooked=True)
        site.admin.run("scontrol", "reconfigure")
        until("the hooks to be known", lambda: "prolog.d" in site.login.run("scontrol", "show", "config").stdout)
        self.submit("late", "n1", "sleep 0.2")
        self.submit("other", "n2", "sleep 0.2")
        for label, name in (("late", "n1"), ("other", "n2")):
            until(f"the agent of {name} to know {label}", lambda: self.job(label, name))  # noqa: B023
        self.play("second")
        self.before = {label: self.job(label, "n1") for label in ("early", "late")} | {"agent": self.pids("n1")}
        version = self.source / "slurm_energy/version.py"
        version.write_text(f'"""A newer one."""\n\n__version__ = "{NEW}"\n')
        self.wheel = ansible_run.wheel(self.source, self.folder / "newer-wheel")
        self.play("upgrade")
        until("the new agent", lambda: self.top("n1").get("version") == NEW)
        self.after = {label: self.job(label, "n1") for label in ("early", "late")} | {"agent": self.pids("n1")}
        for label in ("early", "late", "other"):
            site.end(label, self.jobs[label])
        for name in COMPUTE:
            until("their end to be seen", lambda: not self.top(name)["jobs"])  # noqa: B023

    def pids(self, name: str) -> dict[str, str]:
        """The main process of each daemon."""
        host = self.site.hosts[name]
        return {unit: host.shown(unit, "MainPID")["MainPID"] for unit in DAEMONS[name]}

    def hurry(self, name: str) -> None:
        """Has the shipper of a node carry away what there is: at its end it makes one more round."""
        host = self.site.hosts[name]
        if host.run("ls", "/var/lib/slurm-energy/outbox").stdout:
            host.run("systemctl", "restart", "slurm-energy-ship")

    def closed(self, name: str) -> bool:
        """Whether the last segment of each job that ended on a node has come."""
        mine = {int(self.jobs[label]) for label in (("early", "late") if name == "n1" else ("other",))}
        return mine <= {one["job_id"] for one in self.segments(name) if one["final"]}

    def segments(self, name: str) -> list[dict[str, Any]]:
        """What has come to the inbox from a node, each segment once; also what the nightly run has taken since."""
        for file in (self.site.shared / "slurm-energy/inbox").rglob("*.jsonl"):
            self.came.update(file.read_text().splitlines())
        return [one for one in map(json.loads, self.came) if one["node"] == name]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The cluster after all that."""
    folder = tmp_path_factory.mktemp("hosts")
    for one in (folder, *folder.parents[:1]):
        one.chmod(0o755)
    (folder / "shared").mkdir()
    laws = {f"rapl:package-{number}": Constant(WATTS["package"] / 2) for number in range(2)}
    laws |= {f"rapl:package-{number}/dram": Constant(WATTS["dram"] / 2) for number in range(2)}
    sims = {
        name: SimNode(folder / f"sys-{name}", packages=2 if name in COMPUTE else 0, cores=False, law=laws)
        for name in (ADMIN, LOGIN, *COMPUTE)
    }
    try:
        with slurm_hosts.running({name: sim.root for name, sim in sims.items()}, folder / "shared") as site:
            made = World(site, sims, folder)
            with sims["n1"].running(), sims["n2"].running():
                made.live_through_it()
                yield made
    except bare_root.NoRoot as reason:
        unavailable(str(reason))


def test_the_first_run_changes_all_hosts_and_the_second_none(world: World) -> None:
    for host in (ADMIN, LOGIN, *COMPUTE):
        assert world.played["first"].counts[host]["changed"] > 3
        second = world.played["second"].counts[host]
        assert (second["changed"], second["failed"], second["unreachable"]) == (0, 0, 0)


@pytest.mark.parametrize(("host", "unit"), [(host, unit) for host, units in DAEMONS.items() for unit in units])
def test_each_daemon_runs_under_systemd_as_its_unit_says(world: World, host: str, unit: str) -> None:
    shown = world.site.hosts[host].shown(unit, "ActiveState", "UnitFileState", "NRestarts", "User", "MainPID")
    user = "root" if unit == "slurm-energy-agent" else "slurm-energy"
    pid = shown.pop("MainPID")
    assert shown == {"ActiveState": "active", "UnitFileState": "enabled", "NRestarts": "0", "User": user}
    status = world.site.hosts[host].run("cat", f"/proc/{pid}/status").stdout
    values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(values["CapEff"], 16) == int(values["CapBnd"], 16) == 0
    assert (values["NoNewPrivs"], values["Seccomp"]) == ("1", "2")
    assert values["Uid"].split()[0] == ("0" if user == "root" else "981")
    said = world.site.hosts[host].journal(unit)
    assert "Traceback" not in said, said
    assert "ermission denied" not in said, said


def test_a_job_that_ran_before_is_discovered_and_later_ones_are_announced(world: World) -> None:
    assert world.before["early"]["origin"] == "discovered"
    assert world.before["late"]["origin"] == "hook"
    assert world.before["late"]["user"] == "emma"
    assert world.before["late"]["account"] == "lisa"


def test_an_upgrade_under_systemd_starts_the_daemons_again_and_loses_no_joule(world: World) -> None:
    assert world.played["upgrade"].counts["n1"]["changed"] > 0
    assert set(world.before["agent"].values()).isdisjoint(world.after["agent"].values())
    for label in ("early", "late"):
        before, after = world.before[label], world.after[label]
        assert before["session_start"] == after["session_start"]
        assert sum(after["joules"].values()) > sum(before["joules"].values()) > 0


def test_prometheus_reads_both_exporters(world: World) -> None:
    def page(name: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{world.ports[name]}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    for name in COMPUTE:
        text = page(name)
        assert "slurm_energy_agent_up 1.0" in text
        watts = {
            domain: float(value)
            for domain, value in re.findall(
                r'^slurm_energy_node_power_watts\{domain="(\w+)".*\} (\S+)$', text, re.MULTILINE
            )
        }
        assert watts["package"] == pytest.approx(WATTS["package"], rel=0.1)
    assert "slurm_energy_ledger" in page(ADMIN)


def test_the_nightly_run_is_due_and_makes_a_ledger_that_people_can_read(world: World) -> None:
    site = world.site
    due = site.admin.shown("slurm-energy-aggregate.timer", "ActiveState", "NextElapseUSecRealtime", "Persistent")
    assert (due["ActiveState"], due["Persistent"]) == ("active", "yes")
    assert due["NextElapseUSecRealtime"]
    for name in COMPUTE:
        until(f"the segments of {name}", lambda: world.closed(name) or world.hurry(name))  # noqa: B023
    yesterday = (datetime.now(timezone.utc) - timedelta(days=1)).strftime("%Y-%m-%d")
    site.admin.run("senergy", "aggregate", "-S", yesterday, user="slurm-energy")
    site.admin.run("systemctl", "start", "slurm-energy-aggregate")
    shown = site.admin.shown("slurm-energy-aggregate.service", "Result", "ExecMainStatus", "User")
    assert shown == {"Result": "success", "ExecMainStatus": "0", "User": "slurm-energy"}
    report = ("senergy", "report", "--by", "user", "--json")
    (row,) = json.loads(site.login.run(*report, user="emma").stdout)["rows"]
    assert (row["user"], row["jobs"]) == ("emma", len(world.jobs))
    assert 0.8 < row["provenance"]["measured"] < 1.0  # one of them ran before anything measured
    site.login.run("useradd", "bob")
    refused = site.login.run(*report, user="bob", check=False)
    assert refused.returncode == 2
    assert LEDGER in refused.stderr


def test_prometheus_finds_the_nodes_that_slurm_has(world: World) -> None:
    admin = world.site.admin
    assert admin.shown("slurm-energy-sd.timer", "ActiveState") == {"ActiveState": "active"}
    admin.run("systemctl", "start", "slurm-energy-sd")
    groups = json.loads(admin.run("cat", "/var/lib/slurm-energy-sd/nodes.json", user="nobody").stdout)
    assert {(group["labels"]["cluster"], group["labels"]["node"]) for group in groups} == {
        ("alpha", name) for name in COMPUTE
    }


@pytest.mark.parametrize(
    ("host", "role"), [(ADMIN, "admin"), *((name, "compute") for name in COMPUTE), (LOGIN, "login")]
)
def test_the_doctor_finds_nothing_left_to_do(world: World, host: str, role: str) -> None:
    user = "emma" if role == "login" else ""
    said = world.site.hosts[host].run("senergy", "doctor", "--role", role, "--seconds", "0", user=user, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


def test_taken_out_of_the_compute_nodes_with_a_job_running(world: World) -> None:
    """In the README's order: slurm.conf first. The agent's last segments come to the inbox, the job goes on."""
    site = world.site
    world.submit("last", "n2", "sleep 0.2")
    until("the agent to know it", lambda: world.job("last", "n2"))
    site.write_conf(hooked=False)
    site.admin.run("scontrol", "reconfigure")
    until("the hooks to be gone", lambda: "prolog.d" not in site.login.run("scontrol", "show", "config").stdout)
    out = ("--limit", "slurm_energy_compute")
    assert world.play("absent", *out, slurm_energy_state="absent").sum("changed") > 0
    assert world.play("absent again", *out, slurm_energy_state="absent").sum("changed") == 0
    for name in COMPUTE:
        host = site.hosts[name]
        assert host.run("ls", "-A", "/var/lib/slurm-energy/outbox").stdout == ""
        units = host.run("systemctl", "list-units", "--all", "--no-legend", "--no-pager", "slurm-energy*").stdout
        assert units == ""
        for path in (
            "/etc/slurm-energy",
            "/opt/slurm-energy",
            "/run/slurm-energy",
            "/etc/slurm/prolog.d/50-slurm-energy",
        ):
            assert host.run("test", "-e", path, check=False).returncode == 1, path
    site.end("last", world.jobs["last"])
    assert site.admin.run("sinfo", "-h", "-N", "-o", "%T").stdout.split() == ["idle"] * len(COMPUTE)


@pytest.mark.parametrize("name", COMPUTE)
def test_what_a_node_used_from_the_first_second_to_the_last_has_come_to_the_inbox(world: World, name: str) -> None:
    """Over an upgrade and a removal; by the law, and each second once."""
    segments = world.segments(name)
    begin, end = min(one["start"] for one in segments), max(one["end"] for one in segments)
    assert all(one["gap_s"] == 0 for one in segments)
    seconds = (end - begin) / 1e9
    for domain, watts in WATTS.items():
        joules = sum(one["uj"][domain] for one in segments) / 1e6
        assert joules == pytest.approx(watts * seconds, rel=0.005, abs=watts * 0.1), domain


def test_the_ledger_holds_what_came(world: World) -> None:
    site = world.site
    assert all(world.segments(name) for name in COMPUTE)  # looked at before they are taken
    site.admin.run("systemctl", "start", "slurm-energy-aggregate")
    said = site.admin.run("senergy", "ledger", "verify", "--json", user="slurm-energy")
    days = json.loads(said.stdout)
    sent = sum(sum(one["uj"].values()) for name in COMPUTE for one in world.segments(name))
    assert sum(day["segments_uj"] for day in days) == sent
    assert all(day["holds"] for day in days)


def test_taken_out_everywhere_the_ledger_stays(world: World) -> None:
    assert world.play("gone", slurm_energy_state="absent").sum("changed") > 0
    assert world.play("gone again", slurm_energy_state="absent").sum("changed") == 0
    assert world.site.admin.run("ls", LEDGER).stdout
