"""What a tick of the agent costs, next to a bare Python loop that only preads the same files; and its resident memory.

A simulated node of 2 sockets (package and memory), 8 GPUs behind NVML's names and 1, 64 or 256 jobs (cgroup v1 layout,
CPU time and memory). The real Agent ticks once a simulated second, checkpoints and scans of the cgroup tree included;
only the CPU time of `tick` counts, user and system. Agent and loops take turns in blocks in one process; the ratio is of
medians. Two loops: the jobs' files only (two per job), and these with the counters (4 RAPL files, 8 NVML calls).

The simulated NVML is Python that reads files, so that a call is dearer or cheaper than a driver's: it is shown apart.

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
from typing import Any

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


class Load:
    """The simulated node and its jobs, in one folder. The first eight jobs hold a GPU each.

    laws: as SimNode takes them. A job's CPU time grows by a rate of its own, its memory goes up and down.
    """

    def __init__(self, root: Path, jobs: int, laws: Any = None, range_uj: int = RANGE_UJ) -> None:
        self.root, self.jobs = root, jobs
        self.node = SimNode(root / "sys", SOCKETS, nvidia=GPUS, law=laws, range_uj=range_uj)
        for folder in ("hooks", "state", "outbox"):
            (root / folder).mkdir()
        self.cpu, self.memory = [], []
        for job in range(1, jobs + 1):
            for files, kind, name in (
                (self.cpu, "cpuacct", "cpuacct.usage"),
                (self.memory, "memory", "memory.usage_in_bytes"),
            ):
                folder = root / "cgroup" / kind / "slurm" / f"uid_{1000 + job % 16}" / f"job_{job}"
                folder.mkdir(parents=True)
                files.append(os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644))
            self._hook(job)
        drawn = random.Random(64)
        self._cores = [drawn.uniform(0.05, 2.0) for _ in range(jobs)]
        self._bytes = [drawn.randrange(1 << 28, 1 << 33) for _ in range(jobs)]
        self.advance_jobs(0.0)

    def _hook(self, job: int) -> None:
        """What the Prolog drops."""
        said = {
            "EVENT": "prolog", "SLURM_JOB_ID": job, "SLURM_JOB_UID": 1000 + job % 16, "SLURM_JOB_USER": f"user{job % 16}",
            "SLURM_JOB_ACCOUNT": "nlp", "SLURM_JOB_PARTITION": "gpu", "SLURM_CLUSTER_NAME": "sim", "SLURMD_NODENAME": "n1",
            "SLURM_JOB_CPUS_PER_NODE": 2, "SLURM_JOB_GPUS": job - 1 if job <= GPUS else "", "END": 1,
        }  # fmt: skip
        text = "".join(f"{key}={value}\0" for key, value in said.items())
        (self.root / "hooks" / f"{job}.0.1-prolog").write_text(text)

    def advance_jobs(self, t_s: float) -> None:
        """Shows the jobs' files as they are t_s after the start."""
        for job in range(self.jobs):
            memory = self._bytes[job] + int(t_s * 7919) * 4096 % (1 << 26)
            os.pwrite(self.cpu[job], b"%d\n" % int(self._cores[job] * t_s * NS), 0)
            os.pwrite(self.memory[job], b"%010d\n" % memory, 0)

    def sources(self) -> Options:
        """The simulated tree only: no tool is asked for the real node's power."""
        return Options(sysfs_root=str(self.root / "sys"), ipmi="never")

    def options(self) -> AgentOptions:
        """For an Agent in this process."""
        return AgentOptions(sources=self.sources(), node_given=True, **self._table())

    def _table(self) -> dict[str, Any]:
        paths = {name: str(self.root / name) for name in ("hooks", "outbox")}
        return {
            **paths, "node": "n1", "cluster": "sim", "state_dir": str(self.root / "state"), "cpus": CPUS, "mem_bytes": MEMORY,
            "socket": str(self.root / "agent.sock"), "cgroup_root": str(self.root / "cgroup"),
        }  # fmt: skip

    def start_agent(self, libraries: Path = FAKELIB, **more: str) -> subprocess.Popen[bytes]:
        """`senergy agent` on this node, once all jobs are in its snapshot. Raises RuntimeError where it does not come up.

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
        return len(seen.jobs) == self.jobs and len(seen.counters) == 2 * SOCKETS + GPUS

    def snapshot(self) -> Snapshot:
        """What the agent shows on its socket."""
        return read_snapshot(self.root / "agent.sock")

    def close(self) -> None:
        """Closes the files."""
        for file in (*self.cpu, *self.memory):
            os.close(file)
        self.node.close()


def memory_mb(pid: int) -> float:
    """The most that a process had resident (VmHWM), MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


class Tick:
    """An Agent in this process, and the two loops."""

    def __init__(self, root: Path, jobs: int) -> None:
        self.load = Load(root, jobs)
        clock = root / "clock"
        clock.write_bytes(struct.pack("<qq", 0, BEGIN_NS))
        self._clock = os.open(clock, os.O_WRONLY)
        self.second = 0
        library = FakeNvml(root / "sys" / "nvml")
        found = find_all(self.load.sources(), nvml=library)
        self.counters = found.counters
        self.agent = Agent(self.load.options(), found.counters, found.refused, ["rapl/0", "nvml/0"], FileClock(str(clock)))
        self.forward()
        self.agent.start()
        handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(GPUS)]
        files = [*self.load.cpu, *self.load.memory]
        zones = [f"intel-rapl:{socket}{part}/energy_uj" for socket in range(SOCKETS) for part in ("", f"/intel-rapl:{socket}:2")]
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
        self.load.advance_jobs(self.second)
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
        assert len(self.agent.engine.lives) == self.load.jobs, "a job is missing"
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
    print("jobs   agent   job files   ratio   files + counters   ratio   (of it 8 simulated NVML calls)")
    good = True
    for jobs in (1, 64, 256):
        with tempfile.TemporaryDirectory() as made:
            tick = Tick(Path(made), jobs)
            ms = tick.measure(blocks)
            tick.close()
        by_files, by_all = ms["agent"] / ms["files"], ms["agent"] / ms["all"]
        print(
            f"{jobs:4}{ms['agent']:8.3f}{ms['files']:12.3f}{by_files:8.2f}{ms['all']:19.3f}{by_all:8.2f}{ms['nvml']:12.3f}"
        )
        if jobs == 64:
            good = by_files <= LIMIT
    print(f"wanted with 64 jobs: at most {LIMIT} times the loop over the jobs' files")
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
                load.advance_jobs(time.monotonic() - begin)
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
        good &= resident("real nvidia-ml-py loaded", Path(made), SENERGY_REAL_PYNVML=spec.origin, SENERGY_FAKELIB=str(FAKELIB))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 21))
