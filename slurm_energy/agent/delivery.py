"""Segments on their way out: cut, fixed as a file in the checkpoint, put into the outbox. Nothing is sent twice as another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from slurm_energy.agent.clock import NS
from slurm_energy.agent.node import Names
from slurm_energy.agent.store import Outgoing, Store
from slurm_energy.segment import Segment

FLUSH_AT = 2000
"""Segments that wait for no flush time any more."""


class Delivery:
    """What waits, and when it goes. Its state is in the checkpoint."""

    def __init__(self, store: Store, names: Names, every_s: float, say: Callable[[str], None]) -> None:
        self.pending: list[Segment] = []
        self.outgoing: deque[Outgoing] = deque()
        """Files whose name and content a checkpoint has fixed."""
        self.sequence = 0
        self.fill = 0.0
        """How full the outbox was at the last flush, 0 to 1 and more."""
        self._store, self._names, self._say = store, names, say
        self._every_ns, self._next_ns = int(every_s * NS), 0

    def add(self, segment: Segment) -> None:
        """One more that waits."""
        self.pending.append(segment)

    def hurry(self) -> None:
        """The next look flushes: an hour is over."""
        self._next_ns = 0

    @property
    def crowded(self) -> bool:
        """Whether so many wait that they go at once."""
        return len(self.pending) >= FLUSH_AT

    def due(self, now_ns: int) -> bool:
        """Whether `flush` has something to do now."""
        return bool(self.outgoing or (self.pending and (now_ns >= self._next_ns or self.crowded)))

    def flush(self, now_ns: int, checkpoint: Callable[[], bool]) -> None:
        """Pending segments become a file: first in the checkpoint, then in the outbox, so that it has one content only.

        checkpoint: writes the agent's checkpoint; False where the disk did not take it.
        """
        self._next_ns = now_ns + self._every_ns
        if self.pending:
            name = f"{_safe(self._names.node)}.{self.pending[0].hour}.{self.sequence:010d}.jsonl"
            content = b"\n".join(map(msgspec.json.encode, self.pending)) + b"\n"
            kept, self.pending = self.pending, []
            self.outgoing.append(Outgoing(name, content.decode()))
            self.sequence += 1
            if not checkpoint():
                self.outgoing.pop()
                self.sequence -= 1
                self.pending = kept
                return
        self.fill = self._store.fill()
        if self.fill >= 0.5:
            self._say(f"the outbox is over {int(self.fill * 10) * 10} % full; is senergy ship running?")
        while self.outgoing and self._store.send(self.outgoing[0]):
            self.outgoing.popleft()


def _safe(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-_" else "_" for char in name)
