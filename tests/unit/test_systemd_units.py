"""The systemd units: accepted by systemd, with no more power than their README says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
NAMES = ("slurm-energy-agent.service", "slurm-energy-ship.service")
EXPOSURE = {"slurm-energy-agent.service": 1.5, "slurm-energy-ship.service": 0.8}
"""At most so exposed, of 10, in systemd's own judgement."""
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def setting(name: str, key: str) -> list[str]:
    """The values of a key, comments aside."""
    return re.findall(rf"(?m)^{key}=(.*)$", (UNITS / name).read_text())


@needs_systemd
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for name in NAMES:
        # The command need not be installed where the tests run.
        text = (UNITS / name).read_text().replace("/usr/local/bin/senergy", "/bin/true")
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *(tmp_path / name for name in NAMES)], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "slurm-energy" in line]
    assert (done.returncode, ours) == (0, [])


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_systemd_calls_the_units_hardened(name: str) -> None:
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", UNITS / name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a file")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE[name]


@pytest.mark.parametrize("name", NAMES)
def test_no_unit_has_a_capability_or_a_network(name: str) -> None:
    assert setting(name, "CapabilityBoundingSet") == [""]
    assert setting(name, "AmbientCapabilities") == [""]
    assert setting(name, "NoNewPrivileges") == ["yes"]
    assert setting(name, "PrivateNetwork") == ["yes"]
    assert setting(name, "RestrictAddressFamilies") == ["AF_UNIX"]
    assert setting(name, "ProtectSystem") == ["strict"]


@pytest.mark.parametrize("name", NAMES)
def test_whatever_happens_it_is_started_again_and_stays_small(name: str) -> None:
    assert setting(name, "Restart") == ["always"]
    assert setting(name, "StartLimitIntervalSec") == ["0"]
    assert int(setting(name, "MemoryMax")[0].removesuffix("M")) <= 128
    assert int(setting(name, "Nice")[0]) > 0


def test_only_the_agent_is_root_and_both_share_a_group() -> None:
    agent, ship = NAMES
    assert [setting(name, "User") for name in NAMES] == [["root"], ["slurm-energy"]]
    assert setting(agent, "Group") == setting(ship, "Group") == ["slurm-energy"]


def test_hooks_survive_a_restart_of_the_agent_in_a_folder_of_root_alone() -> None:
    (agent, _) = NAMES
    assert setting(agent, "RuntimeDirectoryPreserve") == ["yes"]
    assert "/usr/bin/install -d -m 0700 /run/slurm-energy/hooks" in setting(agent, "ExecStartPre")


def test_the_shipper_outlives_the_agent_and_not_the_shared_filesystems() -> None:
    (_, ship) = NAMES
    assert setting(ship, "Before") == ["slurm-energy-agent.service"]
    assert setting(ship, "After") == ["remote-fs.target"]
