"""`senergy agent` as a process: alone on its folder, and taken out in order."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sim.law import Constant
from sim.sysfs import SimNode


class Place:
    """A node's files, and its agent's command line."""

    def __init__(self, root: Path) -> None:
        self.root, self.outbox = root, root / "outbox"
        self.sim = SimNode(root / "sys", packages=1, cores=False, dram=False, law=Constant(50.0))
        self.sim.advance_to(0.0)
        (root / "cgroup/system.slice").mkdir(parents=True)
        (root / "config.toml").write_text('[agent]\ngroup = ""\n[agent.sources]\noff = ["nvml", "ipmi", "model"]\n')
        self.command = [
            sys.executable, "-m", "slurm_energy", "agent", "--config", root / "config.toml", "--node", "n1", "--period", "0.1",
            "--hooks", root / "hooks", "--socket", root / "sock", "--state-dir", root / "state", "--outbox", self.outbox,
            "--cgroup-root", root / "cgroup", "--sysfs-root", root / "sys",
        ]  # fmt: skip
        self.running: subprocess.Popen[bytes] | None = None

    def once(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.command, *more], capture_output=True, text=True, timeout=30, check=False)

    def start(self) -> None:
        self.running = subprocess.Popen(self.command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not (self.root / "state/checkpoint").exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    def stop(self) -> None:
        if self.running is not None:
            self.running.send_signal(signal.SIGTERM)
            assert self.running.wait(20) == 0
            self.running = None

    def package_uj(self) -> int:
        lines = [line for file in self.outbox.glob("*.jsonl") for line in file.read_text().splitlines()]
        return sum(json.loads(line)["uj"]["package"] for line in lines)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    if made.running is not None:
        made.running.kill()
        made.running.wait(20)
    made.sim.close()


@pytest.mark.parametrize("more", [[], ["--finish"]])
def test_a_second_agent_on_the_same_folder_is_refused(place: Place, more: list[str]) -> None:
    place.start()
    second = place.once(*more)
    assert second.returncode == 1
    assert f"another agent holds {place.root / 'state'}" in second.stderr
    assert (place.root / "sock").exists()  # it did not take the first one's socket
    place.stop()


def test_taken_out_all_that_the_counters_moved_is_in_the_outbox(place: Place) -> None:
    place.start()
    place.sim.advance_to(30.0)
    place.stop()
    assert place.package_uj() == 0  # the hour is open, and the next agent would go on with it
    place.sim.advance_to(40.0)
    assert place.once("--finish").returncode == 0
    assert place.package_uj() == 40 * 50_000_000
    assert place.once("--finish").returncode == 0
    assert place.package_uj() == 40 * 50_000_000


def test_where_no_agent_ever_ran_there_is_nothing_to_finish(place: Place) -> None:
    assert place.once("--finish").returncode == 0
    assert not (place.root / "state").exists()
