"""Waiting for what comes about by itself: by looking, not by sleeping for as long as it usually takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")
LONGEST_PAUSE_S = 0.1


def until(what: str, condition: Callable[[], T], seconds: float = 90, fail: Callable[[str], object] = pytest.fail) -> T:
    """Looks until the condition holds; gives what it gave.

    fail: what is called with one line where it has not come about in time; if that returns, so does this.
    """
    __tracebackhide__ = True
    deadline, pause = time.monotonic() + seconds, 0.01
    while not (found := condition()):
        if time.monotonic() > deadline:
            fail(f"waited {seconds:.0f} s in vain for {what}")
            break
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)
    return found
