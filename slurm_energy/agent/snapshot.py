"""What the agent shows on its socket: one JSON object, read-only, made when somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from slurm_energy.segment import DOMAINS
from slurm_energy.sources.base import Refusal

if TYPE_CHECKING:
    from slurm_energy.agent.agent import Agent
    from slurm_energy.agent.session import Session


class CounterView(msgspec.Struct):
    """A counter: what it covers, what it draws now (W; None in a gap), all it moved (J), and why it gave nothing."""

    name: str
    domain: str
    device: str
    model: str
    estimated: bool
    watts: float | None
    joules: float
    gaps: int
    problem: str


class JobView(msgspec.Struct):
    """A session: who it is, watts now and joules since it began, by domain."""

    job_id: int
    restart_count: int
    sluid: str | None
    session_start: int
    user: str
    uid: int
    account: str
    partition: str
    origin: str
    cpus: int
    gpus: list[str]
    cpu_seconds: float
    watts: dict[str, float]
    joules: dict[str, float]


class Snapshot(msgspec.Struct, kw_only=True):
    """The agent at one moment. `wall_ns` is when it looked last: an old one means that it is stuck."""

    version: str
    cluster: str
    node: str
    boot_id: str
    wall_ns: int
    hour: str
    started_ns: int
    ticks: int
    period_s: float
    counters: list[CounterView]
    refused: list[Refusal]
    jobs: list[JobView]
    idle: JobView
    outbox_fill: float
    pending_segments: int
    bad_hook_files: int
    set_aside: int
    clock_jumps: int
    problems: list[str]
    attributed: dict[str, float] = {}
    """All that the counters' energy was given to, J by domain: every job of this boot, those that have ended too, and idle."""

    def node_watts(self) -> dict[str, float]:
        """What the node draws, W by domain: its jobs and what no job gets."""
        parts = (*self.jobs, self.idle)
        return {domain: sum(part.watts.get(domain, 0.0) for part in parts) for domain in DOMAINS}


def take(agent: Agent) -> Snapshot:
    """The agent as it is after its last look."""
    from slurm_energy.version import __version__

    engine = agent.engine
    rates: dict[int, list[float]] = {}
    idle_watts = [0.0] * 4
    if engine.shares is not None:
        lives, shares, length = engine.shares
        columns = (shares.package, shares.dram, shares.gpu, shares.other)
        for index, live in enumerate(lives):
            rates[id(live)] = [column[index] * 1000 / length for column in columns]
        # A job that has ended since: its watts are nobody's until the next look.
        shown = [rates[id(live)] for live in engine.lives if id(live) in rates]
        totals = [sum(column) * 1000 / length for column in columns]
        idle_watts = [total - sum(watts[i] for watts in shown) for i, total in enumerate(totals)]
    jobs = [_view(live.session, rates.get(id(live), [0.0] * 4)) for live in engine.lives]
    counters = [
        CounterView(
            meter.counter.name, meter.counter.domain, meter.counter.device, meter.counter.model, meter.counter.estimated,
            None if meter.why else meter.watts, meter.total_uj / 1e6, meter.gaps, meter.why,
        )
        for meter in engine.meters
    ]  # fmt: skip
    return Snapshot(
        version=__version__, cluster=agent.names.cluster, node=agent.names.node, boot_id=agent.boot_id,
        wall_ns=engine.last_wall_ns, hour=agent.hour, started_ns=agent.started_ns, ticks=agent.ticks,
        period_s=agent.options.period_s, counters=counters, refused=list(agent.refused), jobs=jobs,
        idle=_view(engine.idle, idle_watts), outbox_fill=agent.delivery.fill, pending_segments=len(agent.delivery.pending),
        bad_hook_files=agent.hooks.bad, set_aside=agent.store.set_aside, clock_jumps=engine.jumps,
        problems=[text for text in (agent.store.problem, *agent.problems) if text], attributed=_attributed(agent),
    )  # fmt: skip


def _attributed(agent: Agent) -> dict[str, float]:
    """Sums of what sessions got, as they were booked: nothing here is made of what the counters say."""
    totals = [
        agent.sessions.ended_uj,
        agent.engine.idle.total_uj(),
        *(live.session.total_uj() for live in agent.engine.lives),
    ]
    return {domain: sum(column) / 1e6 for domain, column in zip(DOMAINS, zip(*totals, strict=True), strict=True)}


def _view(session: Session, watts: Sequence[float]) -> JobView:
    joules = [uj / 1e6 for uj in session.total_uj()]
    return JobView(
        session.job_id, session.restart_count, session.sluid, session.session_start, session.user, session.uid,
        session.account, session.partition, session.origin, session.cpus, session.gpus, session.cpu_last_ns / 1e9,
        dict(zip(DOMAINS, watts, strict=True)), dict(zip(DOMAINS, joules, strict=True)),
    )  # fmt: skip
