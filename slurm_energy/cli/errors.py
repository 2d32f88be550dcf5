"""How errors reach a person: one line on stderr that says what to do, and the exit code.

Only the standard library is imported here: what runs on compute nodes comes through here, too.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

FAULT = 70
"""The exit code of a fault of the program (EX_SOFTWARE). Python's own, 1, means here that it went well but for some rows."""


def guarded(app: Callable[..., Any], arguments: Sequence[str] | None) -> int:
    """Runs the app; how it ends: `caught`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    return caught(lambda: _run(app, arguments))


def caught(command: Callable[[], int]) -> int:
    """Runs a command; its exit code.

    Errors of ours and of the system become a line and exit code 2, a closed pipe ends it quietly. Anything else is a fault
    of the program: a line, the traceback, and exit code 70.
    """
    try:
        code = command()
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
    except ModuleNotFoundError as error:
        return missing(error)
    except Exception as error:
        if not _is_ours(error):
            return fault(error)
        print(f"senergy: {_safe(str(error))}", file=sys.stderr)
        return 2


def missing(error: ModuleNotFoundError) -> int:
    """Says which module is not installed; one of our own is a fault."""
    if (error.name or "").partition(".")[0] in ("slurm_energy", ""):
        return fault(error)
    print(
        f"senergy: the module {error.name} is not installed; on an admin or login node install the extra 'admin':  "
        "pip install 'slurm-energy[admin]'",
        file=sys.stderr,
    )
    return 2


def fault(error: Exception) -> int:
    """Says that the program is at fault, and what to do; the exit code."""
    import traceback

    from slurm_energy.version import __version__

    print(
        f"senergy: a fault of the program, not of yours ({type(error).__name__}); nothing is half written. Please report it "
        f"in the issues of slurm-energy, with the command line, the version ({__version__}) and these lines:",
        file=sys.stderr,
    )
    said = "".join(traceback.format_exception(error))
    print("".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in said), end="", file=sys.stderr)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        return FAULT
    _discard_output()
    return FAULT


def _run(app: Callable[..., Any], arguments: Sequence[str] | None) -> int:
    """The app's exit code. Raises what ended it from outside also where Typer or Rich made an exit code of that."""
    try:
        return int(app(args=list(arguments) if arguments is not None else None, standalone_mode=True) or 0)
    except SystemExit as stop:
        cause: BaseException | None = stop
        while cause is not None:
            if isinstance(cause, (BrokenPipeError, KeyboardInterrupt, EOFError)):
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
    """Whether the message was written for the person who runs the command, or tells of a disk or memory that is full."""
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
        ("duckdb", "IOException"),
        ("duckdb", "OutOfMemoryException"),
    ):
        if module in loaded:
            kinds.append(getattr(loaded[module], name))
    return isinstance(error, tuple(kinds))
