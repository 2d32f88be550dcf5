"""An upgrade with jobs running: the old version is ended, the new one goes on, and the energy is what the law says.

The driver of tests/faults owns time and counters; the agents are real processes. The new version is a copy of the
package with another number.
"""

from __future__ import annotations

import itertools
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.test_kill_agent import DOMAINS, MIDNIGHT, NS, Job, Simulation

import slurm_energy
from slurm_energy.version import __version__

PACKAGE = Path(slurm_energy.__file__).parent
NEW = "99.9.9"
RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from slurm_energy.cli import main; sys.exit(main())"


class Upgraded(Simulation):
    """A node whose agent is ended and started as systemd does it."""

    def end_agent(self) -> None:
        """SIGTERM, and nothing else is needed; within the unit's TimeoutStopSec."""
        assert self.agent is not None
        self.agent.send_signal(signal.SIGTERM)
        assert self.agent.wait(20) == 0, (self.root / "agent.log").read_text()[-4000:]
        assert not (self.root / "agent.sock").exists()
        self.agent = None  # time goes on without one

    def end_unseen(self, job: Job) -> None:
        """A job ends while no agent runs: its cgroup goes, its Epilog drops a file."""
        shutil.rmtree(self.folder(job))
        self.hook("epilog", job)
        self.running.remove(job)
        self.ended.append(job)

    def start_new(self, site: Path) -> None:
        """The new version; options, configuration and folders are those of the old one."""
        assert self.command[1] == "agent"
        self.command[:1] = [sys.executable, "-c", RUN, str(site)]
        self.start_agent()
        self.settle(lambda seen: seen["version"] == NEW)

    def run_for(self, seconds: int) -> None:
        """Looks of half a minute."""
        for _ in range(seconds // 30):
            self.move(30)
            self.settle()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the package as another version."""
    folder = tmp_path / "site"
    shutil.copytree(PACKAGE, folder / "slurm_energy", ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "slurm_energy/version.py"
    file.write_text(re.sub(r'(__version__ = )"[^"]*"', rf'\1"{NEW}"', file.read_text()))
    return folder


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Upgraded]:
    (tmp_path / "node").mkdir()
    simulation = Upgraded(tmp_path / "node")
    try:
        yield simulation
    finally:
        simulation.stop()


@pytest.mark.parametrize("away_s", [0, 1, 120])
def test_an_upgrade_with_jobs_running_loses_no_joule(node: Upgraded, site: Path, away_s: int) -> None:
    jobs = [Job(11, 0, 20, 1.0, node.now_s, 0), Job(12, 1, 8, 0.5, node.now_s, 0)]
    for job in jobs:
        node.begin(job, kill=False)
    node.run_for(300)
    node.settle(lambda seen: seen["version"] == __version__)
    node.end_agent()
    if away_s:
        node.move(away_s)
    node.start_new(site)
    node.run_for(300)
    ended_s = node.now_s
    for job in jobs:
        node.end(job, kill=False)
    node.run_for(30)
    node.end_agent()

    conserved(node)
    for job in jobs:
        assert got(node, job) == {domain: pytest.approx(job.due[domain], rel=0.001) for domain in DOMAINS}
        parts = [one for _, one in node.segments() if one["job_id"] == job.job_id]
        # From its first second to its last, without a gap, and said to be measured by the version that wrote it.
        assert parts[0]["start"] == (MIDNIGHT + job.begin_s) * NS
        assert parts[-1]["end"] == (MIDNIGHT + ended_s) * NS
        assert all(one["start"] == before["end"] for before, one in itertools.pairwise(parts))
        assert sum(one["gap_s"] for one in parts) == 0
        assert f"rapl/{NEW}" in parts[-1]["sources"]
        assert [one["final"] for one in parts] == [False] * (len(parts) - 1) + [True]


def test_a_job_that_ends_during_the_upgrade_is_ended_when_its_epilog_was(node: Upgraded, site: Path) -> None:
    stays, ends = Job(21, 0, 16, 1.0, node.now_s, 0), Job(22, 0, 8, 1.0, node.now_s, 0)
    for job in (stays, ends):
        node.begin(job, kill=False)
    node.run_for(600)
    node.end_agent()
    node.move(1)
    node.end_unseen(ends)
    node.move(1)
    node.start_new(site)
    node.settle(lambda seen: [job["job_id"] for job in seen["jobs"]] == [21])
    node.run_for(600)
    node.end(stays, kill=False)
    node.end_agent()

    conserved(node)
    for job in (stays, ends):
        assert sum(got(node, job).values()) == pytest.approx(sum(job.due.values()), rel=0.005)
    (end,) = (one["end"] for _, one in node.segments() if one["job_id"] == 22 and one["final"])
    assert end == (MIDNIGHT + ends.begin_s + 601) * NS


def got(node: Simulation, job: Job) -> dict[str, float]:
    """What its segments give a job (J)."""
    total: Counter[str] = Counter()
    for _, one in node.segments():
        if (one["job_id"], one["restart_count"]) == (job.job_id, job.restart):
            total.update(one["uj"])
    return {domain: total[domain] / 1e6 for domain in DOMAINS}


def conserved(node: Simulation) -> None:
    """Segments, and what the last agent keeps for the open hour, are what the counters moved, to the microjoule."""
    state = node.checkpoint()
    assert state.pending == state.outgoing == state.sessions == []
    total: Counter[str] = Counter()
    for _, one in node.segments():
        total.update(one["uj"])
    for domain in DOMAINS:
        total[domain] += getattr(state.idle, domain)
    moved = {name: law.energy_uj(node.now_s) for name, law in node.laws.items()}
    assert total["package"] == moved["p0"] + moved["p1"]
    assert total["dram"] == moved["d0"] + moved["d1"]
    assert sum(total.values()) == moved["psys"] - state.carry_uj
