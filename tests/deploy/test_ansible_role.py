"""The Ansible role on a bare Debian: everything there after the first run, nothing changed by the second, gone at last."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ansible_run
import bare_root
import pytest
from ansible_run import DEPLOY, source
from common.required import unavailable
from common.waiting import until

UNITS = (
    "slurm-energy-agent.service", "slurm-energy-ship.service", "slurm-energy-node-exporter.service",
    "slurm-energy-ledger-exporter.service", "slurm-energy-aggregate.service", "slurm-energy-aggregate.timer",
)  # fmt: skip
COMMANDS = ("senergy", "senergy-node-exporter", "senergy-ledger-exporter")
WEB = "basic_auth_users:\n  prometheus: $2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay\n"
VARIABLES = {
    "slurm_energy_roles": ["compute", "admin"],
    "slurm_energy_inbox": "/srv/slurm-energy/inbox",
    "slurm_energy_uid": 981,
    "slurm_energy_gid": 981,
    "slurm_energy_readers": ["emma"],
    "slurm_energy_site": {"cluster": "alpha", "timezone": "Europe/Berlin"},
    "slurm_energy_factors": {"pue": 1.21, "country": "DE", "gpu_w": {"a100": 400.0}},
    "slurm_energy_agent": {"node": "n1", "sources": {"off": ["ipmi"]}},
    "slurm_energy_node_exporter_options": ["--web.listen-address=:9854"],
    "slurm_energy_web_config": WEB,
    "slurm_energy_on_calendar": "03:30",
    "slurm_energy_config_extra": '[[projects]]\naccount = "nlp"\nproject = "lisa – größer"\n',
}
PLAYBOOK = """\
- hosts: all
  gather_subset: [min]
  roles: [slurm_energy]
"""


class Node(NamedTuple):
    """A bare Debian and the folder that Ansible runs in."""

    root: Path
    folder: Path

    def play(self, *options: str, **variables: Any) -> dict[str, int]:
        """A run of the role; what Ansible counted."""
        (self.folder / "site.yml").write_text(PLAYBOOK)
        hosts = {"all": {"hosts": {"bare": {"entered_by": bare_root.inside(self.root, []), "ansible_connection": "entered",
                                            "ansible_python_interpreter": "/usr/bin/python3"}}}}  # fmt: skip
        given = {"slurm_energy_source": str(self.folder / "source"), **VARIABLES, **variables}
        played = ansible_run.play(self.folder, self.folder / "site.yml", hosts, given, options)
        (self.folder / "last.log").write_text(played.said)
        return played.counts["bare"]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command in the root."""
        done = subprocess.run(
            bare_root.inside(self.root, command), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def stat(self, path: str) -> str:
        """Owner, group and mode."""
        return self.run("stat", "-c", "%U %G %a", path).stdout.strip()

    def there(self, paths: Sequence[str]) -> list[str]:
        """Those of the paths that are there."""
        return [path for path in paths if os.path.lexists(self.root / path.lstrip("/"))]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A bare Debian, with two people in it, that the role has been run on."""
    try:
        with bare_root.copied() as root:
            made = Node(root, tmp_path_factory.mktemp("ansible"))
            source(made.folder / "source")
            for name in ("emma", "bob"):
                made.run("useradd", "-m", name)
            made.run("install", "-d", "-m", "0755", "/srv/slurm-energy")
            assert made.play("--check")["changed"] > 10
            assert made.there(["/etc/slurm-energy", "/opt/slurm-energy", "/usr/local/bin/senergy"]) == []
            assert made.play()["changed"] > 10
            yield made
    except bare_root.NoRoot as reason:
        unavailable(str(reason))


def test_the_second_run_changes_nothing(node: Node) -> None:
    counts = node.play()
    assert (counts["changed"], counts["failed"], counts["unreachable"]) == (0, 0, 0)


def test_everything_is_there_with_its_owner_and_mode(node: Node) -> None:
    expected = {
        "/etc/slurm-energy": "root root 755",
        "/etc/slurm-energy/config.toml": "root root 644",
        "/etc/slurm/prolog.d/50-slurm-energy": "root root 755",
        "/etc/slurm/epilog.d/50-slurm-energy": "root root 755",
        "/var/lib/slurm-energy": "root slurm-energy 750",
        "/var/lib/slurm-energy/outbox": "root slurm-energy 770",
        "/var/lib/slurm-energy/ledger": "slurm-energy slurm-energy 750",
        "/srv/slurm-energy/inbox": "slurm-energy slurm-energy 2750",
        **{f"/etc/systemd/system/{unit}": "root root 644" for unit in UNITS},
        "/etc/systemd/system/slurm-energy-ship.service.d/site.conf": "root root 644",
    }
    assert {path: node.stat(path) for path in expected} == expected
    assert {str((node.root / "usr/local/bin" / name).readlink()) for name in COMMANDS} == {
        f"/opt/slurm-energy/bin/{name}" for name in COMMANDS
    }
    assert node.run("id", "-u", "slurm-energy").stdout == node.run("id", "-g", "slurm-energy").stdout == "981\n"
    assert "slurm-energy" in node.run("id", "-nG", "emma").stdout.split()
    assert "slurm-energy" not in node.run("id", "-nG", "bob").stdout.split()


def test_units_and_hooks_are_those_of_the_source(node: Node) -> None:
    for unit in UNITS:
        assert (node.root / "etc/systemd/system" / unit).read_bytes() == (DEPLOY / "systemd" / unit).read_bytes()
    for kind in ("prolog", "epilog"):
        ours = DEPLOY / f"slurm/{kind}.d/50-slurm-energy"
        assert (node.root / f"etc/slurm/{kind}.d/50-slurm-energy").read_bytes() == ours.read_bytes()


def lines(node: Node, unit: str) -> list[str]:
    """What the site's drop-in of a unit sets."""
    text = (node.root / f"etc/systemd/system/{unit}.d/site.conf").read_text()
    return [line for line in text.splitlines() if line and line[0] not in "[#"]


def test_drop_ins_say_what_differs_at_this_site(node: Node) -> None:
    inbox, ledger = "/srv/slurm-energy/inbox", "/var/lib/slurm-energy/ledger"
    web = "--web.config.file=/etc/slurm-energy/web.yml"
    assert lines(node, "slurm-energy-ship.service") == [
        f"RequiresMountsFor={inbox}", f"Environment=SENERGY_INBOX={inbox}", "Environment=SENERGY_NODE=n1",
        f"ReadWritePaths=-{inbox}",
    ]  # fmt: skip
    # Agent and ledger on one machine: neither unit may take the other's folders for its own.
    assert lines(node, "slurm-energy-agent.service") == ["StateDirectory=", "StateDirectory=slurm-energy/agent"]
    assert lines(node, "slurm-energy-aggregate.service") == [
        f"RequiresMountsFor={inbox} {ledger}", f"Environment=SENERGY_LEDGER={ledger}",
        f"ReadWritePaths=-{inbox} -{ledger}", "StateDirectory=", "StateDirectory=slurm-energy/ledger",
    ]  # fmt: skip
    assert lines(node, "slurm-energy-aggregate.timer") == ["OnCalendar=", "OnCalendar=03:30"]
    assert lines(node, "slurm-energy-node-exporter.service") == [
        f'Environment="OPTIONS=--web.listen-address=:9854 {web}"'
    ]  # fmt: skip
    assert lines(node, "slurm-energy-ledger-exporter.service") == [f'Environment="OPTIONS={web}"']
    assert node.stat("/etc/slurm-energy/web.yml") == "root slurm-energy 640"
    assert (node.root / "etc/slurm-energy/web.yml").read_text() == WEB


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units_with_their_drop_ins(node: Node, tmp_path: Path) -> None:
    shutil.copytree(node.root / "etc/systemd/system", tmp_path / "units", symlinks=True)
    for unit in (tmp_path / "units").glob("slurm-energy-*.service"):
        unit.write_text(re.sub("/usr/local/bin/[a-z-]+", "/bin/true", unit.read_text()))
    done = subprocess.run(
        ["systemd-analyze", "verify", *UNITS], capture_output=True, text=True, check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path / 'units'}:"},
    )  # fmt: skip
    assert [line for line in done.stderr.splitlines() if "slurm-energy" in line] == []


@pytest.mark.parametrize(("role", "units"), [("compute", {"agent", "ship", "node-exporter"}), ("login", set())])
def test_a_host_of_one_role_gets_what_belongs_to_it(node: Node, role: str, units: set[str]) -> None:
    node.play("--check", slurm_energy_roles=[role])
    said = (node.folder / "last.log").read_text()
    done = "\n".join(re.findall(r"^(?:ok|changed): .*", said, re.MULTILINE))  # without what was skipped
    assert set(re.findall(r"slurm-energy-([a-z-]+)\.service", done)) == units
    assert ("/etc/slurm/prolog.d" in done) == (role == "compute")
    assert f"{'[node,exporter]' if role == 'compute' else '[admin]'} in place of" in said


def test_what_was_installed_works(node: Node) -> None:
    assert "lisa" in node.run("senergy", "demo").stdout
    for command in COMMANDS[1:]:
        assert "usage" in node.run(command, "--help").stdout.lower()
    said = node.run("senergy", "report", check=False)
    assert said.returncode == 2
    assert "/var/lib/slurm-energy/ledger" in said.stderr


def test_the_configuration_says_what_the_variables_say(node: Node) -> None:
    from slurm_energy.config import load_config, profile_of

    config, _ = load_config(node.root / "etc/slurm-energy/config.toml")
    assert (config.site.cluster, config.site.timezone) == ("alpha", "Europe/Berlin")
    assert config.site.inbox == "/srv/slurm-energy/inbox"
    assert config.projects[0].project == "lisa – größer"
    assert profile_of(config).pue == 1.21
    assert config.agent == {
        "node": "n1", "cluster": "alpha", "group": "slurm-energy", "sources": {"off": ["ipmi"]},
    }  # fmt: skip


def doctor(node: Node) -> tuple[int, dict[tuple[str, str], dict[str, Any]]]:
    done = node.run("senergy", "doctor", "--json", "--seconds", "0", check=False)
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, {(finding["role"], finding["what"]): finding for finding in findings}


def test_the_doctor_says_what_is_missing_and_is_content_with_what_the_role_did(node: Node) -> None:
    code, before = doctor(node)
    assert code == 1
    assert {role for role, _ in before} == {"compute", "admin"}
    agent = before["compute", "agent"]
    assert not agent["ok"]
    assert "systemctl enable --now slurm-energy-agent" in agent["remedy"]
    assert before["compute", "inbox"]["ok"]
    assert before["compute", "outbox"]["ok"]
    assert before["admin", "ledger"]["ok"] is False  # nothing was aggregated yet
    assert "senergy aggregate" in before["admin", "ledger"]["remedy"]
    assert before["admin", "inbox"]["ok"]
    # Without systemd here, what its units do first is done by hand.
    node.run("install", "-d", "-m", "0750", "-g", "slurm-energy", "/run/slurm-energy")
    agent_process = subprocess.Popen(
        bare_root.inside(node.root, ["setpriv", "--regid", "slurm-energy", "--clear-groups", "senergy", "agent"]),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until("the doctor to find the agent", lambda: doctor(node)[1]["compute", "agent"]["ok"], 20)
        after = doctor(node)[1]
        assert after["compute", "hook folder"]["ok"], after["compute", "hook folder"]
        assert node.stat("/run/slurm-energy/agent.sock") == "root slurm-energy 660"
        as_emma = node.run("setpriv", "--reuid", "emma", "--init-groups", "--regid", "emma", "senergy", "top", "--once")
        assert "n1" in as_emma.stdout
        as_bob = node.run(
            "setpriv", "--reuid", "bob", "--init-groups", "--regid", "bob", "senergy", "top", "--once", check=False
        )
        assert as_bob.returncode == 1
    finally:
        agent_process.terminate()
        agent_process.wait(20)


def test_another_source_of_the_same_version_is_installed_and_other_settings_are_written(node: Node) -> None:
    pack = source(node.folder / "other")
    with (pack / "slurm_energy/version.py").open("a") as file:
        file.write("# another build\n")
    changed = {"slurm_energy_source": str(pack), "slurm_energy_factors": {"pue": 1.4}}
    assert node.play(**changed)["changed"] > 0
    installed = next((node.root / "opt/slurm-energy/lib").glob("python3*/site-packages/slurm_energy/version.py"))
    assert installed.read_text().endswith("# another build\n")
    assert "pue = 1.4" in (node.root / "etc/slurm-energy/config.toml").read_text()


def test_a_wrong_setting_is_refused_before_it_is_in_place(node: Node) -> None:
    before = (node.root / "etc/slurm-energy/config.toml").read_bytes()
    with pytest.raises(AssertionError, match="no such key"):  # in the words of the program itself
        node.play(slurm_energy_site={"timezon": "UTC"})
    assert (node.root / "etc/slurm-energy/config.toml").read_bytes() == before


def test_absent_takes_all_out_but_the_state_and_with_purge_that_too(node: Node) -> None:
    keep = node.root / "var/lib/slurm-energy/ledger/days"
    keep.mkdir()
    program = [
        *(f"/etc/systemd/system/{unit}" for unit in UNITS), *(f"/etc/systemd/system/{unit}.d" for unit in UNITS),
        "/etc/slurm/prolog.d/50-slurm-energy", "/etc/slurm/epilog.d/50-slurm-energy", "/opt/slurm-energy",
        "/etc/slurm-energy", "/run/slurm-energy", *(f"/usr/local/bin/{name}" for name in COMMANDS),
    ]  # fmt: skip
    assert node.play(slurm_energy_state="absent")["changed"] > 0
    assert node.there(program) == []
    assert keep.is_dir()
    assert node.run("id", "slurm-energy").returncode == 0
    assert node.play(slurm_energy_state="absent", slurm_energy_purge=True)["changed"] > 0
    assert node.there([*program, "/var/lib/slurm-energy", "/srv/slurm-energy/inbox"]) == []
    assert node.run("id", "slurm-energy", check=False).returncode != 0
    assert node.play(slurm_energy_state="absent", slurm_energy_purge=True)["changed"] == 0
