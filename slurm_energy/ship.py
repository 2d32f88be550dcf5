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
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import NamedTuple
from urllib.parse import quote

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}\.jsonl")
"""What the agent calls a finished file. A dot-file is one that is not finished, and not looked at."""
FILE_MODE, FOLDER_MODE = 0o640, 0o750
MAX_PAUSE_S = 600.0
"""The longest time between two tries while the inbox cannot be reached (or the period, where that is longer)."""
_CHUNK = 1 << 18
_STALE_PART_S = 3600.0
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PART = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
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


class _Foreign(Exception):
    """Not a file that the agent made."""


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
                size += _move(source, target, name)
                files += 1
            except _Foreign as error:
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


def _move(outbox: int, target: int, name: str) -> int:
    """Moves one file; its bytes. Raises _Foreign and OSError, with the file still in the outbox."""
    with _regular(outbox, name) as (source, before):
        if before.st_nlink > 1:
            raise _Foreign("a file with a second name elsewhere")
        part = f".{name}.{os.urandom(6).hex()}.part"
        try:
            checksum = _copy(source, target, part)
            if _state(os.fstat(source)) != _state(before):
                raise OSError(errno.EAGAIN, "it changed while it was copied")
            final = _free_name(target, name, source, checksum)
            if final:
                os.rename(part, final, src_dir_fd=target, dst_dir_fd=target)
            os.fsync(target)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(part, dir_fd=target)
        if _state(os.stat(name, dir_fd=outbox, follow_symlinks=False)) != _state(before):
            raise OSError(errno.EAGAIN, "another file took its name while it was copied")
        os.unlink(name, dir_fd=outbox)
    return before.st_size


def _copy(source: int, target: int, part: str) -> int:
    """Writes the open file into a new one that is safe on disk; the content's checksum."""
    checksum = 0
    copy = os.open(part, _PART, FILE_MODE, dir_fd=target)
    try:
        os.fchmod(copy, FILE_MODE)
        while chunk := os.read(source, _CHUNK):
            checksum = zlib.crc32(chunk, checksum)
            while chunk:
                chunk = chunk[os.write(copy, chunk) :]
        os.fsync(copy)
    finally:
        os.close(copy)
    return checksum


def _free_name(target: int, name: str, source: int, checksum: int) -> str:
    """What to call the source's content in the inbox: its name, or beside a different file; '': it is there."""
    for candidate in (name, f"{name.removesuffix('.jsonl')}.{checksum:08x}.jsonl"):
        try:
            with _regular(target, candidate) as (there, _):
                if _same(there, source):
                    os.fsync(there)
                    return ""
        except FileNotFoundError:
            return candidate
        except _Foreign as error:
            raise OSError(errno.EEXIST, f"what has its name in the inbox is {error}") from error
    raise OSError(errno.EEXIST, "what has its names in the inbox is different")


def _same(one: int, other: int) -> bool:
    if os.fstat(one).st_size != os.fstat(other).st_size:
        return False
    os.lseek(other, 0, os.SEEK_SET)
    while chunk := os.read(one, _CHUNK):
        if chunk != os.read(other, len(chunk)):
            return False
    return True


@contextlib.contextmanager
def _regular(folder: int, name: str) -> Iterator[tuple[int, os.stat_result]]:
    """A file for reading, if it is an ordinary one, and what it was like when it was opened."""
    try:
        file = os.open(name, _FILE, dir_fd=folder)
    except OSError as error:
        # What cannot be opened this way because of what it is: links, sockets.
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
            raise _Foreign("not an ordinary file") from error
        raise
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise _Foreign("not an ordinary file")
        yield file, found
    finally:
        os.close(file)


def _state(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _told(problems: tuple[str, ...]) -> str:
    """The first few of them in a line."""
    more = len(problems) - 5
    return "; ".join(problems[:5]) + (f"; and {more} more" if more > 0 else "")
