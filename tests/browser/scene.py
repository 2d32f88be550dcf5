"""What the page is tried on: a real agent on simulated counters with jobs, a ledger of two years, `senergy web`."""

from __future__ import annotations

import json
import math
import os
import random
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from common.agent_socket import Stub, counter, job
from common.waiting import until
from sim.law import Constant, Law, Sine
from sim.sysfs import SimNode

from slurm_energy.agent.snapshot import JobView, Snapshot

SENERGY = Path(sys.executable).with_name("senergy")
SIM = Path(__file__).parents[1] / "sim"
WEB = "import typer; from slurm_energy.cli.web import web; typer.run(web)"
HOSTILE = "<img src=x onerror=alert(1)>"
PROJECTS = {
    "climate": 9.0, "protein-folding": 6.0, "lisa": 4.0, "nlp": 3.0, "astro": 1.6, "materials": 1.2, "genomics": 0.6,
    HOSTILE: 0.2,
}  # fmt: skip


def log(first: int, months: int) -> Iterator[str]:
    """A site's jobs as sacct prints them, the same each time."""
    chance = random.Random(7)
    yield "JobID|Cluster|User|Account|Partition|State|Submit|Start|End|NNodes|NCPUS|AllocTRES|ConsumedEnergyRaw\n"
    number = 1
    for day in range(months * 30):
        season = 1 + 0.35 * math.sin(day / 58) + day / 1500
        for project, weight in PROJECTS.items():
            if chance.random() > 0.35:
                continue
            start = first + day * 86400 + chance.randrange(70000)
            length = round(weight * season * chance.uniform(1500, 9000))
            gpus = chance.choice((0, 1, 4, 4, 8))
            tres = f"cpu={gpus * 8 or 32},mem=64G,node=1" + (f",gres/gpu:a100={gpus},gres/gpu={gpus}" if gpus else "")
            joules = 0 if chance.random() < 0.4 else length * (300 + 400 * gpus)
            state = chance.choice(("COMPLETED",) * 8 + ("FAILED", "TIMEOUT"))
            yield (
                f"{number}|alpha|user{number % 9}|{project}|gpu|{state}|{start - 60}|{start}|{start + length}|1|"
                f"{gpus * 8 or 32}|{tres}|{joules}\n"
            )
            number += 1


def make_ledger(folder: Path, months: int = 16) -> Path:
    """A ledger up to today, aggregated by the command."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = folder / "jobs.txt"
    jobs.write_text("".join(log(int(time.time()) - months * 30 * 86400, months)), encoding="utf-8")
    (folder / "site.toml").write_text(
        '[site]\ntimezone = "UTC"\n[slurm]\nenergy_plugin = "ipmi"\n[power.partition.gpu]\nexclusive = true\n'
    )
    subprocess.run(
        [SENERGY, "aggregate", "--quiet", "--from", jobs, "--ledger", folder / "ledger", "--config", folder / "site.toml"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "ledger"


class Node:
    """A node with counters that move, cgroups of jobs, and its agent: the real process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hooks, self.cgroups = root / "hooks", root / "cgroup/system.slice/slurmstepd.scope"
        for folder in (self.hooks, self.cgroups):
            folder.mkdir(parents=True)
        self.sysfs = SimNode(root / "sys", packages=2, nvidia=4, cores=False, law=_law)
        (root / "config.toml").write_text(
            f"""[agent]
            node = "gpu01"
            cluster = "alpha"
            cpus = 64
            mem_bytes = {256 << 30}
            package_idle_w = 90
            dram_idle_w = 12
            period_s = 0.5
            outbox = "{root / "outbox"}"
            group = ""
            [agent.sources]
            off = ["amdgpu", "hwmon", "cray", "ipmi", "model"]
            """
        )
        self.socket = root / "agent.sock"
        self._jobs: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._move, daemon=True)
        self._thread.start()
        self._log = (root / "agent.log").open("wb")
        self.agent = subprocess.Popen(
            [SENERGY, "agent", "--config", root / "config.toml", "--sysfs-root", root / "sys", "--cgroup-root", root / "cgroup",
             "--hooks", self.hooks, "--state-dir", root / "state", "--socket", self.socket],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            env={**os.environ, "PYTHONPATH": str(SIM / "fakelib"), "SENERGY_SIM_NVML": str(root / "sys/nvml")},
        )  # fmt: skip
        until("the agent's socket", self._there, 20)

    def _there(self) -> bool:
        assert self.agent.poll() is None, (self.root / "agent.log").read_text()
        return self.socket.exists()

    def _move(self) -> None:
        begin = time.monotonic()
        while not self._stop.wait(0.1):
            now = time.monotonic() - begin
            self.sysfs.advance_to(now)
            for job_id, cores in list(self._jobs.items()):
                busy = cores * (1 + 0.4 * math.sin(now / 3 + job_id))
                self._show(job_id, busy)

    def _show(self, job_id: int, cores: float) -> None:
        folder = self.cgroups / f"job_{job_id}"
        used = int((folder / "cpu.stat").read_text().split()[1]) if (folder / "cpu.stat").exists() else 0
        for name, text in (
            ("cpu.stat", f"usage_usec {used + round(cores * 1e5)}\n"),
            ("memory.current", f"{8 << 30}\n"),
        ):
            file = os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o644)
            os.pwrite(file, text.encode().ljust(40, b"\n"), 0)
            os.close(file)

    def begin(self, job_id: int, user: str, account: str, cpus: int, gpus: str = "") -> None:
        """A job starts, as its Prolog tells."""
        (self.cgroups / f"job_{job_id}").mkdir()
        self._show(job_id, 0)
        self._jobs[job_id] = cpus * 0.6
        self._hook("prolog", job_id, {
            "SLURM_JOB_UID": 1000, "SLURM_JOB_USER": user, "SLURM_JOB_ACCOUNT": account, "SLURM_JOB_PARTITION": "gpu",
            "SLURM_JOB_CPUS_PER_NODE": cpus, "SLURM_JOB_GPUS": gpus,
        })  # fmt: skip

    def end(self, job_id: int) -> None:
        """A job ends, as its Epilog tells."""
        del self._jobs[job_id]
        self._hook("epilog", job_id, {"SLURM_JOB_UID": 1000})

    def _hook(self, event: str, job_id: int, fields: dict[str, Any]) -> None:
        whole = {
            "EVENT": event, "SLURM_JOB_ID": job_id, "SLURM_JOB_RESTART_COUNT": 0, **fields, "SLURM_CLUSTER_NAME": "alpha",
            "SLURMD_NODENAME": "gpu01", "END": 1,
        }  # fmt: skip
        name = f"{job_id}.0.{1 if event == 'prolog' else 2}-{event}.1"
        (self.hooks / f".{name}").write_bytes(
            b"".join(f"{key}={value}".encode() + b"\0" for key, value in whole.items())
        )
        (self.hooks / f".{name}").rename(self.hooks / name)

    def close(self) -> None:
        """Ends the agent."""
        self._stop.set()
        self._thread.join()
        if self.agent.poll() is None:
            self.agent.terminate()
            self.agent.wait(20)
        self._log.close()
        self.sysfs.close()


class Told(Stub):
    """An agent's socket that says what the test wants: so many jobs whose watts change at each look.

    ahead_s: how far its clock is before ours; stopped_ns: when it looked last, if it looks no more.
    """

    def __init__(self, path: Path, jobs: int) -> None:
        self.jobs, self.ahead_s, self.period_s = jobs, 0.0, 1.0
        self.stopped_ns: int | None = None
        super().__init__(path, None)

    def said(self) -> bytes:
        wall_ns = self.stopped_ns or time.time_ns() + round(self.ahead_s * 1e9)
        jobs = [_job(number, wall_ns) for number in range(1, self.jobs + 1)]
        shown = Snapshot(
            version="1", cluster="alpha", node="told1", boot_id="b", wall_ns=wall_ns, hour="", started_ns=0, ticks=1,
            period_s=self.period_s, counters=[counter("rapl:package-0", "package", 80.0, 1.0)], refused=[], jobs=jobs,
            idle=_job(0, wall_ns), outbox_fill=0.0, pending_segments=0, bad_hook_files=0, set_aside=0, clock_jumps=0,
            problems=[],
        )  # fmt: skip
        return msgspec.json.encode(shown)


def _job(number: int, wall_ns: int) -> JobView:
    watts = 20 + number + 9 * math.sin(wall_ns / 2e9 + number)
    return job(
        number, (watts, 0.0, 0.0, 0.0), (1e6, 0.0, 0.0, 0.0), session_start=1_700_000_000, user=f"user{number % 5}",
        cpus=4, cpu_seconds=1.0,
    )  # fmt: skip


def _law(name: str) -> Law:
    if name.startswith("nvml"):
        number = int(name[-1], 16)
        return Sine(240 + 60 * number, 120, 9 + 2 * number)
    return Constant(14) if "dram" in name else Sine(150, 60, 7)


class Web:
    """`senergy web` as a process."""

    def __init__(self, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WEB, "--listen", "127.0.0.1:0", *map(str, arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address.startswith("http://127.0.0.1:"), self.address

    def close(self) -> None:
        """Ends it."""
        self.process.terminate()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def png_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG."""
    found: tuple[int, int] = struct.unpack(">II", path.read_bytes()[16:24])
    return found


def plain(value: object) -> str:
    """A value as JavaScript writes it."""
    return json.dumps(value)
