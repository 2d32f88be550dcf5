"""Job records from a running Slurm, by sacct.

The delimiter is made anew for each call out of random characters, and every record ends with it, so that no job name
or comment, whatever it holds, can be taken for the end of a field or of a record. Times are asked for as epoch seconds.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from slurm_energy.slurm.columns import RAW_COLUMNS, missing_necessary
from slurm_energy.slurm.errors import SourceError

WINDOW_S = 7 * 86400
"""One call asks for at most this much: sacct and slurmdbd hold a whole answer in memory."""


def sacct_environment() -> dict[str, str]:
    """UTC and epoch seconds, for local time is ambiguous once a year."""
    return {**os.environ, "SLURM_TIME_FORMAT": "%s", "TZ": "UTC", "LC_ALL": "C.UTF-8"}


def program(name: str) -> str:
    """The path of one of Slurm's commands. Raises SourceError where it is not installed."""
    path = shutil.which(name)
    if path is None:
        instead = ", or read a saved file with --from FILE" if name == "sacct" else ""
        raise SourceError(f"{name} is not on the PATH: run this where Slurm's client commands are{instead}")
    return path


def ask(command: Sequence[str]) -> bytes:
    """What a Slurm command prints. Raises SourceError with its own words where it fails."""
    done = subprocess.run(
        [program(command[0]), *command[1:]],
        env=sacct_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
        daemon = (
            "slurmctld running (scontrol ping)"
            if command[0] in ("sinfo", "scontrol")
            else "slurmdbd running (sacctmgr show cluster)"
        )
        raise SourceError(f"{command[0]} failed: {words}; is {daemon}?")
    return done.stdout


def fields_of_this_slurm() -> tuple[str, ...]:
    """Those of our columns that this version of sacct has."""
    offered = set(ask(["sacct", "--helpformat"]).decode("utf-8", "replace").split())
    fields = tuple(name for name in RAW_COLUMNS if name in offered)
    missing = missing_necessary(fields)
    if missing:
        raise SourceError(f"this sacct has no field {', '.join(missing)}; slurm-energy needs Slurm 20.11 or later")
    return fields


def read_sacct(
    start: int, end: int, clusters: Sequence[str] = (), jobs: Sequence[str] = ()
) -> Iterator[list[dict[str, str]]]:
    """Allocations that ran in [start, end) (epoch seconds), requeued runs included, a list per week.

    clusters: as for sacct -M; empty for the cluster of slurm.conf. jobs: only these ids, all in one list.
    Raises SourceError where sacct is missing or fails.
    """
    fields = fields_of_this_slurm()
    options = ["-X", "-D", "-a", "-n", "--parsable", "--noconvert", "-o", ",".join(fields)]
    if clusters:
        options += ["-M", ",".join(clusters)]
    if jobs:
        options += ["-j", ",".join(jobs)]
    since = start
    while since < end:
        until = end if jobs else min(since + WINDOW_S, end)  # few jobs make a small answer, whenever they ran
        mark = f"\x1f{secrets.token_hex(6)}\x1f"
        window = ["-S", _moment(since), "-E", _moment(until)]
        text = ask(["sacct", *options, f"--delimiter={mark}", *window]).decode("utf-8", "backslashreplace")
        yield [dict(zip(fields, record.split(mark), strict=False)) for record in text.split(mark + "\n") if record]
        since = until


def _moment(epoch: int) -> str:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
