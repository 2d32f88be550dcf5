"""What survives: the checkpoint, one atomic file, and the outbox.

The checkpoint is the only moment that counts. Segments are in it before they are in the outbox; a file of the outbox has
a name and a content that the checkpoint fixed. Killed at any point, the agent starts from the last checkpoint, writes
the same files again if it has to, and takes from the counters what they moved since.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path

import msgspec

from slurm_energy.agent.session import Session
from slurm_energy.segment import Segment

VERSION = 1


class MeterState(msgspec.Struct, array_like=True):
    """Where a counter stood."""

    last: int
    last_ns: int
    peak_uw: int
    total_uj: int


class Outgoing(msgspec.Struct, array_like=True):
    """A file for the outbox."""

    name: str
    content: str


class Checkpoint(msgspec.Struct, kw_only=True):
    """Everything that the agent knows and counters do not."""

    version: int = VERSION
    boot_id: str
    monotonic_ns: int
    wall_ns: int
    hour: str
    sequence: int = 0
    meters: dict[str, MeterState] = {}
    idle: Session
    sessions: list[Session] = []
    pending: list[Segment] = []
    outgoing: list[Outgoing] = []
    done: list[tuple[int, int, str | None, int]] = []
    """Sessions that ended lately: a hook file that is read again begins none of them anew."""
    carry_uj: int = 0
    ended_uj: list[int] = msgspec.field(default_factory=lambda: [0, 0, 0, 0])
    """What the jobs of this boot that have ended got: package, dram, gpu, other."""
    floor_uw: dict[str, int] = {}
    handled: list[tuple[str, int]] = []
    """Hook files (name, mtime) that have had their effect: one that is still there has it no second time."""
    closed: list[str] = []
    """Folders of jobs that have ended, which may outlive them."""
    cluster: str = ""
    node: str = ""
    """As the hooks said them."""


class Store:
    """The agent's folder: STATE/checkpoint, and the outbox beside or elsewhere. Errors are kept, not raised."""

    def __init__(self, state: Path, outbox: Path, group: int = -1, limit_bytes: int = 256 << 20) -> None:
        self.path, self.outbox, self.group, self.limit_bytes = state / "checkpoint", outbox, group, limit_bytes
        self.problem = ""
        self.set_aside = 0
        self._encoder = msgspec.msgpack.Encoder()
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        outbox.mkdir(mode=0o750, parents=True, exist_ok=True)

    def load(self) -> Checkpoint | None:
        """The last checkpoint; None where there is none. A torn or foreign file is set aside and counted."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self.problem = f"{self.path}: {error.strerror}"
            return None
        try:
            found = msgspec.msgpack.decode(data, type=Checkpoint)
            if found.version != VERSION:
                raise msgspec.ValidationError(f"version {found.version}")
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            self.set_aside += 1
            with contextlib.suppress(OSError):
                self.path.rename(self.path.with_name(f"checkpoint.unreadable-{os.getpid()}"))
            self.problem = f"{self.path} could not be read ({error}) and was set aside"
            return None
        return found

    def save(self, checkpoint: Checkpoint) -> bool:
        """Replaces the checkpoint; False where the disk does not take it (the agent goes on in memory and says so)."""
        return self._write(self.path, self._encoder.encode(checkpoint), 0o600)

    def send(self, outgoing: Outgoing) -> bool:
        """Puts a file into the outbox, by rename; False where it cannot be, or the outbox is full."""
        if self.fill() >= 1.0:
            self.problem = f"the outbox {self.outbox} is full: segments are kept in memory; is senergy ship running?"
            return False
        content = outgoing.content.encode()
        path = self.outbox / outgoing.name
        with contextlib.suppress(OSError):
            if path.read_bytes() != content:  # the checkpoint was lost, and file numbers began again
                path = path.with_name(f"{path.stem}.{zlib.crc32(content):08x}.jsonl")
        return self._write(path, content, 0o640, self.path.with_name("new-segments"))

    def fill(self) -> float:
        """How full the outbox is, 0 to 1 and more."""
        size = 0
        with contextlib.suppress(OSError), os.scandir(self.outbox) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_size
        return size / self.limit_bytes

    def _write(self, path: Path, data: bytes, mode: int, new: Path | None = None) -> bool:
        """Writes in the agent's own folder and renames: a rename follows no link that others may have put there."""
        new = new or path.with_name("new-checkpoint")
        try:
            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(file, view) :]
                if mode != 0o600:
                    os.fchmod(file, mode)
                    give_to(file, self.group)
                os.fdatasync(file)
            finally:
                os.close(file)
            new.rename(path)
        except OSError as error:
            self.problem = f"{path}: {error.strerror}"
            return False
        self.problem = ""
        return True


def give_to(file: int | str, group: int) -> None:
    """Gives a file of ours to the group, where it is not the group's already and where we may."""
    if group >= 0 and os.stat(file).st_gid != group:  # noqa: PTH116
        with contextlib.suppress(PermissionError):  # under systemd the agent runs with the right group from the start
            os.chown(file, -1, group)
