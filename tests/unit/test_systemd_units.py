"""The systemd units, every one of them: accepted by systemd, with no more power than their README says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from slurm_energy.cli.app import app

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
README = (UNITS / "README.md").read_text(encoding="utf-8")
AGENT, SHIP, NODE, LEDGER, AGGREGATE, SD = (
    f"slurm-energy-{name}.service" for name in ("agent", "ship", "node-exporter", "ledger-exporter", "aggregate", "sd")
)
SERVICES = (AGENT, SHIP, NODE, LEDGER, AGGREGATE, SD)
TIMERS = ("slurm-energy-aggregate.timer", "slurm-energy-sd.timer")
DAEMONS = (AGENT, SHIP, NODE, LEDGER)
ON_NODES = (AGENT, SHIP, NODE)
WITHOUT_NETWORK = (AGENT, SHIP)
EXPOSURE = {AGENT: 1.4, SHIP: 0.6, NODE: 1.5, LEDGER: 1.5, AGGREGATE: 1.5, SD: 1.5}
"""At most so exposed, of 10, in systemd's own judgement."""
SANDBOX = {
    "CapabilityBoundingSet": "", "AmbientCapabilities": "", "NoNewPrivileges": "yes", "ProtectSystem": "strict",
    "ProtectHome": "yes", "PrivateTmp": "yes", "DevicePolicy": "closed", "ProtectKernelTunables": "yes",
    "ProtectKernelModules": "yes", "ProtectKernelLogs": "yes", "ProtectControlGroups": "yes", "ProtectClock": "yes",
    "ProtectHostname": "yes", "LockPersonality": "yes", "RestrictNamespaces": "yes", "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes", "SystemCallArchitectures": "native",
}  # fmt: skip
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def setting(name: str, key: str) -> list[str]:
    """The values of a key, comments aside."""
    return re.findall(rf"(?m)^{key}=(.*)$", (UNITS / name).read_text())


def test_no_unit_is_left_out_here_nor_in_the_readme() -> None:
    assert {path.name for path in UNITS.iterdir()} == {*SERVICES, *TIMERS, "README.md"}
    table = README.partition("## Install")[0]
    installed = re.findall(r"(?m)^install -m 0644 (.*) /etc/systemd/system/$", README)
    assert {name for line in installed for name in line.split()} == {*SERVICES, *TIMERS}
    out = README.partition("## Take it out")[2]
    for name in SERVICES:
        assert f"`{name}`" in table
        assert name.removesuffix(".service").removeprefix("slurm-energy-") in out
    for name in TIMERS:
        assert f"`{name.removesuffix('timer')}service`, `.timer`" in table
        assert name in out


@needs_systemd
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for name in (*SERVICES, *TIMERS):
        # The commands need not be installed where the tests run.
        text = re.sub(r"/usr/local/bin/senergy[a-z-]*", "/bin/true", (UNITS / name).read_text())
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *(tmp_path / name for name in (*SERVICES, *TIMERS))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "slurm-energy" in line]
    assert (done.returncode, ours) == (0, [])


@needs_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_systemd_calls_the_units_hardened(name: str) -> None:
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", UNITS / name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a file")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE[name]


@needs_systemd
@pytest.mark.parametrize("name", TIMERS)
def test_a_timer_has_a_next_time_and_its_service(name: str) -> None:
    assert (UNITS / name.replace(".timer", ".service")).exists()
    (when,) = setting(name, "OnCalendar")
    done = subprocess.run(["systemd-analyze", "calendar", when], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Next elapse:" in done.stdout
    assert setting(name, "WantedBy") == ["timers.target"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_unit_has_a_capability_or_more_of_the_machine_than_it_needs(name: str) -> None:
    assert {key: setting(name, key) for key in SANDBOX} == {key: [value] for key, value in SANDBOX.items()}
    assert setting(name, "SystemCallFilter") == ["@system-service", "~@privileged @resources"]
    assert (setting(name, "PrivateDevices") == ["yes"]) is (name != AGENT)


@pytest.mark.parametrize("name", SERVICES)
def test_only_who_talks_to_slurm_or_prometheus_has_a_network(name: str) -> None:
    families = setting(name, "RestrictAddressFamilies")[0].split()
    if name in WITHOUT_NETWORK:
        assert setting(name, "PrivateNetwork") == ["yes"]
        assert families == ["AF_UNIX"]
    else:
        assert set(families) == {"AF_UNIX", "AF_INET", "AF_INET6"}


@pytest.mark.parametrize("name", SERVICES)
def test_only_the_agent_is_root_and_all_share_a_group(name: str) -> None:
    assert setting(name, "User") == ["root" if name == AGENT else "slurm-energy"]
    assert setting(name, "Group") == ["slurm-energy"]


@pytest.mark.parametrize("name", SERVICES)
def test_it_starts_a_command_that_there_is_with_options_that_it_takes(name: str) -> None:
    (line,) = setting(name, "ExecStart")
    program, *words = line.split()
    assert program in (
        "/usr/local/bin/senergy",
        "/usr/local/bin/senergy-node-exporter",
        "/usr/local/bin/senergy-ledger-exporter",
    )
    if program == "/usr/local/bin/senergy" and words[0] not in ("agent", "ship"):
        command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
        command.make_context(words[0], [word for word in words[1:] if word != "$OPTIONS"]).close()
    if "$OPTIONS" in words:
        assert "OPTIONS=" in setting(name, "Environment")


@pytest.mark.parametrize("name", DAEMONS)
def test_whatever_happens_it_is_started_again(name: str) -> None:
    assert setting(name, "Restart") == ["always"]
    assert setting(name, "StartLimitIntervalSec") == ["0"]


@pytest.mark.parametrize("name", SERVICES)
def test_it_stays_behind_the_work_of_the_machine(name: str) -> None:
    assert int(setting(name, "Nice")[0]) > 0
    assert int(setting(name, "CPUWeight")[0]) < 100
    if name in ON_NODES:
        assert int(setting(name, "MemoryMax")[0].removesuffix("M")) <= 128


@pytest.mark.parametrize("name", [AGGREGATE, SD])
def test_what_a_timer_starts_ends_and_fails_in_its_own_words(name: str) -> None:
    assert setting(name, "Type") == ["oneshot"]
    assert setting(name, "TimeoutStartSec")
    assert setting(name, "Restart") == []
    # 1 is the aggregation's word for rows set aside. A fault ends with 70, which has to fail the unit.
    assert setting(name, "SuccessExitStatus") == (["1"] if name == AGGREGATE else [])


def test_prometheus_may_read_the_list_of_nodes_and_nothing_else_of_ours() -> None:
    assert setting(SD, "StateDirectory") == ["slurm-energy-sd"]
    assert setting(SD, "StateDirectoryMode") == ["0755"]
    assert "--output /var/lib/slurm-energy-sd/nodes.json" in setting(SD, "ExecStart")[0]
    assert setting(SD, "ReadWritePaths") == []
    assert setting("slurm-energy-sd.timer", "OnCalendar") == ["*:0/5"]
    assert "/var/lib/slurm-energy-sd/nodes*.json" in README


def test_hooks_survive_a_restart_of_the_agent_in_a_folder_of_root_alone() -> None:
    assert setting(AGENT, "RuntimeDirectoryPreserve") == ["yes"]
    assert "/usr/bin/install -d -m 0700 /run/slurm-energy/hooks" in setting(AGENT, "ExecStartPre")


def test_the_shipper_outlives_the_agent_and_not_the_shared_filesystems() -> None:
    assert setting(SHIP, "Before") == [AGENT]
    assert setting(SHIP, "After") == ["remote-fs.target"]
