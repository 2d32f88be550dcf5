"""The connections of a server: how many, whose, and which one goes where another has to come.

Room is made fairly: the address with the most connections loses one, and of its connections the one whose last sign of
life is longest ago. Who opens hundreds pushes out his own. A connection whose answer is being made is spared; one whose
answer is being sent is not, for its client may never read it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

CHUNK = 1 << 13
"""Of an answer, this much is handed to the kernel at a time."""
MOST_ANSWERS = 8
"""Different answers of more than a chunk that are being sent: each is a text of its own, of a megabyte with many jobs."""
OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15),
    (socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
"""What the kernel may hold for a connection (it doubles the figures): left to itself it takes megabytes, and Linux counts
them as memory of the exporter's unit. And the chunks of an answer do not wait for each other, 40 ms each."""


class Connection:
    """One client's."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.task: asyncio.Task[None] | None = None
        self.begun = False
        """Whether its task has had a turn, and looks after the socket."""
        self.busy = False
        """Whether its answer is being made."""
        self.answer: bytes | None = None
        """What is being sent."""


class Connections:
    """Those that are open, in the order of their last signs of life."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._open: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._open)

    def add(self, connection: Connection) -> bool:
        """Whether it may stay; another one goes for it where there are too many."""
        if len(self._open) >= self.most and not self.make_room(connection.peer):
            return False
        self._open[connection] = None
        return True

    def remove(self, connection: Connection) -> None:
        """Forgets one that is over. Its task has the frames, and so the answer, that it was cancelled in: no circle of them."""
        self._open.pop(connection, None)
        connection.task = connection.answer = None

    def alive(self, connection: Connection) -> bool:
        """Notes that it did something; False where its place was given away."""
        if connection not in self._open:
            return False
        del self._open[connection]
        self._open[connection] = None
        return True

    def make_room(self, peer: str = "") -> bool:
        """Ends one for another of this address; False where all are busy and none of an address that has more."""
        count = Counter(one.peer for one in self._open)
        spare = [one for one in self._open if not one.busy] or [
            one for one in self._open if count[one.peer] > count[peer]
        ]
        if not spare:
            return False
        self._end(max(spare, key=lambda one: count[one.peer]))
        return True

    def sending(self, connection: Connection, answer: bytes) -> None:
        """Notes what it sends now. Clients that do not read hold a few answers in memory, all of them together."""
        connection.answer = answer
        while True:
            held = [one for one in self._open if one.answer is not None and len(one.answer) > CHUNK]
            if len({id(one.answer) for one in held}) <= MOST_ANSWERS:
                return
            count = Counter(one.peer for one in held)
            self._end(max((one for one in held if one.answer is not answer), key=lambda one: count[one.peer]))

    def _end(self, connection: Connection) -> None:
        del self._open[connection]
        if connection.task:
            connection.task.cancel()


class Incoming(asyncio.StreamReader):
    """What a client sends, and how much of it came before anybody asked for it."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.ahead = 0

    def feed_data(self, data: Any) -> None:
        """Called by the transport with bytes."""
        self.ahead += len(data)
        super().feed_data(data)

    async def head(self) -> bytes:
        """The rest of a request's head."""
        found = await self.readuntil(b"\r\n\r\n")
        self.ahead -= len(found)
        return found

    async def first(self) -> bytes:
        """A request's first byte."""
        found = await self.readexactly(1)
        self.ahead -= 1
        return found


def bound(door: socket.socket) -> None:
    """Bounds the kernel's buffers of a socket; of a listening one, those of all that it accepts."""
    for level, option, value in OPTIONS:
        door.setsockopt(level, option, value)


def peer_of(address: tuple[object, ...]) -> str:
    """Whose a connection is: an IPv4 address, or of IPv6 the network of 64 bits, for a host has all of its addresses."""
    try:
        found = ipaddress.ip_address(str(address[0]))
    except (ValueError, IndexError):
        return ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return found.packed[:8].hex()
    return str(found)
