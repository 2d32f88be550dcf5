"""Where a real NVIDIA GPU is: its energy counter against its power integrated, and what a tick of NVML costs.

usage: python benchmarks/real_gpu.py [--seconds 30] [--gpu 0] [--calls 500]

Stands alone: needs nvidia-ml-py, and torch for the load (without it only the idle GPU is measured, and that is said).
Three phases: idle, load, and steps of load and rest. In each the counter's movement stands beside the power integrated
once a second, as the agent does where there is no counter, and ten times a second. Prints Markdown; ends with 1 where
the counter and the power integrated ten times a second differ by more than 5 % in a phase.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

FINE_S = 0.1
COARSE = 10
STEP_S = 5.0
MOST_PERCENT = 5.0


class Sample(NamedTuple):
    """Monotonic seconds, and what NVML said; energy is None where the GPU has no counter."""

    at_s: float
    energy_mj: int | None
    power_mw: int


class Phase(NamedTuple):
    """One row of the table."""

    name: str
    seconds: float
    counter_j: float | None
    coarse_j: float
    fine_j: float
    low_w: float
    high_w: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the check and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="length of each phase")
    parser.add_argument("--gpu", type=int, default=0, help="NVML index")
    parser.add_argument("--calls", type=int, default=500, help="how often each call is timed")
    parser.add_argument("--burn", nargs=2, type=float, metavar=("BUSY_S", "REST_S"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.burn:
        return burn(*options.burn)
    try:
        import pynvml
    except ImportError:
        print("pynvml is not installed: pip install nvidia-ml-py", file=sys.stderr)
        return 2
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(options.gpu)
    except pynvml.NVMLError as error:
        print(f"no GPU {options.gpu} to check: {error}", file=sys.stderr)
        return 2
    name, driver, uuid = (
        text(value)
        for value in (
            pynvml.nvmlDeviceGetName(handle),
            pynvml.nvmlSystemGetDriverVersion(),
            pynvml.nvmlDeviceGetUUID(handle),
        )
    )
    print(f"Device: {name}, driver {driver}, {time.strftime('%Y-%m-%d', time.gmtime())}\n")
    phases = [measure("idle", pynvml, handle, options.seconds)]
    why = no_load()
    if not why:
        for phase_name, rest_s in (("load", 0.0), ("step", STEP_S)):
            phase = loaded(phase_name, rest_s, pynvml, handle, uuid, options.seconds)
            if phase:
                phases.append(phase)
            else:
                why = "the process that makes it ended"
    print(table(phases))
    if why:
        print(f"\nNo load could be made, so the table has not all three phases: {why}")
    print(
        f"\nSteps are {STEP_S:g} s of load and {STEP_S:g} s of rest. Difference: integrated power against the counter.\n"
    )
    print(costs(pynvml, options.calls))
    far = [
        phase.name for phase in phases if phase.counter_j and abs(percent(phase.fine_j, phase.counter_j)) > MOST_PERCENT
    ]
    if far:
        print(f"\nMore than {MOST_PERCENT:g} % apart: {', '.join(far)}")
    return 1 if far else 0


def no_load() -> str:
    """Why no load can be made; '' where one can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    code = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 1)"
    return "torch sees no GPU" if subprocess.run([sys.executable, "-c", code], check=False).returncode else ""


def loaded(name: str, rest_s: float, pynvml: Any, handle: Any, uuid: str, seconds: float) -> Phase | None:
    """A phase while another process loads the GPU, all the time or in steps; None where it does not start."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--burn", str(STEP_S), str(rest_s)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": uuid}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        if process.stdout is None or process.stdout.readline().strip() != "burning":
            return None
        return measure(name, pynvml, handle, seconds)
    finally:
        process.kill()
        process.wait()


def burn(busy_s: float, rest_s: float) -> int:
    """Multiplies matrices until it is killed."""
    import torch

    left = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    torch.mm(left, left)
    torch.cuda.synchronize()
    print("burning", flush=True)
    begin = time.monotonic()
    while time.monotonic() - begin < 3600:
        until = time.monotonic() + busy_s
        while time.monotonic() < until:
            for _ in range(20):
                torch.mm(left, left)
            torch.cuda.synchronize()
        time.sleep(rest_s)
    return 0


def measure(name: str, pynvml: Any, handle: Any, seconds: float) -> Phase:
    """Samples the GPU ten times a second, and compares."""
    samples: list[Sample] = []
    begin = time.monotonic()
    for tick in range(round(seconds / FINE_S) + 1):
        time.sleep(max(0.0, begin + tick * FINE_S - time.monotonic()))
        energy = energy_mj(pynvml, handle)
        samples.append(Sample(time.monotonic(), energy, pynvml.nvmlDeviceGetPowerUsage(handle)))
    first, last = samples[0], samples[-1]
    counted = None
    if first.energy_mj is not None and last.energy_mj is not None:
        counted = (last.energy_mj - first.energy_mj) / 1000
    watts = [sample.power_mw / 1000 for sample in samples]
    coarse = samples[::COARSE] if (len(samples) - 1) % COARSE == 0 else [*samples[::COARSE], last]
    return Phase(name, last.at_s - first.at_s, counted, integral_j(coarse), integral_j(samples), min(watts), max(watts))


def energy_mj(pynvml: Any, handle: Any) -> int | None:
    """The counter; None where this GPU has none."""
    try:
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    except pynvml.NVMLError as error:
        if error.value != pynvml.NVML_ERROR_NOT_SUPPORTED:
            raise
        return None


def integral_j(samples: Sequence[Sample]) -> float:
    """The trapezoids under the power, J."""
    return sum(
        (before.power_mw + after.power_mw) / 2000 * (after.at_s - before.at_s)
        for before, after in zip(samples, samples[1:])  # noqa: B905, RUF007
    )


def percent(value: float, reference: float) -> float:
    """How far apart, %."""
    return 100 * (value - reference) / reference if reference else 0.0


def table(phases: Sequence[Phase]) -> str:
    """The comparison as Markdown."""
    rows = [
        "| phase | seconds | power, W | counter, J | integrated at 1 Hz, J | difference | at 10 Hz, J | difference |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for phase in phases:
        counter = "none" if phase.counter_j is None else f"{phase.counter_j:,.1f}"
        far = [
            "" if not phase.counter_j else f"{percent(value, phase.counter_j):+.2f} %"
            for value in (phase.coarse_j, phase.fine_j)
        ]
        rows.append(
            f"| {phase.name} | {phase.seconds:.1f} | {phase.low_w:.0f} to {phase.high_w:.0f} | {counter} "
            f"| {phase.coarse_j:,.1f} | {far[0]} | {phase.fine_j:,.1f} | {far[1]} |"
        )
    return "\n".join(rows)


def costs(pynvml: Any, calls: int) -> str:
    """What the calls of a tick cost, as Markdown: one GPU, and all of the node."""
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    first = handles[0]
    timed: list[tuple[str, Callable[[], object]]] = [
        ("energy counter, one GPU", lambda: energy_mj(pynvml, first)),
        ("power, one GPU", lambda: pynvml.nvmlDeviceGetPowerUsage(first)),
        (f"a tick: energy of all {len(handles)} GPUs", lambda: [energy_mj(pynvml, handle) for handle in handles]),
    ]
    rows = ["| call | median, ms | 99th percentile, ms | CPU, ms |", "| --- | ---: | ---: | ---: |"]
    for name, call in timed:
        walls: list[float] = []
        cpu = time.process_time()
        for _ in range(calls):
            begin = time.perf_counter()
            call()
            walls.append(1000 * (time.perf_counter() - begin))
        cpu = 1000 * (time.process_time() - cpu) / calls
        walls.sort()
        late = walls[min(len(walls) - 1, int(0.99 * len(walls)))]
        rows.append(f"| {name} | {statistics.median(walls):.3f} | {late:.3f} | {cpu:.3f} |")
    return "\n".join(rows)


def text(value: Any) -> str:
    """Older releases of pynvml give bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    sys.exit(main())
