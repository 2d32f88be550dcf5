"""What a scrape of the node exporter costs, next to Debian's prometheus-node-exporter in the same run.

A simulated node of 2 sockets (package and memory) and 8 GPUs with 10, 128 and 1000 jobs; the real `senergy agent` on it,
whose files move all the while, and the real `senergy-node-exporter` with the flags of a site. Both exporters are scraped in
turns as Prometheus does it: kept connection, OpenMetrics asked for first, gzip accepted, with a pause between, so that
no scrape is answered from the one before. CPU time is of the exporter's process, user and system; for ours there is also
that of the agent, which makes the snapshot (it ticks once a second meanwhile, which is taken off by a rest of as many seconds).
Memory is the most that the process had resident (VmHWM). Growth is judged by what a further job costs: from 128 to 1000
jobs at most half as much again as from 10 to 128, in time and in CPU (the agent's part included), else it is no straight
line.

usage: python benchmarks/node_exporter.py [SCRAPES]
"""

from __future__ import annotations

import http.client
import itertools
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from agent_tick import GPUS, Load, memory_mb
from harness import PYTHON

JOBS = (10, 128, 1000)
JUDGED = 128
LIMIT_MB = 40
STEEPER = 1.5
"""How much more a job may cost among many than among few."""
PAUSE_S = 0.15
DEBIAN = "prometheus-node-exporter"
HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    "Accept-Encoding": "gzip",
}  # fmt: skip
PORT_OF_DEBIANS = 29_100


class Target:
    """An exporter's process and a kept connection to it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.ms: list[float] = []
        self.cpu_ms: list[float] = []
        self.size = 0

    def scrape(self, *, counts: bool) -> None:
        """One scrape; counts: whether it is one of the measured."""
        spent, begin = cpu_ms(self.process.pid), time.perf_counter()
        self.client.request("GET", "/metrics", headers=HEADERS)
        response = self.client.getresponse()
        self.size = len(response.read())
        assert response.status == 200, response.status
        if counts:
            self.ms.append((time.perf_counter() - begin) * 1000)
            self.cpu_ms.append(cpu_ms(self.process.pid) - spent)

    def close(self) -> None:
        """Ends the process."""
        self.client.close()
        self.process.terminate()
        self.process.wait()


class Cost(NamedTuple):
    """Medians of one exporter; CPU is the mean, for the kernel may count in steps."""

    ms: float
    cpu_ms: float
    peak_mb: float


def cpu_ms(pid: int) -> float:
    """CPU time that a process has used, all its threads, ms."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((thread / "schedstat").read_text().split()[0])
        except (OSError, IndexError):  # a thread that has just ended
            continue
    return total / 1e6


def start_ours(root: Path) -> Target:
    """Our exporter on this node's agent, on a free port."""
    log = root / "exporter.log"
    command = [PYTHON, "-m", "slurm_energy_exporters.node", "--socket", str(root / "agent.sock")]
    with log.open("wb") as file:
        process = subprocess.Popen([*command, "--web.listen-address=127.0.0.1:0"], stderr=file)
    deadline = time.monotonic() + 20
    while not (found := re.search(r"listening on \S+:(\d+)", log.read_text())):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(log.read_text())
        time.sleep(0.02)
    return Target(process, int(found[1]))


def start_debians() -> Target | None:
    """Debian's exporter with its own defaults; None where it is not installed."""
    program = shutil.which(DEBIAN)
    if program is None:
        return None
    address = f"--web.listen-address=127.0.0.1:{PORT_OF_DEBIANS}"
    target = Target(subprocess.Popen([program, address], stderr=subprocess.DEVNULL), PORT_OF_DEBIANS)
    deadline = time.monotonic() + 10
    while True:
        try:
            target.client.connect()
        except ConnectionError:
            if target.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{program} does not come up") from None
            time.sleep(0.05)
        else:
            return target


def measure(jobs: int, scrapes: int) -> tuple[Cost, Cost | None, float]:
    """Ours, Debian's, and what a scrape costs the agent (ms of CPU)."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        load = Load(root, jobs)
        agent = load.start_agent()
        ours, debians = start_ours(root), start_debians()
        both = [target for target in (ours, debians) if target]
        over = threading.Event()

        def move() -> None:
            begin = time.monotonic()
            while not over.wait(1):
                load.jobs.advance(time.monotonic() - begin)

        mover = threading.Thread(target=move)
        try:
            with load.node.running(0.25):
                mover.start()
                for _ in range(5):
                    for target in both:
                        target.scrape(counts=False)
                        time.sleep(PAUSE_S)
                begin, spent = time.monotonic(), cpu_ms(agent.pid)
                for _ in range(scrapes):
                    for target in both:
                        target.scrape(counts=True)
                        time.sleep(PAUSE_S)
                length, busy = time.monotonic() - begin, cpu_ms(agent.pid) - spent
                spent = cpu_ms(agent.pid)
                time.sleep(5)
                alone = (cpu_ms(agent.pid) - spent) / 5 * length
            costs = [
                Cost(statistics.median(one.ms), statistics.fmean(one.cpu_ms), memory_mb(one.process.pid))
                for one in both
            ]
        finally:
            over.set()
            mover.join()
            for target in both:
                target.close()
            agent.terminate()
            agent.wait()
            load.close()
    return costs[0], costs[1] if debians else None, max(busy - alone, 0.0) / scrapes


def main(scrapes: int) -> int:
    """Prints the figures; 1 where one is over its limit."""
    good = True
    by_jobs: dict[int, float] = {}
    cpu: dict[int, float] = {}
    print(
        f"{scrapes} scrapes of each in turns, {GPUS} GPUs; {os.cpu_count()} CPUs; medians of time, means of CPU, peak memory"
    )
    print(f"jobs     ours: ms   CPU ms  (agent)     MB     {DEBIAN}: ms   CPU ms     MB    ratio of ms")
    for jobs in JOBS:
        ours, debians, agent = measure(jobs, scrapes)
        by_jobs[jobs], cpu[jobs] = ours.ms, ours.cpu_ms + agent
        row = f"{jobs:4}{ours.ms:14.2f}{ours.cpu_ms:9.2f}{agent:9.2f}{ours.peak_mb:7.1f}"
        if debians is None:
            print(row + f"     {DEBIAN} is not installed")
        else:
            ratio = ours.ms / debians.ms
            print(row + f"{debians.ms:34.2f}{debians.cpu_ms:9.2f}{debians.peak_mb:7.1f}{ratio:15.2f}")
            good &= jobs != JUDGED or ratio <= 1
        good &= jobs != JUDGED or ours.peak_mb < LIMIT_MB
    print(f"wanted with {JUDGED} jobs: a ratio of at most 1, less than {LIMIT_MB} MB")
    for what, cost in (("time", by_jobs), ("CPU, the agent's part included,", cpu)):
        few, many = (slope(cost, *pair) for pair in itertools.pairwise(JOBS))
        ratio = many / few if few > 0 else float("inf")
        print(
            f"{what} of a further job: {few:.1f} us from {JOBS[0]} to {JOBS[1]} jobs, {many:.1f} us from there to {JOBS[2]}: "
            f"{ratio:.2f} times as much; wanted: at most {STEEPER}"
        )
        good &= ratio <= STEEPER
    return 0 if good else 1


def slope(cost: dict[int, float], few: int, many: int) -> float:
    """What one more job costs between these numbers of jobs, microseconds."""
    return (cost[many] - cost[few]) / (many - few) * 1000


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
