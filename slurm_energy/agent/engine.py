"""The heart of the agent: what the counters moved goes to the sessions that ran meanwhile, exactly.

An interval reaches from one look at the counters to the next. Mostly nothing else happens in it. Where an hour ends, or
a job begins or ends inside of it (after a restart it may be long), it is cut into pieces there, and what moved is dealt
out to the pieces by their length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from slurm_energy.accounting.attribution import Moved, NodeShape, Shares, attribute, split_exact
from slurm_energy.agent.clock import HOUR_NS
from slurm_energy.agent.meters import SHOWN_NS, Meter
from slurm_energy.agent.session import Live, Session
from slurm_energy.sources.base import DRAM, GPU, NODE, PACKAGE

LONG_NS = 5_000_000_000
"""In an interval longer than this a job whose CPU time was never seen is taken to have used its CPUs."""
LEARN_NS = 30_000_000_000
JUMP_NS = 2_000_000_000
MOST_HOURS = 48


class Edge(NamedTuple):
    """Something that happened inside of an interval: when (wall clock, ns), and what to do then."""

    wall_ns: int
    act: Callable[[int], None]


class Engine:
    """Meters and live sessions of a node."""

    def __init__(self, meters: Sequence[Meter], shape: NodeShape, idle: Session) -> None:
        self.meters, self.shape, self.idle = list(meters), shape, idle
        self.lives: list[Live] = []
        self.last_ns = self.last_wall_ns = 0
        self.carry_uj = 0
        self.jumps = 0
        self.shares: tuple[list[Live], Shares, int] | None = None
        self.learned_uw: dict[str, int] = {}
        self.blind = False
        """Whether the interval that is open began before this process, which something integrates power in."""
        self._quiet = [0, 0, 0]
        self.has_node = any(meter.counter.domain == NODE for meter in self.meters)

    def advance(self, now_ns: int, wall_ns: int, edges: Sequence[Edge] = ()) -> None:
        """Looks at everything, deals out what moved since the last look, does what happened meanwhile at its moment.

        edges must come with hour ends among them (see `hours_between`); those outside of the interval count at its rim.
        """
        length = now_ns - self.last_ns
        moved, gap, gpu_gaps = self._look_at_meters(now_ns)
        if abs((wall_ns - self.last_wall_ns) - length) > JUMP_NS:
            self.jumps += 1
        for live in self.lives:
            live.look(now_ns)
        first_wall = max(wall_ns - length, 0)  # where the wall clock jumped, pieces lie on the new time
        self.last_ns, self.last_wall_ns = now_ns, wall_ns
        if not edges:
            self._deal(moved, length, length, wall_ns, gap, gpu_gaps)
            return
        ordered = sorted(edges, key=lambda edge: edge.wall_ns)
        moments = [min(max(edge.wall_ns, first_wall), wall_ns) for edge in ordered]
        lengths = [b - a for a, b in zip([first_wall, *moments], [*moments, wall_ns], strict=True)]
        pieces = _cut(moved, lengths)
        for piece, part, edge, moment in zip(pieces, lengths, [*ordered, None], [*moments, wall_ns], strict=True):
            self._deal(piece, part, length, moment, gap, gpu_gaps)
            if edge is not None:
                edge.act(moment)

    def _look_at_meters(self, now_ns: int) -> tuple[Moved, bool, set[str]]:
        """What each domain moved, whether a counter that all share is a gap, and the GPUs whose counter is one."""
        package = dram = node = 0
        gpus: dict[str, int] = {}
        gpu_gaps: set[str] = set()
        gap, self.blind = self.blind, False
        node_lost = gap and any(meter.counter.domain == NODE and meter.counter.integrated for meter in self.meters)
        for meter in self.meters:
            moved = meter.advance(now_ns)
            if moved is None:
                if meter.counter.domain == GPU:
                    gpu_gaps.add(meter.counter.device)
                    continue
                gap = True
                node_lost |= meter.lost and meter.counter.domain == NODE
                continue
            domain = meter.counter.domain
            if domain == PACKAGE:
                package += moved
            elif domain == DRAM:
                dram += moved
            elif domain == GPU:
                device = meter.counter.device
                gpus[device] = gpus.get(device, 0) + moved
            else:
                node += moved
        other = 0
        if node_lost:
            # The node's part of this time never comes: what the others moved in it is not to be taken off later.
            self.carry_uj = 0
        elif self.has_node:
            # A slow sensor of the node may lag behind the others: what is missing now is taken off later.
            balance = node + self.carry_uj - package - dram - sum(gpus.values())
            other, self.carry_uj = (balance, 0) if balance > 0 else (0, balance)
        return Moved(package, dram, gpus, other), gap, gpu_gaps

    def _deal(
        self, moved: Moved, length: int, interval: int, wall_ns: int, gap: bool, gpu_gaps: set[str]
    ) -> None:  # fmt: skip
        """One piece to the sessions that ran in it, the rest to idle."""
        lives = self.lives
        usages = []
        for live in lives:
            session = live.session
            if live.cpu_delta >= 0:
                used = live.cpu_delta if length == interval else int(session.cpu_rate * length)
            elif session.seen:
                used = int(session.cpu_rate * length)
            else:
                used = session.cpus * length if interval > LONG_NS else 0
            usages.append(live.usage(used))
        if not lives and not gap:
            self._learn(moved, length)
        shares = attribute(moved, usages, self.shape, length)
        gap_ns = length if gap else 0
        package, dram, gpu, other = shares.package, shares.dram, shares.gpu, shares.other
        for live, a, b, c, d in zip(lives, package, dram, gpu, other, strict=False):  # the last of each is idle
            session = live.session
            session.package += a
            session.dram += b
            session.gpu += c
            session.other += d
            session.samples += 1
            session.gap_ns += gap_ns
            session.end = wall_ns
            if gpu_gaps or session.gpus_unknown:
                # A GPU that is lost is a gap of who holds it, and of nobody else: by its part of the GPUs that it holds.
                held = session.gpus_unknown + len(session.gpus)
                lost = session.gpus_unknown + len(gpu_gaps.intersection(session.gpus))
                session.gpu_gap_ns += length * lost // max(held, 1)
        idle = self.idle
        idle.package += package[-1]
        idle.dram += dram[-1]
        idle.gpu += gpu[-1]
        idle.other += other[-1]
        idle.samples += 1
        idle.gap_ns += gap_ns
        idle.end = wall_ns
        for device, parts in shares.gpus.items():
            if parts[-1]:  # held by no job, or by one alone: then the last is 0
                idle.by_gpu[device] = idle.by_gpu.get(device, 0) + parts[-1]
                continue
            for index, uj in enumerate(parts):
                if uj:
                    by_gpu = lives[index].session.by_gpu
                    by_gpu[device] = by_gpu.get(device, 0) + uj
        if length and (interval >= SHOWN_NS or self.shares is None):
            self.shares = (list(lives), shares, length)

    def _learn(self, moved: Moved, length: int) -> None:
        """The idle floor: the least mean power of any half minute without a job."""
        quiet = self._quiet
        quiet[0] += length
        quiet[1] += moved.package
        quiet[2] += moved.dram
        if quiet[0] < LEARN_NS:
            return
        for name, uj in (("package", quiet[1]), ("dram", quiet[2])):
            power = uj * 1_000_000_000 // quiet[0]
            self.learned_uw[name] = min(power, self.learned_uw.get(name, power))
        self._quiet = [0, 0, 0]

    def learn_to(self, configured: dict[str, int]) -> None:
        """Takes the floors that the site configured, else the learned ones."""
        floors = {**self.learned_uw, **configured}
        self.shape = self.shape._replace(
            package_floor_uw=floors.get("package", 0), dram_floor_uw=floors.get("dram", 0)
        )  # fmt: skip


def _cut(moved: Moved, lengths: Sequence[int]) -> list[Moved]:
    """What moved, dealt out to pieces by their length, exactly. Pieces without length get nothing but all have none."""
    weights = list(lengths) if any(lengths) else [0] * (len(lengths) - 1) + [1]
    package, dram, other = (split_exact(uj, weights) for uj in (moved.package, moved.dram, moved.other))
    gpus = {device: split_exact(uj, weights) for device, uj in moved.gpus.items()}
    return [
        Moved(package[i], dram[i], {device: parts[i] for device, parts in gpus.items()}, other[i])
        for i in range(len(lengths))
    ]


def hours_between(first_ns: int, last_ns: int) -> range:
    """The moments at which an hour begins, after first_ns and up to last_ns; after days of silence the last one only."""
    first, last = (first_ns // HOUR_NS + 1) * HOUR_NS, last_ns // HOUR_NS * HOUR_NS
    return range(first if last - first <= MOST_HOURS * HOUR_NS else last, last_ns + 1, HOUR_NS)
