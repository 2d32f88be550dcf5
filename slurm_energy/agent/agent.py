"""The node agent: hooks and cgroups begin and end sessions, ticks feed them, hours and ends cut segments from them."""

from __future__ import annotations

import grp
import logging
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from slurm_energy.accounting.attribution import NodeShape
from slurm_energy.agent import hooks
from slurm_energy.agent.clock import NS, Clock, hour_of
from slurm_energy.agent.engine import Edge, Engine, hours_between
from slurm_energy.agent.meters import Meter
from slurm_energy.agent.options import AgentOptions
from slurm_energy.agent.session import IDLE, Live, Segment, Session, Stamp
from slurm_energy.agent.sessions import Sessions
from slurm_energy.agent.store import Checkpoint, MeterState, Outgoing, Store
from slurm_energy.slurm.cgroup import Tree
from slurm_energy.sources.base import Counter, Refusal

log = logging.getLogger("senergy.agent")
UNNAMED = ("", "cluster")
"""Names of a cluster that no site chose."""
SCAN_NS = 5 * NS
"""How often the cgroup tree is looked through, beside each look at which a hook came."""
FLUSH_AT = 2000
"""Segments that wait for no flush time any more."""


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
        cpus, memory = options.shape()
        idle = Session(job_id=IDLE, session_start=0, origin="idle", cpus=0)
        self.engine = Engine([Meter(counter) for counter in counters], NodeShape(cpus, memory, 0, 0), idle)
        self.store = Store(
            Path(options.state_dir), Path(options.outbox), _group(options.group), options.outbox_limit_mb << 20
        )  # fmt: skip
        self.sessions = Sessions(self, Tree(options.cgroup_root, options.node))
        self.boot_id = _boot_id(options.sources.proc_root)
        self.hour = ""
        self.sequence = 0
        self.pending: list[Segment] = []
        self.outgoing: deque[Outgoing] = deque()
        self.done: deque[tuple[int, int, str | None, int]] = deque(maxlen=512)
        self.ended_uj = [0, 0, 0, 0]
        """What the jobs of this boot that have ended got, by domain."""
        self.outbox_fill = 0.0
        self.problems: deque[str] = deque(maxlen=8)
        self.bad_hook_files = 0
        self.handled: list[tuple[str, int]] = []
        """Hook files (name, mtime) that have had their effect and are still there."""
        self.ticks = 0
        self.started_ns = 0
        self._next_checkpoint = self._next_flush = self._next_scan = 0
        self._models = {m.counter.device: m.counter.model for m in self.engine.meters if m.counter.device}
        self._measured = sorted({m.counter.domain for m in self.engine.meters if not m.counter.estimated})

    def start(self) -> None:
        """Goes on from the checkpoint of this boot, closes the sessions of an earlier one, or begins anew."""
        now, wall = self.clock.monotonic_ns(), self.clock.wall_ns()
        self.started_ns = wall
        hooks.sweep(Path(self.options.hooks), wall - 3600 * NS)
        engine = self.engine
        saved = self.store.load()
        engine.last_ns, engine.last_wall_ns, self.hour = now, wall, hour_of(wall)
        engine.idle.session_start, engine.idle.start, engine.idle.end = wall // NS, wall, wall
        if saved is not None:
            self.sequence, self.pending = saved.sequence, saved.pending
            self.outgoing.extend(saved.outgoing)
            self.done.extend((a, b, c, d) for a, b, c, d in saved.done)
            self.handled = saved.handled
            if saved.cluster and self.options.cluster in UNNAMED:
                self.learn_cluster(saved.cluster)
            if saved.node and not self.options.node_given:
                self.learn_node(saved.node)
            engine.learned_uw = saved.floor_uw
            if saved.boot_id == self.boot_id and saved.monotonic_ns <= now:
                self._go_on(saved)
            else:
                self._close_earlier_boot(saved)
        engine.learn_to(self._configured_floors())
        for meter in engine.meters:
            if meter.last is None:
                meter.advance(now)
        for live in engine.lives:
            self.sessions.attach(live)
        self.tick()
        self.checkpoint()

    def _go_on(self, saved: Checkpoint) -> None:
        """The same boot: counters went on, and what they moved since belongs to the jobs that ran."""
        engine = self.engine
        engine.last_ns, engine.last_wall_ns, self.hour = saved.monotonic_ns, saved.wall_ns, saved.hour
        engine.idle, engine.carry_uj, self.ended_uj = saved.idle, saved.carry_uj, saved.ended_uj
        engine.lives = [Live(session, saved.monotonic_ns) for session in saved.sessions]
        self.sessions.closed.update(saved.closed)
        for meter in engine.meters:
            state = saved.meters.get(meter.counter.name)
            if state is None:
                continue
            meter.total_uj, meter.peak_uw = state.total_uj, state.peak_uw
            if meter.counter.integrated:
                engine.blind = True
            else:
                meter.last, meter.last_ns = state.last, state.last_ns
        log.info(
            "going on after %.1f s with %d jobs",
            (self.clock.monotonic_ns() - saved.monotonic_ns) / NS,
            len(engine.lives),
        )

    def _close_earlier_boot(self, saved: Checkpoint) -> None:
        """Another boot: what was drawn since the checkpoint is not known and is not made up."""
        stamp = self.stamp(saved.hour)
        for session in (*saved.sessions, saved.idle):
            if session is not saved.idle or not session.empty():
                self.pending.append(session.cut(stamp, closed="reboot"))
        if saved.sessions:
            self.say(f"{len(saved.sessions)} jobs of an earlier boot were closed without their Epilog")

    def tick(self) -> None:
        """Looks at the counters once, with all that happened since the last look."""
        now, wall = self.clock.monotonic_ns(), self.clock.wall_ns()
        engine = self.engine
        edges = [Edge(moment, self._end_hour) for moment in hours_between(engine.last_wall_ns, wall)]
        events = hooks.collect(Path(self.options.hooks), self)
        self.handled += [event.mark for event in events]
        edges += [Edge(event.hook.mtime_ns, self._act_on(event)) for event in events]
        self.sessions.attach_new(now)
        engine.advance(now, wall, edges)
        self.ticks += 1
        changed = bool(events)
        if now >= self._next_scan or events:
            self._next_scan = now + SCAN_NS
            changed |= self.sessions.scan(now, wall)
            engine.learn_to(self._configured_floors())
        if (changed or now >= self._next_checkpoint or len(self.pending) >= FLUSH_AT) and self.checkpoint():
            self._remove_handled()
        if (self.pending and (now >= self._next_flush or len(self.pending) >= FLUSH_AT)) or self.outgoing:
            self.flush(now)

    def _remove_handled(self) -> None:
        """Hook files whose effect is in the checkpoint go; what cannot be removed is remembered."""
        if self.handled:
            self.handled = hooks.remove(Path(self.options.hooks), self.handled)

    def _act_on(self, event: hooks.Event):  # type: ignore[no-untyped-def]  # noqa: ANN202
        return lambda wall_ns: self.sessions.apply(event.hook, wall_ns)

    def _end_hour(self, wall_ns: int) -> None:
        """Cuts everybody's segment; the label never goes back, whatever the clock does."""
        hour = hour_of(wall_ns)
        if hour <= self.hour:
            return
        stamp = self.stamp(self.hour)
        for session in (*(live.session for live in self.engine.lives), self.engine.idle):
            if not session.empty():
                self.pending.append(session.cut(stamp))
        self.hour = hour
        self._next_flush = 0
        self._next_checkpoint = 0

    def close(self, live: Live, closed: str) -> None:
        """Ends a session with its last segment."""
        live.close()
        self.engine.lives.remove(live)
        self.pending.append(live.session.cut(self.stamp(self.hour), closed))
        self.ended_uj = [a + b for a, b in zip(self.ended_uj, live.session.earlier_uj, strict=True)]
        self.done.append(live.session.key)

    def stamp(self, hour: str) -> Stamp:
        """What all segments cut now have in common."""
        return Stamp(self.options.cluster, self.options.node, hour, self.sources, self._measured, self._models)

    def checkpoint(self) -> bool:
        """Writes the checkpoint; False where the disk did not take it."""
        engine = self.engine
        self._next_checkpoint = engine.last_ns + int(self.options.checkpoint_s * NS)
        meters = {
            meter.counter.name: MeterState(meter.last, meter.last_ns, meter.peak_uw, meter.total_uj)
            for meter in engine.meters
            if meter.last is not None
        }
        return self.store.save(
            Checkpoint(
                boot_id=self.boot_id, monotonic_ns=engine.last_ns, wall_ns=engine.last_wall_ns, hour=self.hour,
                sequence=self.sequence, meters=meters, idle=engine.idle, sessions=[live.session for live in engine.lives],
                pending=self.pending, outgoing=list(self.outgoing), done=list(self.done), carry_uj=engine.carry_uj,
                ended_uj=self.ended_uj, floor_uw=engine.learned_uw, handled=self.handled, closed=sorted(self.sessions.closed),
                cluster=self.options.cluster, node=self.options.node,
            )
        )  # fmt: skip

    def flush(self, now_ns: int) -> None:
        """Pending segments become a file: first in the checkpoint, then in the outbox, so that it has one content only."""
        self._next_flush = now_ns + int(self.options.flush_s * NS)
        if self.pending:
            name = f"{_safe(self.options.node)}.{self.pending[0].hour}.{self.sequence:010d}.jsonl"
            content = b"\n".join(map(msgspec.json.encode, self.pending)) + b"\n"
            kept, self.pending = self.pending, []
            self.outgoing.append(Outgoing(name, content.decode()))
            self.sequence += 1
            if not self.checkpoint():
                self.outgoing.pop()
                self.sequence -= 1
                self.pending = kept
                return
        self.outbox_fill = self.store.fill()
        if self.outbox_fill >= 0.5:
            self.say(f"the outbox is over {int(self.outbox_fill * 10) * 10} % full; is senergy ship running?")
        while self.outgoing and self.store.send(self.outgoing[0]):
            self.outgoing.popleft()

    def stop(self) -> None:
        """A last look and a checkpoint: the next agent goes on with the same jobs."""
        self.tick()
        self.flush(self.engine.last_ns)
        self.checkpoint()
        for live in self.engine.lives:
            live.close()

    def finish(self) -> None:
        """Takes the agent out: what is open becomes segments, and the next agent begins at the counters as they are."""
        self.stop()
        for live in list(self.engine.lives):
            self.close(live, "taken out")
        if not self.engine.idle.empty():
            self.pending.append(self.engine.idle.cut(self.stamp(self.hour)))
        self.flush(self.engine.last_ns)
        self.boot_id = ""
        self.checkpoint()

    def say(self, text: str) -> None:
        """Tells people once: in the log and on the socket."""
        if text not in self.problems:
            self.problems.append(text)
            log.warning("%s", text)

    def learn_cluster(self, name: str) -> None:
        """The cluster's name as the hooks say it, where the site did not configure one."""
        self.options = msgspec.structs.replace(self.options, cluster=name)

    def learn_node(self, name: str) -> None:
        """The node's name as Slurm writes it, where it differs from the host's and the site did not say."""
        self.options = msgspec.structs.replace(self.options, node=name)
        self.sessions.tree = Tree(self.options.cgroup_root, name)

    def watts_of(self, meter: Meter) -> float:
        """What a counter draws, over the last interval."""
        return meter.rate_uw / 1e6

    def _configured_floors(self) -> dict[str, int]:
        given = (("package", self.options.package_idle_w), ("dram", self.options.dram_idle_w))
        return {name: int(watts * 1e6) for name, watts in given if watts is not None}


def _boot_id(proc_root: str) -> str:
    try:
        return Path(f"{proc_root}/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def _group(name: str) -> int:
    """The group that may read segments and the socket; -1 (root's own) where it does not exist or we may not give it."""
    if os.geteuid() != 0:
        return -1
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return -1


def _safe(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-_" else "_" for char in name)
