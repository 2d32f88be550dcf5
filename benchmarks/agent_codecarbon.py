"""`senergy agent` and codecarbon side by side: CPU, resident memory and energy error, as whole processes.

Both sample the same simulated counters once a second, at the same time: 2 sockets through powercap, 8 GPUs behind
pynvml. The agent serves 64 jobs besides; codecarbon (OfflineEmissionsTracker, machine mode, no output, log off) knows
none. What the counters move is a law, so that the true energy is known: the packages follow a sine between 50 and
400 W, each GPU jumps between levels of 50 to 400 W every 0.4 to 4 s. All counters stand still while the programs start
and while they are asked for their sums, so that both see exactly the same energy. CPU time is told twice: of the whole
processes, start and end included, which is what the limit is for, and per second while they do nothing but sample.

Two cases: GPUs with an energy counter, and GPUs that show their power only, which both then integrate.

codecarbon has RAPL's folder written into it: here its reader is given the simulated one. What it asks of NVML beyond
what the simulation has (memory, utilisation, ...) is answered with constants. It counts no RAPL zone of memory: its
figure for memory is an estimate, shown apart and in no error.

usage: python benchmarks/agent_codecarbon.py [--seconds S] [--runs N] [--codecarbon PYTHON]

--codecarbon: a Python that can import codecarbon; without it one is made under ~/.cache by pip.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any, NamedTuple

from agent_tick import FAKELIB, GPUS, LIMIT_MB, SOCKETS, Load, memory_mb
from sim.law import Constant, Law, Sine, Steps

from slurm_energy.agent.store import Store

VERSION = "3.3.2"
JOBS = 64
STILL_S = 2.5
"""Counters stand still for so long before and after: two samples."""
RANGE_UJ = 1 << 33
"""So small that each package's counter wraps within a minute."""
CPU_SHARE = 0.5

DRIVER = """
import json, logging, sys, warnings
from types import SimpleNamespace
warnings.simplefilter("ignore")
import pynvml
GB = 1 << 30
pynvml.NVMLError_NotSupported = type("NVMLError_NotSupported", (pynvml.NVMLError,), {})
pynvml.NVML_TEMPERATURE_GPU = 0
pynvml.nvmlDeviceGetMemoryInfo = lambda gpu: SimpleNamespace(total=80 * GB, free=40 * GB, used=40 * GB)
pynvml.nvmlDeviceGetUtilizationRates = lambda gpu: SimpleNamespace(gpu=50, memory=50)
pynvml.nvmlDeviceGetEnforcedPowerLimit = lambda gpu: 700_000
pynvml.nvmlDeviceGetTemperature = lambda gpu, kind: 50
pynvml.nvmlDeviceGetComputeMode = lambda gpu: 0
pynvml.nvmlDeviceGetComputeRunningProcesses = pynvml.nvmlDeviceGetGraphicsRunningProcesses = lambda gpu: []
from codecarbon import OfflineEmissionsTracker, __version__
from codecarbon.core import cpu, gpu
logging.getLogger("codecarbon").setLevel("CRITICAL")
powercap = sys.argv[1]
reader, looked = cpu.IntelRAPL.__init__, cpu.is_rapl_available
cpu.IntelRAPL.__init__ = lambda self, rapl_dir="", **more: reader(self, rapl_dir=powercap, **more)
cpu.is_rapl_available = lambda rapl_dir=None: looked(powercap)
gpu.is_nvidia_system = lambda: True
tracker = OfflineEmissionsTracker(
    country_iso_code="USA", measure_power_secs=1, tracking_mode="machine", log_level="critical", save_to_file=False,
    api_call_interval=-1, allow_multiple_runs=True,
)
tracker.start()
print(json.dumps({"version": __version__, "hardware": [repr(one)[:40] for one in tracker._hardware]}), flush=True)
sys.stdin.readline()
tracker.stop()
said = tracker.final_emissions_data
kwh = {"cpu": said.cpu_energy, "gpu": said.gpu_energy, "ram": said.ram_energy}
print(json.dumps({**kwh, "seconds": said.duration}), flush=True)
"""


class Half(NamedTuple):
    """What one program cost, and what it says of the energy (J)."""

    cpu_s: float
    whole_s: float
    peak_mb: float
    package_j: float
    gpu_j: float
    dram_j: float


def laws(seconds: float) -> dict[str, Law]:
    """Of every counter; the GPUs draw nothing in the first and last 2 s, for power alone would go on counting there."""
    found: dict[str, Law] = {}
    for socket in range(SOCKETS):
        found[f"rapl:package-{socket}"] = Sine(225, 175, 3.3 + 4 * socket)
        found[f"rapl:package-{socket}/dram"] = Sine(30, 15, 7.1)
        for part in ("core", "uncore"):
            found[f"rapl:package-{socket}/{part}"] = Constant(20)
    for gpu in range(GPUS):
        drawn = random.Random(gpu)
        steps, at = [(0.0, 0.0)], 2.0
        while at < seconds - 2:
            steps.append((at, drawn.choice((50.0, 120.0, 250.0, 400.0))))
            at += drawn.uniform(0.4, 4.0)
        steps.append((seconds - 2, 0.0))
        found[f"nvml:GPU-00000000-0000-0000-0000-{gpu:012x}"] = Steps(steps)
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, threads that have ended included (its CPU clock, see clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def agent_joules(root: Path) -> tuple[float, float, float]:
    """Package, GPU and memory energy of jobs and idle after the agent's end: all segments and what is still open."""
    kept = Store(root / "state", root / "outbox").load()
    assert kept is not None, "no checkpoint"
    sums = dict.fromkeys(("package", "gpu", "dram"), 0)
    for session in (*kept.sessions, kept.idle):
        for name in sums:
            sums[name] += getattr(session, name)
    segments = [segment.uj for segment in kept.pending]
    lines = [line for file in (root / "outbox").iterdir() for line in file.read_text().splitlines()]
    for uj in (*segments, *(json.loads(line)["uj"] for line in lines)):
        for name in sums:
            sums[name] += uj[name]
    return sums["package"] / 1e6, sums["gpu"] / 1e6, sums["dram"] / 1e6


def ended(process: subprocess.Popen[Any]) -> float:
    """Waits for a process; all CPU time of its life, s."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return usage.ru_utime + usage.ru_stime


def once(python: str, seconds: float, *, counters: bool) -> tuple[Half, Half, Half, dict[str, Any]]:
    """One run of both: the agent, codecarbon, the truth (its costs 0), and what codecarbon says of itself."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        load = Load(root, JOBS, laws(seconds), RANGE_UJ)
        if not counters:
            for gpu in (root / "sys" / "nvml").iterdir():
                (gpu / "no_energy").touch()
        environment = {**os.environ, "PYTHONPATH": str(FAKELIB), "SENERGY_SIM_NVML": str(root / "sys" / "nvml")}
        agent = load.start_agent()
        other = subprocess.Popen(
            [python, "-c", DRIVER, str(root / "sys/class/powercap")], env=environment, cwd=root, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert other.stdin is not None
            assert other.stdout is not None
            about = json.loads(other.stdout.readline())
            time.sleep(STILL_S)
            before = [cpu_seconds(agent.pid), cpu_seconds(other.pid)]
            with load.node.running() as begin:
                while (now := time.monotonic() - begin) < seconds - 0.5:
                    load.jobs.advance(now)
                    time.sleep(0.5)
                time.sleep(max(begin + seconds - time.monotonic(), 0))
            end_s = load.node.now_s
            spent = [cpu_seconds(agent.pid) - before[0], cpu_seconds(other.pid) - before[1]]
            time.sleep(STILL_S)
            peaks = [memory_mb(agent.pid), memory_mb(other.pid)]
            other.stdin.write("stop\n")
            other.stdin.flush()
            said = json.loads(other.stdout.readline())
            whole_other = ended(other)
            agent.terminate()
            whole_agent = ended(agent)
        finally:
            for process in (agent, other):
                if process.poll() is None:
                    process.kill()
                    process.wait()
        truth = {
            part: sum(load.node.energy_uj(name, end_s) for name in load.node.names if belongs(name)) / 1e6
            for part, belongs in PARTS.items()
        }
        load.close()
        agents = agent_joules(root)
    kwh = 3.6e6
    return (
        Half(spent[0], whole_agent, peaks[0], *agents),
        Half(spent[1], whole_other, peaks[1], said["cpu"] * kwh, said["gpu"] * kwh, said["ram"] * kwh),
        Half(0, 0, 0, truth["package"], truth["gpu"], truth["dram"]),
        {**about, "ram_w": said["ram"] * kwh / said["seconds"]},
    )


PARTS = {
    "package": lambda name: name.startswith("rapl:package-") and "/" not in name,
    "gpu": lambda name: name.startswith("nvml:"),
    "dram": lambda name: name.endswith("/dram"),
}


def error(found: float, truth: float) -> str:
    """In per cent, with its sign."""
    return f"{round(100 * (found / truth - 1), 3) + 0.0:+.3f} %"


def case(python: str, seconds: float, runs: int, *, counters: bool) -> bool:
    """Prints one case; whether the agent is within its limits."""
    print(f"\nGPUs with {'their energy counter' if counters else 'power only, integrated by each'}; {seconds:g} s")
    found = []
    for number in range(runs):
        ours, theirs, truth, about = once(python, seconds, counters=counters)
        found.append((ours, theirs))
        if not number:
            print(f"codecarbon {about['version']}: {', '.join(about['hardware'])}")
        for name, half in (("senergy agent", ours), ("codecarbon", theirs)):
            memory = error(half.dram_j, truth.dram_j) if half is ours else f"estimates {about['ram_w']:.1f} W"
            print(
                f"{name:14} CPU {half.whole_s:5.2f} s, sampling {1000 * half.cpu_s / seconds:5.2f} ms/s   "
                f"peak {half.peak_mb:5.1f} MB   packages {error(half.package_j, truth.package_j)}   "
                f"GPUs {error(half.gpu_j, truth.gpu_j)}   memory {memory}"
            )
    whole = statistics.median(ours.whole_s / theirs.whole_s for ours, theirs in found)
    sampling = statistics.median(ours.cpu_s / theirs.cpu_s for ours, theirs in found)
    size = max(ours.peak_mb for ours, _ in found)
    print(
        f"median of {runs}: the agent takes {whole:.2f} of codecarbon's CPU as whole processes "
        f"(wanted: at most {CPU_SHARE:g}), {sampling:.2f} while sampling only; "
        f"{size:.1f} MB (wanted: at most {LIMIT_MB})"
    )
    return whole <= CPU_SHARE and size <= LIMIT_MB


def own_python() -> str:
    """A Python with codecarbon, made by pip in a cache folder the first time. Ends the program where that fails."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "slurm-energy", f"codecarbon-{VERSION}")
    python = cache / "bin" / "python"
    can = [str(python), "-c", "import codecarbon"]
    if python.exists() and subprocess.run(can, capture_output=True, check=False).returncode == 0:
        return str(python)
    print(f"making {cache} with codecarbon {VERSION} ...", flush=True)
    try:
        venv.create(cache, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"codecarbon=={VERSION}"]
        subprocess.run(pip, check=True)
        subprocess.run(can, check=True)
    except (OSError, subprocess.CalledProcessError) as failure:
        sys.exit(f"codecarbon could not be installed ({failure}); give a Python that has it: --codecarbon PYTHON")
    return str(python)


def main() -> int:
    """Prints both cases; 1 where the agent is over a limit."""
    parser = argparse.ArgumentParser(description="senergy agent and codecarbon over the same simulated counters")
    parser.add_argument("--seconds", type=float, default=60, help="how long the counters move (default 60)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each case (default 3)")
    parser.add_argument("--codecarbon", metavar="PYTHON", help="a Python that can import codecarbon")
    given = parser.parse_args()
    if given.seconds < 10 or given.runs < 1:
        parser.error("expected at least 10 s and 1 run")
    python = given.codecarbon or own_python()
    if given.codecarbon and subprocess.run([python, "-c", "import codecarbon"], check=False).returncode:
        parser.error(f"{python} cannot import codecarbon")
    good = [case(python, given.seconds, given.runs, counters=counters) for counters in (True, False)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
