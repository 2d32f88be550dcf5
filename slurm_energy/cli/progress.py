"""A line on stderr that says what goes on: on a terminal only, and gone when the work is done."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Show = Callable[[str, int, int], None]


@contextlib.contextmanager
def progress(quiet: bool = False) -> Iterator[Show]:
    """Gives a function (what, done, total) that replaces the line; total 0 where it is not known."""
    terminal = not quiet and sys.stderr.isatty()
    since = time.monotonic()

    def show(what: str, done: int, total: int) -> None:
        if terminal:
            count = f" {done:,} of {total:,}" if total else ""
            line = f"\r\x1b[K{what}{count} ({time.monotonic() - since:.0f} s)"
            print(line, end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
