"""What the exporters' command lines share: the flags of Prometheus' own exporters, and the life of the process."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import socket
import sys
from pathlib import Path

from prometheus_client.registry import Collector

from slurm_energy.version import __version__
from slurm_energy_exporters.scrapes import Scrapes
from slurm_energy_exporters.server import Limits, Server
from slurm_energy_exporters.web_access import Access
from slurm_energy_exporters.web_config import WebConfigError

log = logging.getLogger("senergy.exporter")
BACKLOG = 256


def parser_of(program: str, about: str, port: int) -> argparse.ArgumentParser:
    """A parser with the flags that all exporters have."""
    parser = argparse.ArgumentParser(prog=program, description=about, allow_abbrev=False)
    web = parser.add_argument_group("web")
    web.add_argument(
        "--web.listen-address", "--listen", dest="listen", action="append", metavar="ADDRESS",
        help=f"where to listen, host:port; may be given more than once; :{port} is every address of this machine "
        f"(default: 127.0.0.1:{port}, which other machines do not reach)",
    )  # fmt: skip
    web.add_argument(
        "--web.config.file", dest="web_config", type=Path, metavar="FILE",
        help="TLS and passwords, in the form that Prometheus' exporters share (docs/metrics.md)",
    )  # fmt: skip
    web.add_argument(
        "--web.max-requests", dest="max_requests", type=int, default=40, metavar="N",
        help="requests answered at once, more wait their turn; 0: no limit (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--log.level", dest="log_level", choices=("debug", "info", "warn", "error"), default="info")
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    parser.set_defaults(port=port)
    return parser


def run(collector: Collector, options: argparse.Namespace, title: str, about: str) -> int:
    """Serves a collector until SIGTERM or SIGINT; 0 then. 2 for a wrong configuration, 1 where it cannot listen."""
    level = {"warn": "WARNING"}.get(options.log_level, options.log_level.upper())
    logging.basicConfig(level=level, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    try:
        if options.max_requests < 0:
            raise WebConfigError(f"--web.max-requests: {options.max_requests}; expected 0 or more")
        addresses = [address_of(text) for text in options.listen or [f"127.0.0.1:{options.port}"]]
        access = Access(options.web_config)
    except WebConfigError as error:
        log.error("%s", error)
        return 2
    listeners: list[socket.socket] = []
    for host, port in addresses:
        try:
            listeners += listen(host, port)
        except OSError as error:
            log.error("cannot listen on %s:%d: %s", host, port, error.strerror or error)
            return 1
    for listener in listeners:
        where = listener.getsockname()
        log.info("listening on %s:%d%s", where[0], where[1], " (TLS)" if access.tls else "")
    asyncio.run(_serve(collector, access, listeners, options.max_requests, (title, about)))
    return 0


async def _serve(
    collector: Collector, access: Access, listeners: list[socket.socket], requests: int, names: tuple[str, str]
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    pages = Scrapes(collector, *names)
    gc.collect()
    gc.freeze()  # what is there now stays: the collector of garbage need not look at it again
    await Server(pages, access, Limits(requests=requests)).serve(listeners, stop)
    pages.close()
    for listener in listeners:
        listener.close()


def address_of(text: str) -> tuple[str, int]:
    """Host ('' for all addresses) and port. Raises WebConfigError."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise WebConfigError(f"--web.listen-address: {text!r}; expected host:port or :port")
    return host.strip("[]"), int(port)


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets of an address; IPv4 and IPv6 where it is all of them. Raises OSError."""
    if not host and socket.has_dualstack_ipv6():
        return [socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)]
    found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)  # noqa: S104
    return [
        socket.create_server(address[:2], family=family, backlog=BACKLOG) for family, _, _, _, address in dict.fromkeys(found)
    ]  # fmt: skip
