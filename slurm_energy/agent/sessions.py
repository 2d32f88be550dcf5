"""When sessions begin and end: by the hooks, by the cgroup tree where no hook came, by neither where a job is gone."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

from slurm_energy.agent.clock import NS
from slurm_energy.agent.session import NO_ID, Live, Session
from slurm_energy.slurm.cgroup import Folder, Group, Tree, process_environment
from slurm_energy.slurm.hookfile import Hook

if TYPE_CHECKING:
    from slurm_energy.agent.agent import Agent

log = logging.getLogger("senergy.agent")
NEW_NS = 30 * NS
"""So long after its Prolog a job's folder is looked for at each tick, and at each scan later on."""
NEVER_SEEN_S = 3600
"""A job whose folder never appeared is given up after this."""


class Sessions:
    """Begins, joins and ends the sessions of an agent."""

    def __init__(self, agent: Agent, tree: Tree) -> None:
        self.agent, self.tree = agent, tree
        self.closed: set[str] = set()
        """Folders that outlive their sessions: while they are there they are not taken for new jobs."""

    def apply(self, hook: Hook, wall_ns: int) -> None:
        """What a hook's file says, at its moment."""
        if hook.cluster and self.agent.options.cluster in ("", "cluster"):
            self.agent.learn_cluster(hook.cluster)
        if hook.node != self.agent.options.node and not self.agent.options.node_given:
            self.agent.learn_node(hook.node)
        if hook.event == "prolog":
            self._begin(hook, wall_ns)
        else:
            self._end(hook)

    def _find(self, hook: Hook) -> Live | None:
        """The open session of the hook's job: by SLUID, else by id and restart, else by id alone."""
        lives = self.agent.engine.lives
        if hook.sluid:
            for live in lives:
                if live.session.sluid == hook.sluid:
                    return live
        same = [
            live for live in lives if live.session.job_id == hook.job_id and not (hook.sluid and live.session.sluid)
        ]
        exact = [live for live in same if live.session.restart_count == hook.restart_count]
        return exact[-1] if exact else None if hook.event == "prolog" else same[-1] if same else None

    def _begin(self, hook: Hook, wall_ns: int) -> None:
        start = hook.start_time or hook.mtime_ns // NS
        key = (hook.job_id, hook.restart_count, hook.sluid, start)
        if key in self.agent.done:
            return
        live = self._find(hook)
        for seen in self.agent.engine.lives:
            if seen.session.origin == "discovered" and seen.group is not None and _same_job(seen.session, hook):
                self._fill(seen.session, hook)  # its folder was seen before its hook: one job, one session
                return
        if live is not None:
            if live.session.key == key:
                return  # read once already, before a restart
            self._orphan(live)
        for older in [one for one in self.agent.engine.lives if one.session.job_id == hook.job_id and hook.job_id > 0]:
            self.agent.say(f"job {hook.job_id} began again without an Epilog of its earlier run")
            self._orphan(older)
        session = Session(
            job_id=hook.job_id,
            restart_count=hook.restart_count,
            sluid=hook.sluid,
            session_start=start,
            start=wall_ns,
            end=wall_ns,
        )
        self._fill(session, hook)
        self.agent.engine.lives.append(Live(session, self.agent.engine.last_ns))

    def _fill(self, session: Session, hook: Hook) -> None:
        """Who the job is and what it holds."""
        session.job_id, session.restart_count, session.sluid = (
            hook.job_id,
            hook.restart_count,
            hook.sluid or session.sluid,
        )
        session.user, session.uid, session.account, session.partition = (
            hook.user,
            hook.uid,
            hook.account,
            hook.partition,
        )
        cpus, memory = self.agent.engine.shape.cpus, self.agent.engine.shape.mem_bytes
        session.cpus = min(max(hook.cpus, 1), max(cpus, 1))
        session.mem_bytes = memory * session.cpus // max(cpus, 1)
        session.alone = hook.exclusive or session.cpus >= cpus
        devices, unknown = self._devices(hook.gpus)
        if devices or not session.gpus:
            session.gpus, session.gpus_unknown = devices, unknown
        session.origin = "hook"

    def _devices(self, numbers: tuple[int, ...]) -> tuple[list[str], int]:
        """Devices by Slurm's numbers (the device minor, or as the site maps them), and how many numbers have none."""
        by_hand = self.agent.options.sources.gpu_map
        minors = [by_hand.get(number, number) for number in numbers]
        here = [meter.counter for meter in self.agent.engine.meters if meter.counter.device]
        known = {counter.minor for counter in here}
        return [one.device for one in here if one.minor in minors], sum(minor not in known for minor in minors)

    def _end(self, hook: Hook) -> None:
        live = self._find(hook)
        if live is None:
            return
        if live.group is not None:
            self.closed.add(live.group.path)
        if live.session.origin == "discovered":
            self._fill(live.session, hook)
            live.session.origin = "discovered"
        self.agent.close(live, "epilog")

    def attach(self, live: Live) -> bool:
        """Opens the job's folder where it is there now."""
        session = live.session
        group = self.tree.open(session.job_id, session.uid, session.sluid)
        if group is None:
            return False
        if session.seen and not group.populated():  # left behind
            group.close()
            return False
        live.group, session.seen, session.missing_since_ns, session.at_missing = group, True, 0, None
        return True

    def attach_new(self, now_ns: int) -> None:
        """Looks for folders that are made any moment: what their processes used already is of the interval that ends now."""
        for live in self.agent.engine.lives:
            if live.group is None and now_ns - live.since_ns < NEW_NS:
                self.attach(live)

    def scan(self, now_ns: int, wall_ns: int) -> bool:
        """Finds folders of known jobs, jobs without a hook, and jobs without a folder; whether a session changed."""
        changed = False
        lives = self.agent.engine.lives
        for live in list(lives):
            if live.group is not None and live.cpu_delta == 0 and not live.group.populated():
                live.close()
            if live.group is None and not self.attach(live):
                changed |= self._gone(live, now_ns, wall_ns)
        known = {live.group.path for live in lives if live.group is not None}
        still_there = set()
        for folder, v2 in self.tree.folders(known):
            if folder.path in self.closed:
                still_there.add(folder.path)
            else:
                changed |= self._discover(folder, wall_ns, v2=v2)
        self.closed = still_there
        return changed | self._ask_who_holds_gpus()

    def _ask_who_holds_gpus(self) -> bool:
        """Gives discovered jobs the GPUs on which the driver sees their processes; whether any got one.

        Until then, and where the driver does not say, such a GPU's energy is idle, and the agent says so.
        """
        engine = self.agent.engine
        unknown = [live for live in engine.lives if live.session.origin == "discovered" and not live.session.gpus]
        if not unknown:
            return False
        taken = {device for live in engine.lives for device in live.session.gpus}
        free = [m.counter for m in engine.meters if m.counter.device and m.counter.device not in taken]
        users = {counter.device: set(counter.holders()) for counter in free}
        found = False
        for live in unknown:
            processes = live.group.pids() if live.group is not None and any(users.values()) else set()
            devices = [device for device, pids in users.items() if pids & processes]
            if devices:
                live.session.gpus, found = devices, True
                log.info("job %s uses %s", live.session.job_id, ", ".join(devices))
        return found

    def _gone(self, live: Live, now_ns: int, wall_ns: int) -> bool:
        """A session without a folder: its Epilog is on the way, or it never comes."""
        session = live.session
        if not session.missing_since_ns:
            session.missing_since_ns = now_ns
            if session.at_missing is None:
                session.remember()
            return False
        waited = (now_ns - session.missing_since_ns) / NS
        if waited < (self.agent.options.orphan_s if session.seen else NEVER_SEEN_S):
            return False
        self.agent.say(f"job {session.job_id} is gone without an Epilog; its session was closed")
        self._orphan(live)
        return True

    def _orphan(self, live: Live) -> None:
        """Ends a session that has no Epilog, as it was when its folder was first missed."""
        live.session.give_back(self.agent.engine.idle)
        self.agent.close(live, "orphan")

    def _discover(self, folder: Folder, wall_ns: int, *, v2: bool) -> bool:
        """A job that no hook announced."""
        try:
            group = Group(folder.path, v2=v2)
            made = min(int(os.stat(folder.path).st_ctime_ns), wall_ns)  # noqa: PTH116
        except OSError:
            return False
        if not group.populated():  # left behind by a job that has ended
            group.close()
            return False
        said = process_environment(folder.path, self.agent.options.sources.proc_root)
        job_id = folder.job_id if folder.job_id is not None else _number(said.get("SLURM_JOB_ID", ""), NO_ID)
        uid = re.search(r"/uid_(\d+)/", folder.path)
        numbers = said.get("SLURM_JOB_GPUS", "").split(",")
        devices, unknown = self._devices(tuple(int(one) for one in numbers if one.isascii() and one.isdigit()))
        session = Session(
            job_id=job_id, restart_count=_number(said.get("SLURM_RESTART_COUNT", ""), 0), sluid=folder.sluid,
            session_start=made // NS, start=wall_ns, end=wall_ns, user=said.get("SLURM_JOB_USER", "")[:256],
            uid=int(uid[1]) if uid else _number(said.get("SLURM_JOB_UID", ""), -1), account=said.get("SLURM_JOB_ACCOUNT", "")[:256],
            partition=said.get("SLURM_JOB_PARTITION", "")[:256], cpus=_number(said.get("SLURM_CPUS_ON_NODE", ""), 1), origin="discovered",
            gpus=devices, gpus_unknown=unknown, seen=True,
        )  # fmt: skip
        session.mem_bytes = self.agent.engine.shape.mem_bytes * session.cpus // max(self.agent.engine.shape.cpus, 1)
        try:  # what it used before it was seen is not of this interval
            session.cpu_last_ns, _ = group.read()
        except (OSError, ValueError):
            group.close()
            return False
        live = Live(session, self.agent.engine.last_ns)
        live.group = group
        self.agent.engine.lives.append(live)
        if not session.gpus and any(meter.counter.device for meter in self.agent.engine.meters):
            self.agent.say(
                f"job {job_id} was discovered without a hook: GPUs that it may hold are not known and count as idle"
            )
        log.info("job %s was discovered in the cgroup tree (%s)", job_id, folder.path)
        return True


def _same_job(session: Session, hook: Hook) -> bool:
    if session.sluid and hook.sluid:
        return session.sluid == hook.sluid
    return session.job_id == hook.job_id


def _number(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else default
