"""How errors reach a person: one line on stderr that says what to do, and the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any


def guarded(app: Callable[..., Any], arguments: Sequence[str] | None) -> int:
    """Runs the app; errors of ours become a line and exit code 2, a closed pipe ends it quietly."""
    try:
        result = app(args=list(arguments) if arguments is not None else None, standalone_mode=True)
    except SystemExit as stop:
        return int(stop.code or 0) if isinstance(stop.code, int) or stop.code is None else 2
    except BrokenPipeError:
        # The reader (head, a pager) has seen enough; nothing may be written at shutdown either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("senergy: interrupted; nothing is half written, run it again", file=sys.stderr)
        return 130
    except Exception as error:
        if not _is_ours(error):
            raise
        print(f"senergy: {error}", file=sys.stderr)
        return 2
    return int(result or 0)


def _is_ours(error: Exception) -> bool:
    """Whether the message was written for the person who runs the command."""
    from slurm_energy.config import ConfigError

    if isinstance(error, ConfigError):
        return True
    loaded = sys.modules
    kinds = []
    for module, name in (
        ("slurm_energy.factors.profile", "ProfileError"),
        ("slurm_energy.ledger.store", "LedgerError"),
        ("slurm_energy.slurm.errors", "SourceError"),
        ("slurm_energy.report.errors", "ReportError"),
    ):
        if module in loaded:
            kinds.append(getattr(loaded[module], name))
    return isinstance(error, tuple(kinds))
