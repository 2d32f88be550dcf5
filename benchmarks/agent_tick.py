"""What a tick of the agent costs, next to a bare Python loop that only preads the same files; and its resident memory.

A simulated node of 2 sockets (package and memory), 8 GPUs behind NVML's names and 1, 64 or 256 jobs (cgroup v1 layout,
CPU time and memory). The real Agent ticks once a simulated second, checkpoints and scans of the cgroup tree included;
only the CPU time of `tick` counts, user and system. Agent and loops take turns in blocks in one process; the ratio is
of medians. Two loops: the jobs' files only (two per job), and these with the counters (4 RAPL files, 8 NVML calls).

The simulated NVML is Python that reads files, so that a call is dearer or cheaper than a driver's: it is shown apart.
Jobs' files are plain files, which read quicker than those of a cgroup. Where root can make cgroups (v1) there is a row
with real ones, a process in each of them.

Memory is the peak (VmHWM) of a `senergy agent` process with the same 64 jobs, served over some seconds: with the
simulated pynvml, which is small, and with the real module of nvidia-ml-py loaded beside it, as on a node with GPUs.

usage: python benchmarks/agent_tick.py [BLOCKS]
"""

from __future__ import annotations

import gc
import importlib.util
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from harness import SENERGY

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from sim.nvml import FakeNvml  # noqa: E402
from sim.sysfs import RANGE_UJ, SimNode  # noqa: E402

from slurm_energy.agent.agent import Agent  # noqa: E402
from slurm_energy.agent.client import AgentError, read_snapshot  # noqa: E402
from slurm_energy.agent.clock import NS, FileClock  # noqa: E402
from slurm_energy.agent.options import AgentOptions  # noqa: E402
from slurm_energy.agent.snapshot import Snapshot  # noqa: E402
from slurm_energy.sources import find_all  # noqa: E402
from slurm_energy.sources.options import Options  # noqa: E402

GPUS, SOCKETS, CPUS = 8, 2, 512
MEMORY = 2 << 40
TICKS = 50
"""In a block: 5 checkpoints and 25 scans of the cgroup tree are among them."""
LIMIT, LIMIT_MB = 5, 25
FAKELIB = ROOT / "tests/sim/fakelib"
BEGIN_NS = 1_796_000_700 * NS
"""Wall clock at the start, some minutes after an hour: none ends while ticks are measured."""


def job_folder(root: Path, kind: str, job: int) -> Path:
    """Where Slurm has a job in cgroup v1."""
    return root / "cgroup" / kind / "slurm" / f"uid_{1000 + job % 16}" / f"job_{job}"


class Jobs(Protocol):
    """The files that jobs have open for reading, and how they move."""

    cpu: list[int]
    memory: list[int]

    def advance(self, t_s: float) -> None:
        """Shows the files as they are t_s after the start."""

    def close(self) -> None:
        """Closes the files."""


class PlainJobs:
    """Plain files. A job's CPU time grows by a rate of its own, its memory goes up and down."""

    def __init__(self, root: Path, jobs: int) -> None:
        self.cpu, self.memory = [], []
        for job in range(1, jobs + 1):
            for files, kind, name in (
                (self.cpu, "cpuacct", "cpuacct.usage"),
                (self.memory, "memory", "memory.usage_in_bytes"),
            ):
                folder = job_folder(root, kind, job)
                folder.mkdir(parents=True)
                files.append(os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644))
        drawn = random.Random(64)
        self._cores = [drawn.uniform(0.05, 2.0) for _ in range(jobs)]
        self._bytes = [drawn.randrange(1 << 28, 1 << 33) for _ in range(jobs)]
        self.advance(0.0)

    def advance(self, t_s: float) -> None:
        """By the law."""
        for job in range(len(self.cpu)):
            memory = self._bytes[job] + int(t_s * 7919) * 4096 % (1 << 26)
            os.pwrite(self.cpu[job], b"%d\n" % int(self._cores[job] * t_s * NS), 0)
            os.pwrite(self.memory[job], b"%010d\n" % memory, 0)

    def close(self) -> None:
        """Closes the files."""
        for file in (*self.cpu, *self.memory):
            os.close(file)


class RealJobs:
    """Real cgroups of version 1, a process in each that works a little whenever time goes on. Raises OSError."""

    def __init__(self, root: Path, jobs: int) -> None:
        self.cpu, self.memory = [], []
        self._made: list[Path] = []
        self._go: list[int] = []
        self._pids: list[int] = []
        self._done, done = os.pipe()
        (root / "cgroup").mkdir()
        try:
            for kind in ("cpuacct", "memory"):
                real = Path("/sys/fs/cgroup", kind, f"senergy-bench-{os.getpid()}")
                self._mkdir(real)
                (root / "cgroup" / kind).symlink_to(real)
            for job in range(1, jobs + 1):
                folders = [job_folder(root, kind, job) for kind in ("cpuacct", "memory")]
                for folder in folders:
                    for each in (folder.parent.parent, folder.parent, folder):
                        self._mkdir(each)
                self._process(folders, done)
                self.cpu.append(os.open(folders[0] / "cpuacct.usage", os.O_RDONLY))
                self.memory.append(os.open(folders[1] / "memory.usage_in_bytes", os.O_RDONLY))
        except OSError:
            self.close()
            raise
        finally:
            os.close(done)

    def _mkdir(self, folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir()
            self._made.append(folder)

    def _process(self, folders: list[Path], done: int) -> None:
        wait, go = os.pipe()
        pid = os.fork()
        if not pid:
            for file in (*self._go, go):
                os.close(file)
            while os.read(wait, 1):
                sum(range(200 + 20 * len(self._go)))
                os.write(done, b".")
            os._exit(0)
        os.close(wait)
        self._go.append(go)
        self._pids.append(pid)
        for folder in folders:
            (folder / "cgroup.procs").write_text(f"{pid}\n")

    def advance(self, t_s: float) -> None:
        """Lets each process work, one after the other, and waits for them."""
        for go in self._go:
            os.write(go, b".")
        left = len(self._go)
        while left:
            left -= len(os.read(self._done, 4096))

    def close(self) -> None:
        """Ends the processes and takes the cgroups away."""
        for file in (*self._go, *self.cpu, *self.memory, self._done):
            os.close(file)
        for pid in self._pids:
            os.waitpid(pid, 0)
        for folder in reversed(self._made):
            for _ in range(50):  # a process that ended leaves its group a moment later
                try:
                    folder.rmdir()
                    break
                except OSError:
                    time.sleep(0.02)


class Load:
    """The simulated node and its jobs, in one folder. The first eight jobs hold a GPU each.

    laws: as SimNode takes them. kind: what the jobs are, PlainJobs or RealJobs.
    """

    def __init__(
        self,
        root: Path,
        jobs: int,
        laws: Any = None,
        range_uj: int = RANGE_UJ,
        kind: Callable[[Path, int], Jobs] = PlainJobs,
    ) -> None:
        self.root, self.count = root, jobs
        self.jobs = kind(root, jobs)
        self.node = SimNode(root / "sys", SOCKETS, nvidia=GPUS, law=laws, range_uj=range_uj)
        for folder in ("hooks", "state", "outbox"):
            (root / folder).mkdir()
        for job in range(1, jobs + 1):
            self._hook(job)

    def _hook(self, job: int) -> None:
        """What the Prolog drops."""
        said = {
            "EVENT": "prolog", "SLURM_JOB_ID": job, "SLURM_JOB_UID": 1000 + job % 16,
            "SLURM_JOB_USER": f"user{job % 16}", "SLURM_JOB_ACCOUNT": "nlp", "SLURM_JOB_PARTITION": "gpu",
            "SLURM_CLUSTER_NAME": "sim", "SLURMD_NODENAME": "n1",
            "SLURM_JOB_CPUS_PER_NODE": 2, "SLURM_JOB_GPUS": job - 1 if job <= GPUS else "", "END": 1,
        }  # fmt: skip
        text = "".join(f"{key}={value}\0" for key, value in said.items())
        (self.root / "hooks" / f"{job}.0.1-prolog").write_text(text)

    def sources(self) -> Options:
        """The simulated tree only: no tool is asked for the real node's power."""
        return Options(sysfs_root=str(self.root / "sys"), ipmi="never")

    def options(self) -> AgentOptions:
        """For an Agent in this process."""
        return AgentOptions(sources=self.sources(), **self._table())

    def _table(self) -> dict[str, Any]:
        paths = {name: str(self.root / name) for name in ("hooks", "outbox")}
        return {
            **paths, "node": "n1", "cluster": "sim", "state_dir": str(self.root / "state"),
            "cpus": CPUS, "mem_bytes": MEMORY,
            "socket": str(self.root / "agent.sock"), "cgroup_root": str(self.root / "cgroup"),
        }  # fmt: skip

    def start_agent(self, libraries: Path = FAKELIB, **more: str) -> subprocess.Popen[bytes]:
        """`senergy agent` on this node, once all jobs are in its snapshot. Raises RuntimeError if it does not come up.

        libraries: where it finds pynvml. more: environment variables.
        """
        rows = [f"{key} = {value!r}" for key, value in self._table().items()]
        config = self.root / "config.toml"
        sources = self.sources()
        config.write_text(
            "\n".join(["[agent]", *rows, "[agent.sources]", f"sysfs_root = {sources.sysfs_root!r}", "ipmi = 'never'\n"])
        )
        environment = {
            **os.environ, "PYTHONPATH": str(libraries), "SENERGY_SIM_NVML": str(self.root / "sys" / "nvml"), **more
        }  # fmt: skip
        with (self.root / "agent.log").open("wb") as log:
            agent = subprocess.Popen([*SENERGY, "agent", "--config", str(config)], env=environment, stderr=log)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and agent.poll() is None:
            if self.ready():
                return agent
            time.sleep(0.1)
        agent.kill()
        raise RuntimeError("senergy agent did not come up: " + (self.root / "agent.log").read_text())

    def ready(self) -> bool:
        """Whether the agent has every job and every counter: 2 for each socket, 1 for each GPU."""
        try:
            seen = self.snapshot()
        except AgentError:
            return False
        return len(seen.jobs) == self.count and len(seen.counters) == 2 * SOCKETS + GPUS

    def snapshot(self) -> Snapshot:
        """What the agent shows on its socket."""
        return read_snapshot(self.root / "agent.sock")

    def close(self) -> None:
        """Closes the files."""
        self.jobs.close()
        self.node.close()


def memory_mb(pid: int) -> float:
    """The most that a process had resident (VmHWM), MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


class Tick:
    """An Agent in this process, and the two loops."""

    def __init__(self, root: Path, jobs: int, kind: Callable[[Path, int], Jobs] = PlainJobs) -> None:
        self.load = Load(root, jobs, kind=kind)
        clock = root / "clock"
        clock.write_bytes(struct.pack("<qq", 0, BEGIN_NS))
        self._clock = os.open(clock, os.O_WRONLY)
        self.second = 0
        library = FakeNvml(root / "sys" / "nvml")
        found = find_all(self.load.sources(), nvml=library)
        self.counters = found.counters
        self.agent = Agent(
            self.load.options(), found.counters, found.refused, ["rapl/0", "nvml/0"], FileClock(str(clock))
        )
        self.forward()
        self.agent.start()
        handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(GPUS)]
        files = [*self.load.jobs.cpu, *self.load.jobs.memory]
        zones = [
            f"intel-rapl:{socket}{part}/energy_uj"
            for socket in range(SOCKETS)
            for part in ("", f"/intel-rapl:{socket}:2")
        ]
        energy = [os.open(root / "sys/devices/virtual/powercap/intel-rapl" / zone, os.O_RDONLY) for zone in zones]
        self._open = energy
        pread, call = os.pread, library.nvmlDeviceGetTotalEnergyConsumption

        def only_files() -> None:
            for file in files:
                pread(file, 64, 0)

        def gpus() -> None:
            for handle in handles:
                call(handle)

        def files_and_counters() -> None:
            for file in files:
                pread(file, 64, 0)
            for file in energy:
                pread(file, 64, 0)
            for handle in handles:
                call(handle)

        self.acts = {"agent": self.agent.tick, "files": only_files, "all": files_and_counters, "nvml": gpus}

    def forward(self) -> None:
        """One second later."""
        self.second += 1
        self.load.node.advance_to(self.second)
        self.load.jobs.advance(self.second)
        os.pwrite(self._clock, struct.pack("<qq", self.second * NS, BEGIN_NS + self.second * NS), 0)

    def block_ms(self, act: Callable[[], None]) -> float:
        """CPU time of one call, ms, mean over a block; the world goes on by a second before each."""
        spent = 0
        for _ in range(TICKS):
            self.forward()
            begin = time.process_time_ns()
            act()
            spent += time.process_time_ns() - begin
        return spent / TICKS / 1e6

    def measure(self, blocks: int) -> dict[str, float]:
        """Medians over blocks in turns, after one of each that does not count."""
        found: dict[str, list[float]] = {name: [] for name in self.acts}
        gc.collect()
        gc.freeze()
        for number in range(blocks + 1):
            for name, act in self.acts.items():
                one = self.block_ms(act)
                if number:
                    found[name].append(one)
        gc.unfreeze()
        assert len(self.agent.engine.lives) == self.load.count, "a job is missing"
        assert all(meter.total_uj and not meter.gaps for meter in self.agent.engine.meters), "a counter is missing"
        return {name: statistics.median(values) for name, values in found.items()}

    def close(self) -> None:
        """Ends the agent and closes the files."""
        self.agent.stop()
        for counter in self.counters:
            counter.close()
        for file in (self._clock, *self._open):
            os.close(file)
        self.load.close()


def ticks(blocks: int) -> bool:
    """Prints the cost of a tick by the number of jobs; whether 64 jobs are within the limit."""
    print(f"CPU of one tick, ms; {SOCKETS} sockets, {GPUS} GPUs; medians of {blocks} blocks of {TICKS} ticks in turns")
    print("jobs              agent   job files   ratio   files + counters   ratio   (of these 8 simulated NVML calls)")
    good = True
    for jobs, name, kind in (
        (1, "", PlainJobs),
        (64, "", PlainJobs),
        (256, "", PlainJobs),
        (64, "real cgroups", RealJobs),
    ):
        with tempfile.TemporaryDirectory() as made:
            try:
                tick = Tick(Path(made), jobs, kind)
            except OSError as error:
                print(f"{jobs:4} {name:12}   left out: {error}")
                continue
            try:
                ms = tick.measure(blocks)
            finally:
                tick.close()
        by_files, by_all = ms["agent"] / ms["files"], ms["agent"] / ms["all"]
        print(
            f"{jobs:4} {name:12}{ms['agent']:7.3f}{ms['files']:12.3f}{by_files:8.2f}"
            f"{ms['all']:19.3f}{by_all:8.2f}{ms['nvml']:12.3f}"
        )
        if jobs == 64:  # plain files are read quicker than a cgroup's, and no node has plain files
            good &= by_all <= LIMIT and (kind is PlainJobs or by_files <= LIMIT)
    print(
        f"wanted with 64 jobs: at most {LIMIT} times a loop over the same files; job files alone: those of real cgroups"
    )
    return good


REAL = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("nvidia_ml_py", os.environ["SENERGY_REAL_PYNVML"])
sys.modules["nvidia_ml_py"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.path.insert(0, os.environ["SENERGY_FAKELIB"])
del sys.modules["pynvml"]
import pynvml
"""
"""A `pynvml` that loads the real module, keeps it, and then is the simulated one."""


def resident(name: str, libraries: Path, **more: str) -> bool:
    """Prints the peak memory of `senergy agent` with 64 jobs; whether it is within the limit."""
    with tempfile.TemporaryDirectory() as made:
        load = Load(Path(made), 64)
        agent = load.start_agent(libraries, **more)
        with load.node.running(0.1) as begin:
            for _ in range(25):
                time.sleep(0.5)
                load.jobs.advance(time.monotonic() - begin)
                load.snapshot()
        size = memory_mb(agent.pid)
        agent.terminate()
        agent.wait()
        load.close()
    print(f"senergy agent, 64 jobs, {name}: {size:.1f} MB; wanted: at most {LIMIT_MB}")
    return size <= LIMIT_MB


def main(blocks: int) -> int:
    """Prints the figures; 1 where one is over its limit."""
    good = ticks(blocks)
    good &= resident("simulated pynvml", FAKELIB)
    spec = importlib.util.find_spec("pynvml")
    if spec is None or spec.origin is None:
        print("with the real pynvml: left out; pip install nvidia-ml-py")
        return 0 if good else 1
    with tempfile.TemporaryDirectory() as made:
        Path(made, "pynvml.py").write_text(REAL)
        good &= resident(
            "real nvidia-ml-py loaded", Path(made), SENERGY_REAL_PYNVML=spec.origin, SENERGY_FAKELIB=str(FAKELIB)
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 21))
