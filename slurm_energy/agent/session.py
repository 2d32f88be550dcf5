"""A sampling session: one run of one job on this node, and what it has got in the hour that is open."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from slurm_energy.accounting.attribution import Usage
from slurm_energy.segment import DOMAINS, SCHEMA_VERSION, GpuUse, Segment
from slurm_energy.slurm.cgroup import Group
from slurm_energy.sources.base import GPU

IDLE = 0
"""The job id of what no job used."""
RATE_NS = 200_000_000
"""Two looks closer together than this (a hook woke us) give no rate: the kernel counts in steps of milliseconds."""
NO_ID = -1
"""Of a job that is known by its SLUID only."""


class Session(msgspec.Struct, kw_only=True):
    """Who it is, what it holds, what was last seen of it, and the energy of the open hour. Goes into the checkpoint."""

    job_id: int
    restart_count: int = 0
    sluid: str | None = None
    session_start: int
    """Its first second, epoch seconds."""
    user: str = ""
    uid: int = -1
    account: str = ""
    partition: str = ""
    cpus: int = 1
    mem_bytes: int = 0
    gpus: list[str] = []
    gpus_unknown: int = 0
    """How many of Slurm's numbers of its GPUs no counter here belongs to: their energy is not measured."""
    alone: bool = False
    origin: str = "hook"
    """How it became known: hook, discovered (seen in the cgroup tree), idle."""

    cpu_last_ns: int = 0
    cpu_rate: float = 0.0
    """CPU time per time when last seen: what counts where the folder is gone already."""
    mem_last: int = 0
    seen: bool = False
    """Whether its cgroup folder was ever there."""
    missing_since_ns: int = 0
    at_missing: dict[str, int] | None = None
    """What the open hour held when its folder was first missed: without an Epilog the job ended then."""

    start: int = 0
    end: int = 0
    package: int = 0
    dram: int = 0
    gpu: int = 0
    other: int = 0
    by_gpu: dict[str, int] = {}
    cpu_time_ns: int = 0
    samples: int = 0
    gap_ns: int = 0
    gpu_gap_ns: int = 0

    earlier_uj: list[int] = msgspec.field(default_factory=lambda: [0, 0, 0, 0])
    """What went out in earlier hours (package, dram, gpu, other): for live display."""

    @property
    def key(self) -> tuple[int, int, str | None, int]:
        """What tells it from other sessions of this node."""
        return self.job_id, self.restart_count, self.sluid, self.session_start

    def empty(self) -> bool:
        """Whether the open hour holds nothing worth a segment."""
        return not self.samples and not (self.package or self.dram or self.gpu or self.other)

    def total_uj(self) -> list[int]:
        """What it got since it began: package, dram, gpu, other."""
        now = (self.package, self.dram, self.gpu, self.other)
        return [earlier + open_ for earlier, open_ in zip(self.earlier_uj, now, strict=True)]

    def remember(self) -> None:
        """Keeps what the open hour holds, for `give_back`."""
        names = (*DOMAINS, "samples", "gap_ns", "gpu_gap_ns", "end")
        self.at_missing = {name: getattr(self, name) for name in names}
        self.at_missing |= {f"gpu:{device}": uj for device, uj in self.by_gpu.items()}

    def give_back(self, idle: Session) -> None:
        """What it got since `remember` was nobody's."""
        then, self.at_missing = self.at_missing, None
        if then is None:
            return
        for name in DOMAINS:
            setattr(idle, name, getattr(idle, name) + getattr(self, name) - then[name])
            setattr(self, name, then[name])
        for device, uj in self.by_gpu.items():
            before = then.get(f"gpu:{device}", 0)
            if uj > before:
                idle.by_gpu[device] = idle.by_gpu.get(device, 0) + uj - before
            self.by_gpu[device] = before
        self.samples, self.gap_ns, self.end = then["samples"], then["gap_ns"], then["end"]
        self.gpu_gap_ns = then["gpu_gap_ns"]

    def measured_of(self, stamp: Stamp) -> tuple[str, ...]:
        """The domains that are measured for this session: a job's GPUs only where it is known which they are."""
        known = self.gpus or self.by_gpu or self.job_id == IDLE
        return tuple(domain for domain in stamp.measured if domain != GPU or known)

    def cut(self, stamp: Stamp, closed: str = "") -> Segment:
        """The open hour as a segment; the session goes on with an empty one. closed: why it is the last one."""
        gpus = [GpuUse(uuid, stamp.models.get(uuid, ""), uj) for uuid, uj in sorted(self.by_gpu.items())]
        segment = Segment(
            schema=SCHEMA_VERSION, cluster=stamp.cluster, node=stamp.node, job_id=self.job_id,
            restart_count=self.restart_count, sluid=self.sluid, session_start=self.session_start, user=self.user,
            uid=self.uid, account=self.account, partition=self.partition, hour=stamp.hour, start=self.start,
            end=max(self.start, self.end),  # the clock may have been put back
            uj={domain: getattr(self, domain) for domain in DOMAINS}, gpus=gpus, cpu_time_ns=self.cpu_time_ns,
            samples=self.samples, gap_s=self.gap_ns / 1e9, gpu_gap_s=self.gpu_gap_ns / 1e9, sources=stamp.sources,
            measured=self.measured_of(stamp), origin=self.origin, closed=closed, final=bool(closed),
        )  # fmt: skip
        self.earlier_uj = self.total_uj()
        self.start, self.at_missing = self.end, None
        self.package = self.dram = self.gpu = self.other = 0
        self.by_gpu = {}
        self.cpu_time_ns = self.samples = self.gap_ns = self.gpu_gap_ns = 0
        return segment


class Stamp(NamedTuple):
    """What all segments of one moment share: place, hour, sources with version, the domains that are measured."""

    cluster: str
    node: str
    hour: str
    sources: list[str]
    measured: list[str]
    models: dict[str, str]


class Live:
    """A session with its open cgroup files and the scratch of the current tick; not in the checkpoint."""

    __slots__ = ("_rate_cpu_ns", "_rate_ns", "_usage", "cpu_delta", "group", "session", "since_ns")

    def __init__(self, session: Session, now_ns: int) -> None:
        """now_ns: when `session.cpu_last_ns` was so (monotonic)."""
        self.session = session
        self.group: Group | None = None
        self.cpu_delta = -1
        self.since_ns = now_ns
        self._rate_cpu_ns, self._rate_ns = session.cpu_last_ns, now_ns
        self._usage = Usage(session.cpus, 0, session.mem_bytes, 0, session.gpus, session.alone)

    def look(self, now_ns: int) -> None:
        """Reads what its processes used since the last look; -1 where that cannot be known."""
        session = self.session
        self.cpu_delta = -1
        if self.group is None:
            return
        try:
            cpu, session.mem_last = self.group.read()
        except (OSError, ValueError):  # the folder is gone; its last rate is what counts until the Epilog comes
            session.remember()
            self.close()
            return
        self.cpu_delta = max(cpu - session.cpu_last_ns, 0)
        session.cpu_last_ns = cpu
        session.cpu_time_ns += self.cpu_delta
        elapsed_ns = now_ns - self._rate_ns
        if elapsed_ns >= RATE_NS:
            session.cpu_rate = max(cpu - self._rate_cpu_ns, 0) / elapsed_ns
            self._rate_cpu_ns, self._rate_ns = cpu, now_ns

    def usage(self, cpu_ns: int) -> Usage:
        """What the job used in an interval; the same object each time."""
        session, usage = self.session, self._usage
        if usage.gpus is not session.gpus:  # a hook has said more of the job: its devices come as a new list
            self._usage = usage = Usage(session.cpus, 0, session.mem_bytes, 0, session.gpus, session.alone)
        usage.cpu_ns, usage.mem_used = cpu_ns, session.mem_last
        return usage

    def close(self) -> None:
        """Lets go of the files."""
        if self.group is not None:
            self.group.close()
            self.group = None
