"""Delivery: whatever is cut off, full, unreachable or planted, nothing is lost and no half file is seen."""

from __future__ import annotations

import fcntl
import os
import random
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_energy.cli.ship import main
from slurm_energy.ship import ShipError, Shipped, folder_name, ship_forever, ship_once
from slurm_energy.ship import move as ship_move

NAMES = ("n1.2026-11-24T12.1.jsonl", "n1.2026-11-24T12.2.jsonl", "n1.2026-11-24T13.1.jsonl")
KILLED = """
import os, signal, sys
from pathlib import Path
from slurm_energy.ship import ship_once
outbox, inbox, at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
seen = 0
def watch(event, arguments):
    global seen
    if event == "open" or event.startswith(("os.", "fcntl.")):
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
done = ship_once(outbox, inbox, cluster="alpha", node="n1")
sys.exit(0 if not done.failed else 9)
"""


class Place:
    """An outbox with three files, and an inbox."""

    def __init__(self, root: Path) -> None:
        self.outbox, self.inbox = root / "outbox", root / "inbox"
        self.target = self.inbox / "alpha" / "n1"
        self.outbox.mkdir()
        self.inbox.mkdir(exist_ok=True)
        self.content = {name: f'{{"name": "{name}"}}\n'.encode() * 500 for name in NAMES}
        self.fill()

    def fill(self) -> None:
        for name, content in self.content.items():
            (self.outbox / name).write_bytes(content)

    def ship(self) -> Shipped:
        return ship_once(self.outbox, self.inbox, cluster="alpha", node="n1")

    def waiting(self) -> list[str]:
        return sorted(path.name for path in self.outbox.iterdir())

    def arrived(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.target.glob("[!.]*")} if self.target.exists() else {}

    def whole(self) -> None:
        """Nothing is lost and nothing is half: every file is in the outbox or, whole, in the inbox."""
        arrived = self.arrived()
        assert {name: self.content[name] for name in arrived} == arrived
        for name in self.content:
            if name not in arrived:
                assert (self.outbox / name).read_bytes() == self.content[name]

    def finished(self) -> None:
        assert self.arrived() == self.content
        assert self.waiting() == []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 96 kB for an inbox."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small filesystem needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user may enter."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        if not all(above.stat().st_mode & 0o001 for above in folder.parents):
            pytest.skip("the temporary folder is closed to other users")
        yield folder


def test_finished_files_move_to_the_nodes_folder_with_private_modes(place: Place) -> None:
    assert place.ship() == Shipped(3, sum(map(len, place.content.values())), 0)
    place.finished()
    assert [path.name for path in place.target.iterdir() if path.name.startswith(".")] == []
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.target.iterdir()} == {0o640}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (place.target, place.target.parent)} == {0o750}
    assert place.ship() == Shipped(0, 0, 0)


def test_it_works_in_a_unit_that_may_not_set_a_group_bit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """RestrictSUIDSGID= refuses each fchmod that names the bit, be it there already."""

    def refused(file: int, mode: int, really=os.fchmod) -> None:
        if mode & stat.S_ISGID:
            raise PermissionError(1, "Operation not permitted")
        really(file, mode)

    monkeypatch.setattr(os, "fchmod", refused)
    place.inbox.chmod(0o2750)
    before = os.umask(0o027)
    try:
        shipped = place.ship()
    finally:
        os.umask(before)
    assert (shipped.files, shipped.failed, shipped.problems) == (len(NAMES), 0, ())
    assert {stat.S_IMODE(path.stat().st_mode) for path in (place.target, place.target.parent)} == {0o2750}


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_modes_are_the_same_under_any_umask_and_a_group_bit_is_inherited(place: Place, mask: int) -> None:
    place.inbox.chmod(0o2750)
    before = os.umask(mask)
    try:
        place.ship()
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (place.target, place.target.parent)} == {0o2750}
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.target.iterdir()} == {0o640}


def test_the_same_file_twice_ends_as_one(place: Place) -> None:
    place.ship()
    place.fill()
    assert place.ship().files == 3
    place.finished()


def test_another_file_of_the_same_name_is_kept_beside_the_first(place: Place) -> None:
    place.ship()
    other = b"other\n" * 10
    for _ in range(2):
        (place.outbox / NAMES[0]).write_bytes(other)
        assert place.ship() == Shipped(1, len(other), 0)
    arrived = place.arrived()
    (beside,) = set(arrived) - set(NAMES)
    assert beside.startswith(NAMES[0].removesuffix("jsonl"))
    assert beside.endswith(".jsonl")
    assert arrived == {**place.content, beside: other}


def test_a_kill_before_any_system_call_loses_nothing_and_shows_no_half_file(tmp_path: Path) -> None:
    at, killed = 1, 0
    while True:
        root = tmp_path / str(at)
        root.mkdir()
        place = Place(root)
        done = subprocess.run([sys.executable, "-c", KILLED, place.outbox, place.inbox, str(at)], check=False)
        place.whole()
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        killed += 1
        assert place.ship().failed == 0
        place.finished()
        at += 1
    assert killed > 20


def test_kills_at_random_moments_lose_nothing_and_show_no_half_file(place: Place) -> None:
    chance = random.Random(7)
    for name in NAMES:
        place.content[name] *= 160
    code = KILLED.replace("sys.addaudithook(watch)", "print(flush=True)")
    killed = 0
    for _ in range(40):
        place.fill()
        shutil.rmtree(place.inbox / "alpha", ignore_errors=True)
        process = subprocess.Popen(
            [sys.executable, "-c", code, place.outbox, place.inbox, "0"], stdout=subprocess.PIPE
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.012))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
        place.whole()
    assert killed
    place.ship()
    place.finished()


def test_a_reader_never_sees_a_part_of_a_file(place: Place) -> None:
    for name in NAMES:
        place.content[name] *= 80
    place.target.mkdir(parents=True)
    over = threading.Event()
    bad: list[str] = []

    looks = absent = 0

    def read() -> None:
        nonlocal looks, absent
        while not over.is_set():
            for name, content in place.content.items():
                try:
                    looks += 1
                    bad.extend([name] if (place.target / name).read_bytes() != content else [])
                except FileNotFoundError:
                    absent += 1

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        place.fill()
        place.ship()
        for path in place.target.iterdir():
            path.unlink()
    over.set()
    reader.join()
    assert not bad
    assert looks > absent > 0


def test_a_full_inbox_keeps_the_files_until_there_is_room(small: Path, tmp_path: Path) -> None:
    filler = small / "filler"
    filler.write_bytes(bytes(64_000))
    place = Place(tmp_path)
    done = place.ship()
    assert (done.files, done.failed) == (1, 2)
    assert "no space left on device; 2 files wait in" in done.problems[0]
    place.whole()
    assert not list(place.target.glob(".*"))
    filler.unlink()
    assert place.ship().files == 2
    place.finished()


def test_a_limit_on_file_size_stops_one_file_and_not_the_others(place: Place) -> None:
    place.content[NAMES[1]] = b"small\n"
    place.fill()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        done = place.ship()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (done.files, done.failed) == (1, 2)
    assert all("file too large" in problem for problem in done.problems)
    assert not list(place.target.glob(".*"))
    place.whole()
    assert place.ship().files == 2
    place.finished()


def test_a_read_only_inbox_keeps_everything_and_says_so(small: Path, tmp_path: Path) -> None:
    place = Place(tmp_path)
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    done = place.ship()
    assert (done.files, done.failed) == (0, 3)
    assert "read-only file system" in done.problems[0]
    place.whole()
    subprocess.run(["mount", "-o", "remount,rw,size=1m", small], check=True)
    assert place.ship().files == 3
    place.finished()


@pytest.mark.parametrize("stock", [True, False])
def test_an_inbox_that_is_not_there_is_not_made_and_is_said_even_when_nothing_waits(place: Place, stock: bool) -> None:
    place.inbox.rmdir()
    if not stock:
        shutil.rmtree(place.outbox)
        place.outbox.mkdir()
    done = place.ship()
    assert (done.files, done.failed) == (0, 3 if stock else 0)
    assert "no such file or directory" in done.problems[0]
    assert not place.inbox.exists()


def test_foreign_things_in_the_outbox_are_left_alone_and_counted(place: Place, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    box = place.outbox
    (box / "link.jsonl").symlink_to(secret)
    os.link(secret, box / "hard.jsonl")
    (box / "folder.jsonl").mkdir()
    os.mkfifo(box / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(box / "socket.jsonl"))
    (box / "notes.txt").write_text("mine")
    (box / "bad name.jsonl").write_text("mine")
    (box / "line\nbreak.jsonl").write_text("mine")
    (box / f"{'x' * 220}.jsonl").write_text("mine")
    (box / ".unfinished.jsonl").write_text("half")
    foreign = set(place.waiting()) - set(NAMES)
    done = place.ship()
    assert (done.files, done.failed, done.foreign) == (3, 0, 9)
    assert len(done.problems) == 9
    assert not any("\n" in problem for problem in done.problems)
    assert set(place.waiting()) == foreign
    assert place.arrived() == place.content
    assert secret.read_text() == "secret"


def test_links_in_the_inbox_lead_nowhere(place: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    victim = elsewhere / "victim"
    victim.write_text("precious")
    (place.inbox / "alpha").symlink_to(elsewhere)
    assert place.ship().failed == 3
    (place.inbox / "alpha").unlink()
    (place.inbox / "alpha").mkdir()
    place.target.symlink_to(elsewhere)
    assert place.ship().failed == 3
    place.target.unlink()
    place.target.mkdir()
    (place.target / NAMES[0]).symlink_to(victim)
    (place.target / NAMES[1]).mkdir()
    done = place.ship()
    assert (done.files, done.failed) == (1, 2)
    assert place.waiting() == list(NAMES[:2])
    assert [path.name for path in elsewhere.iterdir()] == ["victim"]
    assert victim.read_text() == "precious"


def test_an_outbox_that_is_a_link_or_missing_or_busy_is_refused(place: Place, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(place.outbox)
    for outbox in (link, tmp_path / "missing"):
        with pytest.raises(ShipError, match=str(outbox)):
            ship_once(outbox, place.inbox, cluster="alpha", node="n1")
    held = os.open(place.outbox, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(ShipError, match="another shipper"):
        place.ship()
    os.close(held)
    place.ship()
    place.finished()


def test_a_file_that_changes_while_it_is_copied_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = ship_move._copy

    def slow(source: int, target: int, part: str) -> int:
        checksum = copy(source, target, part)
        if NAMES[0] in part:
            with (place.outbox / NAMES[0]).open("ab") as file:
                file.write(b"more\n")
        return checksum

    monkeypatch.setattr(ship_move, "_copy", slow)
    done = place.ship()
    assert (done.files, done.failed) == (2, 1)
    assert "changed while it was copied" in done.problems[0]
    place.content[NAMES[0]] += b"more\n"
    place.whole()
    monkeypatch.undo()
    place.ship()
    place.finished()


def test_parts_that_a_crash_left_are_swept_when_they_are_old(place: Place) -> None:
    place.target.mkdir(parents=True)
    old, new = place.target / ".a.jsonl.0.part", place.target / ".b.jsonl.0.part"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (time.time() - 7200,) * 2)
    place.ship()
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize(
    ("name", "folder"),
    [("n1", "n1"), ("..", "%2E."), (".", "%2E"), ("a/b", "a%2Fb"), ("/etc", "%2Fetc"), (".x", "%2Ex"), ("ü", "%C3%BC")],
)
def test_no_name_leads_out_of_the_inbox_or_hides_in_it(place: Place, name: str, folder: str) -> None:
    assert folder_name(name) == folder
    ship_once(place.outbox, place.inbox, cluster=name, node=name)
    assert len(list((place.inbox / folder / folder).iterdir())) == 3


def test_no_name_at_all_is_refused() -> None:
    with pytest.raises(ShipError, match="--cluster"):
        folder_name("")


class Clock:
    """An Event whose waiting takes no time and is written down."""

    def __init__(self, rounds: int, between: dict[int, object]) -> None:
        self.pauses: list[float] = []
        self.rounds, self.between = rounds, between

    def is_set(self) -> bool:
        return len(self.pauses) >= self.rounds

    def wait(self, seconds: float) -> None:
        self.pauses.append(seconds)
        action = self.between.get(len(self.pauses))
        if callable(action):
            action()


def test_while_the_inbox_is_gone_it_tries_less_and_less_often_and_says_it_once(place: Place) -> None:
    place.inbox.rmdir()
    clock = Clock(8, {6: place.inbox.mkdir})
    said: list[str] = []
    ship_forever(place.outbox, place.inbox, 60, clock, cluster="alpha", node="n1", say=said.append)  # type: ignore[arg-type]
    assert clock.pauses == [120, 240, 480, 600, 600, 600, 60, 60]
    assert [line.rpartition(" in ")[0] or line for line in said] == [
        f"{place.inbox}: no such file or directory; 3 files wait", "shipping again: nothing is left behind"
    ]  # fmt: skip
    place.finished()


def test_what_the_agent_leaves_at_its_end_is_shipped_before_the_shipper_ends(place: Place) -> None:
    clock = Clock(1, {1: place.fill})
    ship_forever(place.outbox, place.inbox, 60, clock, cluster="alpha", node="n1")  # type: ignore[arg-type]
    place.finished()


def test_the_command_ships_once_and_says_by_its_exit_code_whether_all_went(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SENERGY_INBOX", raising=False)
    usual = ["--outbox", str(place.outbox), "--cluster", "alpha", "--node", "n1", "--once"]
    assert main([*usual, "--inbox", str(place.inbox)]) == 0
    assert (
        capsys.readouterr().out
        == f"shipped 3 files, {sum(map(len, place.content.values()))} bytes; 0 stayed behind, 0 left alone\n"
    )
    (place.outbox / "notes.txt").write_text("mine")
    assert main([*usual, "--inbox", str(place.inbox)]) == 1
    assert "notes.txt" in capsys.readouterr().err
    assert main([*usual, "--inbox", str(place.inbox / "missing")]) == 1
    assert main(usual) == 2
    assert "--inbox" in capsys.readouterr().err
    assert main([*usual, "--inbox", str(place.inbox), "--every", "0"]) == 2
    assert main([*usual, "--inbox", str(place.inbox), "--nonsense"]) == 2
    assert main(["--outbox", str(place.outbox / "missing"), "--inbox", str(place.inbox), "--once"]) == 2
    assert main(["--help"]) == 0


def test_the_command_takes_cluster_and_places_from_the_environment_and_the_configuration(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text('[site]\ncluster = "beta"\n')
    monkeypatch.setenv("SENERGY_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("SENERGY_OUTBOX", str(place.outbox))
    monkeypatch.setenv("SENERGY_INBOX", str(place.inbox))
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    monkeypatch.delenv("SENERGY_NODE", raising=False)
    monkeypatch.delenv("SENERGY_CLUSTER", raising=False)
    assert main(["--once"]) == 0
    assert len(list((place.inbox / "beta" / "n7").iterdir())) == 3
    monkeypatch.setenv("SENERGY_CONFIG", str(tmp_path / "missing.toml"))
    assert main(["--once"]) == 2


def test_as_a_service_it_ships_until_sigterm_and_once_more_then(place: Place) -> None:
    command = [sys.executable, "-m", "slurm_energy.cli.ship", "--outbox", place.outbox, "--inbox", place.inbox]
    process = subprocess.Popen([*command, "--cluster", "alpha", "--node", "n1", "--every", "3600"])
    end = time.monotonic() + 20
    while place.waiting() and time.monotonic() < end:
        time.sleep(0.01)
    place.finished()
    time.sleep(0.1)
    place.fill()
    process.terminate()
    assert process.wait(timeout=20) == 0
    place.finished()


def test_a_compute_node_needs_nothing_heavy_to_ship(place: Place) -> None:
    code = (
        "import sys; from slurm_energy.cli.ship import main\n"
        f"assert main(['--once', '--outbox', {str(place.outbox)!r}, '--inbox', {str(place.inbox)!r}, '--node', 'n1']) == 0\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not {"pandas", "duckdb", "ibis", "pyarrow", "typer", "rich", "hostlist", "hashlib", "ssl"} & loaded


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="changing user and capabilities needs root"
)
def test_root_without_capabilities_and_an_ordinary_user_can_hand_files_over(open_folder: Path) -> None:
    """As the units have it: root in the service's group leaves files that the service's user takes to the inbox."""
    number, tmp_path = 64_321, open_folder
    counter = tmp_path / "energy_uj"
    counter.write_text("17\n")
    counter.chmod(0o400)
    state, inbox = tmp_path / "state", tmp_path / "inbox"
    for folder, owner, mode in ((state, 0, 0o750), (inbox, number, 0o750)):
        folder.mkdir()
        os.chown(folder, owner, number)
        folder.chmod(mode)
    agent = f"""
import os
from pathlib import Path
state = Path({str(state)!r})
os.umask(0o027)
(state / "outbox").mkdir()
(state / "outbox").chmod(0o770)
(state / "part").write_text(Path({str(counter)!r}).read_text())
(state / "part").rename(state / "outbox" / "n1.2026-11-24T12.1.jsonl")
try:
    Path({str(inbox / "x")!r}).write_text("root has its rights")
except PermissionError:
    print("no rights beyond its own")
"""
    bare = [
        "setpriv",
        "--regid",
        str(number),
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--no-new-privs",
    ]
    done = subprocess.run([*bare, sys.executable, "-c", agent], capture_output=True, text=True, check=True)
    assert done.stdout == "no rights beyond its own\n"
    # The user may not reach this interpreter's own files; a fork of this process has them already.
    child = os.fork()
    if not child:
        code = 9
        try:
            os.setgroups([])
            os.setgid(number)
            os.setuid(number)
            done_ = ship_once(state / "outbox", inbox, cluster="alpha", node="n1")
            code = 0 if done_ == Shipped(1, 3, 0) else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (inbox / "alpha" / "n1" / "n1.2026-11-24T12.1.jsonl").read_text() == "17\n"
    assert list((state / "outbox").iterdir()) == []
