"""From one agent to the next: what goes into the checkpoint, and how the next agent goes on from it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from slurm_energy.agent.clock import NS
from slurm_energy.agent.session import Live
from slurm_energy.agent.store import Checkpoint, MeterState

if TYPE_CHECKING:
    from slurm_energy.agent.agent import Agent

log = logging.getLogger("senergy.agent")


def to_checkpoint(agent: Agent) -> Checkpoint:
    """Everything that the agent knows and counters do not."""
    engine, delivery, sessions = agent.engine, agent.delivery, agent.sessions
    meters = {
        meter.counter.name: MeterState(meter.last, meter.last_ns, meter.peak_uw, meter.total_uj)
        for meter in engine.meters
        if meter.last is not None
    }
    return Checkpoint(
        boot_id=agent.boot_id, monotonic_ns=engine.last_ns, wall_ns=engine.last_wall_ns, hour=agent.hour,
        sequence=delivery.sequence, meters=meters, idle=engine.idle, sessions=[live.session for live in engine.lives],
        pending=delivery.pending, outgoing=list(delivery.outgoing), done=list(sessions.done), carry_uj=engine.carry_uj,
        ended_uj=sessions.ended_uj, floor_uw=engine.learned_uw, handled=agent.hooks.handled, closed=sorted(sessions.closed),
        cluster=agent.names.cluster, node=agent.names.node,
    )  # fmt: skip


def resume(agent: Agent, saved: Checkpoint, now_ns: int) -> None:
    """Takes up what an earlier agent knew, its jobs if it was of this boot."""
    agent.delivery.sequence, agent.delivery.pending = saved.sequence, saved.pending
    agent.delivery.outgoing.extend(saved.outgoing)
    agent.sessions.done.extend(saved.done)
    agent.hooks.handled = saved.handled
    agent.sessions.learn(saved.node, saved.cluster)
    agent.engine.learned_uw = saved.floor_uw
    if saved.boot_id == agent.boot_id and saved.monotonic_ns <= now_ns:
        go_on(agent, saved, now_ns)
    else:
        close_earlier_boot(agent, saved)


def go_on(agent: Agent, saved: Checkpoint, now_ns: int) -> None:
    """The same boot: counters went on, and what they moved since belongs to the jobs that ran."""
    engine, sessions = agent.engine, agent.sessions
    engine.last_ns, engine.last_wall_ns, agent.hour = saved.monotonic_ns, saved.wall_ns, saved.hour
    engine.idle, engine.carry_uj, sessions.ended_uj = saved.idle, saved.carry_uj, saved.ended_uj
    engine.lives = [Live(session, saved.monotonic_ns) for session in saved.sessions]
    sessions.closed.update(saved.closed)
    for meter in engine.meters:
        state = saved.meters.get(meter.counter.name)
        if state is None:
            continue
        meter.total_uj, meter.peak_uw = state.total_uj, state.peak_uw
        if meter.counter.integrated:
            engine.blind = True
        else:
            meter.last, meter.last_ns = state.last, state.last_ns
    log.info("going on after %.1f s with %d jobs", (now_ns - saved.monotonic_ns) / NS, len(engine.lives))


def close_earlier_boot(agent: Agent, saved: Checkpoint) -> None:
    """Another boot: what was drawn since the checkpoint is not known and is not made up."""
    stamp = agent.stamp(saved.hour)
    for session in (*saved.sessions, saved.idle):
        if session is not saved.idle or not session.empty():
            agent.delivery.add(session.cut(stamp, closed="reboot"))
    if saved.sessions:
        agent.say(f"{len(saved.sessions)} jobs of an earlier boot were closed without their Epilog")
