"""The node agent: hooks and cgroups begin and end sessions, ticks feed them, hours and ends cut segments from them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from slurm_energy.accounting.attribution import NodeShape
from slurm_energy.agent.clock import NS, Clock, hour_of
from slurm_energy.agent.delivery import Delivery
from slurm_energy.agent.engine import Edge, Engine, hours_between
from slurm_energy.agent.hooks import HookFolder
from slurm_energy.agent.meters import Meter
from slurm_energy.agent.node import Names, boot_id, group_id
from slurm_energy.agent.options import AgentOptions
from slurm_energy.agent.resume import resume, to_checkpoint
from slurm_energy.agent.session import IDLE, Session, Stamp
from slurm_energy.agent.sessions import Sessions
from slurm_energy.agent.store import Store
from slurm_energy.sources.base import Counter, Refusal

log = logging.getLogger("senergy.agent")
SCAN_NS = 5 * NS
"""How often the cgroup tree is looked through, beside each look at which a hook came."""


class Agent:
    """All state of a node's agent; `tick` is the only thing that time does to it."""

    def __init__(
        self,
        options: AgentOptions,
        counters: Sequence[Counter],
        refused: Sequence[Refusal],
        sources: Sequence[str],
        clock: Clock,
    ) -> None:
        self.options, self.refused, self.clock = options, list(refused), clock
        self.sources = list(sources)
        self.names = Names(options.node, options.cluster)
        self.problems: deque[str] = deque(maxlen=8)
        cpus, memory = options.shape()
        idle = Session(job_id=IDLE, session_start=0, origin="idle", cpus=0)
        self.engine = Engine([Meter(counter) for counter in counters], NodeShape(cpus, memory, 0, 0), idle)
        state = Path(options.state_dir)
        self.store = Store(state, Path(options.outbox), group_id(options.group), options.outbox_limit_bytes)
        self.delivery = Delivery(self.store, self.names, options.flush_s, self.say)
        self.sessions = Sessions(self.engine, self.names, options, self.cut, self.say)
        self.hooks = HookFolder(Path(options.hooks), state / "bad-hooks", self.names, self.say)
        self.boot_id = boot_id(options.sources.proc_root)
        self.hour = ""
        self.ticks = 0
        self.started_ns = 0
        self._next_checkpoint = self._next_scan = 0
        self._models = {m.counter.device: m.counter.model for m in self.engine.meters if m.counter.device}
        self._measured = sorted({m.counter.domain for m in self.engine.meters if not m.counter.estimated})

    def start(self) -> None:
        """Goes on from the checkpoint of this boot, closes the sessions of an earlier one, or begins anew."""
        now, wall = self.clock.monotonic_ns(), self.clock.wall_ns()
        self.started_ns = wall
        self.hooks.sweep(wall - 3600 * NS)
        engine = self.engine
        saved = self.store.load()
        engine.last_ns, engine.last_wall_ns, self.hour = now, wall, hour_of(wall)
        engine.idle.session_start, engine.idle.start, engine.idle.end = wall // NS, wall, wall
        if saved is not None:
            resume(self, saved, now)
        engine.learn_to(self.options.floors_uw)
        for meter in engine.meters:
            if meter.last is None:
                meter.advance(now)
        for live in engine.lives:
            self.sessions.attach(live)
        self.tick()
        self.checkpoint()

    def tick(self) -> None:
        """Looks at the counters once, with all that happened since the last look."""
        now, wall = self.clock.monotonic_ns(), self.clock.wall_ns()
        engine, sessions, delivery = self.engine, self.sessions, self.delivery
        edges = [Edge(moment, self._end_hour) for moment in hours_between(engine.last_wall_ns, wall)]
        events = self.hooks.collect()
        edges += [Edge(event.hook.mtime_ns, partial(sessions.apply, event.hook)) for event in events]
        sessions.attach_new(now)
        engine.advance(now, wall, edges)
        self.ticks += 1
        changed = bool(events)
        if now >= self._next_scan or events:
            self._next_scan = now + SCAN_NS
            changed |= sessions.scan(now, wall)
            engine.learn_to(self.options.floors_uw)
        if (changed or now >= self._next_checkpoint or delivery.crowded) and self.checkpoint():
            self.hooks.remove_handled()
        if delivery.due(now):
            delivery.flush(now, self.checkpoint)

    def _end_hour(self, wall_ns: int) -> None:
        """Cuts everybody's segment; the label never goes back, whatever the clock does."""
        hour = hour_of(wall_ns)
        if hour <= self.hour:
            return
        for session in (*(live.session for live in self.engine.lives), self.engine.idle):
            if not session.empty():
                self.cut(session)
        self.hour = hour
        self._next_checkpoint = 0
        self.delivery.hurry()

    def cut(self, session: Session, closed: str = "") -> None:
        """Cuts the open hour's segment from a session. closed: why it is the session's last one."""
        self.delivery.add(session.cut(self.stamp(self.hour), closed))

    def stamp(self, hour: str) -> Stamp:
        """What all segments cut now have in common."""
        return Stamp(self.names.stamped, self.names.node, hour, self.sources, self._measured, self._models)

    def checkpoint(self) -> bool:
        """Writes the checkpoint; False where the disk did not take it."""
        self._next_checkpoint = self.engine.last_ns + int(self.options.checkpoint_s * NS)
        return self.store.save(to_checkpoint(self))

    def stop(self) -> None:
        """A last look and a checkpoint: the next agent goes on with the same jobs."""
        self.tick()
        self.delivery.flush(self.engine.last_ns, self.checkpoint)
        self.checkpoint()
        for live in self.engine.lives:
            live.close()

    def finish(self) -> None:
        """Takes the agent out: what is open becomes segments, and the next agent begins at the counters as they are."""
        self.stop()
        for live in list(self.engine.lives):
            self.sessions.close(live, "taken out")
        if not self.engine.idle.empty():
            self.cut(self.engine.idle)
        self.delivery.flush(self.engine.last_ns, self.checkpoint)
        self.boot_id = ""
        self.checkpoint()

    def say(self, text: str) -> None:
        """Tells people once: in the log and on the socket."""
        if text not in self.problems:
            self.problems.append(text)
            log.warning("%s", text)
