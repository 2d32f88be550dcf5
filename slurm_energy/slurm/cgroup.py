"""A job's folder in the cgroup tree: where Slurm puts it, by version, and what can be read there.

v1:  CPU time in ROOT/cpuacct/slurm[_NODE]/uid_UID/job_ID/cpuacct.usage, memory in ROOT/memory/... (same below)
v2:  ROOT/system.slice/[NODE_]slurmstepd.scope/job_ID/cpu.stat and memory.current; from Slurm 26.05 on the folder is
     named by the SLUID instead (cgroup.conf, CgroupJobIdPaths)
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator
from typing import NamedTuple

_pread = os.pread
_JOB = re.compile(r"job_(\d+)")
_SLUID = re.compile(r"s[0-9A-HJKMNP-TV-Z]{13}")


class Folder(NamedTuple):
    """A job's folder: its path, and what its name says (one of job_id and sluid)."""

    path: str
    job_id: int | None
    sluid: str | None


class Group:
    """Open files of one job's folder; reading opens nothing anew."""

    __slots__ = ("_cpu", "_mem", "_v2", "path")

    def __init__(self, path: str, *, v2: bool) -> None:
        """Raises OSError where the folder is gone."""
        self.path, self._v2 = path, v2
        self._cpu = os.open(f"{path}/{'cpu.stat' if v2 else 'cpuacct.usage'}", os.O_RDONLY | os.O_CLOEXEC)
        memory = f"{path}/memory.current" if v2 else f"{path}/memory.usage_in_bytes".replace("/cpuacct/", "/memory/", 1)
        try:
            self._mem = os.open(memory, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # the memory controller is not on everywhere
            self._mem = -1

    def populated(self) -> bool:
        """False where it holds no process: a slurmstepd that was killed leaves an empty folder behind."""
        if self._v2:
            return b"populated 0" not in _content(f"{self.path}/cgroup.events")
        lists = [folder for folder, _, files in os.walk(self.path) if "cgroup.procs" in files]
        return not lists or any(_content(f"{folder}/cgroup.procs") for folder in lists)

    def read(self) -> tuple[int, int]:
        """CPU time so far, ns, and memory in use, bytes (0: not counted). Raises OSError once the folder is gone, ValueError."""
        cpu = _pread(self._cpu, 256, 0)
        memory = int(_pread(self._mem, 32, 0)) if self._mem >= 0 else 0
        return (int(cpu[11:].split(b"\n", 1)[0]) * 1000 if self._v2 else int(cpu)), memory

    def pids(self) -> set[int]:
        """The job's processes, those of its steps and tasks."""
        found: set[int] = set()
        for path, _, files in os.walk(self.path):
            if "cgroup.procs" in files:
                found.update(map(int, _content(f"{path}/cgroup.procs", 1 << 20).split()))
        return found

    def close(self) -> None:
        """Closes the files."""
        os.close(self._cpu)
        if self._mem >= 0:
            os.close(self._mem)


class Tree:
    """The cgroup tree of one node: finds folders of jobs."""

    def __init__(self, root: str, node: str) -> None:
        self.root, self.node = root, node
        self._v1 = [f"{root}/cpuacct/slurm_{node}", f"{root}/cpu,cpuacct/slurm_{node}", f"{root}/cpuacct/slurm"]
        self._v2 = [
            f"{base}/system.slice/{name}"
            for base in (root, f"{root}/unified")
            for name in (f"{node}_slurmstepd.scope", "slurmstepd.scope")
        ]

    def _bases(self) -> Iterator[tuple[str, bool]]:
        """The first that is there of each version: a node of several on a host has one under its own name."""
        for paths, v2 in ((self._v1, False), (self._v2, True)):
            for path in paths:
                if os.path.isdir(path):  # noqa: PTH112  no Path objects in a tick
                    yield path, v2
                    break

    def folders(self, known: Container[str] = ()) -> Iterator[tuple[Folder, bool]]:
        """The jobs' folders whose paths are not known yet, and whether each is of cgroup v2."""
        for base, v2 in self._bases():
            parents = [base] if v2 else [entry.path for entry in _entries(base) if entry.name.startswith("uid_")]
            for parent in parents:
                for entry in _entries(parent, known):
                    if match := _JOB.fullmatch(entry.name):
                        yield Folder(entry.path, int(match[1]), None), v2
                    elif v2 and _SLUID.fullmatch(entry.name):
                        yield Folder(entry.path, None, entry.name), v2

    def open(self, job_id: int, uid: int, sluid: str | None) -> Group | None:
        """The job's folder, where it is there yet."""
        for base, v2 in self._bases():
            names = [f"{base}/uid_{uid}/job_{job_id}"] if not v2 else [f"{base}/job_{job_id}"]
            if v2 and sluid and _SLUID.fullmatch(sluid):
                names.insert(0, f"{base}/{sluid}")
            for name in names:
                try:
                    return Group(name, v2=v2)
                except OSError:
                    continue
        return None


def _content(path: str, most: int = 4096) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(most)
    except OSError:
        return b""


def _entries(path: str, known: Container[str] = ()) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if entry.path not in known and entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def process_environment(folder: str, proc_root: str = "/proc") -> dict[str, str]:
    """The environment of a process of a job's folder: who a job is that no hook announced. {} where none can be read.

    Only SLURM_ variables; they are the user's to change, so that what they say is a hint and no proof.
    """
    for path, _, files in os.walk(folder):
        if "cgroup.procs" not in files:
            continue
        try:
            with open(f"{path}/cgroup.procs", "rb") as file:  # noqa: PTH123
                pids = file.read(4096).split()
        except OSError:
            continue
        for pid in pids[:8]:
            try:
                with open(f"{proc_root}/{int(pid)}/environ", "rb") as file:  # noqa: PTH123
                    text = file.read(1 << 20)
            except (OSError, ValueError):
                continue
            found = dict(
                item.split(b"=", 1) for item in text.split(b"\0") if item.startswith(b"SLURM_") and b"=" in item
            )
            if b"SLURM_JOB_ID" in found:
                return {
                    key.decode("ascii", "replace"): value.decode("utf-8", "replace") for key, value in found.items()
                }
    return {}
