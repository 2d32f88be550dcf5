"""Checks of passwords, one after the other on a thread of their own, in turns by the clients' addresses.

A check by bcrypt takes a processor some 50 ms, so who guesses many passwords makes a queue. Each address has a line of its
own and the lines take turns: an address that asks once waits for one check of each other, however long their lines are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

log = logging.getLogger("senergy.exporter")
MOST = 64
"""Passwords that wait, in all lines."""
MOST_OF_ONE = 16
"""And in one."""
Line = dict[str, "asyncio.Future[bool | None]"]


class PasswordChecks:
    """The lines. check: whether credentials are right, called on the thread."""

    def __init__(self, check: Callable[[str], bool]) -> None:
        self._check = check
        self._lines: dict[str, Line] = {}
        self._thread = ThreadPoolExecutor(1, "bcrypt")
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, peer: str, authorization: str) -> bool | None:
        """Whether they are right; None where too many wait. The same ones, asked at the same time, cost one check."""
        waiting = self._lines.get(peer, {}).get(authorization)
        if waiting is None:
            if not self._room(peer):
                return None
            waiting = asyncio.get_running_loop().create_future()
            self._lines.setdefault(peer, {})[authorization] = waiting
            if self._worker is None:
                self._worker = asyncio.create_task(self._work())
        return await asyncio.shield(waiting)

    def close(self) -> None:
        """Lets the thread go."""
        if self._worker:
            self._worker.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _room(self, peer: str) -> bool:
        """Whether one more of this address may wait; where all places are taken, the last of the longest line goes."""
        length = len(self._lines.get(peer, ()))
        if length >= MOST_OF_ONE:
            return False
        if sum(map(len, self._lines.values())) >= MOST:
            longest = max(self._lines.values(), key=len)
            if len(longest) <= length + 1:
                return False
            longest.popitem()[1].set_result(None)
        return True

    async def _work(self) -> None:
        """One check after the other, as long as somebody waits."""
        loop = asyncio.get_running_loop()
        while self._lines:
            peer, line = next(iter(self._lines.items()))
            authorization, waiting = next(iter(line.items()))
            right: bool | None = None
            try:
                right = await loop.run_in_executor(self._thread, self._check, authorization)
            except Exception:
                log.exception("a password could not be checked")
            waiting.set_result(right)
            del line[authorization], self._lines[peer]
            if line:
                self._lines[peer] = line  # behind the others
        self._worker = None
