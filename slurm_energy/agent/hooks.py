"""Files that Prolog and Epilog dropped: read in the order of their making, removed once the checkpoint has them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from slurm_energy.slurm.hookfile import Hook, parse_hook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slurm_energy.agent.agent import Agent

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


def collect(folder: Path, agent: Agent) -> list[Event]:
    """Reads what is there, oldest first. A file that is none of ours, or torn, is moved aside and counted."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []
    if agent.handled:
        names = [name for name in names if not _handled(f"{folder}/{name}", agent.handled)]
    found = []
    # In the order of their names, so that a cut never lies between an Epilog and its Prolog the wrong way round.
    for name in sorted(names)[:MAX_FILES]:
        path = f"{folder}/{name}"
        try:
            # A hook folder is root's, but nothing is followed and nothing can make us wait.
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError as error:
            _set_aside(path, agent, str(error))
            continue
        data = b""
        try:
            status = os.fstat(file)
            data = os.read(file, MAX_BYTES + 1)
            hook = parse_hook(data, status.st_mtime_ns, agent.options.node)
            if hook.node == agent.options.node or not agent.options.node_given:
                found.append(Event(path, hook))
        except (OSError, ValueError) as error:
            _set_aside(path, agent, str(error), data)
        finally:
            os.close(file)
    found.sort(key=lambda event: (event.hook.mtime_ns, event.hook.event != "prolog", event.path))
    return found


def sweep(folder: Path, before_ns: int) -> None:
    """Takes away what killed hooks left under a dot-name, where it is older than `before_ns` (wall clock)."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.name.startswith(".") and entry.stat(follow_symlinks=False).st_mtime_ns < before_ns:
                    os.unlink(entry.path)  # noqa: PTH108


def _handled(path: str, handled: Sequence[tuple[str, int]]) -> bool:
    try:
        return (os.path.basename(path), os.stat(path, follow_symlinks=False).st_mtime_ns) in handled  # noqa: PTH116, PTH119
    except OSError:
        return False


def remove(folder: Path, handled: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Takes files away whose effect is in the checkpoint; those that would not go."""
    left = []
    for name, mtime_ns in handled:
        try:
            os.unlink(f"{folder}/{name}")  # noqa: PTH108
        except FileNotFoundError:
            continue
        except OSError:
            left.append((name, mtime_ns))
    return left


def _set_aside(path: str, agent: Agent, why: str, data: bytes = b"") -> None:
    """Out of the way, but kept: STATE/bad-hooks. data: what was read of it."""
    agent.bad_hook_files += 1
    name = os.path.basename(path)  # noqa: PTH119
    agent.say(f"hook file {name[:80]!r} set aside: {why}")
    folder = Path(agent.options.state_dir) / "bad-hooks"
    target: Path | None = None
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        kept = len(list(folder.iterdir()))
        target = folder / f"{kept:06d}"
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
