"""The agent's socket: whoever connects gets the snapshot and the end. Nothing that a client sends is read."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

from slurm_energy.agent.store import give_to

MAX_CLIENTS = 16
DEADLINE_S = 3.0


class Server:
    """A listening socket of the file system, and the clients whose answer did not fit in one go."""

    def __init__(self, path: Path, group: int = -1) -> None:
        """Raises OSError where the socket cannot be made. An old socket at the path is replaced."""
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self.socket.bind(str(path))
        path.chmod(0o660)
        give_to(str(path), group)
        self.socket.listen(64)
        self.waiting: dict[int, tuple[socket.socket, memoryview, float]] = {}

    def accept(self, answer: bytes) -> list[int]:
        """Serves everyone who waits at the door; the descriptors of those who take longer."""
        slow = []
        for _ in range(64):
            try:
                client, _ = self.socket.accept()
            except OSError:
                break
            if len(self.waiting) >= MAX_CLIENTS:
                self._drop_oldest()
            client.setblocking(False)
            rest = self._send(client, memoryview(answer))
            if rest:
                self.waiting[client.fileno()] = (client, rest, time.monotonic() + DEADLINE_S)
                slow.append(client.fileno())
        return slow

    def go_on(self, descriptor: int) -> bool:
        """Sends more to a slow client; False once it is done with."""
        entry = self.waiting.pop(descriptor, None)
        if entry is None:
            return False
        client, rest, deadline = entry
        rest = self._send(client, rest)
        if rest:
            self.waiting[descriptor] = (client, rest, deadline)
        return bool(rest)

    def expire(self) -> list[int]:
        """Drops clients that took too long; their descriptors."""
        now = time.monotonic()
        late = [descriptor for descriptor, (_, _, deadline) in self.waiting.items() if deadline < now]
        for descriptor in late:
            self.waiting.pop(descriptor)[0].close()
        return late

    def _drop_oldest(self) -> None:
        descriptor = min(self.waiting, key=lambda key: self.waiting[key][2])
        self.waiting.pop(descriptor)[0].close()

    def _send(self, client: socket.socket, data: memoryview) -> memoryview:
        """Sends what fits; what is left. A finished or broken client is closed."""
        try:
            while data:
                data = data[client.send(data) :]
        except BlockingIOError:
            return data
        except OSError:
            pass
        client.close()
        return memoryview(b"")

    def close(self) -> None:
        """Ends all connections and takes the socket away."""
        for client, _, _ in self.waiting.values():
            client.close()
        self.socket.close()
        with contextlib.suppress(OSError):
            self.path.unlink()
