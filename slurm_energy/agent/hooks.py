"""Files that Prolog and Epilog dropped: read in the order of their making, removed once the checkpoint has them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from slurm_energy.agent.node import Names
from slurm_energy.slurm.hookfile import Hook, parse_hook

MAX_BYTES = 65536
MAX_KEPT = 1000
"""Bad files that are kept; more are only counted."""
MAX_FILES = 5000
"""More than this at once is left for the next look."""


class Event(NamedTuple):
    """A hook's file and what it says."""

    path: str
    hook: Hook

    @property
    def mark(self) -> tuple[str, int]:
        """What tells this file from all others: its name and when it was written."""
        return os.path.basename(self.path), self.hook.mtime_ns  # noqa: PTH119  no Path objects in a tick


class HookFolder:
    """The hooks' folder. A file in it has its effect once, however often the agent is killed before it is removed."""

    def __init__(self, folder: Path, aside: Path, names: Names, say: Callable[[str], None]) -> None:
        """aside: where files go that are none of ours, or torn. say: tells people of them."""
        self.folder, self.aside = folder, aside
        self.handled: list[tuple[str, int]] = []
        """Files (name, mtime) that have had their effect and are still there."""
        self.bad = 0
        """How many files were set aside."""
        self._names, self._say = names, say

    def collect(self) -> list[Event]:
        """Reads what is there, oldest first. A file that is none of ours, or torn, is moved aside and counted."""
        try:
            with os.scandir(self.folder) as entries:
                names = [entry.name for entry in entries if not entry.name.startswith(".")]
        except OSError:
            return []
        if self.handled:
            names = [name for name in names if not self._had_its_effect(name)]
        found = []
        # In the order of their names, so that a cut never lies between an Epilog and its Prolog the wrong way round.
        for name in sorted(names)[:MAX_FILES]:
            event = self._read(f"{self.folder}/{name}")
            if event is not None:
                found.append(event)
        found.sort(key=lambda event: (event.hook.mtime_ns, event.hook.event != "prolog", event.path))
        self.handled += [event.mark for event in found]
        return found

    def _read(self, path: str) -> Event | None:
        try:
            # A hook folder is root's, but nothing is followed and nothing can make us wait.
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._set_aside(path, str(error))
            return None
        data = b""
        try:
            status = os.fstat(file)
            data = os.read(file, MAX_BYTES + 1)
            hook = parse_hook(data, status.st_mtime_ns, self._names.node)
        except (OSError, ValueError) as error:
            self._set_aside(path, str(error), data)
            return None
        finally:
            os.close(file)
        return Event(path, hook) if self._names.is_ours(hook.node) else None

    def _had_its_effect(self, name: str) -> bool:
        try:
            return (name, os.stat(f"{self.folder}/{name}", follow_symlinks=False).st_mtime_ns) in self.handled  # noqa: PTH116
        except OSError:
            return False

    def remove_handled(self) -> None:
        """Files whose effect is in the checkpoint go; what cannot be removed is remembered."""
        left = []
        for name, mtime_ns in self.handled:
            try:
                os.unlink(f"{self.folder}/{name}")  # noqa: PTH108
            except FileNotFoundError:
                continue
            except OSError:
                left.append((name, mtime_ns))
        self.handled = left

    def sweep(self, before_ns: int) -> None:
        """Takes away what killed hooks left under a dot-name, where it is older than `before_ns` (wall clock)."""
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.name.startswith(".") and entry.stat(follow_symlinks=False).st_mtime_ns < before_ns:
                        os.unlink(entry.path)  # noqa: PTH108

    def _set_aside(self, path: str, why: str, data: bytes = b"") -> None:
        """Out of the way, but kept. data: what was read of it."""
        self.bad += 1
        name = os.path.basename(path)  # noqa: PTH119
        self._say(f"hook file {name[:80]!r} set aside: {why}")
        target: Path | None = None
        try:
            self.aside.mkdir(mode=0o700, exist_ok=True)
            kept = len(list(self.aside.iterdir()))
            target = self.aside / f"{kept:06d}"
            if kept < MAX_KEPT:
                os.rename(path, target)  # noqa: PTH104
                return
        except OSError:  # another file system: the content is small; never opened again, for it may be a pipe
            if target is not None:
                with contextlib.suppress(OSError):
                    target.write_bytes(data[:MAX_BYTES])
        try:
            os.unlink(path)  # noqa: PTH108
        except OSError:  # a folder: at least out of sight
            with contextlib.suppress(OSError):
                os.rename(path, os.path.join(os.path.dirname(path), f".bad-{name}"))  # noqa: PTH104, PTH118, PTH120
