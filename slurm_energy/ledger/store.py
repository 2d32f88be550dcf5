"""The ledger's folder: a Parquet file per cluster and day, replaced whole by rename; one writer at a time.

days/cluster=NAME/2026-11-24.parquet     the ledger
set-aside/DIGEST.jsonl                   rows of the input that could not be read, with their reason
state.json                               until when each cluster has been aggregated
lock                                     held by the writer
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from slurm_energy.folders import cluster_folder, cluster_of
from slurm_energy.ledger.damage import telling_damage
from slurm_energy.ledger.durable import FILE_MODE, FOLDER_MODE, HALF_WRITTEN, replace
from slurm_energy.ledger.errors import LedgerError

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

__all__ = ["DayFile", "Ledger", "LedgerError", "open_ledger"]


class DayFile(NamedTuple):
    """One day of one cluster."""

    cluster: str
    day: date
    path: Path


class Ledger:
    """A ledger's folder. Reading takes no lock: a file is always a whole day."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def day_path(self, cluster: str, day: date) -> Path:
        """Where a day lies."""
        return self.path / "days" / cluster_folder(cluster) / f"{day.isoformat()}.parquet"

    def days(
        self, clusters: Sequence[str] = (), start: date | None = None, end: date | None = None
    ) -> list[DayFile]:  # fmt: skip
        """The days there are, of these clusters (default all), from `start` on and before `end`, in order."""
        found = []
        for folder in sorted((self.path / "days").glob("cluster=*")):
            cluster = cluster_of(folder.name)
            if clusters and cluster not in clusters:
                continue
            for file in sorted(folder.glob("????-??-??.parquet")):
                try:
                    day = date.fromisoformat(file.stem)
                except ValueError:
                    continue
                if (start is None or day >= start) and (end is None or day < end):
                    found.append(DayFile(cluster, day, file))
        return found

    def relation(
        self, clusters: Sequence[str] = (), start: date | None = None, end: date | None = None
    ) -> duckdb.DuckDBPyRelation:  # fmt: skip
        """The rows as a DuckDB relation. Raises LedgerError where there are none."""
        import duckdb

        files = self.days(clusters, start, end)
        if not files:
            raise LedgerError(f"no days in the ledger {self.path}; `senergy aggregate` writes them")
        with telling_damage([file.path for file in files]):
            return duckdb.connect().read_parquet([str(file.path) for file in files], hive_partitioning=False)

    def arrow(
        self, clusters: Sequence[str] = (), start: date | None = None, end: date | None = None
    ) -> pa.Table:  # fmt: skip
        """The rows as an Arrow table with the schema of slurm_energy.ledger.schema."""
        from slurm_energy.ledger.schema import SCHEMA

        with telling_damage([file.path for file in self.days(clusters, start, end)]):
            return self.relation(clusters, start, end).to_arrow_table().cast(SCHEMA)

    def pandas(
        self, clusters: Sequence[str] = (), start: date | None = None, end: date | None = None
    ) -> pd.DataFrame:  # fmt: skip
        """The rows as a pandas DataFrame."""
        frame: pd.DataFrame = self.arrow(clusters, start, end).to_pandas()
        return frame

    @contextlib.contextmanager
    def writer(self) -> Iterator[None]:
        """Holds the ledger for writing. Raises LedgerError at once where another process does, naming it."""
        try:
            self.path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise LedgerError(
                f"cannot write the ledger {self.path}: {error.strerror}; choose another with --ledger"
            ) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                other = os.pread(handle, 64, 0).decode("ascii", "replace").strip()
                raise LedgerError(
                    f"another senergy is writing the ledger {self.path} (process {other or 'unknown'}); "
                    "nothing was done: wait until it has ended, then run this again"
                ) from error
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            self._sweep_up()
            yield
        finally:
            os.close(handle)

    def _sweep_up(self) -> None:
        """Removes what a killed writer left half written; only the holder of the lock may."""
        for leftover in self.path.glob(f"**/{HALF_WRITTEN}"):
            leftover.unlink(missing_ok=True)

    def read_state(self) -> dict[str, int]:
        """Until when (epoch seconds) each cluster has been aggregated from a live source."""
        try:
            return msgspec.json.decode((self.path / "state.json").read_bytes(), type=dict[str, int])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            raise LedgerError(
                f"{self.path / 'state.json'} cannot be read ({error}); remove it and aggregate with -S"
            ) from error

    def write_state(self, state: dict[str, int]) -> None:
        """Replaces the state; the last step of a run, so that a killed run is done again."""
        replace(self.path / "state.json", msgspec.json.format(msgspec.json.encode(state, order="sorted")) + b"\n")


def open_ledger(path: Path | str | None = None) -> Ledger:
    """The ledger at `path`, or where the configuration says."""
    from slurm_energy.config import ledger_path, load_config

    return Ledger(Path(path) if path is not None else ledger_path(load_config()[0]))
