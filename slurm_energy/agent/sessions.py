"""When sessions begin and end: by the hooks, by the cgroup tree where no hook came, by neither where a job is gone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from slurm_energy.agent.clock import NS
from slurm_energy.agent.discovery import Discovery
from slurm_energy.agent.engine import Engine
from slurm_energy.agent.node import Names
from slurm_energy.agent.options import AgentOptions
from slurm_energy.agent.session import Live, Session
from slurm_energy.slurm.cgroup import Folder, Tree
from slurm_energy.slurm.hookfile import Hook

NEW_NS = 30 * NS
"""So long after its Prolog a job's folder is looked for at each tick, and at each scan later on."""
NEVER_SEEN_S = 3600
"""A job whose folder never appeared is given up after this."""


class Sessions:
    """Begins, joins and ends the sessions of an engine."""

    def __init__(
        self,
        engine: Engine,
        names: Names,
        options: AgentOptions,
        cut: Callable[[Session, str], None],
        say: Callable[[str], None],
    ) -> None:
        """cut: cuts a session's last segment, with the reason. say: tells people."""
        self.engine, self._names, self._cut, self._say = engine, names, cut, say
        self._cgroup_root, self._orphan_s = options.cgroup_root, options.orphan_s
        self._tree = Tree(options.cgroup_root, names.node)
        self._discovery = Discovery(engine, options.sources.gpu_map, options.sources.proc_root)
        self._has_gpus = any(meter.counter.device for meter in engine.meters)
        self.closed: set[str] = set()
        """Folders that outlive their sessions: while they are there they are not taken for new jobs."""
        self.done: deque[tuple[int, int, str | None, int]] = deque(maxlen=512)
        """Sessions that ended lately: a hook file that is read again begins none of them anew."""
        self.ended_uj = [0, 0, 0, 0]
        """What the jobs of this boot that have ended got, by domain."""

    def learn(self, node: str, cluster: str) -> None:
        """The names as Slurm writes them, where the site did not say; folders of a node may have its name in theirs."""
        if self._names.learn(node, cluster):
            self._tree = Tree(self._cgroup_root, self._names.node)

    def apply(self, hook: Hook, wall_ns: int) -> None:
        """What a hook's file says, at its moment."""
        self.learn(hook.node, hook.cluster)
        if hook.event == "prolog":
            self._begin(hook, wall_ns)
        else:
            self._end(hook)

    def close(self, live: Live, closed: str) -> None:
        """Ends a session with its last segment. closed: how it ended."""
        live.close()
        self.engine.lives.remove(live)
        self._cut(live.session, closed)
        self.ended_uj = [a + b for a, b in zip(self.ended_uj, live.session.earlier_uj, strict=True)]
        self.done.append(live.session.key)

    def _find(self, hook: Hook) -> Live | None:
        """The open session of the hook's job: by SLUID, else by id and restart, else by id alone."""
        lives = self.engine.lives
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
        if key in self.done:
            return
        live = self._find(hook)
        for seen in self.engine.lives:
            if seen.session.origin == "discovered" and seen.group is not None and _same_job(seen.session, hook):
                self._fill(seen.session, hook)  # its folder was seen before its hook: one job, one session
                return
        if live is not None:
            if live.session.key == key:
                return  # read once already, before a restart
            self._orphan(live)
        for older in [one for one in self.engine.lives if one.session.job_id == hook.job_id and hook.job_id > 0]:
            self._say(f"job {hook.job_id} began again without an Epilog of its earlier run")
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
        self.engine.lives.append(Live(session, self.engine.last_ns))

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
        cpus, memory = self.engine.shape.cpus, self.engine.shape.mem_bytes
        session.cpus = min(max(hook.cpus, 1), max(cpus, 1))
        session.mem_bytes = memory * session.cpus // max(cpus, 1)
        session.alone = hook.exclusive or session.cpus >= cpus
        devices, unknown = self._discovery.devices(hook.gpus)
        if devices or not session.gpus:
            session.gpus, session.gpus_unknown = devices, unknown
        session.origin = "hook"

    def _end(self, hook: Hook) -> None:
        live = self._find(hook)
        if live is None:
            return
        if live.group is not None:
            self.closed.add(live.group.path)
        if live.session.origin == "discovered":
            self._fill(live.session, hook)
            live.session.origin = "discovered"
        self.close(live, "epilog")

    def attach(self, live: Live) -> bool:
        """Opens the job's folder where it is there now."""
        session = live.session
        group = self._tree.open(session.job_id, session.uid, session.sluid)
        if group is None:
            return False
        if session.seen and not group.populated():  # left behind
            group.close()
            return False
        live.group, session.seen, session.missing_since_ns, session.at_missing = group, True, 0, None
        return True

    def attach_new(self, now_ns: int) -> None:
        """Looks for folders that are made any moment: what their processes used already is of the interval that ends now."""
        for live in self.engine.lives:
            if live.group is None and now_ns - live.since_ns < NEW_NS:
                self.attach(live)

    def scan(self, now_ns: int, wall_ns: int) -> bool:
        """Finds folders of known jobs, jobs without a hook, and jobs without a folder; whether a session changed."""
        changed = False
        lives = self.engine.lives
        for live in list(lives):
            if live.group is not None and live.cpu_delta == 0 and not live.group.populated():
                live.close()
            if live.group is None and not self.attach(live):
                changed |= self._gone(live, now_ns, wall_ns)
        known = {live.group.path for live in lives if live.group is not None}
        still_there = set()
        for folder, v2 in self._tree.folders(known):
            if folder.path in self.closed:
                still_there.add(folder.path)
            elif not self._made_meanwhile(folder):
                changed |= self._discover(folder, wall_ns, v2=v2)
        self.closed = still_there
        return changed | self._discovery.ask_who_holds_gpus()

    def _made_meanwhile(self, folder: Folder) -> bool:
        """Whether the folder is that of a session which had none a moment ago: its job must not get a second one."""
        for live in self.engine.lives:
            session = live.session
            same = session.sluid == folder.sluid if folder.sluid else session.job_id == folder.job_id
            if live.group is None and same:
                return self.attach(live)
        return False

    def _gone(self, live: Live, now_ns: int, wall_ns: int) -> bool:
        """A session without a folder: its Epilog is on the way, or it never comes."""
        session = live.session
        if not session.missing_since_ns:
            session.missing_since_ns = now_ns
            if session.at_missing is None:
                session.remember()
            return False
        waited = (now_ns - session.missing_since_ns) / NS
        if waited < (self._orphan_s if session.seen else NEVER_SEEN_S):
            return False
        self._say(f"job {session.job_id} is gone without an Epilog; its session was closed")
        self._orphan(live)
        return True

    def _orphan(self, live: Live) -> None:
        """Ends a session that has no Epilog, as it was when its folder was first missed."""
        live.session.give_back(self.engine.idle)
        self.close(live, "orphan")

    def _discover(self, folder: Folder, wall_ns: int, *, v2: bool) -> bool:
        """A job that no hook announced; False where the folder holds none."""
        live = self._discovery.job_in(folder, wall_ns, v2=v2)
        if live is None:
            return False
        self.engine.lives.append(live)
        if self._has_gpus and not live.session.gpus:
            self._say(
                f"job {live.session.job_id} was discovered without a hook: GPUs that it may hold are not known and count as idle"
            )
        return True


def _same_job(session: Session, hook: Hook) -> bool:
    if session.sluid and hook.sluid:
        return session.sluid == hook.sluid
    return session.job_id == hook.job_id
