"""Pieces of SQL that several rooms put together: literals, lists of files, and what tells one run of a job from another."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

JOB_KEY = "coalesce(array_job_id, job_id) AS a, coalesce(array_task_id, -1) AS b"
"""Columns that are a job's displayed id, which is used because a file may lack JobIDRaw: of an array task the array and
the index, of any other job its own id and -1."""
SAME_RUN = "USING (cluster, a, b, start)"
"""The join of two tables that have the columns of run_key()."""


def run_key(start: str = "start") -> str:
    """Columns `cluster, a, b, start`, which tell one run of one job from all others.

    Requeued runs, resized parts and job ids that came round again start at another second. start: SQL for that second;
    a record has it as a number, a row of the ledger as a timestamp.
    """
    return f"cluster, {JOB_KEY}, {start} AS start"


def quoted(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"


def one_of(names: Iterable[str]) -> str:
    """A set of strings in a fixed order, for IN: `('a', 'b')`."""
    return "(" + ", ".join(quoted(name) for name in sorted(names)) + ")"


def file_list(paths: Iterable[Path]) -> str:
    """Files as DuckDB takes several: `['a', 'b']`."""
    return "[" + ", ".join(quoted(str(path)) for path in paths) + "]"


def parquet(paths: Iterable[Path]) -> str:
    """The rows of Parquet files, and nothing that their folders' names say."""
    return f"read_parquet({file_list(paths)}, hive_partitioning=false)"
