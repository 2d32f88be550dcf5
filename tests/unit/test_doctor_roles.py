"""`senergy doctor` by role: each finding for a machine that is well and for each way in which it is not."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from slurm_energy.agent.options import AgentOptions
from slurm_energy.config import Config, parse_config
from slurm_energy.doctor import admin, common, compute, login, roles
from slurm_energy.doctor import machine as looking
from slurm_energy.doctor.admin import Jobs
from slurm_energy.doctor.common import Person, Place, Unit
from slurm_energy.doctor.compute import Agent, Hooks
from slurm_energy.doctor.machine import Machine
from slurm_energy.ledger.store import Ledger

SERVICE = Person("slurm-energy", 981, (981,))
ROOT = Person("root", 0, (0,))


def folder(path: str = "/there", uid: int = 0, gid: int = 0, mode: int = 0o750, device: int = 1) -> Place:
    return Place(path, True, True, uid, gid, mode, device)


AWAY = Place("/away", error="no such file or directory")


@pytest.mark.parametrize(
    ("who", "place", "want", "may"),
    [
        (SERVICE, folder("/a", 981, 981, 0o700), 7, True),
        (SERVICE, folder("/a", 0, 981, 0o750), 5, True),
        (SERVICE, folder("/a", 0, 981, 0o750), 2, False),
        (SERVICE, folder("/a", 0, 0, 0o755), 5, True),
        (SERVICE, folder("/a", 981, 0, 0o077), 4, False),  # the owner has the owner's bits only
        (SERVICE, folder("/a", 0, 981, 0o707), 1, False),  # and a member of the group those of the group
        (ROOT, folder("/a", 981, 981, 0o000), 7, True),
    ],
)
def test_modes_are_read_as_the_kernel_reads_them(who, place, want, may):
    assert common.may(who, place, want) is may


# Compute nodes


def test_an_agent_that_answers_is_well():
    (found,) = compute.agent(Agent("", "1", 0.4, 1.0, 312.4, 3, 5, 0.0, ()), "/run/s", "1")
    assert (found.ok, found.remedy) == (True, "")
    assert "3 jobs, 312 W, 5 counters" in found.detail


@pytest.mark.parametrize(
    ("seen", "what", "ok", "words"),
    [
        (Agent("/run/s: no agent here"), "agent", False, "systemctl enable --now slurm-energy-agent"),
        (Agent("/run/s: permission denied; ..."), "agent", False, "as root or as a member of the group"),
        (Agent("", "1", 11.0, 1.0, 1, 1, 1), "agent", False, "restart"),
        (Agent("", "0", 0.0, 1.0, 1, 1, 1), "agent version", False, "restart"),
        (Agent("", "1", 0.0, 1.0, 1, 1, 0), "counters", None, "refused"),
        (Agent("", "1", 0.0, 1.0, 1, 1, 1, 0.0, ("disk full",)), "agent problem", False, "journalctl"),
    ],
)
def test_an_agent_that_is_not_well(seen, what, ok, words):
    found = {one.what: one for one in compute.agent(seen, "/run/s", "1")}
    assert found[what].ok is ok
    assert words in found[what].remedy


def test_an_agent_with_a_long_period_is_not_taken_for_stuck():
    assert compute.agent(Agent("", "1", 30.0, 10.0, 1, 1, 1), "/run/s", "1")[0].ok


@pytest.mark.parametrize(
    ("place", "waiting", "oldest", "ok"),
    [
        (folder(mode=0o700), 0, 0, True),
        (folder(mode=0o700), 3, 2.0, True),
        (folder(mode=0o700), 3, 500.0, False),
        (folder(mode=0o750), 0, 0, False),
        (folder(uid=5, mode=0o700), 0, 0, False),
        (AWAY, 0, 0, False),
        (Place("/file", True, False), 0, 0, False),
    ],
)
def test_the_hook_folder(place, waiting, oldest, ok):
    found = compute.hook_folder(place, waiting, oldest)
    assert found.ok is ok
    assert bool(found.remedy) is not ok


@pytest.mark.parametrize(
    ("seen", "ok", "words"),
    [
        (Hooks(("/etc/slurm/prolog.d/*",), ("/etc/slurm/prolog.d/50-slurm-energy",)), True, ""),
        (Hooks((), ()), False, "Prolog=/etc/slurm/prolog.d/* in slurm.conf"),
        (Hooks(("/etc/slurm/prolog.sh",), ()), False, "or call it from there"),
        (Hooks(("/p",), (), ("/p/50-slurm-energy",)), False, "chmod 755 /p/50-slurm-energy"),
        (None, None, "scontrol ping"),
    ],
)
def test_the_hooks(seen, ok, words):
    found = compute.hooks("Prolog", seen)
    assert found.ok is ok
    assert words in found.remedy


@pytest.mark.parametrize(
    ("flags", "ok"), [("Alloc,Contain", True), ("Contain", True), ("Serial", False), ("", False), (None, None)]
)
def test_the_prolog_s_flags(flags, ok):
    assert compute.prolog_flags(flags).ok is ok


@pytest.mark.parametrize(
    ("seen", "needed", "ok", "words"),
    [
        (Unit("u", "loaded", "active", "enabled", "success"), True, True, ""),
        (Unit("u", "loaded", "active", "disabled", "success"), True, False, "systemctl enable u"),
        (Unit("u", "loaded", "failed", "enabled", "exit-code"), True, False, "journalctl -u u"),
        (Unit("u", "not-found"), True, False, "install -m 0644 deploy/systemd/u"),
        (Unit("u", "not-found"), False, None, "install"),
        (None, True, None, ""),
    ],
)
def test_a_unit(seen, needed, ok, words):
    found = common.unit("compute", seen, "u", needed)
    assert found.ok is ok
    assert words in found.remedy


@pytest.mark.parametrize(
    ("place", "state", "fill", "oldest", "ok", "words"),
    [
        (folder(gid=981, mode=0o770), folder(), 0.1, 60.0, True, ""),
        (folder(gid=981, mode=0o770), folder(), 0.6, 60.0, False, "slurm-energy-ship"),
        (folder(gid=981, mode=0o770), folder(), 0.1, 4000.0, False, "slurm-energy-ship"),
        (folder(gid=981, mode=0o770, device=2), folder(), 0.0, 0.0, False, "state_dir and outbox"),
        (folder(gid=981, mode=0o750), folder(), 0.0, 0.0, False, "chmod 770"),
        (AWAY, folder(), 0.0, 0.0, False, "restart"),
    ],
)
def test_the_outbox(place, state, fill, oldest, ok, words):
    found = compute.outbox(place, state, fill, 3, oldest, 256, SERVICE)
    assert found.ok is ok
    assert words in found.remedy


@pytest.mark.parametrize(
    ("place", "who", "ok", "words"),
    [
        (folder(uid=981, gid=981, mode=0o2750), SERVICE, True, ""),
        (folder(uid=982, gid=981, mode=0o2750), SERVICE, False, "alike on all nodes"),
        (AWAY, SERVICE, False, "mount"),
        (None, SERVICE, False, "SENERGY_INBOX"),
        (folder(), Person("slurm-energy"), False, "useradd"),
    ],
)
def test_the_inbox_as_a_node_sees_it(place, who, ok, words):
    found = compute.inbox_of_node(place, who)
    assert found.ok is ok
    assert words in found.remedy


def test_an_exporter_s_port():
    at = ("127.0.0.1", 1)
    assert common.port("compute", "node exporter", at, True, "u", True).ok is True
    assert common.port("compute", "node exporter", at, False, "u", True).ok is False
    assert common.port("compute", "node exporter", at, False, "u", False).ok is None


@pytest.mark.parametrize(
    ("settings", "at"),
    [
        ("", ("127.0.0.1", 9854)),
        ("Environment=OPTIONS=", ("127.0.0.1", 9854)),
        ('Environment="OPTIONS=--web.listen-address=:9900 --no-users"', ("127.0.0.1", 9900)),
        ("Environment=OPTIONS=--web.listen-address=192.0.2.1:9900", ("192.0.2.1", 9900)),
        ("Environment=OPTIONS=--web.listen-address=0.0.0.0:9900", ("127.0.0.1", 9900)),
        ("Environment=OPTIONS=--web.listen-address=[::]:9900", ("::1", 9900)),
        ("Environment=OPTIONS=--web.listen-address=[2001:db8::1]:9900", ("2001:db8::1", 9900)),
        ("ExecStart={ path=/x ; argv[]=/x --web.listen-address node1:9900 ; ignore_errors=no }", ("node1", 9900)),
        ("Environment=OPTIONS=--web.listen-address=:1 --web.listen-address=:2", ("127.0.0.1", 2)),
    ],
)
def test_where_a_unit_s_exporter_listens(settings, at):
    assert common.listening(settings, 9854) == at


# The admin node


@pytest.mark.parametrize(
    ("seen", "ok", "words"),
    [
        (Jobs("slurm-energy", ("alice", "bob")), True, ""),
        (Jobs("slurm-energy", (), ("alice", "root")), False, "adminlevel=operator"),
        (Jobs("slurm-energy", ("slurm-energy",), ("alice",)), False, "adminlevel=operator"),
        (Jobs("slurm-energy", (), ()), None, "Operator"),
        (Jobs("alice", ("alice",), None), None, ""),
        (Jobs("slurm-energy", error="sacct: error: connection refused"), False, "slurmdbd"),
    ],
)
def test_sacct(seen, ok, words):
    found = admin.sacct(seen)
    assert found.ok is ok
    assert words in found.remedy


NOW = 1_800_000_000.0
OWN = folder("/ledger", 981, 981)


@pytest.mark.parametrize(
    ("place", "until", "ok", "words"),
    [
        (OWN, {"alpha": int(NOW) - 3600}, True, ""),
        (OWN, {"alpha": int(NOW) - 3600, "beta": int(NOW) - 50 * 3600}, False, "slurm-energy-aggregate"),
        (OWN, {}, False, "senergy aggregate -S"),
        (OWN, "state.json cannot be read", False, "as root"),
        (folder("/ledger", 0, 981), {"alpha": int(NOW)}, False, "install -d -m 0750 -o slurm-energy"),
        (AWAY, {}, False, "install -d"),
    ],
)
def test_the_ledger(place, until, ok, words):
    found = admin.ledger(place, folder("/", 0, 981), until, NOW, SERVICE)
    assert found.ok is ok
    assert words in found.remedy


def test_a_ledger_that_is_behind_says_which_cluster_by_how_much():
    found = admin.ledger(OWN, OWN, {"alpha": int(NOW), "beta": int(NOW) - 50 * 3600}, NOW, SERVICE)
    assert "beta 50 h" in found.detail
    assert "last good run" in found.detail
    assert "alpha" not in found.detail


def test_a_ledger_that_everybody_may_read_says_so():
    found = admin.ledger(folder("/ledger", 981, 981, 0o755), OWN, {"alpha": int(NOW)}, NOW, SERVICE)
    assert (found.ok, "readable by everybody" in found.detail) == (True, True)


SACCT = """#!/bin/sh
case "$1" in --helpformat) echo JobID JobIDRaw Cluster User Account State Start End ElapsedRaw AllocTRES NCPUS NNodes;; esac
"""


def test_a_quiet_cluster_s_ledger_is_as_young_as_the_last_good_run(tmp_path, monkeypatch):
    from helpers import aggregate_file, row, save

    from slurm_energy.cli import main

    ledger, config = tmp_path / "ledger", tmp_path / "config.toml"
    config.write_text('[site]\ntimezone = "UTC"\n[slurm]\nenergy_plugin = "none"\n')
    before = int(time.time()) - 20 * 86400
    aggregate_file(save(tmp_path / "jobs.txt", [row(Start=before)]), ledger)
    put(tmp_path, "bin/sacct", SACCT, 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def judged():
        until = Ledger(ledger).read_state()
        return admin.ledger(OWN, OWN, until, time.time(), SERVICE)

    Ledger(ledger).write_state({"local": int(time.time()) - 40 * 3600})
    assert judged().ok is False
    assert main(["aggregate", "--quiet", "--config", str(config), "--ledger", str(ledger)]) == 0
    assert max(file.day for file in Ledger(ledger).days()).toordinal() < time.time() // 86400 + 719163 - 18
    assert (judged().ok, "last good run 0 h ago" in judged().detail) == (True, True)
    put(tmp_path, "bin/sacct", "#!/bin/sh\nexit 1\n", 0o755)
    state = Ledger(ledger).read_state()
    assert main(["aggregate", "--quiet", "--config", str(config), "--ledger", str(ledger)]) == 2
    assert Ledger(ledger).read_state() == state  # a run that failed makes it no younger


@pytest.mark.parametrize(
    ("place", "ok"), [(folder("/i", 981, 981, 0o2750), True), (folder("/i", 0, 981), False), (AWAY, None)]
)
def test_the_inbox_as_the_admin_node_sees_it(place, ok):
    assert admin.inbox_of_admin(place, 3, 120.0, SERVICE).ok is ok


GOOD = Unit("t", "loaded", "active", "enabled", "success")


@pytest.mark.parametrize(
    ("seen", "run", "cron", "ok"),
    [
        (GOOD, GOOD, [], True),
        (GOOD, Unit("s", "loaded", "failed", "static", "exit-code", 1), [], True),  # rows set aside have their own line
        (GOOD, Unit("s", "loaded", "inactive", "static", "success", 1), [], True),
        (GOOD, Unit("s", "loaded", "inactive", "static"), [], True),  # it never ran
        (GOOD, Unit("s", "loaded", "failed", "static", "exit-code", 2), [], False),
        (GOOD, Unit("s", "loaded", "failed", "static", "exit-code", 70), [], False),
        (GOOD, Unit("s", "loaded", "inactive", "static", "success", 70), [], False),  # a drop-in that calls it success
        (GOOD, Unit("s", "loaded", "failed", "static", "exit-code", 0), [], False),  # ExecStartPre
        (GOOD, Unit("s", "loaded", "failed", "static", "signal", 1), [], False),
        (GOOD, Unit("s", "loaded", "failed", "static", "timeout", 0), [], False),
        (GOOD, Unit("s", "loaded", "failed", "static", "oom-kill", 9), [], False),
        (Unit("t", "loaded", "inactive", "disabled"), GOOD, [], False),
        (Unit("t", "not-found"), None, ["/etc/cron.d/slurm-energy"], True),
        (Unit("t", "not-found"), None, [], False),
        (None, None, ["/etc/cron.d/slurm-energy"], True),
        (None, None, [], None),
    ],
)
def test_the_timer(seen, run, cron, ok):
    assert admin.timer(seen, run, cron).ok is ok


def test_rows_set_aside():
    assert admin.set_aside(5, 0, "/l/set-aside").ok is True
    found = admin.set_aside(5, 2, "/l/set-aside")
    assert (found.ok, "2 in the last 7 days, 5 in all" in found.detail) == (False, True)


# Login nodes


def test_the_ledger_as_people_see_it():
    assert login.readable_ledger(OWN, ["2026-11-23", "2026-11-24"], "", "alice").ok
    assert "usermod -aG slurm-energy" in login.readable_ledger(OWN, [], "/ledger: permission denied", "alice").remedy
    assert not login.readable_ledger(AWAY, [], "", "alice").ok
    assert not login.readable_ledger(OWN, [], "", "alice").ok


def test_what_reports_need():
    assert login.modules([]).ok
    assert "[admin]" in login.modules(["duckdb"]).remedy


# Looking


class Shown(Machine):
    """Another machine: files in a folder, commands that answer as told."""

    def __init__(self, root: Path, answers: dict[str, str] | None = None) -> None:
        super().__init__(root, {"PATH": "/usr/bin:/bin"})
        self.answers = answers or {}

    def ask(self, command, user=None):
        key = " ".join([*command, *([f"as {user.name}"] if user else [])])
        for name, said in self.answers.items():
            if key.startswith(name):
                return 0, said, ""
        return -1, "", f"{command[0]} is not on the PATH"

    def person(self, name):
        me = os.geteuid()
        return Person(name, me, (os.getegid(),))

    def listens(self, address):
        return False


def put(root: Path, name: str, text: str = "", mode: int = 0o644) -> Path:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


CONF = """\
Configuration data as of 2026-11-24T12:00:00
Epilog[0]               = /etc/slurm/epilog.d/*
Prolog                  = /etc/slurm/site.sh:/etc/slurm/prolog.d/*
PrologFlags             = Alloc,Contain
TaskProlog              = (null)
"""


def test_slurm_conf_is_read_as_every_version_of_slurm_shows_it(tmp_path):
    machine = Shown(tmp_path, {"scontrol show config": CONF})
    put(tmp_path, "/etc/slurm/prolog.d/50-slurm-energy", "", 0o755)
    put(tmp_path, "/etc/slurm/site.sh", "#!/bin/sh\n/opt/50-slurm-energy\n", 0o755)
    put(tmp_path, "/etc/slurm/epilog.d/50-slurm-energy", "", 0o644)
    conf = machine.slurm_conf()
    assert machine.hooks("Prolog", conf).here == ("/etc/slurm/site.sh", "/etc/slurm/prolog.d/50-slurm-energy")
    assert machine.hooks("Epilog", conf) == Hooks(
        ("/etc/slurm/epilog.d/*",), (), ("/etc/slurm/epilog.d/50-slurm-energy",)
    )
    assert conf["PrologFlags"] == ["Alloc,Contain"]
    assert Shown(tmp_path).hooks("Prolog", None) is None


@pytest.mark.parametrize(
    ("files", "roles"),
    [
        ([], []),
        (["/etc/systemd/system/slurm-energy-agent.service"], ["compute"]),
        (["/etc/slurm/prolog.d/50-slurm-energy"], ["compute"]),
        (["/etc/systemd/system/slurm-energy-aggregate.timer"], ["admin"]),
        (
            ["/etc/systemd/system/slurm-energy-aggregate.timer", "/etc/slurm/epilog.d/50-slurm-energy"],
            ["compute", "admin"],
        ),
    ],
)
def test_a_role_is_guessed_by_what_is_installed(tmp_path, files, roles):
    for name in files:
        put(tmp_path, name)
    assert Shown(tmp_path).roles(Config(), None) == roles


def test_a_machine_with_a_ledger_configured_and_nothing_else_is_a_login_node(tmp_path):
    config = parse_config(b'[site]\nledger = "/shared/ledger"\n', "c")
    assert Shown(tmp_path).roles(config, Path("/etc/slurm-energy/config.toml")) == ["login"]
    put(tmp_path, "/etc/cron.d/slurm-energy", "30 2 * * * slurm-energy /usr/local/bin/senergy aggregate --quiet\n")
    assert Shown(tmp_path).roles(config, Path("/etc/slurm-energy/config.toml")) == ["admin"]
    put(tmp_path, "/etc/cron.d/slurm-energy", "# senergy aggregate was here\n")
    assert Shown(tmp_path).cron() == []


def test_the_inbox_is_what_the_shipper_s_unit_says_last(tmp_path):
    machine, options = Shown(tmp_path), AgentOptions()
    assert machine.inbox_of_node(options, Config()) == ""
    put(tmp_path, "/etc/systemd/system/slurm-energy-ship.service", "Environment=SENERGY_INBOX=/srv/a\n")
    assert machine.inbox_of_node(options, Config()) == "/srv/a"
    put(tmp_path, "/etc/systemd/system/slurm-energy-ship.service.d/site.conf", 'Environment="SENERGY_INBOX=/srv/b"\n')
    assert machine.inbox_of_node(options, Config()) == "/srv/b"
    assert machine.inbox_of_node(AgentOptions(ship_to="/srv/c"), Config()) == "/srv/c"


def test_a_compute_node_that_is_well(tmp_path):
    me = os.geteuid()
    for name, mode in (("/run/slurm-energy/hooks", 0o700), ("/var/lib/slurm-energy/outbox", 0o770),
                       ("/var/lib/slurm-energy/agent", 0o700), ("/srv/inbox", 0o2750)):  # fmt: skip
        path = tmp_path / name.lstrip("/")
        path.mkdir(parents=True)
        path.chmod(mode)
    for kind in ("prolog", "epilog"):
        put(tmp_path, f"/etc/slurm/{kind}.d/50-slurm-energy", "", 0o755)
    put(tmp_path, "/etc/systemd/system/slurm-energy-ship.service", "Environment=SENERGY_INBOX=/srv/inbox\n")
    machine = Shown(tmp_path, {"scontrol show config": CONF})
    with answering(tmp_path / "run/slurm-energy/agent.sock"):
        found = roles.compute(machine, AgentOptions(), Config())
    wrong = [one for one in found if one.ok is False and (me == 0 or one.what != "hook folder")]
    assert wrong == [], wrong
    assert {one.what for one in found} >= {"agent", "hook folder", "Prolog", "Epilog", "PrologFlags", "outbox", "inbox"}


def answering(path: Path):
    """An agent's socket that answers with a snapshot."""
    import contextlib

    import msgspec

    from slurm_energy.agent.snapshot import CounterView, JobView, Snapshot
    from slurm_energy.version import __version__

    nothing = dict.fromkeys(("package", "dram", "gpu", "other"), 0.0)
    idle = JobView(0, 0, None, 0, "", -1, "", "", "idle", 0, [], 0.0, {**nothing, "package": 55.0}, nothing)
    shown = Snapshot(
        version=__version__, cluster="alpha", node="n1", boot_id="b", wall_ns=time.time_ns(), hour="", started_ns=0,
        ticks=1, period_s=1.0, counters=[CounterView("rapl:package-0", "package", "", "", False, 55.0, 1.0, 0, "")],
        refused=[], jobs=[], idle=idle, outbox_fill=0.0, pending_segments=0, bad_hook_files=0, set_aside=0,
        clock_jumps=0, problems=[],
    )  # fmt: skip

    @contextlib.contextmanager
    def serve():
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(str(path))
            door.listen()

            def answer():
                with contextlib.suppress(OSError):
                    client, _ = door.accept()
                    client.sendall(msgspec.json.encode(shown))
                    client.close()

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            yield
            thread.join(5)

    return serve()


def test_an_admin_node_that_is_well_and_one_with_rows_set_aside(tmp_path):
    ledger = tmp_path / "ledger"
    put(ledger, "state.json", json.dumps({"alpha": int(time.time()) - 600}))
    (tmp_path / "inbox/alpha/n1").mkdir(parents=True)
    put(tmp_path, "inbox/alpha/n1/a.jsonl", "{}\n")
    put(tmp_path, "/etc/cron.d/slurm-energy", "30 2 * * * slurm-energy senergy aggregate --quiet\n")
    machine = Shown(tmp_path, {"sacct": "alice\nbob\nalice\n"})
    found = {one.what: one for one in roles.admin(machine, Config(), Path("/ledger"))}
    assert {name for name, one in found.items() if one.ok is False} == set()
    assert found["sacct"].ok
    assert "1 nodes" in found["inbox"].detail
    put(ledger, "set-aside/0123.jsonl", "{}\n{}\n")
    old = put(ledger, "set-aside/4567.jsonl", "{}\n")
    os.utime(old, (1, 1))
    found = {one.what: one for one in roles.admin(machine, Config(), Path("/ledger"))}
    assert "2 in the last 7 days, 3 in all" in found["rows set aside"].detail


def test_a_command_that_is_not_there_or_hangs_is_said(monkeypatch):
    machine = Machine()
    assert machine.ask(["no-such-command-here"])[2] == "no-such-command-here is not on the PATH"
    monkeypatch.setattr(looking, "_PATIENCE_S", 0.2)
    assert "does not answer" in machine.ask(["sleep", "5"])[2]


# The command


@pytest.fixture
def run(monkeypatch, tmp_path):
    from slurm_energy.cli.doctor import doctor
    from slurm_energy.sources import ipmi, nvml
    from slurm_energy.sources.base import Found

    monkeypatch.setattr(nvml, "find", lambda options, library=None: Found([], []))
    monkeypatch.setattr(ipmi, "find", lambda options: Found([], []))
    monkeypatch.setenv("SENERGY_LEDGER", str(tmp_path / "ledger"))
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(doctor)
    return lambda *arguments: CliRunner().invoke(app, [*arguments])


def test_each_finding_says_what_to_do_and_ends_with_1(run, tmp_path):
    result = run("--role", "login", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["roles"] == ["login"]
    assert (report["sources"], report["refused"]) == ([], [])  # a login node's power is nobody's question
    assert [set(one) for one in report["findings"]] == [{"role", "what", "ok", "detail", "remedy"}] * 2
    assert all(one["remedy"] for one in report["findings"] if one["ok"] is False)
    text = run("--role", "login")
    assert text.exit_code == 1
    assert "FIX" in text.output
    assert "To do" in text.output


def test_a_login_node_that_is_well_ends_with_0(run, tmp_path):
    put(tmp_path, "ledger/days/cluster=alpha/2026-11-24.parquet")
    result = run("--role", "login")
    assert result.exit_code == 0, result.output
    assert "1 days up to 2026-11-24" in result.output


def test_several_roles_may_be_asked_for_and_no_other(run, tmp_path):
    from sim.sysfs import SimNode

    SimNode(tmp_path / "sys")
    report = json.loads(
        run("--role", "compute,login", "--json", "--seconds", "0", "--sysfs-root", str(tmp_path / "sys")).stdout
    )
    assert {one["role"] for one in report["findings"]} == {"compute", "login"}
    assert report["counters"]
    wrong = run("--role", "boss")
    assert wrong.exit_code == 2
    assert "compute, admin, login" in wrong.output


def test_where_nothing_is_installed_only_the_sources_are_shown(run, tmp_path, monkeypatch):
    from sim.sysfs import SimNode

    monkeypatch.setattr(Machine, "roles", lambda self, config, file: [])
    SimNode(tmp_path / "sys")
    result = run("--seconds", "0", "--sysfs-root", str(tmp_path / "sys"))
    assert result.exit_code == 0, result.output
    assert "--role says what this machine is to be" in result.output


@pytest.mark.parametrize(
    ("profile", "given", "ok", "words"),
    [
        ("site", [], None, "PUE, carbon intensity, electricity price"),
        ("site", ["pue", "country"], None, "electricity price"),
        ("site", ["pue", "egrid", "electricity_usd_per_kwh", "gpu_w"], True, "profile site"),
        ("strubell2019", [], True, "profile strubell2019"),
    ],
)
def test_packaged_factors_are_not_taken_for_the_site_s_own(profile, given, ok, words):
    found = admin.factors(profile, given)
    assert found.ok is ok
    assert words in found.detail
