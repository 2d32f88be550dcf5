"""`senergy agent` as a process: what it may be told, alone on its folder, and taken out in order."""

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

from slurm_energy.agent.options import AgentOptions, parse
from slurm_energy.config import ConfigError


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


# What it may be told

WRONG = {
    "flush_s = -5": "[agent] flush_s = -5: expected `float` > 0",
    "flush_s = 0": "[agent] flush_s = 0: expected `float` > 0",
    "period_s = 0": "[agent] period_s = 0: expected `float` > 0",
    "period_s = nan": "[agent] period_s = nan: expected `float` > 0",
    "checkpoint_s = inf": "[agent] checkpoint_s = inf: expected `float` <= 86400",
    "orphan_s = -1": "[agent] orphan_s = -1: expected `float` >= 0",
    "cpus = -3": "[agent] cpus = -3: expected `int` >= 0",
    "mem_bytes = -1": "[agent] mem_bytes = -1: expected `int` >= 0",
    "outbox_limit_mb = 0": "[agent] outbox_limit_mb = 0: expected `int` >= 1",
    "package_idle_w = -1": "[agent] package_idle_w = -1: expected `float` >= 0",
    "hooks = 3": "[agent] hooks = 3: expected `str`, got `int`",
    "perid_s = 1": "[agent] perid_s: no such key; did you mean period_s?",
    'clock = "/tmp/clock"': "[agent] clock: no such key",
    "node_given = true": "[agent] node_given: no such key",
    "[agent.sources]\nidle_w = -1": "[agent.sources] idle_w = -1: expected `float` >= 0",
    "[agent.sources]\nhwmon_ = 1": "[agent.sources] hwmon_: no such key; did you mean hwmon?",
}


@pytest.mark.parametrize("said", WRONG)
def test_a_wrong_setting_is_told_with_file_key_and_what_was_expected(tmp_path: Path, said: str) -> None:
    (tmp_path / "config.toml").write_text(f"[agent]\n{said}\n")
    with pytest.raises(ConfigError) as told:
        parse(["--config", str(tmp_path / "config.toml")])
    assert str(told.value).startswith(f"{tmp_path / 'config.toml'}, {WRONG[said]}")
    assert "\n" not in str(told.value)


def test_a_wrong_setting_ends_the_command_with_2_and_one_line(place: Place) -> None:
    (place.root / "config.toml").write_text("[agent]\noutbox_limit_mb = 0\n")
    done = place.once()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"senergy: {place.root / 'config.toml'}, [agent] outbox_limit_mb = 0: expected")


def test_the_command_line_wins_and_its_mistakes_are_not_the_file_s(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[agent]\nnode = "n1"\nperiod_s = 5\n[agent.sources]\nipmi = "never"\n')
    line = ["--config", str(tmp_path / "config.toml"), "--node", "n2", "--sysfs-root", "/simulated", "--clock", "/c"]
    options, clock, finish = parse(line)
    assert (options.node, options.period_s, clock, finish) == ("n2", 5.0, "/c", False)
    assert (options.sources.ipmi, options.sources.sysfs_root) == ("never", "/simulated")
    with pytest.raises(ConfigError, match=r"^command line, .*period_s = -1.0: expected"):
        parse([*line, "--period", "-1"])


def test_a_megabyte_of_the_outbox_is_the_same_for_the_agent_and_the_doctor() -> None:
    assert AgentOptions(outbox_limit_mb=3).outbox_limit_bytes == 3 << 20
