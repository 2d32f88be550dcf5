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
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote

import msgspec

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

_NO_NAME = "%00"
FOLDER_MODE, FILE_MODE = 0o750, 0o640


class LedgerError(Exception):
    """The ledger cannot be read or written; the message says what to do next."""


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
        """Where a day lies; a cluster's name is escaped, for it comes from outside."""
        name = quote(cluster, safe="") or _NO_NAME
        return self.path / "days" / f"cluster={name.replace('.', '%2E')}" / f"{day.isoformat()}.parquet"

    def days(
        self, clusters: Sequence[str] = (), start: date | None = None, end: date | None = None
    ) -> list[DayFile]:  # fmt: skip
        """The days there are, of these clusters (default all), from `start` on and before `end`, in order."""
        found = []
        for folder in sorted((self.path / "days").glob("cluster=*")):
            name = folder.name.removeprefix("cluster=")
            cluster = "" if name == _NO_NAME else unquote(name)
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
        for leftover in self.path.glob("**/.new-*"):
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


@contextlib.contextmanager
def telling_damage(files: Iterable[Path]) -> Iterator[None]:
    """Within it, DuckDB's failure over one of these day files is a LedgerError that names the file and what to do."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        if said := damage(files):
            raise LedgerError(said) from error
        raise


def damage(files: Iterable[Path]) -> str:
    """The first of these day files that cannot be read, and what to do; '' where all can be. Reads them whole.

    Raises OSError where one may not be read.
    """
    for path in files:
        if why := _unreadable(path):
            return damaged(path, why)
    return ""


def damaged(path: Path, why: str) -> str:
    """What to say of a day file that cannot be read. It is kept: who moves it away has the way back."""
    day = date.fromisoformat(path.stem)
    away = f"mv {path} {path}.damaged"
    if path.parent.parent.name == "segments":
        return (
            f"{path} is damaged ({why}); it was left as it is. It holds what was measured on {day}: restore it from a backup. "
            f"Without one, move it away ({away}); the jobs of that day are estimated then"
        )
    return (
        f"{path} is damaged ({why}); it was left as it is. Move it away ({away}) and make the day anew from job records and "
        f"segments: senergy aggregate -S {day} -E {day + timedelta(days=1)}"
    )


def _unreadable(path: Path) -> str:
    """Why a day file is none that can be read; '' where it can."""
    import duckdb

    path.open("rb").close()
    if path.parent.parent.name == "segments":
        from slurm_energy.ledger.segments import SCHEMA
    else:
        from slurm_energy.ledger.schema import SCHEMA
    columns = ", ".join(f'"{name}"' for name in SCHEMA.names)
    source = str(path).replace("'", "''")
    try:
        duckdb.connect().execute(
            f"SELECT bit_xor(hash({columns})) FROM read_parquet('{source}', hive_partitioning=false)"
        ).fetchall()
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        return str(error).splitlines()[0]
    return ""


def replace(path: Path, content: bytes) -> bool:
    """Puts content at path by rename, after it is safely on disk; False where it was there already."""
    try:
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return False
    except FileNotFoundError:
        pass
    make_folder(path.parent)
    new = path.with_name(f".new-{path.name}.part")  # a reader's *.parquet would match a name that ends so, too
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    return True


def make_folder(path: Path) -> None:
    """Makes a folder and its parents with the ledger's mode."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=FOLDER_MODE, exist_ok=True)


def sync_folder(path: Path) -> None:
    """Makes renames in a folder safe against a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_ledger(path: Path | str | None = None) -> Ledger:
    """The ledger at `path`, or where the configuration says."""
    from slurm_energy.config import ledger_path, load_config

    return Ledger(Path(path) if path is not None else ledger_path(load_config()[0]))
