"""Slurm's nodes as the targets that Prometheus scrapes: for a file (file_sd) and over HTTP (http_sd)."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slurm_energy.slurm.errors import SourceError
from slurm_energy.slurm.nodes import Node
from slurm_energy.web.server import BoundedServer, Request, Response

Groups = list[dict[str, Any]]
"""As Prometheus' file and HTTP service discovery take them: of each, `targets` and `labels`."""
STATE = "__meta_slurm_state"
"""The label of a node's state. Prometheus drops labels that begin with __ once it has relabelled."""
SOON_S = 5.0
"""Slurm is asked again after so many seconds where it has never answered."""


def targets(nodes: Sequence[Node], cluster: str | None, port: int, by: str = "address") -> Groups:
    """A group for each node, with its labels.

    cluster: the label of nodes that name none of their own.
    """
    field = {"address": "address", "hostname": "hostname", "name": "name"}[by]
    found = []
    for node in nodes:
        host: str = getattr(node, field)
        if ":" in host and not host.startswith("["):  # IPv6
            host = f"[{host}]"
        labels = {"cluster": node.cluster or cluster or "", "node": node.name}
        if node.state:
            labels[STATE] = node.state
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


def write_whole(path: Path, text: str) -> None:
    """Replaces the file in one step, readable by all (Prometheus is another user). One that says the same stays."""
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


def as_json(groups: Sequence[dict[str, Any]]) -> str:
    """A line for each node."""
    lines = ",\n".join("  " + json.dumps(group, ensure_ascii=False) for group in groups)
    return f"[\n{lines}\n]\n" if groups else "[]\n"


class Directory:
    """The targets as they were last had from Slurm; asks again when they are older than `every` seconds.

    say: gets a line each time that Slurm does not answer.
    """

    def __init__(
        self, look: Callable[[], Groups], every: float, say: Callable[[str], object] = lambda problem: None
    ) -> None:
        self._look, self._every, self._say, self._lock = look, every, say, threading.Lock()
        self._body: bytes | None = None
        self._due = 0.0

    def body(self) -> bytes | None:
        """JSON; that of before where Slurm does not answer now or lists no node. None: it never did."""
        with self._lock:
            if time.monotonic() >= self._due:
                try:
                    found = self._look()
                except SourceError as error:
                    self._say(str(error))
                else:
                    if found:
                        self._body = as_json(found).encode()
                self._due = time.monotonic() + (self._every if self._body is not None else min(self._every, SOON_S))
            return self._body

    def answer(self, request: Request) -> Response:
        """GET /targets."""
        if request.path not in ("/", "/targets"):
            return Response(b"see /targets\n", status=404)
        body = self.body()
        if body is None:
            # Prometheus keeps the targets that it has when it is told so.
            return Response(b"Slurm does not answer\n", status=503)
        return Response(body, "application/json")


def server(address: tuple[str, int], directory: Directory) -> BoundedServer:
    """The HTTP server, for whoever reaches it under whatever name."""
    return BoundedServer(address, directory.answer, hosts=None)
