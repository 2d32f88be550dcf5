"""An agent's socket without an agent, and what it may say."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

from slurm_energy.agent.snapshot import CounterView, JobView, Snapshot
from slurm_energy.segment import DOMAINS
from slurm_energy.sources.base import Refusal

NOON = 1_795_521_600
"""2026-11-24 12:00 UTC."""


def counter(name: str, domain: str, watts: float | None, joules: float, **facts: object) -> CounterView:
    """A counter; facts: what is not usual."""
    usual = {"device": "", "model": "", "estimated": False, "gaps": 0, "problem": ""}
    return CounterView(name=name, domain=domain, watts=watts, joules=joules, **{**usual, **facts})  # type: ignore[arg-type]


def job(job_id: int, watts: Iterable[float], joules: Iterable[float], **facts: object) -> JobView:
    """A job, watts and joules by domain; facts: what is not usual."""
    usual = {
        "restart_count": 0, "sluid": None, "session_start": NOON - 3600, "user": "emma", "uid": 1000, "account": "lisa",
        "partition": "gpu", "origin": "hook", "cpus": 2, "gpus": [], "cpu_seconds": 0.0,
    }  # fmt: skip
    return JobView(
        job_id=job_id,
        watts=dict(zip(DOMAINS, watts, strict=True)),
        joules=dict(zip(DOMAINS, joules, strict=True)),
        **{**usual, **facts},  # type: ignore[arg-type]
    )


def fixed() -> Snapshot:
    """A node with all domains, two GPUs of which one is in a gap, a job of each kind and a source that is refused."""
    return Snapshot(
        version="0.1.0", cluster="alpha", node="n1", boot_id="boot-1", wall_ns=NOON * 10**9 + 250_000_000,
        hour="2026-11-24T12", started_ns=(NOON - 86_400) * 10**9, ticks=86_400, period_s=1.0,
        counters=[
            counter("rapl:package-0", "package", 95.5, 5_000_000.25),
            counter("rapl:dram-0", "dram", 12.0, 800_000.0),
            counter("nvml:GPU-6f3a", "gpu", 301.125, 9_000_000.0, device="GPU-6f3a", model="NVIDIA A100-SXM4-80GB"),
            counter("nvml:GPU-77b0", "gpu", None, 1_000_000.5, device="GPU-77b0", model="NVIDIA A100-SXM4-80GB", gaps=7, problem="lost"),
            counter("ipmi:dcmi", "node", 520.0, 17_000_000.0),
        ],
        refused=[Refusal("powercap intel-rapl:1", "permission denied", "run the agent as root", "package")],
        jobs=[
            job(4711, (40.25, 5.0, 301.125, 50.0), (144_900.0, 18_000.125, 1_084_050.0, 180_000.0), gpus=["GPU-6f3a"], cpu_seconds=7199.25),
            job(-1, (30.0, 2.0, 0.0, 10.0), (60.0, 4.0, 0.0, 20.0), sluid="sEKNKTV3WPV500", session_start=NOON - 2, user="", uid=1001,
                account="", partition="", origin="discovered", cpu_seconds=3.0),
        ],
        idle=job(0, (25.25, 5.0, 0.0, 51.375), (4_855_040.25, 781_995.875, 8_915_950.5, 1_019_979.5),
            session_start=NOON - 86_400, origin="idle"),
        outbox_fill=0.015625, pending_segments=3, bad_hook_files=1, set_aside=0, clock_jumps=2, problems=["a problem"],
        attributed=dict(zip(DOMAINS, (5_000_000.25, 800_000.0, 10_000_000.5, 1_199_999.5), strict=True)),
    )  # fmt: skip


class Stub:
    """A socket that answers everybody with `answer`; None: never answers."""

    def __init__(self, path: Path, answer: bytes | None) -> None:
        self.path, self.answer, self.asked = path, answer, 0
        self._held: list[socket.socket] = []
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(path))
        self._door.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            self.asked += 1
            answer = self.said()
            if answer is None:
                self._held.append(client)
                continue
            with client, contextlib.suppress(OSError):
                client.sendall(answer)

    def said(self) -> bytes | None:
        """The answer to who asks now."""
        return self.answer

    def close(self) -> None:
        """As a killed agent: the socket's file stays, nobody is behind it."""
        if self._door.fileno() >= 0:
            self._door.shutdown(socket.SHUT_RDWR)  # wakes the thread
            self._door.close()
        for client in self._held:
            client.close()
