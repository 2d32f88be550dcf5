"""A small HTTP server for exporters. One thread waits on all connections, so that a slow client costs none.

Bounded: connections (the one that has been waiting longest goes), the size of a request, the time for a handshake, a
request and an answer, the requests that are answered at once. What takes processor time (making an answer, bcrypt) is
done by two worker threads: pages run on one of them, passwords are checked on the other.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import NamedTuple

from slurm_energy_exporters.http_message import HEAD_BYTES, Refused, Request, Response, head_of, parse
from slurm_energy_exporters.web_access import Access

log = logging.getLogger("senergy.exporter")
Application = Callable[[Request], Awaitable[Response]]
CHUNK = 1 << 16
MOST_CHECKS = 64
"""Passwords that wait for bcrypt; more are turned away."""

# asyncio takes 256 KiB for each TLS connection before a byte came: 64 MB for clients that say nothing. A TLS record holds
# no more than this.
asyncio.sslproto.SSLProtocol.max_size = 1 << 14


class Limits(NamedTuple):
    """How much, and how long (seconds), a client may have. requests: answered at once; 0: no limit."""

    requests: int = 40
    connections: int = 256
    head_s: float = 5.0
    turn_s: float = 5.0
    send_s: float = 10.0
    idle_s: float = 120.0


class Server:
    """Serves one application on listening sockets until it is told to stop."""

    def __init__(self, application: Application, access: Access, limits: Limits | None = None) -> None:
        self.application, self.access = application, access
        self.limits = limits or Limits()
        self._open: dict[asyncio.Task[None], bool] = {}
        """Connections in the order in which they last did something, and whether one is being answered."""
        self._turn = asyncio.Semaphore(self.limits.requests or 1 << 30)
        self._checker = ThreadPoolExecutor(1, "bcrypt")
        self._checks = 0

    async def serve(self, listeners: Sequence[socket.socket], stop: asyncio.Event) -> None:
        """Accepts until `stop`; then requests that are being answered have a moment, and all is closed."""
        asyncio.get_running_loop().set_exception_handler(_quiet)
        doors = [asyncio.create_task(self._accept(listener)) for listener in listeners]
        await stop.wait()
        for task in (*doors, *(task for task, busy in self._open.items() if not busy)):
            task.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=2)
        for task in self._open:
            task.cancel()
        await asyncio.gather(*doors, *self._open, return_exceptions=True)
        self._checker.shutdown(wait=False, cancel_futures=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:  # no more files: a connection has to go before another can come
                log.warning("accept: %s", error.strerror)
                self._make_room()
                await asyncio.sleep(0.05)
                continue
            if len(self._open) >= self.limits.connections and not self._make_room():
                client.close()
                continue
            task = asyncio.create_task(self._connection(client))
            self._open[task] = False
            task.add_done_callback(self._closed)

    def _make_room(self) -> bool:
        """Ends the connection that has been waiting longest; False where all are being answered."""
        oldest = next((task for task, busy in self._open.items() if not busy), None)
        if oldest is None:
            return False
        del self._open[oldest]
        oldest.cancel()
        return True

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._open.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("a connection failed", exc_info=error)

    async def _connection(self, client: socket.socket) -> None:
        """From the handshake to the end."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(HEAD_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        self.access.refresh()
        tls = self.access.tls
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, client, ssl=tls, ssl_handshake_timeout=self.limits.head_s if tls else None
            )
        except OSError as error:  # SSLError is one of them
            log.debug("TLS: %s", error)
            client.close()
            return
        except BaseException:
            client.close()
            raise
        try:
            # Written to the kernel, or waited for: no connection holds more than a chunk of an answer.
            transport.set_write_buffer_limits(high=0)
            await self._talk(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
        except (OSError, asyncio.IncompleteReadError) as error:
            log.debug("a client has gone: %s", error)
        finally:
            transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests and answers, one after the other."""
        loop, limits, transport = asyncio.get_running_loop(), self.limits, writer.transport
        me = asyncio.current_task()
        assert me is not None  # noqa: S101
        timer = loop.call_later(limits.head_s, transport.abort)
        going_on = True
        while going_on:
            request: Request | None = None
            try:
                first = await reader.readexactly(1)
                timer.cancel()
                timer = loop.call_later(limits.head_s, transport.abort)
                request = parse(first + await reader.readuntil(b"\r\n\r\n"))
                timer.cancel()
                if self._open.pop(me, None) is None:
                    return  # somebody else was given this one's place
                self._open[me] = True
                response = await self._answer(request)
            except asyncio.LimitOverrunError:
                response = _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            except Refused as refused:
                response = _plain(refused.status, **refused.headers)
            finally:
                timer.cancel()
            going_on = request is not None and request.keep_alive
            timer = loop.call_later(limits.send_s, transport.abort)
            head = head_of(response, self.access.config.headers, keep_alive=going_on)
            body = b"" if request is not None and request.method == "HEAD" else response.body
            await _send(writer, head, body)
            timer.cancel()
            if me in self._open:
                self._open[me] = False
            timer = loop.call_later(limits.idle_s, transport.abort)
        timer.cancel()
        await _end(reader, writer)

    async def _answer(self, request: Request) -> Response:
        may = await self._may(request.headers.get("authorization", ""))
        if may is None:
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE)
        if not may:
            return _plain(HTTPStatus.UNAUTHORIZED, **{"WWW-Authenticate": 'Basic realm="slurm-energy"'})
        try:
            await asyncio.wait_for(self._turn.acquire(), self.limits.turn_s)
        except asyncio.TimeoutError:
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE)
        try:
            return await self.application(request)
        except Exception:
            log.exception("%s failed", request.path[:80])
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR)
        finally:
            self._turn.release()

    async def _may(self, authorization: str) -> bool | None:
        """Whether these credentials are right; None where too many wait to have theirs checked."""
        known = self.access.remembered(authorization)
        if known is not None:
            return known
        if self._checks >= MOST_CHECKS:
            return None
        self._checks += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._checker, self._check, authorization)
        finally:
            self._checks -= 1

    def _check(self, authorization: str) -> bool:
        """On the thread of passwords: many who ask with the same credentials cost one check."""
        known = self.access.remembered(authorization)
        return self.access.check(authorization) if known is None else known


async def _send(writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
    if len(body) <= CHUNK:
        writer.write(head + body)
    else:
        writer.write(head)
        for at in range(0, len(body), CHUNK):
            await writer.drain()
            writer.write(body[at : at + CHUNK])
    await writer.drain()


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says goodbye and throws away what still comes: closing before it is read would tear the answer away."""

    async def throw_away() -> None:
        for _ in range(16):
            if not await reader.read(CHUNK):
                break

    with contextlib.suppress(asyncio.TimeoutError, OSError):
        if writer.can_write_eof():
            writer.write_eof()
            await asyncio.wait_for(throw_away(), 0.5)
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), 0.5)


def _plain(status: HTTPStatus, **headers: str) -> Response:
    return Response(status, f"{status.value} {status.phrase}\n".encode(), headers=headers)


def _quiet(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What goes wrong with one connection is that client's affair."""
    log.debug("%s: %s", context.get("message"), context.get("exception"))
