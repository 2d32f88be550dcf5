"""Wakes the agent when a hook drops a file (inotify(7), through the C library)."""

from __future__ import annotations

import ctypes
import os

_MOVED_TO, _CLOSE_WRITE, _NONBLOCK, _CLOEXEC = 0x80, 0x8, 0o4000, 0o2000000


class Watch:
    """A watched folder; `fileno()` is readable when something was put into it. Without inotify it never is."""

    def __init__(self, folder: str) -> None:
        """Never raises: the folder is looked through at each tick as well."""
        self._file = -1
        libc = ctypes.CDLL(None, use_errno=True)
        file = libc.inotify_init1(_NONBLOCK | _CLOEXEC)
        if file < 0:
            return
        if libc.inotify_add_watch(file, os.fsencode(folder), _MOVED_TO | _CLOSE_WRITE) < 0:
            os.close(file)
            return
        self._file = file

    def fileno(self) -> int:
        """-1 where there is nothing to wait for."""
        return self._file

    def drain(self) -> None:
        """Takes what woke us."""
        try:
            while os.read(self._file, 65536):
                pass
        except (BlockingIOError, OSError):
            pass

    def close(self) -> None:
        """Ends the watch."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
