"""What the agents say now, as the page shows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slurm_energy.agent.client import AgentError, read_snapshot
from slurm_energy.agent.freshness import age_s, is_old
from slurm_energy.units import J_PER_KWH

if TYPE_CHECKING:
    from slurm_energy.agent.snapshot import JobView, Snapshot

KEEP_S = 1.0
"""An answer is used again for so long: many pages cost the agent no more than one."""


class Live:
    """Reads the sockets; callable from several threads."""

    def __init__(self, sockets: Sequence[Path], timeout_s: float = 2.0) -> None:
        self.sockets, self.timeout_s = list(sockets), timeout_s
        self._lock = threading.Lock()
        self._answer: dict[str, Any] = {}
        self._at = -KEEP_S

    def read(self) -> dict[str, Any]:
        """Nodes, their jobs, and what went wrong, by socket."""
        with self._lock:
            if time.monotonic() - self._at >= KEEP_S:
                self._answer = self._read()
                self._at = time.monotonic()
            return self._answer

    def _read(self) -> dict[str, Any]:
        nodes, errors = [], []
        for path in self.sockets:
            try:
                nodes.append(_node(read_snapshot(path, self.timeout_s)))
            except AgentError as error:
                errors.append(str(error))
        return {"now": time.time(), "nodes": nodes, "errors": errors}


def _node(snapshot: Snapshot) -> dict[str, Any]:
    """A node; without its watts and jobs where they are not of now."""
    now = time.time()
    live = not is_old(snapshot, now)
    found: dict[str, Any] = {
        "node": snapshot.node,
        "cluster": snapshot.cluster,
        "at": snapshot.wall_ns / 1e9,
        "live": live,
        "watts": None,
        "domains": {},
        "idle_watts": None,
        "estimated": bool(snapshot.counters) and all(counter.estimated for counter in snapshot.counters),
        "gpus": sum(counter.domain == "gpu" for counter in snapshot.counters),
        "jobs": [],
        "problems": [*([] if live else [_why_old(age_s(snapshot, now))]), *snapshot.problems],
    }
    if live:
        watts = snapshot.node_watts()
        jobs = sorted((_job(job, snapshot.wall_ns / 1e9) for job in snapshot.jobs), key=lambda one: -one["watts"])
        found |= {
            "watts": sum(watts.values()), "domains": watts, "idle_watts": sum(snapshot.idle.watts.values()), "jobs": jobs,
        }  # fmt: skip
    return found


def _why_old(age: float) -> str:
    """What is wrong with an agent whose watts are not shown, and what to do."""
    restart = "systemctl restart slurm-energy-agent (no energy is lost by that)"
    if age < 0:
        seen, first = (
            f"looked at its counters last at a time that is {-age:,.0f} s ahead of this clock",
            "timedatectl; ",
        )
    else:
        seen, first = f"has not looked at its counters for {age:,.0f} s", ""
    return f"the agent {seen}, so its watts are not shown: {first}{restart}; journalctl -u slurm-energy-agent says more"


def _job(job: JobView, now: float) -> dict[str, Any]:
    return {
        "id": str(job.job_id) if job.job_id > 0 else job.sluid or "?",
        "run": job.session_start,
        "user": job.user,
        "account": job.account,
        "partition": job.partition,
        "discovered": job.origin == "discovered",
        "seconds": max(now - job.session_start, 0.0),
        "cpus": job.cpus,
        "gpus": len(job.gpus),
        "watts": sum(job.watts.values()),
        "domains": job.watts,
        "kwh": sum(job.joules.values()) / J_PER_KWH,
    }
