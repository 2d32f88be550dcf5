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
MAX_FILES = 5000
"""More than this at once is left for the next look."""


class Event(NamedTuple):
    """A hook's file and what it says."""

    path: str
    hook: Hook


def collect(folder: Path, agent: Agent) -> list[Event]:
    """Reads what is there, oldest first. A file that is none of ours, or torn, is moved aside and counted."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []
    found = []
    for name in names[:MAX_FILES]:
        path = f"{folder}/{name}"
        try:
            # A hook folder is root's, but nothing is followed and nothing can make us wait.
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError as error:
            _set_aside(path, agent, str(error))
            continue
        try:
            status = os.fstat(file)
            data = os.read(file, MAX_BYTES + 1)
            hook = parse_hook(data, status.st_mtime_ns, agent.options.node)
            if hook.node == agent.options.node or not agent.options.node_given:
                found.append(Event(path, hook))
        except (OSError, ValueError) as error:
            _set_aside(path, agent, str(error))
        finally:
            os.close(file)
    found.sort(key=lambda event: (event.hook.mtime_ns, event.hook.event != "prolog", event.path))
    return found


def remove(events: Sequence[Event]) -> None:
    """Takes files away whose effect is in the checkpoint."""
    for event in events:
        with contextlib.suppress(OSError):
            os.unlink(event.path)  # noqa: PTH108


def _set_aside(path: str, agent: Agent, why: str) -> None:
    """Out of the way, but kept: STATE/bad-hooks."""
    agent.bad_hook_files += 1
    agent.say(f"hook file {Path(path).name[:80]!r} set aside: {why}")
    folder = Path(agent.options.state_dir) / "bad-hooks"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        kept = len(list(folder.iterdir()))
        target = folder / f"{kept:06d}"
        if kept >= 1000:
            os.unlink(path)  # noqa: PTH108
            return
        os.rename(path, target)  # noqa: PTH104
        return
    with contextlib.suppress(OSError):  # another file system: the content is small
        target.write_bytes(Path(path).read_bytes()[:MAX_BYTES])
    with contextlib.suppress(OSError):
        os.unlink(path)  # noqa: PTH108
