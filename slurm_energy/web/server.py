"""A small HTTP server that stays small: so many requests at a time, so many seconds each, GET and HEAD only."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

MAX_REQUESTS = 24
IDLE_S, WHOLE_S = 5.0, 15.0
"""Seconds that a client may be silent, and that a request may take in all."""
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Request(NamedTuple):
    """What a page needs of a request."""

    path: str
    query: dict[str, str]
    authorization: str


class Response(NamedTuple):
    """What goes back."""

    body: bytes
    type: str = "text/plain; charset=utf-8"
    status: int = 200


Application = Callable[[Request], Response]


class BoundedServer(ThreadingHTTPServer):
    """Serves `application` for requests whose Host is an address, localhost, or one of `hosts`; None: whatever it is."""

    daemon_threads = True
    block_on_close = False  # a client that hangs must not hold the end of the program
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], application: Application, hosts: Sequence[str] | None = ()) -> None:
        """Raises OSError where it cannot listen there."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.application = application
        self.hosts = None if hosts is None else frozenset({"localhost", *(name.lower().rstrip(".") for name in hosts)})
        self._free = threading.BoundedSemaphore(MAX_REQUESTS)
        self._open: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Binds without asking the name service who we are."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the request where one is free, else an answer that says so."""
        if not self._free.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.settimeout(0.1)
                request.sendall(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n")
            self.shutdown_request(request)
            return
        with self._lock:
            self._open[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self._done(request)
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As before, and then the place is free again."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._done(request)

    def _done(self, request: socket.socket) -> None:
        with self._lock:
            self._open.pop(request, None)
        self._free.release()

    def service_actions(self) -> None:
        """Twice a second: ends connections that have taken too long, however busy they look."""
        late = time.monotonic() - WHOLE_S
        with self._lock:
            for request, since in self._open.items():
                if since < late:
                    with contextlib.suppress(OSError):
                        request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""

    def knows(self, host: str) -> bool:
        """Whether a Host header can be meant for us. A name that somebody bound to our address is none of ours."""
        if self.hosts is None:
            return True
        name = host.rsplit(":", 1)[0] if not host.endswith("]") and ":" in host else host
        name = name.lower().rstrip(".")
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(name.strip("[]"))
            return True
        return name in self.hosts


class _Handler(BaseHTTPRequestHandler):
    server: BoundedServer
    timeout = IDLE_S
    server_version, sys_version = "senergy", ""

    def do_GET(self) -> None:
        if not self.server.knows(self.headers.get("Host", "")):
            self._send(Response(b"this name is not mine; see --allow-host\n", status=HTTPStatus.MISDIRECTED_REQUEST))
            return
        try:
            parts = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(parts.query, max_num_fields=16).items()}
        except ValueError:
            self._send(Response(b"not a request that I understand\n", status=HTTPStatus.BAD_REQUEST))
            return
        request = Request(parts.path, query, self.headers.get("Authorization", ""))
        try:
            response = self.server.application(request)
        except Exception as error:  # the page says that there was one, the terminal which
            print(f"senergy: {type(error).__name__}: {str(error)[:500]!r}", file=sys.stderr)
            response = Response(b'{"error": "this failed; the terminal that it was started in says why"}', status=500)
        self._send(response)

    do_HEAD = do_GET

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.type)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """An error of the protocol, without repeating what the client said."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self.close_connection = True
        self._send(Response(f"{status.value} {status.phrase}\n".encode(), status=status))

    def end_headers(self) -> None:
        """Every answer has the strict headers."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads a log of a page on one's own machine."""
