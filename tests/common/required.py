"""What happens to a test whose cluster, browser or program is not to be had here."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def unavailable(reason: str) -> NoReturn:
    """Skips; fails where SENERGY_REQUIRE_CLUSTER=1 says that nothing may be left out."""
    if os.environ.get("SENERGY_REQUIRE_CLUSTER") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
