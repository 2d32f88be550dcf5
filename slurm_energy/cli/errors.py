"""How errors reach a person: one line on stderr that says what to do, and the exit code."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any


def guarded(app: Callable[..., Any], arguments: Sequence[str] | None) -> int:
    """Runs the app; errors of ours become a line and exit code 2, a closed pipe ends it quietly."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(app, arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (head, a pager) has seen enough; nothing may be written at shutdown either.
        _discard_output()
        return 0
    except KeyboardInterrupt:
        print("senergy: interrupted; nothing is half written, run it again", file=sys.stderr)
        return 130
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or repr(error)
        print(f"senergy: {_safe(said)}", file=sys.stderr)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            return 2
        _discard_output()
        return 2
    except Exception as error:
        if not _is_ours(error):
            raise
        print(f"senergy: {_safe(str(error))}", file=sys.stderr)
        return 2


def _run(app: Callable[..., Any], arguments: Sequence[str] | None) -> int:
    """The app's exit code. Raises what ended it from outside also where Typer or Rich made an exit code of that."""
    try:
        return int(app(args=list(arguments) if arguments is not None else None, standalone_mode=True) or 0)
    except SystemExit as stop:
        cause: BaseException | None = stop
        while cause is not None:
            if isinstance(cause, (BrokenPipeError, KeyboardInterrupt)):
                raise cause from None
            cause = cause.__context__
        return int(stop.code or 0) if isinstance(stop.code, int) or stop.code is None else 2


def _discard_output() -> None:
    """What is left in the buffer goes nowhere: nothing complains of it when the interpreter ends."""
    if sys.__stdout__ is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


def _safe(text: str) -> str:
    """A message without the control characters that a name in it may hold."""
    from slurm_energy.report.formats import printable

    return "\n".join(printable(line) for line in text.splitlines())


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
