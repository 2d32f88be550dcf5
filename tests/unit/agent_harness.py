"""A node for tests of the agent: clocks, counters, a cgroup tree and hook files that a test moves by hand."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slurm_energy.agent.agent import Agent
from slurm_energy.agent.clock import NS, FileClock
from slurm_energy.agent.options import AgentOptions
from slurm_energy.segment import DOMAINS, KEY, Segment
from slurm_energy.sources.base import DRAM, GPU, NODE, PACKAGE, Counter, Unreadable
from slurm_energy.sources.options import Options

NOON = 1_795_521_600
"""2026-11-24 12:00 UTC."""
RANGE = 262_143_328_850
SLUID = "sEKNKTV3WPV500"


class Gauge(Counter):
    """A counter that shows `uj`, modulo its range; broken: says why it does not."""

    __slots__ = ("broken", "uj")

    def __init__(self, domain: str, name: str, **facts: Any) -> None:
        super().__init__(domain, name, **facts)
        self.uj, self.broken = 0, ""

    def read(self, now_ns: int) -> int:
        if self.broken:
            raise Unreadable(self.broken)
        return self.uj % self.range_uj if self.range_uj else self.uj


class Cgroups:
    """A tree of cgroup v1 or v2 as slurmd makes it."""

    def __init__(self, root: Path, version: int, node: str = "n1") -> None:
        self.root, self.version = root, version
        self.base = root / ("cpuacct/slurm" if version == 1 else "system.slice/slurmstepd.scope")
        self.base.mkdir(parents=True)
        if version == 1:
            (root / "memory/slurm").mkdir(parents=True)
        self.cpu_us: dict[Path, float] = {}

    def folder(self, job_id: int, uid: int = 1000, sluid: str | None = None) -> Path:
        if self.version == 1:
            return self.base / f"uid_{uid}" / f"job_{job_id}"
        return self.base / (sluid or f"job_{job_id}")

    def add(self, job_id: int, uid: int = 1000, sluid: str | None = None, environment: Mapping[str, str] | None = None,
            pid: int = 4711, proc: Path | None = None) -> Path:  # fmt: skip
        """A job's folder; environment: of its one process, in the proc tree `proc`."""
        folder = self.folder(job_id, uid, sluid)
        (folder / "step_0").mkdir(parents=True)
        (folder / "step_0" / "cgroup.procs").write_text(f"{pid}\n")
        if self.version == 1:
            self._memory(folder).mkdir(parents=True)
        if environment and proc:
            (proc / str(pid)).mkdir(parents=True, exist_ok=True)
            text = "\0".join(f"{key}={value}" for key, value in environment.items())
            (proc / str(pid) / "environ").write_bytes(text.encode() + b"\0")
        self.cpu_us[folder] = 0
        self.use(folder, 0, 1 << 30)
        return folder

    def use(self, folder: Path, cpu_s: float, memory: int | None = None) -> None:
        """Adds CPU time."""
        self.cpu_us[folder] += cpu_s * 1e6
        used = round(self.cpu_us[folder])
        if self.version == 1:
            _write(folder / "cpuacct.usage", f"{used * 1000}\n")
        else:
            _write(folder / "cpu.stat", f"usage_usec {used}\nuser_usec 1\nsystem_usec 2\n")
        if memory is not None:
            where = self._memory(folder) if self.version == 1 else folder
            _write(where / ("memory.usage_in_bytes" if self.version == 1 else "memory.current"), f"{memory}\n")

    def remove(self, folder: Path) -> None:
        """The folder goes, and open files of it read no more."""
        for path in folder.rglob("*"):
            if path.is_file():
                os.truncate(path, 0)
        shutil.rmtree(folder)
        if self.version == 1:
            shutil.rmtree(self._memory(folder), ignore_errors=True)
        self.cpu_us.pop(folder, None)

    def _memory(self, folder: Path) -> Path:
        return Path(str(folder).replace("/cpuacct/", "/memory/", 1))


def _write(path: Path, text: str) -> None:
    """In place, for whoever has it open."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    os.pwrite(file, text.encode().ljust(64, b"\n"), 0)
    os.close(file)


def hook_bytes(event: str, job_id: int, **fields: Any) -> bytes:
    """What the hook scripts write."""
    usual = {
        "EVENT": event, "SLURM_JOB_ID": job_id, "SLURM_JOB_RESTART_COUNT": 0, "SLURM_JOB_UID": 1000,
        "SLURM_JOB_USER": "emma", "SLURM_JOB_ACCOUNT": "lisa", "SLURM_JOB_PARTITION": "gpu",
        "SLURM_CLUSTER_NAME": "alpha", "SLURMD_NODENAME": "n1", "SLURM_JOB_CPUS_PER_NODE": 2,
    }  # fmt: skip
    return b"".join(f"{key}={value}".encode() + b"\0" for key, value in {**usual, **fields, "END": 1}.items())


class Node:
    """A node of 8 CPUs with its agent in this process. `advance` moves everything and lets the agent look."""

    def __init__(self, root: Path, version: int = 1, counters: Iterable[Gauge] = (), **options: Any) -> None:
        self.root = root
        self.hooks, self.outbox, self.proc = root / "hooks", root / "outbox", root / "proc"
        self.hooks.mkdir(parents=True)
        boot = self.proc / "sys/kernel/random"
        boot.mkdir(parents=True)
        (boot / "boot_id").write_text("boot-1\n")
        self.cgroups = Cgroups(root / "cgroup", version)
        self.mono, self.wall = 1000 * NS, NOON * NS
        self.clock = root / "clock"
        self.tell()
        self.options = AgentOptions(
            **{
                "node": "n1", "cluster": "alpha", "hooks": str(self.hooks), "socket": str(root / "agent.sock"),
                "state_dir": str(root / "state"), "outbox": str(self.outbox), "cgroup_root": str(self.cgroups.root),
                "checkpoint_s": 10.0, "cpus": 8, "mem_bytes": 64 << 30, "group": "", "sources": Options(proc_root=str(self.proc)),
                **options,
            }  # type: ignore[arg-type]
        )  # fmt: skip
        self.counters = list(counters) or [Gauge(PACKAGE, "rapl:package-0", range_uj=RANGE, max_w=1000.0)]
        self.agent: Agent = None  # type: ignore[assignment]
        self.number = 0
        self.start()

    def start(self) -> Agent:
        """A new agent, as after kill -9 of the one before."""
        if self.agent is not None:
            for live in self.agent.engine.lives:
                live.close()
        self.agent = Agent(self.options, self.counters, [], ["rapl/0.1"], FileClock(str(self.clock)))
        self.agent.start()
        return self.agent

    def tell(self) -> None:
        new = self.clock.with_name("clock.new")
        data = struct.pack("<qq", self.mono, self.wall)
        if not self.clock.exists():
            new.write_bytes(data)
            new.rename(self.clock)
        else:
            with self.clock.open("r+b") as file:
                file.write(data)

    def move(self, seconds: float, watts: float | Mapping[str, float] = 100, cores: Mapping[Path, float] | None = None):
        """Time passes, counters count, jobs compute; nobody looks."""
        for counter in self.counters:
            power = watts if isinstance(watts, (int, float)) else watts.get(counter.name, 0)
            counter.uj += round(power * seconds * 1e6)
        for folder, used in (cores or {}).items():
            self.cgroups.use(folder, used * seconds)
        self.mono += round(seconds * NS)
        self.wall += round(seconds * NS)
        self.tell()

    def advance(self, seconds: float, watts=100, cores=None, step: float = 1.0) -> None:
        """The same, and the agent looks every `step` seconds."""
        done = 0.0
        while done < seconds - 1e-9:
            self.move(min(step, seconds - done), watts, cores)
            done += step
            self.agent.tick()

    def hook(self, event: str, job_id: int, at_ns: int | None = None, **fields: Any) -> Path:
        """Drops a file as the hooks do, written at `at_ns` (default: now)."""
        self.number += 1
        data = hook_bytes(event, job_id, **fields)
        return self.drop(f"{job_id}.0.{1 if event == 'prolog' else 2}-{event}.{self.number}", data, at_ns)

    def drop(self, name: str, data: bytes, at_ns: int | None = None) -> Path:
        hidden, path = self.hooks / f".{name}", self.hooks / name
        hidden.write_bytes(data)
        when = self.wall if at_ns is None else at_ns
        os.utime(hidden, ns=(when, when))
        hidden.rename(path)
        return path

    def job(self, job_id: int):
        """The open session of a job, or None."""
        found = [live.session for live in self.agent.engine.lives if live.session.job_id == job_id]
        assert len(found) <= 1, found
        return found[0] if found else None

    def shipped(self) -> list[dict[str, Any]]:
        """Segments in the outbox."""
        lines = [line for file in sorted(self.outbox.glob("*.jsonl")) for line in file.read_text().splitlines()]
        return [json.loads(line) for line in lines]

    def segments(self, job_id: int | None = None) -> list[dict[str, Any]]:
        """All that were cut: shipped, on their way and pending; each key once."""
        found = self.shipped()
        found += [json.loads(line) for out in self.agent.delivery.outgoing for line in out.content.splitlines()]
        found += [as_dict(one) for one in self.agent.delivery.pending]
        by_key = {key_of(one): one for one in found}
        return [one for one in by_key.values() if job_id is None or one["job_id"] == job_id]

    def total(self) -> Tally[str]:
        """uJ by domain: all segments and what is open."""
        sums = add_up(self.segments())
        for session in (*(live.session for live in self.agent.engine.lives), self.agent.engine.idle):
            for domain in DOMAINS:
                sums[domain] += getattr(session, domain)
        return sums

    def joules(self, job_id: int, domain: str = "package") -> float:
        """What a job has got, J."""
        uj = sum(one["uj"][domain] for one in self.segments(job_id))
        sessions = [live.session for live in self.agent.engine.lives] + [self.agent.engine.idle]
        return (uj + sum(getattr(one, domain) for one in sessions if one.job_id == job_id)) / 1e6


def as_dict(segment: Segment) -> dict[str, Any]:
    import msgspec

    return json.loads(msgspec.json.encode(segment))


def key_of(one: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(one[name] for name in KEY)


def add_up(segments: Iterable[Mapping[str, Any]]) -> Tally[str]:
    sums: Tally[str] = Tally(dict.fromkeys(DOMAINS, 0))
    for one in segments:
        for domain in DOMAINS:
            sums[domain] += one["uj"][domain]
    return sums


__all__ = [
    "DRAM",
    "GPU",
    "NODE",
    "NOON",
    "NS",
    "PACKAGE",
    "SLUID",
    "Cgroups",
    "Gauge",
    "Node",
    "add_up",
    "hook_bytes",
    "key_of",
]
