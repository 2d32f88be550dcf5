"""The agent's socket: whoever comes, and however badly they behave, the agent goes on looking."""

from __future__ import annotations

import json
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from agent_harness import Node, hook_bytes
from sim.sysfs import SimNode

from slurm_energy.agent.client import AgentError, read_snapshot
from slurm_energy.agent.server import MAX_CLIENTS, Server
from slurm_energy.agent.snapshot import Snapshot, take

SENERGY = Path(sys.executable).with_name("senergy")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "run" / "agent.sock")
    yield made
    made.close()


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(10)
    client.connect(str(path))
    return client


def read_all(client: socket.socket) -> bytes:
    parts = []
    while data := client.recv(1 << 16):
        parts.append(data)
    client.close()
    return b"".join(parts)


# The server alone


def test_a_client_gets_the_answer_and_the_end(server: Server) -> None:
    client = connect(server.path)
    assert server.accept(b"answer") == []
    assert read_all(client) == b"answer"
    assert server.waiting == {}


def test_a_long_answer_comes_in_pieces_and_whole(server: Server) -> None:
    answer = random.Random(1).randbytes(3 << 20)
    client = connect(server.path)
    (slow,) = server.accept(answer)
    got = b""
    while True:
        data = client.recv(1 << 16)
        if not data:
            break
        got += data
        server.go_on(slow)
    assert got == answer
    assert server.waiting == {}


def test_clients_that_never_read_are_bounded_and_dropped_in_time(server: Server, monkeypatch) -> None:
    clients = []
    for _ in range(3 * MAX_CLIENTS):
        clients.append(connect(server.path))
        server.accept(b"x" * (1 << 20))
        assert len(server.waiting) <= MAX_CLIENTS
    now = time.monotonic()
    monkeypatch.setattr("slurm_energy.agent.server.time.monotonic", lambda: now + 60)
    assert len(server.expire()) == MAX_CLIENTS
    assert server.waiting == {}
    for client in clients:
        client.close()


def test_a_client_that_is_gone_in_the_middle_of_its_answer_is_let_go(server: Server) -> None:
    client = connect(server.path)
    (slow,) = server.accept(b"x" * (1 << 20))
    client.close()
    assert server.go_on(slow) is False
    assert server.go_on(slow) is False
    assert server.waiting == {}


def test_the_socket_is_for_owner_and_group_and_an_old_one_is_replaced(tmp_path: Path) -> None:
    first = Server(tmp_path / "agent.sock")
    second = Server(tmp_path / "agent.sock")
    assert (tmp_path / "agent.sock").stat().st_mode & 0o777 == 0o660
    first.socket.close()
    second.close()
    assert not (tmp_path / "agent.sock").exists()


# The snapshot


def test_a_snapshot_shows_counters_jobs_and_what_is_wrong(tmp_path: Path) -> None:
    node = Node(tmp_path, 2)
    node.hook("prolog", 7, SLURM_JOB_OVERSUBSCRIBE="NO")
    node.drop("bad", hook_bytes("lunch", 7))
    node.advance(10, 100)
    shown: Snapshot = take(node.agent)
    (job,) = shown.jobs
    assert (job.job_id, job.user, job.watts["package"], job.joules["package"]) == (7, "emma", 100.0, 1000.0)
    assert (shown.idle.joules["package"], shown.bad_hook_files) == (0.0, 1)
    assert (shown.counters[0].watts, shown.counters[0].joules) == (100.0, 1000.0)
    assert any("set aside" in problem for problem in shown.problems)
    assert shown.wall_ns == node.wall


def test_a_counter_in_a_gap_shows_no_watts_but_why(tmp_path: Path) -> None:
    node = Node(tmp_path, 2)
    node.advance(5, 100)
    node.counters[0].broken = "permission denied"
    node.advance(1, 100)
    (counter,) = take(node.agent).counters
    assert (counter.watts, counter.problem, counter.gaps) == (None, "permission denied", 1)


@pytest.mark.parametrize("answer", [b"", b"{}", b"\xff" * 100, b'{"version": 1}'])
def test_rubbish_from_a_socket_is_an_error_that_says_so(server: Server, answer: bytes) -> None:
    import threading

    thread = threading.Thread(target=lambda: (server.socket.setblocking(True), server.accept(answer)), daemon=True)
    thread.start()
    with pytest.raises(AgentError, match="snapshot"):
        read_snapshot(server.path)


# A whole agent


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A process of `senergy agent` that looks 100 times a second; its socket and process id."""
    sim = SimNode(tmp_path / "sys", packages=1)
    (tmp_path / "clock").write_bytes(struct.pack("<qq", 10**9, 1_795_521_600 * 10**9))
    (tmp_path / "config.toml").write_text(
        f'[agent]\nnode = "n1"\ncluster = "alpha"\ngroup = ""\nperiod_s = 0.01\noutbox = "{tmp_path / "outbox"}"\n'
        '[agent.sources]\noff = ["nvml", "amdgpu", "hwmon", "cray", "ipmi", "model"]\n'
    )
    path = tmp_path / "agent.sock"
    process = subprocess.Popen(
        [str(SENERGY), "agent", "--config", str(tmp_path / "config.toml"), "--clock", str(tmp_path / "clock"),
         "--sysfs-root", str(tmp_path / "sys"), "--cgroup-root", str(tmp_path / "cgroup"), "--hooks", str(tmp_path / "hooks"),
         "--state-dir", str(tmp_path / "state"), "--socket", str(path)], stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                read_snapshot(path)
                break
            except AgentError:
                assert process.poll() is None, process.communicate()[1].decode()
                time.sleep(0.01)
        yield path, process.pid
        assert process.poll() is None, "the agent did not live through it"
    finally:
        process.terminate()
        process.communicate(timeout=20)
        sim.close()


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def look(path: Path) -> Snapshot:
    """A snapshot, for which a full queue at the door is no reason to give up."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(path))
    client.settimeout(20)
    return msgspec.json.decode(read_all(client), type=Snapshot)


def ticks(path: Path) -> int:
    return look(path).ticks


def until_ticks(path: Path, more: int) -> None:
    """Waits until the agent has looked so often again."""
    begin, deadline = ticks(path), time.monotonic() + 20
    while ticks(path) < begin + more:
        assert time.monotonic() < deadline, "the agent no longer looks"
        time.sleep(0.01)


def settled(path: Path, pid: int, most: int) -> None:
    deadline = time.monotonic() + 20
    while descriptors(pid) > most:
        assert time.monotonic() < deadline, f"{descriptors(pid)} descriptors, expected {most}"
        time.sleep(0.02)
        ticks(path)


def test_clients_of_every_bad_kind_leave_no_descriptor_and_ticks_go_on(agent: tuple[Path, int]) -> None:
    path, pid = agent
    before = descriptors(pid)
    chance = random.Random(20_261_124)
    for _ in range(300):
        client = connect(path)
        kind = chance.randrange(5)
        try:
            if kind == 0:
                client.send(chance.randbytes(chance.randrange(1, 60_000)))
            elif kind == 1:
                client.recv(chance.randrange(1, 200))
            elif kind == 2:
                client.shutdown(socket.SHUT_WR)
            elif kind == 3:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                client.send(b"GET / HTTP/1.1\r\n\r\n")
                assert json.loads(read_all(client))
        except (BrokenPipeError, ConnectionResetError):
            pass
        client.close()
    until_ticks(path, 5)
    settled(path, pid, before + 1)


def test_two_hundred_at_once_that_never_read_are_bounded_and_the_next_is_served(agent: tuple[Path, int]) -> None:
    path, pid = agent
    for number in range(400):  # jobs, so that an answer does not fit into a socket's buffer
        hidden = path.parent / "hooks" / f".{number}"
        hidden.write_bytes(hook_bytes("prolog", 1000 + number, SLURM_JOB_ACCOUNT="x" * 250))
        hidden.rename(path.parent / "hooks" / str(number))
    deadline = time.monotonic() + 20
    while len(look(path).jobs) < 400:
        assert time.monotonic() < deadline
    before = descriptors(pid)
    clients = []
    for _ in range(200):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(str(path))  # blocks while the queue at the door is full
        clients.append(client)
    until_ticks(path, 20)
    assert descriptors(pid) <= before + MAX_CLIENTS + 2
    assert len(look(path).jobs) == 400
    for client in clients[::2]:
        client.close()
    until_ticks(path, 5)
    assert len(look(path).jobs) == 400
    for client in clients:
        client.close()
    settled(path, pid, before + 1)
