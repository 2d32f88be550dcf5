"""Moves finished segment files from a node's outbox to the inbox, a folder on a shared filesystem.

Copy, fsync, rename, fsync of the folder, and only then away from the outbox: whatever is cut off in between, the file is
still in the outbox or already whole in the inbox, and the next round ends it. A reader of the inbox never sees a part of
a file, for what is being written has a dot-name.

The layout is INBOX/<cluster>/<node>/<file>. INBOX itself has to be there: a filesystem that is not mounted shall not be
mistaken for an empty one. No link is followed below it, nor in the outbox.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import NamedTuple
from urllib.parse import quote

from slurm_energy.ship.move import Foreign, move_file

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}\.jsonl")
"""What the agent calls a finished file. A dot-file is one that is not finished, and not looked at."""
FOLDER_MODE = 0o750
MAX_PAUSE_S = 600.0
"""The longest time between two tries while the inbox cannot be reached (or the period, where that is longer)."""
_STALE_PART_S = 3600.0
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Where these come up, the next file would fare no better.
_UNREACHABLE = frozenset(
    {errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN,
     errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV, errno.ENXIO}
)  # fmt: skip


class ShipError(Exception):
    """Nothing can be shipped from here: the message says what to do."""


class Shipped(NamedTuple):
    """What one round did.

    files, bytes: now in the inbox and out of the outbox
    failed:       finished files that are still in the outbox
    foreign:      other things in the outbox, left alone
    problems:     why, a line each
    """

    files: int
    bytes: int
    failed: int
    foreign: int = 0
    problems: tuple[str, ...] = ()


def ship_once(outbox: Path, inbox: Path, *, cluster: str, node: str) -> Shipped:
    """Moves every finished file of the outbox to INBOX/<cluster>/<node>/.

    A file that is there already with the same content counts as moved; one of the same name with another content goes
    beside it, under a name with a checksum, for nothing is overwritten. Raises ShipError where the outbox cannot be
    used or another shipper is at work on it.
    """
    with contextlib.ExitStack() as held:
        source = _open_outbox(outbox, held)
        names, problems = _listing(source)
        foreign = len(problems)
        files = size = failed = 0
        try:
            target = _open_target(inbox, cluster, node, held) if names else _look(inbox)
        except OSError as error:
            problems.append(f"{inbox}: {_reason(error)}; {len(names)} files wait in {outbox}")
            return Shipped(0, 0, len(names), foreign, tuple(problems))
        for number, name in enumerate(names):
            try:
                size += move_file(source, target, name)
                files += 1
            except Foreign as error:
                foreign += 1
                problems.append(f"{name}: {error}; left alone")
            except OSError as error:
                failed += 1
                problems.append(f"{name}: {_reason(error)}")
                if error.errno in _UNREACHABLE:
                    failed += len(names) - number - 1
                    problems[-1] += f"; {len(names) - number} files wait in {outbox}"
                    break
        return Shipped(files, size, failed, foreign, tuple(problems))


def ship_forever(
    outbox: Path,
    inbox: Path,
    period_s: float,
    stop: Event,
    *,
    cluster: str,
    node: str,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Ships once a period until `stop` is set, and once more then, for what the agent left at its own end.

    While something fails the pause doubles, up to MAX_PAUSE_S. `say` gets a line when a problem comes up, changes or
    is over, not each time that it is still there.
    """
    pause, said = period_s, ""
    while True:
        last = stop.is_set()
        try:
            done = ship_once(outbox, inbox, cluster=cluster, node=node)
            problem, well = _told(done.problems), not done.failed and len(done.problems) == done.foreign
        except (ShipError, OSError) as error:
            problem, well = str(error), False
        if problem != said:
            say(problem or "shipping again: nothing is left behind")
            said = problem
        if last:
            return
        pause = period_s if well else min(pause * 2, max(MAX_PAUSE_S, period_s))
        stop.wait(pause)


def _open_outbox(outbox: Path, held: contextlib.ExitStack) -> int:
    """The outbox, locked against a second shipper for as long as it is held open."""
    try:
        folder = os.open(outbox, _FOLDER | os.O_NOFOLLOW)
    except OSError as error:
        raise ShipError(f"{outbox}: {_reason(error)}; the agent makes the outbox when it starts") from error
    held.callback(os.close, folder)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ShipError(f"{outbox}: another shipper is at work on it") from error
    return folder


def _listing(outbox: int) -> tuple[list[str], list[str]]:
    """Names of the finished files, oldest name first, and a line on each thing that has another name."""
    names: list[str] = []
    others: list[str] = []
    for name in sorted(os.listdir(outbox)):
        if NAME.fullmatch(name):
            names.append(name)
        elif not name.startswith("."):
            others.append(f"{name[:80]!a}: not the name of a segment file; left alone")
    return names, others


def _look(inbox: Path) -> int:
    """Whether the inbox is there, although there is nothing for it: an admin shall not learn it an hour later."""
    os.close(os.open(inbox, _FOLDER))
    return -1


def _open_target(inbox: Path, cluster: str, node: str, held: contextlib.ExitStack) -> int:
    """INBOX/<cluster>/<node>, made where it is missing, through no link; parts left by a crash are swept out of it."""
    folder = os.open(inbox, _FOLDER)
    held.callback(os.close, folder)
    for part in (folder_name(cluster), folder_name(node)):
        try:
            os.mkdir(part, FOLDER_MODE, dir_fd=folder)
            made = True
        except FileExistsError:
            made = False
        os.fsync(folder)
        below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        held.callback(os.close, below)
        mode = stat.S_IMODE(os.fstat(below).st_mode)
        if made and mode & 0o777 != FOLDER_MODE:
            # Whatever the umask; a set-group-id bit that it inherited stays. Not where nothing is to be changed: a unit
            # with RestrictSUIDSGID= may not even name that bit.
            os.fchmod(below, mode & 0o7000 | FOLDER_MODE)
        folder = below
    for name in os.listdir(folder):  # noqa: PTH208  by its descriptor
        if name.startswith(".") and name.endswith(".part"):
            with contextlib.suppress(OSError):
                if time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime > _STALE_PART_S:
                    os.unlink(name, dir_fd=folder)
    return folder


def folder_name(name: str) -> str:
    """A cluster's or node's name as a folder's: quoted, neither hidden nor a way out of the folder it is in."""
    quoted = quote(name, safe="")
    if not quoted:
        raise ShipError("the cluster and the node need a name; give --cluster and --node")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _told(problems: tuple[str, ...]) -> str:
    """The first few of them in a line."""
    more = len(problems) - 5
    return "; ".join(problems[:5]) + (f"; and {more} more" if more > 0 else "")
