"""One file from the outbox to the inbox: copied, safe on disk, under its name, and only then away from the outbox."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import zlib
from collections.abc import Iterator

FILE_MODE = 0o640
_CHUNK = 1 << 18
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PART = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Foreign(Exception):
    """Not a file that the agent made."""


def move_file(outbox: int, target: int, name: str) -> int:
    """Moves one file; its bytes. Raises Foreign and OSError, with the file still in the outbox."""
    with _regular(outbox, name) as (source, before):
        if before.st_nlink > 1:
            raise Foreign("a file with a second name elsewhere")
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
        except Foreign as error:
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
            raise Foreign("not an ordinary file") from error
        raise
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise Foreign("not an ordinary file")
        yield file, found
    finally:
        os.close(file)


def _state(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
