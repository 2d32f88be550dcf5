"""The ledger's folder: one writer, whole days whatever ends it, private by default."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from datetime import date
from pathlib import Path

import duckdb
import pytest
from helpers import DAY, NOON, aggregate_file, files, ledger_of, row, running, save
from hypothesis import given
from hypothesis import strategies as st

from slurm_energy.cli import main
from slurm_energy.ledger.durable import replace
from slurm_energy.ledger.errors import LedgerError
from slurm_energy.ledger.schema import SCHEMA
from slurm_energy.ledger.store import Ledger, open_ledger

HOLDER = """
import sys
from pathlib import Path
from slurm_energy.ledger.store import Ledger
with Ledger(Path(sys.argv[1])).writer():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_refused_with_the_process_that_holds_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(ledger.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LedgerError, match=rf"\(process {holder.pid}\); nothing was done"), ledger.writer():
            raise AssertionError("both write")
        holder.communicate("")
    with ledger.writer():
        assert (ledger.path / "lock").read_text() == f"{os.getpid()}\n"


def test_the_command_ends_with_2_while_another_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").write_text("")
    monkeypatch.setenv("SENERGY_CONFIG", str(tmp_path / "config.toml"))
    path = save(tmp_path / "jobs.txt", [row()])
    arguments = ["aggregate", "--from", str(path), "--ledger", str(tmp_path / "ledger")]
    with Ledger(tmp_path / "ledger").writer():
        assert main(arguments) == 2
    assert f"(process {os.getpid()})" in capsys.readouterr().err
    assert files(tmp_path / "ledger") == {}
    assert main(arguments) == 0


def test_a_writer_killed_with_its_lock_holds_up_nobody(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(ledger.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
    with ledger.writer():
        pass


def test_readers_need_no_lock(tmp_path: Path) -> None:
    ledger_of(tmp_path, [row()])
    with Ledger(tmp_path / "ledger").writer():
        assert Ledger(tmp_path / "ledger").arrow().num_rows == 1


JOBS = [row(JobID=number, Start=NOON + number * DAY // 3, ElapsedRaw=DAY) for number in range(40)]
EARLIER = [running(JobID=number, Start=NOON + number * DAY // 3, ElapsedRaw=DAY // 2) for number in range(20)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes], dict[str, bytes]]:
    """A folder with the two files and the ledger of the earlier one; its days, and those after the later one."""
    folder = tmp_path_factory.mktemp("whole")
    save(folder / "earlier.txt", EARLIER)
    save(folder / "jobs.txt", JOBS)
    aggregate_file(folder / "earlier.txt", folder / "ledger")
    shutil.copytree(folder / "ledger", folder / "after")
    aggregate_file(folder / "jobs.txt", folder / "after")
    return folder, files(folder / "ledger"), files(folder / "after")


@pytest.mark.parametrize(
    ("call", "count"), [("os.fsync", 1), ("os.fsync", 9), ("Path.rename", 4), ("BytesIO.getvalue", 6)]
)
def test_a_writer_killed_at_any_moment_leaves_whole_days_and_a_rerun_the_same_bytes(
    call: str, count: int, tmp_path: Path, whole: tuple[Path, dict[str, bytes], dict[str, bytes]]
) -> None:
    folder, before, after = whole
    shutil.copytree(folder / "ledger", tmp_path / "ledger")
    script = f"""
import io, os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import helpers
from slurm_energy.ledger import day_files
count = 0
class BytesIO(io.BytesIO):
    def getvalue(self):
        return io.BytesIO.getvalue(self)
day_files.BytesIO = BytesIO  # so that one call of it can be replaced
real = {call}
def killed(*arguments):
    global count
    count += 1
    if count == {count}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
{call} = killed
helpers.aggregate_file(Path(sys.argv[1]), Path(sys.argv[2]))
"""
    arguments = [sys.executable, "-c", script, str(folder / "jobs.txt"), str(tmp_path / "ledger")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = files(tmp_path / "ledger")
    assert left.keys() >= before.keys()
    for name, content in left.items():
        assert content in (before.get(name), after[name])
    assert left != after
    pattern = tmp_path / "ledger" / "days" / "*" / "*.parquet"  # as docs/schema.md tells people to read it
    assert duckdb.sql(f"SELECT count(DISTINCT date) FROM read_parquet('{pattern}')").fetchall() == [(len(left),)]
    aggregate_file(folder / "jobs.txt", tmp_path / "ledger")
    assert files(tmp_path / "ledger") == after
    assert list((tmp_path / "ledger").glob("**/.new-*")) == []


def test_what_a_killed_writer_left_is_swept_up_by_the_next_and_seen_by_nobody(tmp_path: Path) -> None:
    ledger_of(tmp_path, [row()])
    ledger = Ledger(tmp_path / "ledger")
    left = ledger.day_path("alpha", date(2026, 11, 25)).with_name(".new-2026-11-25.parquet.part")
    left.write_bytes(b"half a da")
    assert ledger.arrow().num_rows == 1
    assert [file.day for file in ledger.days()] == [date(2026, 11, 24)]
    with ledger.writer():
        assert not left.exists()


def test_the_ledger_is_for_the_service_and_one_group(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ledger_of(tmp_path, [row(), row(JobID=8, State="ODD")])
        Ledger(tmp_path / "ledger").write_state({"local": 5})
    finally:
        os.umask(before)
    found = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "ledger").glob("**/*") if path.is_file()}
    folders = {
        stat.S_IMODE(path.stat().st_mode)
        for path in [tmp_path / "ledger", *(tmp_path / "ledger").glob("**/*")]
        if path.is_dir()
    }
    assert (found, folders) == ({0o640}, {0o750})


def test_a_strict_umask_is_kept(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        ledger_of(tmp_path, [row()])
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (tmp_path / "ledger").glob("**/*")} == {0}


def test_replacing_says_whether_anything_changed_and_touches_nothing_that_did_not(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    assert replace(path, b"one") is True
    before = path.stat()
    assert replace(path, b"one") is False
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert replace(path, b"two") is True
    assert path.read_bytes() == b"two"
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_a_reader_with_the_old_file_open_keeps_the_old_day(tmp_path: Path) -> None:
    path = tmp_path / "day"
    replace(path, b"old")
    with path.open("rb") as reader:
        replace(path, b"new")
        assert (reader.read(), path.read_bytes()) == (b"old", b"new")


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    st.dates(date(1990, 1, 1), date(2100, 1, 1)),
)
def test_a_day_s_path_lies_in_the_ledger_and_two_clusters_never_share_one(name: str, day: date) -> None:
    ledger = Ledger(Path("/ledger"))
    path = ledger.day_path(name, day)
    assert path.parent.parent == Path("/ledger/days")
    assert path.parent.name.isascii()
    assert os.path.normpath(path) == str(path)
    assert path != ledger.day_path(name + ".", day) != ledger.day_path(name + "%2E", day)


def test_days_are_chosen_by_cluster_and_date(tmp_path: Path) -> None:
    rows = [
        row(JobID=number, Cluster=cluster, Start=NOON + number * DAY)
        for number in range(3)
        for cluster in ("b", "a", "")
    ]
    ledger_of(tmp_path, rows, settings='[site]\ncluster = ""')
    ledger = Ledger(tmp_path / "ledger")
    (ledger.path / "days" / "cluster=a" / "notes.parquet").write_bytes(b"")
    (ledger.path / "days" / "cluster=a" / "2026-13-99.parquet").write_bytes(b"")
    assert [(file.cluster, file.day.day) for file in ledger.days()] == [
        (c, d) for c in ("", "a", "b") for d in (24, 25, 26)
    ]
    assert [(file.cluster, file.day.day) for file in ledger.days(["a"], date(2026, 11, 25))] == [("a", 25), ("a", 26)]
    assert [file.day.day for file in ledger.days([""], end=date(2026, 11, 26))] == [24, 25]
    assert ledger.arrow(["b"], date(2026, 11, 25), date(2026, 11, 26)).num_rows == 1


def test_rows_come_as_an_arrow_table_of_the_schema_and_as_a_frame(tmp_path: Path) -> None:
    ledger_of(tmp_path, [row(Cluster="042")])
    table = Ledger(tmp_path / "ledger").arrow()
    assert table.schema.equals(SCHEMA)
    assert table["cluster"].to_pylist() == ["042"]
    rows = Ledger(tmp_path / "ledger").relation()
    assert dict(zip(rows.columns, map(str, rows.types), strict=True))["cluster"] == "VARCHAR"
    ledger_of(tmp_path, [row(Cluster="42", JobID=8)])
    assert Ledger(tmp_path / "ledger").relation(["42"]).project("cluster").fetchall() == [("42",)]
    frame = Ledger(tmp_path / "ledger").pandas()
    assert list(frame.columns) == SCHEMA.names
    assert str(frame["start"].dt.tz) == "UTC"


def test_an_empty_ledger_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"no days in the ledger .*; `senergy aggregate` writes them"):
        Ledger(tmp_path).arrow()
    assert Ledger(tmp_path / "gone").days() == []


def test_a_ledger_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(
            LedgerError, match=r"cannot write the ledger .*file/ledger: Not a directory; choose another with --ledger"
        ),
        Ledger(tmp_path / "file" / "ledger").writer(),
    ):
        raise AssertionError("written")


def test_the_state_is_read_back_and_a_broken_one_says_what_to_do(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.read_state() == {}
    ledger.write_state({"local": 5, "alpha": 7})
    assert Ledger(tmp_path).read_state() == {"alpha": 7, "local": 5}
    (tmp_path / "state.json").write_text('{"local": "x"}')
    with pytest.raises(LedgerError, match=r"state\.json cannot be read .*; remove it and aggregate with -S"):
        ledger.read_state()


def test_the_ledger_opens_where_the_configuration_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.toml").write_text(f"[site]\nledger = '{tmp_path}/there'")
    monkeypatch.setenv("SENERGY_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.delenv("SENERGY_LEDGER", raising=False)
    assert open_ledger().path == tmp_path / "there"
    assert open_ledger("/other").path == Path("/other")
