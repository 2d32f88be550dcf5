"""Jobs that no hook announced: out of the cgroup tree, their processes' environment, and what a GPU's driver sees."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence

from slurm_energy.agent.clock import NS
from slurm_energy.agent.engine import Engine
from slurm_energy.agent.session import NO_ID, Live, Session
from slurm_energy.slurm.cgroup import Folder, Group, process_environment

log = logging.getLogger("senergy.agent")
MAX_TEXT = 256
"""Of a name in the environment: a process may have changed it."""


class Discovery:
    """Makes sessions of folders, and finds the GPUs of such sessions."""

    def __init__(self, engine: Engine, gpu_map: dict[int, int], proc_root: str) -> None:
        """gpu_map: Slurm's numbers of GPUs to device minors, where the site says that they differ."""
        self.engine, self._gpu_map, self._proc_root = engine, gpu_map, proc_root

    def devices(self, numbers: Sequence[int]) -> tuple[list[str], int]:
        """Devices by Slurm's numbers (the device minor, or as the site maps them), and how many numbers have none."""
        minors = [self._gpu_map.get(number, number) for number in numbers]
        here = [meter.counter for meter in self.engine.meters if meter.counter.device]
        known = {counter.minor for counter in here}
        return [one.device for one in here if one.minor in minors], sum(minor not in known for minor in minors)

    def job_in(self, folder: Folder, wall_ns: int, *, v2: bool) -> Live | None:
        """The job whose folder this is; None where no process is in it any more."""
        try:
            group = Group(folder.path, v2=v2)
            made = min(int(os.stat(folder.path).st_ctime_ns), wall_ns)  # noqa: PTH116
        except OSError:
            return None
        if not group.populated():  # left behind by a job that has ended
            group.close()
            return None
        session = self._session(folder, wall_ns, made)
        try:  # what it used before it was seen is not of this interval
            session.cpu_last_ns, _ = group.read()
        except (OSError, ValueError):
            group.close()
            return None
        live = Live(session, self.engine.last_ns)
        live.group = group
        log.info("job %s was discovered in the cgroup tree (%s)", session.job_id, folder.path)
        return live

    def _session(self, folder: Folder, wall_ns: int, made_ns: int) -> Session:
        """Who it is, as far as its processes' environment says."""
        said = process_environment(folder.path, self._proc_root)
        uid = re.search(r"/uid_(\d+)/", folder.path)
        numbers = said.get("SLURM_JOB_GPUS", "").split(",")
        devices, unknown = self.devices([int(one) for one in numbers if one.isascii() and one.isdigit()])
        shape = self.engine.shape
        cpus = _number(said.get("SLURM_CPUS_ON_NODE", ""), 1)
        return Session(
            job_id=folder.job_id if folder.job_id is not None else _number(said.get("SLURM_JOB_ID", ""), NO_ID),
            restart_count=_number(said.get("SLURM_RESTART_COUNT", ""), 0), sluid=folder.sluid,
            session_start=made_ns // NS, start=wall_ns, end=wall_ns, user=said.get("SLURM_JOB_USER", "")[:MAX_TEXT],
            uid=int(uid[1]) if uid else _number(said.get("SLURM_JOB_UID", ""), -1),
            account=said.get("SLURM_JOB_ACCOUNT", "")[:MAX_TEXT], partition=said.get("SLURM_JOB_PARTITION", "")[:MAX_TEXT],
            cpus=cpus, mem_bytes=shape.mem_bytes * cpus // max(shape.cpus, 1), origin="discovered",
            gpus=devices, gpus_unknown=unknown, seen=True,
        )  # fmt: skip

    def ask_who_holds_gpus(self) -> bool:
        """Gives discovered jobs the GPUs on which the driver sees their processes; whether any got one.

        Until then, and where the driver does not say, such a GPU's energy is idle, and the agent says so.
        """
        engine = self.engine
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


def _number(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else default
