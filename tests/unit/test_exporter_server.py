"""The exporters' HTTP server among clients that are many, slow, rude or wrong: bounded, and scrapes go on."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import signal
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

import pytest
from common.waiting import until
from exporter_harness import Exporter, deaf, many_jobs, running, unsent
from slurm_energy_exporters.connections import MOST_ANSWERS, peer_of
from slurm_energy_exporters.http_message import Refused, Request, Response, parse
from slurm_energy_exporters.server import Limits, Server
from slurm_energy_exporters.web import address_of
from slurm_energy_exporters.web_access import Access
from slurm_energy_exporters.web_config import WebConfigError

THREADS = 3
"""The one of the connections, and one each for scrapes and passwords."""
MOST_KB = 48 * 1024
"""With all its connections taken; the unit may have twice as much."""
MOST_UNSENT = 128 * 1024
"""Bytes for one client."""
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def exporter() -> Iterator[Exporter]:
    with running(snapshot=many_jobs(128)) as (one, _):
        yield one


def connect(exporter: Exporter) -> socket.socket:
    return socket.create_connection(("127.0.0.1", exporter.port), timeout=10)


def bounded(exporter: Exporter) -> bool:
    return exporter.status("Threads") <= THREADS and exporter.status("VmHWM") < MOST_KB


def scrape_s(exporter: Exporter) -> float:
    begin = time.monotonic()
    answer = exporter.get()
    assert answer.status == 200
    assert b"slurm_energy_job_power_watts" in answer.body
    return time.monotonic() - begin


def test_200_scrapes_at_once_all_succeed_and_ask_the_agent_a_few_times() -> None:
    with running(snapshot=many_jobs(128)) as (exporter, stub):
        gate = threading.Barrier(200)

        def one(number: int) -> tuple[int, int]:
            gate.wait()
            answer = exporter.get(Accept_Encoding="gzip") if number % 2 else exporter.get()
            return answer.status, len(answer.body)

        with ThreadPoolExecutor(200) as pool:
            found = list(pool.map(one, range(200)))
        assert {status for status, _ in found} == {200}
        assert len({size for _, size in found}) == 2, "one plain and one packed text"
        assert stub.asked < 50
        assert bounded(exporter)


def test_clients_that_never_finish_their_request_cost_no_scrape(exporter: Exporter) -> None:
    clients = [connect(exporter) for _ in range(300)]
    try:
        for number, client in enumerate(clients):
            client.sendall(GET[: number % (len(GET) - 1)])
        begin = time.monotonic()
        slowest = 0.0
        while time.monotonic() - begin < 3:
            for client in clients[:50]:  # some dribble
                with contextlib.suppress(OSError):
                    client.send(b"x")
            slowest = max(slowest, scrape_s(exporter))
            time.sleep(0.2)
        assert slowest < 1
        assert bounded(exporter)
        until("them to be dropped, those that dribble too", lambda: exporter.files() < 60, 15)
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize(("count", "source"), [(200, "127.0.0.1"), (400, "127.0.0.1"), (400, "127.0.0.2")])
def test_clients_that_never_read_cost_no_scrape(exporter: Exporter, count: int, source: str) -> None:
    """Fewer and more than it has connections (256), of the scraper's own address and of another."""
    with deaf(exporter.port, count, GET * 100, source):
        until("answers to pile up", lambda: sum(size > 0 for size in unsent(exporter.port)) >= min(count, 200), 10)
        assert max(scrape_s(exporter) for _ in range(30)) < 1
        assert bounded(exporter), exporter.status("VmHWM")
        until("the surplus to be closed", lambda: exporter.files() < 300, 2)
        assert max(unsent(exporter.port)) < MOST_UNSENT, "nor does the kernel hold much"
    assert "Traceback" not in exporter.log


def test_more_connections_than_it_keeps(exporter: Exporter) -> None:
    clients: list[socket.socket] = []
    try:
        for _ in range(800):
            clients.append(connect(exporter))
            if len(clients) % 200 == 0:
                assert scrape_s(exporter) < 1
        until("the surplus to be closed", lambda: exporter.files() < 300, 2)
        assert bounded(exporter)
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
        (b"a" * (20 << 20), 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n", 400),
        (b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
)
def test_a_request_that_is_too_big_or_wrong_is_refused(exporter: Exporter, data: bytes, status: int) -> None:
    answer = exporter.raw(data)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()) or (len(data) > 1 << 20 and answer == b"")
    assert scrape_s(exporter) < 1
    assert bounded(exporter)


def test_a_connection_is_kept_for_more_than_one_request(exporter: Exporter) -> None:
    client = http.client.HTTPConnection("127.0.0.1", exporter.port, timeout=10)
    for _ in range(3):
        client.request("GET", "/metrics")
        response = client.getresponse()
        assert response.read()
        assert response.headers["Connection"] == "keep-alive"
    client.request("GET", "/", headers={"Connection": "close"})
    assert client.getresponse().headers["Connection"] == "close"
    client.close()
    assert exporter.raw(b"GET /-/healthy HTTP/1.0\r\n\r\n").endswith(b"Healthy.\n")
    last = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert exporter.raw(GET + GET + last).count(b"HTTP/1.1 200 OK") == 3, "one after the other, sent at once"


def test_a_client_that_goes_away_takes_no_other_answer_along(exporter: Exporter) -> None:
    for _ in range(50):
        with connect(exporter) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
            client.sendall(GET)
    assert scrape_s(exporter) < 1
    assert "Traceback" not in exporter.log


def test_it_ends_with_clients_connected() -> None:
    with running("--web.max-requests=1") as (exporter, stub):
        idle, half = connect(exporter), connect(exporter)
        half.sendall(b"GET")
        stub.answer = None
        waiting = connect(exporter)
        waiting.sendall(GET)
        until("the exporter to ask the agent", lambda: stub.asked, 10)
        begin = time.monotonic()
        exporter.process.send_signal(signal.SIGTERM)
        assert exporter.process.wait(10) == 0
        assert time.monotonic() - begin < 5
        assert waiting.recv(100).startswith(b"HTTP/1.1 200"), "who is being answered is answered"
        for client in (idle, half, waiting):
            client.close()
        assert "Traceback" not in exporter.log


@contextlib.contextmanager
def small(application, limits: Limits) -> Iterator[tuple[str, int]]:
    """A server in this process; its address."""
    door = socket.create_server(("127.0.0.1", 0), backlog=64)
    ready: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        ready.append((asyncio.get_running_loop(), stop))
        await Server(application, Access(None), limits).serve([door], stop)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield door.getsockname()
    finally:
        loop, stop = ready[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        door.close()
        assert not thread.is_alive()


async def big(request: Request) -> Response:
    if request.path == "/broken":
        raise RuntimeError("an accident")
    return Response(HTTPStatus.OK, b"x" * (30 << 20 if request.path == "/big" else 2))


def ends_after(client: socket.socket) -> float:
    begin = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while client.recv(1 << 16):
            pass
    return time.monotonic() - begin


def test_times() -> None:
    with small(big, Limits(head_s=0.4, idle_s=0.8, send_s=0.6)) as where:
        silent = socket.create_connection(where, timeout=5)
        assert ends_after(silent) > 0.2
        kept = socket.create_connection(where, timeout=5)
        kept.sendall(GET)
        assert ends_after(kept) > 0.6, "between requests it may be idle longer"
        deaf = socket.create_connection(where, timeout=5)
        deaf.sendall(GET.replace(b"/metrics", b"/big"))
        until("it to be dropped", lambda: not unsent(where[1]), 15)
        size = 0
        with contextlib.suppress(ConnectionError):
            while part := deaf.recv(1 << 20):
                size += len(part)
        assert size < 20 << 20, "who does not read is dropped in the middle"


def answers(client: socket.socket, size: int, count: int, *, at_once: bool) -> int:
    """How many answers of a size this client got that reads slowly, but does read."""
    request = GET.replace(b"/metrics", b"/middle")
    client.sendall(request * count if at_once else request)
    found = got = 0
    with contextlib.suppress(ConnectionError):
        while found < count and (part := client.recv(1 << 14)):
            got += len(part)
            time.sleep(0.01)
            if got >= size:
                found, got = found + 1, got - size
                if not at_once and found < count:
                    client.sendall(request)
    return found


def test_requests_that_are_sent_at_once_have_one_time_for_all_their_answers() -> None:
    async def middle(request: Request) -> Response:
        return Response(HTTPStatus.OK, b"x" * (1 << 18))

    with small(middle, Limits(send_s=0.5)) as where:
        size = (1 << 18) + 100
        with (
            socket.create_connection(where, timeout=5) as patient,
            socket.create_connection(where, timeout=5) as greedy,
        ):
            assert answers(patient, size, 8, at_once=False) == 8, (
                "who waits for an answer has the time for the next anew"
            )
            assert answers(greedy, size, 30, at_once=True) < 30


def test_the_parts_of_a_big_answer_do_not_wait_for_each_other() -> None:
    async def middle(request: Request) -> Response:
        return Response(HTTPStatus.OK, b"x" * 300_000)

    with small(middle, Limits()) as where:
        client, times = http.client.HTTPConnection(*where, timeout=10), []
        for _ in range(11):
            begin = time.monotonic()
            client.request("GET", "/")
            assert len(client.getresponse().read()) == 300_000
            times.append(time.monotonic() - begin)
        client.close()
        assert statistics.median(times) < 0.03, "an acknowledgement that is put off takes 0.04"


class Text(bytes):
    """An answer that says when it is gone."""

    there = 0

    def __new__(cls, size: int) -> Text:
        cls.there += 1
        return super().__new__(cls, size)

    def __del__(self) -> None:
        Text.there -= 1


def test_few_answers_are_held_for_clients_that_do_not_read_and_none_for_those_that_did() -> None:
    async def text(request: Request) -> Response:
        return Response(HTTPStatus.OK, Text(1 << 20))

    with small(text, Limits()) as where, contextlib.ExitStack() as stack:
        kept = [stack.enter_context(socket.create_connection(where, timeout=5)) for _ in range(20)]
        for client in kept:
            client.sendall(GET)
            size = 0
            while size < 1 << 20:
                size += len(client.recv(1 << 16))
        until("the answers to be gone", lambda: Text.there == 0, 10)
        silent = [stack.enter_context(socket.create_connection(where, timeout=5)) for _ in range(40)]
        for client in silent:
            client.sendall(GET)
            assert client.recv(1), "it is being sent"
        assert Text.there <= MOST_ANSWERS + 1
        for client in silent[:20]:
            assert ends_after(client) < 1, "those that were given up"


def test_turns_and_accidents() -> None:
    begun, over = threading.Event(), threading.Event()

    async def slow_or_big(request: Request) -> Response:
        if request.path == "/slow":
            begun.set()
            while not over.is_set():
                await asyncio.sleep(0.01)
        return await big(request)

    with small(slow_or_big, Limits(requests=1, turn_s=0.3)) as where:

        def ask(path: bytes) -> bytes:
            with socket.create_connection(where, timeout=5) as client:
                client.sendall(GET.replace(b"/metrics", path))
                return client.recv(1 << 12)[:12]

        assert ask(b"/broken") == b"HTTP/1.1 500"
        with ThreadPoolExecutor(2) as pool:
            slow = pool.submit(ask, b"/slow")
            assert begun.wait(5)
            assert ask(b"/") == b"HTTP/1.1 503", "its turn did not come in time"
            over.set()
            assert slow.result() == b"HTTP/1.1 200"
        assert ask(b"/") == b"HTTP/1.1 200"


def test_the_one_that_waits_longest_makes_room() -> None:
    with small(big, Limits(connections=3, head_s=5)) as where:
        clients = [socket.create_connection(where, timeout=5) for _ in range(3)]
        clients[0].sendall(GET)
        assert clients[0].recv(4096)  # it did something just now: the second is the oldest
        late = socket.create_connection(where, timeout=5)
        assert ends_after(clients[1]) < 1
        for client in (clients[0], clients[2], late):
            client.sendall(GET)
            assert client.recv(4096).startswith(b"HTTP/1.1 200")


def test_an_address_with_many_connections_pushes_out_none_but_its_own() -> None:
    with small(big, Limits(connections=20)) as where, contextlib.ExitStack() as stack:
        for source in ("127.0.0.1", "127.0.0.3"):
            first = stack.enter_context(socket.create_connection(where, timeout=5, source_address=(source, 0)))
            many = [
                stack.enter_context(socket.create_connection(where, timeout=5, source_address=("127.0.0.2", 0)))
                for _ in range(60)
            ]
            for client in many[:30]:
                assert ends_after(client) < 1
            for client in (first, many[-1]):
                client.sendall(GET)
                assert client.recv(4096).startswith(b"HTTP/1.1 200")


def test_whose_a_connection_is() -> None:
    assert peer_of(("10.0.0.1", 5)) == peer_of(("::ffff:10.0.0.1", 7, 0, 0)) == "10.0.0.1"
    assert (
        peer_of(("2001:db8::1", 5, 0, 0))
        == peer_of(("2001:db8::2:3", 5, 0, 0))
        != peer_of(("2001:db8:0:1::1", 5, 0, 0))
    )
    assert peer_of(("fe80::1%lo", 5, 0, 1))
    assert peer_of(()) == ""


def test_the_ledger_exporter_among_the_same_clients(tmp_path: Path) -> None:
    from helpers import DAY, NOON, aggregate_file, row, save

    jobs = [
        row(JobID=str(n), User=f"user{n % 40}", Account=f"account{n % 60}", Start=NOON - n % 5 * DAY)
        for n in range(1, 301)
    ]
    aggregate_file(save(tmp_path / "jobs.txt", jobs), tmp_path / "ledger")
    (tmp_path / "config.toml").write_text("")
    arguments = ("--ledger", str(tmp_path / "ledger"), "--config", str(tmp_path / "config.toml"))
    exporter = Exporter("ledger", *arguments, stderr=tmp_path / "log")
    try:
        body = exporter.get().body
        assert b'project="account59"' in body
        threads, peak_kb = exporter.status("Threads"), exporter.status("VmHWM")
        gate = threading.Barrier(200)

        def one(_: int) -> bool:
            gate.wait()
            answer = exporter.get()
            return answer.status == 200 and answer.body == body

        slow = [connect(exporter) for _ in range(100)]
        for client in slow:
            client.sendall(GET[:20])
        with deaf(exporter.port, 100, GET * 20), ThreadPoolExecutor(200) as pool:
            found = list(pool.map(one, range(200)))
            assert exporter.raw(b"GET /" + b"a" * 30_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 431 ")
        assert all(found), found.count(False)
        assert exporter.status("Threads") <= threads + 1, "that of passwords may come"
        assert exporter.status("VmHWM") < peak_kb + MOST_KB
        for client in slow:
            client.close()
        assert "Traceback" not in exporter.log
    finally:
        assert exporter.stop() == 0


@pytest.mark.parametrize("text", ["", "9854", "host", "host:", ":x", ":70000", "[::1]"])
def test_an_address_that_is_none(text: str) -> None:
    with pytest.raises(WebConfigError, match="expected host:port"):
        address_of(text)


def test_addresses() -> None:
    assert [address_of(text) for text in (":9854", "h:1", "[::1]:2")] == [("", 9854), ("h", 1), ("::1", 2)]


def test_a_request_by_its_parts() -> None:
    request = parse(b"HEAD http://h:1/metrics?x=1 HTTP/1.0\r\nA: b\r\na:  c \r\nConnection: Keep-Alive\r\n\r\n")
    assert request == Request("HEAD", "/metrics", {"a": "b,c", "connection": "Keep-Alive"}, True)
    with pytest.raises(Refused):
        parse(b"\r\n\r\n")


def test_a_port_that_is_taken_ends_it_with_1(
    exporter: Exporter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from slurm_energy_exporters.node import main

    assert main([f"--listen=127.0.0.1:{exporter.port}", "--socket", str(tmp_path / "none")]) == 1
    assert "cannot listen on 127.0.0.1" in caplog.text
    assert main(["--web.listen-address", "nonsense"]) == 2
    assert main(["--web.max-requests=-1"]) == 2
