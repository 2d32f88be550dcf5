"""Runs of ansible-playbook with the role of this source, on roots and hosts of the tests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import bare_root
from common.processes import environment

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
ROLES = DEPLOY / "ansible/roles"


class Played(NamedTuple):
    """A run: by host what Ansible counted (ok, changed, failed, ...), and all it said."""

    counts: dict[str, dict[str, int]]
    said: str

    def sum(self, what: str) -> int:
        """Over all hosts."""
        return sum(counts[what] for counts in self.counts.values())


def source(folder: Path) -> Path:
    """A copy of what the package is made of, so that nobody's work in the tree changes it meanwhile."""
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "slurm_energy", "exporters"):
        original = REPOSITORY / name
        if original.is_dir():
            shutil.copytree(original, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(original, folder / name)
    return folder


def wheel(folder: Path, made: Path) -> Path:
    """The wheel of a source folder, as an admin has it who builds it once."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", made, folder]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = made.glob("*.whl")
    return found


def play(
    folder: Path,
    playbook: Path,
    inventory: Mapping[str, Any],
    variables: Mapping[str, Any],
    options: Sequence[str] = (),
) -> Played:
    """A run that must end well, without a word of what Ansible will not do in its next versions. Raises NoRoot."""
    ansible = Path(sys.executable).with_name("ansible-playbook")
    program = str(ansible) if ansible.exists() else shutil.which("ansible-playbook")
    if program is None:
        raise bare_root.NoRoot("ansible-playbook is not installed: pip install 'slurm-energy[deploy]'")
    (folder / "hosts.json").write_text(json.dumps(inventory))
    (folder / "variables.json").write_text(json.dumps(variables))
    settings = {
        **environment("ANSIBLE_"),
        "ANSIBLE_ROLES_PATH": str(ROLES),
        "ANSIBLE_CONNECTION_PLUGINS": str(Path(__file__).parent / "connection_plugins"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_HOME": str(folder / "home"), "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_DEPRECATION_WARNINGS": "1", "ANSIBLE_LOG_PATH": str(folder / "ansible.log"), "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    done = subprocess.run(
        [program, "-i", "hosts.json", "-e", "@variables.json", "--diff", *options, playbook],
        cwd=folder, env=settings, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    assert "DEPRECATION" not in said, said[-6000:]
    counts = {
        host: {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", rest)}
        for host, rest in re.findall(r"^(\S+) +: (ok=.*)$", said.rpartition("PLAY RECAP")[2], re.MULTILINE)
    }
    return Played(counts, said)
