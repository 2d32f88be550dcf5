"""The targets of `senergy sd` over HTTP, for Prometheus' http_sd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from http.server import ThreadingHTTPServer

MAX_CLIENTS = 8
CLIENT_TIMEOUT_S = 5.0


def as_json(groups: Sequence[dict[str, Any]]) -> str:
    """A line for each node."""
    import json

    lines = ",\n".join("  " + json.dumps(group, ensure_ascii=False) for group in groups)
    return f"[\n{lines}\n]\n" if groups else "[]\n"


class Directory:
    """The targets as they were last had from Slurm; asks again when they are older than `every` seconds."""

    def __init__(self, look: Callable[[], list[dict[str, Any]]], every: float) -> None:
        import threading

        self._look, self._every, self._lock = look, every, threading.Lock()
        self._body: bytes | None = None
        self._due = 0.0

    def body(self) -> bytes | None:
        """JSON; that of before where Slurm does not answer now or lists no node. None: it never did."""
        import time

        from slurm_energy.slurm.errors import SourceError

        with self._lock:
            if time.monotonic() >= self._due:
                try:
                    found = self._look()
                except SourceError as error:
                    typer.echo(f"senergy sd: {error}", err=True)
                else:
                    if found:
                        self._body = as_json(found).encode()
                self._due = time.monotonic() + (self._every if self._body is not None else min(self._every, 5.0))
            return self._body


def server(address: tuple[str, int], directory: Directory) -> ThreadingHTTPServer:
    """The HTTP server: GET /targets; at most MAX_CLIENTS at a time, each for CLIENT_TIMEOUT_S; others are turned away."""
    import socket
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_TIMEOUT_S
        server_version, sys_version = "senergy-sd", ""

        def do_GET(self) -> None:
            if self.path.partition("?")[0] not in ("/", "/targets"):
                self._say(404, b"see /targets\n", "text/plain; charset=utf-8")
            elif (body := directory.body()) is None:
                # Prometheus keeps the targets that it has when it is told so.
                self._say(503, b"Slurm does not answer\n", "text/plain; charset=utf-8")
            else:
                self._say(200, body, "application/json")

        def _say(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        slots = threading.BoundedSemaphore(MAX_CLIENTS)

        def process_request(self, request: Any, client_address: Any) -> None:
            if not self.slots.acquire(blocking=False):
                self.shutdown_request(request)
                return
            # A client that sends a byte at a time would go on for ever by the socket's own timeout.
            timer = threading.Timer(2 * CLIENT_TIMEOUT_S, _hang_up, (request,))
            timer.daemon = True
            self.timers[request] = timer
            timer.start()
            super().process_request(request, client_address)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                self.timers.pop(request).cancel()
                self.slots.release()

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that went away

        timers: dict[Any, threading.Timer]

    made = Server(address, Handler)
    made.timers = {}
    return made


def _hang_up(request: Any) -> None:
    import contextlib
    import socket

    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)
