"""A node's metrics out of the agent's snapshot: read once per scrape, nothing kept but the marks of counters."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from slurm_energy.agent.client import AgentError, read_snapshot
from slurm_energy.agent.freshness import age_s, too_old
from slurm_energy.agent.snapshot import CounterView, JobView, Snapshot
from slurm_energy.version import __version__
from slurm_energy_exporters.metrics import DOMAINS, NODE
from slurm_energy_exporters.metrics_text import Families, clean

log = logging.getLogger("senergy.exporter")
TIMEOUT_S = 2.0
"""For the agent's answer, which takes it milliseconds."""


class NodeCollector(Collector):
    """Asks the agent at each scrape. One scrape at a time: the caller sees to it."""

    def __init__(self, socket: Path, now: Callable[[], float] = time.time) -> None:
        self._socket, self._now = socket, now
        self._said = ""
        self._boot = ""
        self._marks: dict[tuple[str, ...], float] = {}
        self._moved = Moved()
        self._before: Families | None = None

    def describe(self) -> Iterable[Family]:
        """Every family without a sample: registering it asks no agent."""
        return Families(NODE).all()

    def collect(self) -> list[Family]:
        """The families of this moment. No agent, a stuck one or one of another version: agent_up 0, and no watts."""
        families = Families(NODE, self._before)
        self._fill(families)
        filled = families.filled()
        self._before = families.done()
        return filled

    def _fill(self, families: Families) -> None:
        try:
            snapshot = read_snapshot(self._socket, TIMEOUT_S)
        except AgentError as error:
            self._say(str(error))
            families.add("build", (__version__, ""), 1)
            families.add("agent_up", (), 0)
            return
        age = age_s(snapshot, self._now())
        stuck = too_old(age, snapshot.period_s)
        self._say(f"{self._socket}: the agent looked at its counters {age:.0f} s ago; it may be stuck" if stuck else "")
        families.add("agent_up", (), not stuck)
        families.add("build", (__version__, clean(snapshot.version)), 1)
        families.add("agent_last_look_timestamp_seconds", (), round(snapshot.wall_ns / 1e9, 3))
        families.add("agent_start_time_seconds", (), round(snapshot.started_ns / 1e9, 3))
        if not stuck:
            if snapshot.boot_id != self._boot:
                self._boot, self._marks = snapshot.boot_id, {}
            Scrape(families, snapshot, self._marks, self._moved.joules(snapshot)).add_all()

    def _say(self, text: str) -> None:
        """Once, when something is wrong, and once when it is well again; a figure in the text is no news."""
        if bool(text) != bool(self._said):
            log.log(logging.WARNING if text else logging.INFO, "%s", text or "the agent answers again")
        self._said = text


class Moved:
    """Joules that counters moved, by domain; those of counters that are gone since, or count anew, too.

    A GPU that fell off the bus is not there after the agent's next start, and begins at 0 when it is back.
    """

    def __init__(self) -> None:
        self._boot = ""
        self._counters: dict[tuple[str, str], tuple[str, float, float]] = {}
        """By name and device: the domain, joules of earlier lives, joules of this one."""

    def joules(self, snapshot: Snapshot) -> dict[str, float]:
        """As of this snapshot. `other` has no counter of its own: it is what the agent made of several, and gave away."""
        if snapshot.boot_id != self._boot:
            self._boot, self._counters = snapshot.boot_id, {}
        for one in snapshot.counters:
            _, earlier, before = self._counters.get((one.name, one.device), ("", 0.0, 0.0))
            anew = one.joules < before / 2  # a little less is an agent that went on from its checkpoint
            self._counters[one.name, one.device] = one.domain, earlier + before if anew else earlier, one.joules
        moved = {"package": 0.0, "dram": 0.0, "gpu": 0.0, "other": snapshot.attributed.get("other", 0.0)}
        for domain, earlier, joules in self._counters.values():
            if domain in ("package", "dram", "gpu"):
                moved[domain] += earlier + joules
        return moved


class Scrape:
    """One snapshot on its way into families."""

    def __init__(
        self, families: Families, snapshot: Snapshot, marks: dict[tuple[str, ...], float], moved: dict[str, float]
    ) -> None:
        """moved: the node's joules by domain."""
        self.families, self.snapshot, self._marks, self._moved = families, snapshot, marks, moved
        self._seen: set[tuple[str, ...]] = set()
        counters = snapshot.counters
        by_domain = {
            name: [c for c in counters if (c.domain if c.domain != "node" else "other") == name] for name in DOMAINS
        }
        got = (snapshot.attributed, snapshot.idle.joules, *(job.joules for job in snapshot.jobs))
        # A domain without a counter is left out, not 0. What a counter moved that is gone since is still shown.
        self.domains = [d for d in DOMAINS if by_domain[d] or any(joules.get(d) for joules in got)]
        # In a gap nobody knows the watts: none are shown where a domain has no counter but silent ones.
        self.powered = [d for d in DOMAINS if any(c.watts is not None for c in by_domain[d])]

    def add_all(self) -> None:
        """Everything that needs a living agent."""
        self._agent()
        self._counters()
        self._node()
        self._jobs()
        for gone in self._marks.keys() - self._seen:
            del self._marks[gone]

    def _joules(self, name: str, labels: tuple[str, ...], joules: float) -> None:
        """A counter that does not step back a little.

        An agent that was killed goes on from a checkpoint some seconds old. Energy that it had integrated itself (no
        hardware counter) is less by these seconds then, which Prometheus would take for a counter that began anew, and
        count all of it once more. A fall to less than half is a counter that did begin anew.
        """
        key = (name, *labels)
        mark = self._marks.get(key, 0.0)
        if not mark / 2 <= joules < mark:
            self._marks[key] = mark = joules
        self._seen.add(key)
        self.families.add(name, labels, round(mark, 6))

    def _agent(self) -> None:
        snapshot, add = self.snapshot, self.families.add
        add("agent_ticks", (), snapshot.ticks)
        add("jobs", (), len(snapshot.jobs))
        add("outbox_fill_ratio", (), snapshot.outbox_fill)
        add("pending_segments", (), snapshot.pending_segments)
        add("hook_files_bad", (), snapshot.bad_hook_files)
        add("files_set_aside", (), snapshot.set_aside)
        add("clock_jumps", (), snapshot.clock_jumps)
        add("agent_problems", (), len(snapshot.problems))
        for what in dict.fromkeys(clean(one.what) for one in snapshot.refused):
            add("sources_refused", (what,), 1)

    def _counters(self) -> None:
        add = self.families.add
        gpus: dict[str, list[CounterView]] = {}
        for counter in {clean(one.name): one for one in self.snapshot.counters}.values():
            name = clean(counter.name)
            estimated = "true" if counter.estimated else "false"
            add("meter_up", (name, clean(counter.domain), estimated), counter.watts is not None)
            add("meter_gaps", (name,), counter.gaps)
            if counter.domain == "gpu":
                gpus.setdefault(clean(counter.device), []).append(counter)
        for gpu, parts in gpus.items():
            watts = [part.watts for part in parts if part.watts is not None]
            if watts:
                add("gpu_power_watts", (gpu,), round(sum(watts), 3))
            self._joules("gpu_energy_joules", (gpu,), sum(part.joules for part in parts))
            add("gpu", (gpu, clean(parts[0].model)), 1)

    def _node(self) -> None:
        snapshot, add = self.snapshot, self.families.add
        for domain in self.domains:
            self._joules("node_energy_joules", (domain,), self._moved[domain])
            if domain in snapshot.attributed:  # an older agent does not say it
                self._joules("attributed_energy_joules", (domain,), snapshot.attributed[domain])
            self._joules("idle_energy_joules", (domain,), snapshot.idle.joules.get(domain, 0.0))
        watts = snapshot.node_watts()
        for domain in self.powered:
            add("idle_power_watts", (domain,), round(snapshot.idle.watts.get(domain, 0.0), 3))
            add("node_power_watts", (domain,), round(watts[domain], 3))

    def _jobs(self) -> None:
        add, taken = self.families.add, set()
        for job in self.snapshot.jobs:
            key = _key(job)
            while key in taken:  # two runs in one second: a series must not come twice
                key = (key[0], key[1] + "+")
            taken.add(key)
            sluid, origin = clean(job.sluid or ""), clean(job.origin)
            user = clean(job.user) or (str(job.uid) if job.uid >= 0 else "")
            add("job", (*key, sluid, user, clean(job.account), clean(job.partition), origin), 1)
            add("job_cpu_seconds", key, round(job.cpu_seconds, 3))
            for domain in self.powered:
                add("job_power_watts", (*key, domain), round(job.watts.get(domain, 0.0), 3))
            for domain in self.domains:
                self._joules("job_energy_joules", (*key, domain), job.joules.get(domain, 0.0))
            for gpu in dict.fromkeys(map(clean, job.gpus)):
                add("job_gpu", (*key, gpu), 1)


def _key(job: JobView) -> tuple[str, str]:
    """What tells a job: its id, else its SLUID, and the first second of its run."""
    return str(job.job_id) if job.job_id > 0 else clean(job.sluid or ""), str(job.session_start)
