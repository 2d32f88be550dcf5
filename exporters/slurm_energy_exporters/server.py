"""A small HTTP server for exporters. One thread waits on all connections, so that a slow client costs none.

Bounded: connections and what they hold in memory (`connections`), the size of a request, the time for a handshake, a
request and its answer, the requests that are answered at once. What takes processor time (making an answer, bcrypt) is
done by two worker threads: pages run on one of them, passwords are checked on the other.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import contextlib
import functools
import gc
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from http import HTTPStatus
from typing import NamedTuple

from slurm_energy_exporters.connections import CHUNK, Connection, Connections, Incoming, bound, peer_of
from slurm_energy_exporters.http_message import HEAD_BYTES, Refused, Request, Response, head_of, parse
from slurm_energy_exporters.password_checks import PasswordChecks
from slurm_energy_exporters.web_access import Access

log = logging.getLogger("senergy.exporter")
Application = Callable[[Request], Awaitable[Response]]

# asyncio takes 256 KiB for each TLS connection before a byte came: 64 MB for clients that say nothing. A TLS record holds
# no more than this.
asyncio.sslproto.SSLProtocol.max_size = 1 << 14


class Limits(NamedTuple):
    """How much, and how long (seconds), a client may have. requests: answered at once; 0: no limit. send_s: for its
    answer, or for all answers together of requests that were sent without waiting for one."""

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
        self._open = Connections(self.limits.connections)
        self._turn = asyncio.Semaphore(self.limits.requests or 1 << 30)
        self._checks = PasswordChecks(self._check)
        self._stopping = False
        self._over = 0
        """Connections that are."""

    async def serve(self, listeners: Sequence[socket.socket], stop: asyncio.Event) -> None:
        """Accepts until `stop`; then requests that are being answered have a moment, and all is closed."""
        asyncio.get_running_loop().set_exception_handler(_quiet)
        doors = [asyncio.create_task(self._accept(listener)) for listener in listeners]
        await stop.wait()
        self._stopping = True
        for door in doors:
            door.cancel()
        for one in self._open:
            if one.task and not one.busy and one.answer is None:
                one.task.cancel()
        tasks = [one.task for one in self._open if one.task]
        if tasks:
            await asyncio.wait(tasks, timeout=3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*doors, *tasks, return_exceptions=True)
        self._checks.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        bound(listener)
        listener.setblocking(False)
        while True:
            try:
                client, address = await loop.sock_accept(listener)
            except OSError as error:  # no more files: a connection has to go before another can come
                log.warning("accept: %s", error.strerror)
                self._open.make_room()
                await asyncio.sleep(0.05)
                continue
            one = Connection(peer_of(address))
            if not self._open.add(one):
                client.close()
                continue
            one.task = asyncio.create_task(self._connection(one, client))
            one.task.add_done_callback(functools.partial(self._closed, one, client))

    def _closed(self, one: Connection, client: socket.socket, task: asyncio.Task[None]) -> None:
        self._open.remove(one)
        if not one.begun:  # its place was given away before its task had its first turn
            client.close()
        self._over += 1
        if self._over % self.limits.connections == 0:
            gc.collect()  # asyncio leaves circles, and between them memory that cannot be used: megabytes in a siege
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("a connection failed", exc_info=error)

    async def _connection(self, one: Connection, client: socket.socket) -> None:
        """From the handshake to the end."""
        one.begun = True
        loop = asyncio.get_running_loop()
        reader = Incoming(HEAD_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        self.access.refresh()
        tls, gate = self.access.tls, self.access.gate
        try:
            bound(client)  # inherited, but not by those that were waiting before
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
            # Written to the kernel, or waited for: no connection holds more than a chunk of an answer. With a high of 0
            # the one of TLS would wait for ever.
            transport.set_write_buffer_limits(high=1, low=0)
            # Under TLS there is a transport with a buffer of its own, of 64 KiB if nobody says otherwise.
            under = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
            if under is not None:
                under.set_write_buffer_limits(high=CHUNK)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            await self._talk(one, gate, reader, writer)
            await _end(reader, writer)
        except (OSError, asyncio.IncompleteReadError) as error:
            log.debug("a client has gone: %s", error)
            error.with_traceback(None)  # reader and frames would hold each other, and what was sent, for long
        finally:
            transport.abort()

    async def _talk(self, one: Connection, gate: object, reader: Incoming, writer: asyncio.StreamWriter) -> None:
        """Requests and answers, one after the other."""
        limits, clock, abort, going_on = self.limits, asyncio.get_running_loop().time, writer.transport.abort, True
        wait_s, send_s = limits.head_s, limits.send_s
        while going_on:
            request = None
            try:
                request = await self._request(reader, abort, wait_s)
                self.access.refresh()
                if self.access.gate != gate:
                    return  # who may come in by TLS is something else by now: it has to come in anew
                if not self._open.alive(one):
                    return  # somebody else was given this one's place
                response = await self._answer(one, request)
                if not self._open.alive(one):
                    return  # meanwhile; Python's wait_for() may have swallowed that it was cancelled
            except asyncio.LimitOverrunError:
                response = _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            except Refused as refused:
                response = _plain(refused.status, **refused.headers)
            going_on = request is not None and request.keep_alive and not self._stopping
            head = head_of(response, self.access.config.headers, keep_alive=going_on)
            body = b"" if request is not None and request.method == "HEAD" else response.body
            begin = clock()
            with _within(send_s, abort):
                await self._send(one, writer, head, body)
            del response, body  # kept connections keep no answers
            # Requests that are here already have but the rest of this time: who sends many and does not read is gone soon.
            send_s = send_s - (clock() - begin) if reader.ahead else limits.send_s
            wait_s = limits.idle_s

    async def _request(self, reader: Incoming, abort: Callable[[], None], wait_s: float) -> Request:
        with _within(wait_s, abort):
            first = await reader.first()
        with _within(self.limits.head_s, abort):
            return parse(first + await reader.head())

    async def _answer(self, one: Connection, request: Request) -> Response:
        given = request.headers.get("authorization", "")
        may = self.access.remembered(given)
        if may is None:
            may = await self._checks.ask(one.peer, given)
        if may is None:
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE)
        if not may:
            return _plain(HTTPStatus.UNAUTHORIZED, **{"WWW-Authenticate": 'Basic realm="slurm-energy"'})
        try:
            await asyncio.wait_for(self._turn.acquire(), self.limits.turn_s)
        except asyncio.TimeoutError:
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE)
        one.busy = True
        try:
            return await self.application(request)
        except Exception:
            log.exception("%s failed", request.path[:80])
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR)
        finally:
            one.busy = False
            self._turn.release()

    def _check(self, authorization: str) -> bool:
        """On the thread of passwords: they may be known by now, from another address."""
        return self.access.check(authorization) if (known := self.access.remembered(authorization)) is None else known

    async def _send(self, one: Connection, writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
        self._open.sending(one, body)
        writer.write(head + body[:CHUNK])
        await writer.drain()
        for at in range(CHUNK, len(body), CHUNK):
            if not self._open.alive(one):
                return
            writer.write(body[at : at + CHUNK])
            await writer.drain()
        self._open.alive(one)
        one.answer = None


@contextlib.contextmanager
def _within(seconds: float, abort: Callable[[], None]) -> Iterator[None]:
    """What takes longer ends the connection."""
    timer = asyncio.get_running_loop().call_later(seconds, abort)
    try:
        yield
    finally:
        timer.cancel()


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
