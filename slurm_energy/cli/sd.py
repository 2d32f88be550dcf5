"""`senergy sd`: Prometheus targets from sinfo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from slurm_energy.cli.options import ClustersOption

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from http.server import ThreadingHTTPServer

    from slurm_energy.slurm.nodes import Node

BY = ("address", "hostname", "name")
MAX_CLIENTS = 8
CLIENT_TIMEOUT_S = 5.0


def sd(
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", help="Write this file, whole or not at all, for file_sd.", show_default=False),
    ] = None,
    serve: Annotated[
        Optional[str],
        typer.Option("--serve", help="Answer HTTP at HOST:PORT or PORT (then on 127.0.0.1), for http_sd."),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of the node exporters.")] = 9854,
    cluster: Annotated[
        Optional[str], typer.Option("--cluster", help="The label `cluster`; Slurm's ClusterName without it.")
    ] = None,
    clusters: ClustersOption = None,
    by: Annotated[
        str, typer.Option("--by", help="Reach a node by its address (NodeAddr), hostname (NodeHostName) or name.")
    ] = "address",
    every: Annotated[float, typer.Option("--every", min=1, help="With --serve: seconds between two sinfo.")] = 60,
) -> None:
    """Print Prometheus' targets, one for each node that sinfo lists, whatever the node's state.

    Ends with 1 where Slurm lists no node, with 2 where it does not answer; a file written before stays as it is then.

    \b
    Examples:
      senergy sd --output /etc/prometheus/slurm-energy/nodes.json
      senergy sd -M alpha,beta --by hostname
      senergy sd --serve 9853
    """
    from slurm_energy.cli.options import split

    if by not in BY:
        raise typer.BadParameter(f"{by!r}: expected one of {', '.join(BY)}", param_hint="'--by'")
    if serve is not None and output is not None:
        raise typer.BadParameter("--output and --serve do not go together", param_hint="'--serve'")
    asked = split(clusters)
    if cluster is not None and asked:
        raise typer.BadParameter("--cluster names one cluster, -M asks for several", param_hint="'--cluster'")
    address = _address(serve) if serve is not None else None

    def look() -> list[dict[str, Any]]:
        from slurm_energy.slurm.nodes import own_cluster, read_nodes

        nodes = read_nodes(asked)
        return targets(nodes, cluster if cluster is not None or asked else own_cluster(), port, by)

    if address is not None:
        _serve(address, look, every)
        return
    found = look()
    if not found:
        typer.echo("senergy sd: Slurm lists no node" + (f"; {output} stays as it is" if output else ""), err=True)
        raise typer.Exit(1)
    for line in doubled(found):
        typer.echo(f"senergy sd: {line}", err=True)
    text = as_json(found)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_whole(output, text)


def targets(nodes: Sequence[Node], cluster: str | None, port: int, by: str = "address") -> list[dict[str, Any]]:
    """Groups as Prometheus' file and HTTP service discovery take them: one for each node, with its labels.

    cluster: the label of nodes that name none of their own.
    """
    field = {"address": "address", "hostname": "hostname", "name": "name"}[by]
    found = []
    for node in nodes:
        host: str = getattr(node, field)
        if ":" in host and not host.startswith("["):  # IPv6
            host = f"[{host}]"
        labels = {"cluster": node.cluster or cluster or "", "node": node.name}
        found.append({"targets": [f"{host}:{port}"], "labels": labels})
    return found


def doubled(groups: Sequence[dict[str, Any]]) -> list[str]:
    """Addresses that several nodes share, as text: Prometheus would book one exporter on each of them."""
    nodes: dict[str, list[str]] = {}
    for group in groups:
        nodes.setdefault(group["targets"][0], []).append(group["labels"]["node"])
    return [
        f"{', '.join(names[:4])}{' and more' if len(names) > 4 else ''} are all at {target}: try --by hostname or --by name"
        for target, names in nodes.items()
        if len(names) > 1
    ]


def as_json(groups: Sequence[dict[str, Any]]) -> str:
    """A line for each node."""
    import json

    lines = ",\n".join("  " + json.dumps(group, ensure_ascii=False) for group in groups)
    return f"[\n{lines}\n]\n" if groups else "[]\n"


def write_whole(path: Path, text: str) -> None:
    """Replaces the file in one step, readable by all (Prometheus is another user). One that says the same stays."""
    import contextlib
    import os
    import tempfile

    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == text:
            return
    # Not .json, for Prometheus may watch *.json here.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _address(text: str) -> tuple[str, int]:
    host, _, number = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not number.isascii() or not number.isdigit() or not 0 <= int(number) <= 65535:
        raise typer.BadParameter(f"{text!r}: expected HOST:PORT or PORT", param_hint="'--serve'")
    return host, int(number)


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


def _serve(address: tuple[str, int], look: Callable[[], list[dict[str, Any]]], every: float) -> None:
    """Until SIGTERM or SIGINT."""
    import signal
    import threading

    http = server(address, Directory(look, every))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=http.shutdown).start())
    host, port = http.server_address[:2]
    shown = f"[{host!s}]" if ":" in str(host) else str(host)
    typer.echo(f"senergy sd: targets at http://{shown}:{port}/targets", err=True)
    with http:
        http.serve_forever(poll_interval=0.2)
