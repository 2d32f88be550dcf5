"""Nodes of a real cluster with simulated counters and a real `senergy agent` each, for test_agent_on_slurm.py.

A process of its own moves all counters by their laws in real time, so that the truth is known for any two moments.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from common.processes import environment
from common.waiting import until
from conftest import REPOSITORY, devcluster
from sim.sysfs import RANGE_UJ, SimNode

from slurm_energy.agent.client import AgentError, read_snapshot
from slurm_energy.agent.store import Store

if TYPE_CHECKING:
    from conftest import Cluster

NS = 1_000_000_000
HOUR_NS = 3600 * NS
DOMAINS = ("package", "dram", "gpu", "other")
CPUS, MEMORY = 8, 2000 << 20
"""What devcluster.py gives a node."""
PACKAGE_IDLE_W, DRAM_IDLE_W = 40.0, 4.0
CONFIGURATION = f"""\
[agent]
cpus = {CPUS}
mem_bytes = {MEMORY}
package_idle_w = {PACKAGE_IDLE_W}
dram_idle_w = {DRAM_IDLE_W}
checkpoint_s = 2.0
flush_s = 2.0
orphan_s = 4.0
"""


class Session(NamedTuple):
    """One run of a job on a node, out of its segments: moments in ns as the node's clock has them, energy in uJ."""

    node: str
    job: int
    restart: int
    sluid: str
    begin: int
    end: int
    uj: dict[str, int]
    gpus: dict[str, int]
    segments: list[dict[str, Any]]

    @property
    def total(self) -> int:
        return sum(self.uj.values())


class Node:
    """A node's counters, and its agent. clock_ns: what the agent's clock is ahead of the machine's; None: the machine's."""

    def __init__(
        self, cluster: Cluster, name: str, folder: Path, cgroup_root: Path, law: Any, *, psys: bool = False,
        hooks: str = "", clock_ns: int | None = None, options: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.cluster, self.name, self.folder, self.cgroup_root = cluster, name, folder / name, cgroup_root
        # The counters stand shortly before their end, so that they wrap while jobs run.
        self.start_uj = RANGE_UJ - 1_234_567_890
        self.sim = SimNode(self.folder / "sys", packages=2, psys=psys, nvidia=4, law=law, start_uj=self.start_uj)
        self.inside = cluster.folder / "agents" / name
        self.hooks = cluster.folder / "hooks" / (hooks or name)
        self.clock_ns, self.options = clock_ns, list(options)
        self.clock, self.socket = self.folder / "clock", self.folder / "sock"
        self.process: subprocess.Popen[bytes] | None = None
        self.wall0 = 0
        outside = cluster.outside(self.inside)
        outside.mkdir(parents=True)
        (outside / "config.toml").write_text(CONFIGURATION)
        if clock_ns is not None:
            self.set_clock(clock_ns)

    def set_clock(self, ahead_ns: int) -> None:
        """Writes the file that is the agent's clock: both numbers at once."""
        now = struct.pack("<qq", time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns() + ahead_ns)
        with self.clock.open("r+b" if self.clock.exists() else "wb") as file:
            os.pwrite(file.fileno(), now, 0)

    def start(self, *options: str) -> None:
        """Starts the agent, and waits until it has looked at the counters."""
        outside = self.cluster.outside(self.inside)
        clock = ("--clock", str(self.clock)) if self.clock_ns is not None else ()
        command = [
            sys.executable, "-m", "slurm_energy", "agent", "--config", outside / "config.toml", "--node", self.name,
            "--cluster", self.cluster.name, "--hooks", self.cluster.outside(self.hooks), "--socket", self.socket,
            "--state-dir", outside / "state", "--outbox", outside / "outbox", "--cgroup-root", self.cgroup_root,
            "--sysfs-root", self.sim.root, *clock, *self.options, *options,
        ]  # fmt: skip
        variables = {
            **environment(), "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/sim/fakelib'}",
            "SENERGY_SIM_NVML": str(self.sim.root / "nvml"),
        }  # fmt: skip
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables)
        until(f"the agent of {self.name} to look", lambda: self.snapshot() is not None, 20)

    def log(self) -> str:
        """What the agent said."""
        return (self.folder / "agent.log").read_text()

    def snapshot(self) -> Any:
        """What the agent shows; None while it shows nothing."""
        with contextlib.suppress(AgentError):
            return read_snapshot(self.socket)
        return None

    def ticks(self) -> int:
        """How often the agent has looked at its counters."""
        shown = self.snapshot()
        return shown.ticks if shown is not None else 0

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends the agent, as a crash does or as an admin does."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def slurmd(self) -> int:
        """The process id of its slurmd; 0 where none runs."""
        done = devcluster("status", *self._where())
        return int(json.loads(done.stdout).get(f"slurmd-{self.name}", 0))

    def start_slurmd(self) -> None:
        """Starts its slurmd again."""
        done = devcluster("slurmd", *self._where(), "--nodes", self.name)
        assert done.returncode == 0, done.stderr

    def _where(self) -> list[str | Path]:
        root = [] if self.cluster.root == Path("/") else ["--root", self.cluster.root]
        return ["--dir", self.cluster.folder, *root]

    def moved(self, name: str, t_s: float) -> int:
        """What a counter shows more at t_s than at the start, uJ: NVML's count whole millijoules."""
        now = self.start_uj + self.sim.energy_uj(name, t_s)
        return now - self.start_uj if name.startswith("rapl") else (now // 1000 - self.start_uj // 1000) * 1000

    def law_uj(self, names: Sequence[str], begin_ns: int, end_ns: int) -> int:
        """What the law says between two moments of the node's clock."""
        begin, end = ((moment - (self.clock_ns or 0) - self.wall0) / NS for moment in (begin_ns, end_ns))
        return sum(self.sim.energy_uj(name, end) - self.sim.energy_uj(name, begin) for name in names)

    def counted(self, kind: str = "") -> list[str]:
        """Names of the counters that count: all of the node (its platform zone where it has one), or of a kind."""
        names = [name for name in self.sim.names if not name.endswith(("/core", "/uncore"))]
        kinds = {
            "package": lambda name: name.startswith("rapl:package") and "/" not in name,
            "dram": lambda name: name.endswith("/dram"), "gpu": lambda name: name.startswith("nvml:"),
            "": lambda name: name == "rapl:psys" if "rapl:psys" in names else True,
        }  # fmt: skip
        return [name for name in names if kinds[kind](name)]

    def device(self, minor: int) -> str:
        """The UUID of the GPU that Slurm knows by this number."""
        return (self.sim.root / "nvml" / f"{minor:03d}" / "uuid").read_text().strip()

    def open_uj(self) -> int:
        """What the agent's checkpoint holds and no segment does yet."""
        saved = Store(self.cluster.outside(self.inside / "state"), self.cluster.outside(self.inside / "outbox")).load()
        assert saved is not None
        assert not saved.pending
        assert not saved.outgoing
        return sum(getattr(one, domain) for one in (*saved.sessions, saved.idle) for domain in DOMAINS)


@contextlib.contextmanager
def moving(nodes: Sequence[Node]) -> Iterator[list[float]]:
    """Moves the counters, and the clocks that are files, until the end of the block; the list then holds that second."""
    stop, ours = multiprocessing.Event(), multiprocessing.Pipe(duplex=False)
    begin, wall0 = time.monotonic_ns(), time.time_ns()
    for node in nodes:
        node.wall0 = wall0

    def follow() -> None:
        with contextlib.suppress(OSError):  # late counters would look like wrong ones
            os.setpriority(os.PRIO_PROCESS, 0, -15)
        now = 0.0
        while not stop.wait(0.02):
            for node in nodes:
                now = (time.monotonic_ns() - begin) / NS
                node.sim.advance_to(now)
                if node.clock_ns is not None:
                    node.set_clock(node.clock_ns)
        for node in nodes:
            node.sim.advance_to(now)
        ours[1].send(now)

    process = multiprocessing.get_context("fork").Process(target=follow, daemon=True)
    process.start()
    last: list[float] = []
    try:
        yield last
    finally:
        stop.set()
        last.append(ours[0].recv() if ours[0].poll(10) else 0.0)
        process.join(10)


def sessions_of(segments: Sequence[dict[str, Any]]) -> list[Session]:
    """The segments by session (idle energy is job 0), in the order of their beginning."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for one in segments:
        key = (one["node"], one["job_id"], one["restart_count"], one["sluid"] or "", one["session_start"])
        groups[key].append(one)
    found = []
    for key, parts in groups.items():
        parts.sort(key=lambda part: part["start"])
        gpus: dict[str, int] = defaultdict(int)
        for part in parts:
            for gpu in part["gpus"]:
                gpus[gpu["uuid"]] += gpu["uj"]
        uj = {domain: sum(part["uj"][domain] for part in parts) for domain in DOMAINS}
        found.append(Session(*key[:4], parts[0]["start"], parts[-1]["end"], uj, dict(gpus), parts))
    return sorted(found, key=lambda session: session.begin)
