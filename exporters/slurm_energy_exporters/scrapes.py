"""The pages of an exporter: /metrics out of a collector, the landing page, /-/healthy.

Scrapes that come at the same time share one collection, and one that is younger than a tenth of a second is good for
those that come next: however many ask, the agent is asked ten times a second at most.
"""

from __future__ import annotations

import asyncio
import gc
import html
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from slurm_energy.version import __version__
from slurm_energy_exporters.http_message import Request, Response, wants_gzip, wants_openmetrics
from slurm_energy_exporters.metrics_text import OPENMETRICS, TEXT, render

SHARED_S = 0.1
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>:root{{color-scheme:light dark}} body{{font:1rem/1.5 system-ui,sans-serif;margin:2rem auto;max-width:40rem;padding:0 1rem}}</style>
<h1>{title}</h1>
<p>{about}</p>
<ul><li><a href="/metrics">Metrics</a></li><li><a href="/-/healthy">Health of this exporter</a></li></ul>
<p>slurm-energy {version}</p>
</html>
"""


class Scrapes:
    """An application for `Server`."""

    def __init__(self, collector: Collector, title: str, about: str) -> None:
        self._collector = collector
        self._page = PAGE.format(title=html.escape(title), about=html.escape(about), version=__version__).encode()
        self._worker = ThreadPoolExecutor(1, "scrape")
        self._running: dict[tuple[bool, bool], asyncio.Future[bytes]] = {}
        self._made: dict[tuple[bool, bool], bytes] = {}
        self._families: list[Family] = []
        self._until = 0.0

    async def __call__(self, request: Request) -> Response:
        """Answers a GET or a HEAD."""
        if request.path == "/metrics":
            return await self._metrics(request)
        if request.path == "/":
            return Response(HTTPStatus.OK, self._page, "text/html; charset=utf-8")
        if request.path == "/-/healthy":
            return Response(HTTPStatus.OK, b"Healthy.\n")
        return Response(HTTPStatus.NOT_FOUND, b"404 Not Found\n")

    def close(self) -> None:
        """Lets the worker thread go."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def _metrics(self, request: Request) -> Response:
        openmetrics = wants_openmetrics(request.headers.get("accept", ""))
        packed = wants_gzip(request.headers.get("accept-encoding", ""))
        key = (openmetrics, packed)
        running = self._running.get(key)
        if running is None:
            running = asyncio.get_running_loop().run_in_executor(self._worker, self._make, key)
            self._running[key] = running
            running.add_done_callback(lambda _: self._running.pop(key, None))
        # Shielded: a client that goes away takes nobody else's answer along.
        body = await asyncio.shield(running)
        headers = {"Vary": "Accept, Accept-Encoding"} | ({"Content-Encoding": "gzip"} if packed else {})
        return Response(HTTPStatus.OK, body, OPENMETRICS if openmetrics else TEXT, headers)

    def _make(self, key: tuple[bool, bool]) -> bytes:
        """On the worker thread, one at a time. It leaves no cycles, and thousands of new objects would be searched for some."""
        gc.disable()
        try:
            return self._text(key)
        finally:
            gc.enable()

    def _text(self, key: tuple[bool, bool]) -> bytes:
        if time.monotonic() >= self._until:
            self._families, self._made = [], {}  # gone before the next ones come
            self._families = list(self._collector.collect())
            self._until = time.monotonic() + SHARED_S
        if key not in self._made:
            openmetrics, packed = key
            plain = self._made.get((openmetrics, False))
            if plain is None:
                plain = self._made[openmetrics, False] = render(self._families, openmetrics=openmetrics)
            if packed:
                # Level 1: half the time of the usual one for a tenth more bytes.
                squeeze = zlib.compressobj(1, zlib.DEFLATED, 31)
                self._made[key] = squeeze.compress(plain) + squeeze.flush()
        return self._made[key]
