"""`senergy web`'s answers: the report's numbers, to whom they are given, and what a client cannot do to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from common.waiting import until
from helpers import DAY, NOON, aggregate_file, row, save
from typer.testing import CliRunner

from slurm_energy.agent.server import Server
from slurm_energy.agent.snapshot import CounterView, JobView, Snapshot
from slurm_energy.ledger.store import Ledger
from slurm_energy.report.groups import group_report
from slurm_energy.report.selection import Selection, open_rows
from slurm_energy.slurm.zone import zone
from slurm_energy.web import history as history_module
from slurm_energy.web import server as server_module
from slurm_energy.web.app import App
from slurm_energy.web.history import History
from slurm_energy.web.live import Live
from slurm_energy.web.server import BoundedServer

STATIC = Path(server_module.__file__).parent / "static"
HOSTILE = '</script><img src=x onerror="alert(1)">\x1b[2J'
TOKEN = "a-token-of-the-test"
DOMAINS = ("package", "dram", "gpu", "other")


def job(job_id: int, watts: float, **facts: Any) -> JobView:
    usual = {
        "job_id": job_id, "restart_count": 0, "sluid": None, "session_start": int(time.time()) - 60, "user": "emma",
        "uid": 1000, "account": "lisa", "partition": "gpu", "origin": "hook", "cpus": 4, "gpus": ["GPU-1"],
        "cpu_seconds": 9.5, "watts": dict(zip(DOMAINS, (watts, 1.0, 2.0, 0.0), strict=True)),
        "joules": dict.fromkeys(DOMAINS, 0.9e6),
    }  # fmt: skip
    return JobView(**{**usual, **facts})


def snapshot(*jobs: JobView, age_s: float = 0.0, **facts: Any) -> Snapshot:
    now = time.time_ns() - round(age_s * 1e9)
    usual: dict[str, Any] = {
        "version": "1", "cluster": "alpha", "node": "n1", "boot_id": "b", "wall_ns": now, "hour": "2026-11-24T12",
        "started_ns": now, "ticks": 9, "period_s": 1.0, "refused": [], "outbox_fill": 0.0, "pending_segments": 0,
        "bad_hook_files": 0, "set_aside": 0, "clock_jumps": 0, "problems": [],
        "counters": [CounterView("rapl:package-0", "package", "", "", False, 80.0, 1.0, 0, "")],
    }  # fmt: skip
    return Snapshot(jobs=list(jobs), idle=job(0, 7.0), **{**usual, **facts})


@contextlib.contextmanager
def agent(path: Path, shown: Snapshot) -> Iterator[list[int]]:
    """The agent's own server with this snapshot; gives the number of those who asked."""
    server, stop, asked = Server(path), threading.Event(), [0]

    def serve() -> None:
        while not stop.wait(0.01):
            with contextlib.suppress(OSError):
                client, _ = server.socket.accept()
                asked[0] += 1
                client.setblocking(True)
                client.sendall(msgspec.json.encode(shown))
                client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        thread.join()
        server.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web")
    jobs = [
        row(JobID=str(n), Account=("lisa", "nlp", HOSTILE.replace("\x1b", ""))[n % 3], Start=NOON - n * 9 * DAY, ElapsedRaw=n * 900)
        for n in range(1, 13)
    ]  # fmt: skip
    aggregate_file(save(folder / "jobs.txt", jobs), folder / "ledger")
    return folder / "ledger"


@pytest.fixture
def ledger(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "ledger"))


@contextlib.contextmanager
def serving(app: Any, hosts: tuple[str, ...] = ()) -> Iterator[int]:
    """The port on which it answers."""
    with BoundedServer(("127.0.0.1", 0), app, hosts) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def ask(
    port: int, path: str, method: str = "GET", token: str = TOKEN, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def page(ledger: Path, *sockets: Path, token: str = TOKEN) -> App:
    return App(Live(sockets), History(Ledger(ledger), zone("UTC")), token)


# What it says.


def test_live_watts_are_the_agents(tmp_path: Path, ledger: Path) -> None:
    shown = snapshot(job(41, 30.0), job(42, 50.0, origin="discovered", user=HOSTILE))
    with agent(tmp_path / "a.sock", shown), serving(page(ledger, tmp_path / "a.sock")) as port:
        answer, body = ask(port, "/api/live")
    assert answer.headers["Content-Type"] == "application/json"
    (node,) = (found := json.loads(body))["nodes"]
    assert found["errors"] == []
    assert (node["node"], node["watts"], node["idle_watts"]) == ("n1", 30 + 50 + 7 + 9, 10)
    assert node["domains"] == {"package": 87, "dram": 3, "gpu": 6, "other": 0}
    assert [(one["id"], one["watts"], one["kwh"], one["discovered"]) for one in node["jobs"]] == [
        ("42", 53, 1.0, True), ("41", 33, 1.0, False),
    ]  # fmt: skip
    assert node["jobs"][0]["user"] == HOSTILE


def test_many_pages_ask_the_agent_once(tmp_path: Path, ledger: Path) -> None:
    with agent(tmp_path / "a.sock", snapshot()) as asked, serving(page(ledger, tmp_path / "a.sock")) as port:
        threads = [threading.Thread(target=ask, args=(port, "/api/live")) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert asked[0] <= 2


def test_no_agent_is_said_and_others_are_shown(tmp_path: Path, ledger: Path) -> None:
    with agent(tmp_path / "a.sock", snapshot()):
        found = Live([tmp_path / "a.sock", tmp_path / "none.sock"]).read()
    assert len(found["nodes"]) == 1
    assert len(found["errors"]) == 1
    assert "no agent here" in found["errors"][0]


@pytest.mark.parametrize(
    ("age_s", "period_s", "said"),
    [
        (12, 1, "has not looked at its counters for 12 s"), (29, 1, "has not looked at its counters for 29 s"),
        (40, 10, "has not looked at its counters for 40 s"), (-3600, 1, "3,600 s ahead of this clock"),
    ],
)  # fmt: skip
def test_a_stuck_agent_gives_no_watts_and_says_what_to_do(
    tmp_path: Path, age_s: float, period_s: float, said: str
) -> None:
    stuck = snapshot(job(41, 30.0), age_s=age_s, period_s=period_s, problems=["disk full"])
    with agent(tmp_path / "a.sock", stuck):
        (node,) = Live([tmp_path / "a.sock"]).read()["nodes"]
    assert (node["node"], node["live"], node["watts"], node["idle_watts"]) == ("n1", False, None, None)
    assert (node["domains"], node["jobs"]) == ({}, [])
    assert said in node["problems"][0]
    assert "systemctl restart slurm-energy-agent" in node["problems"][0]
    assert node["problems"][1:] == ["disk full"]


@pytest.mark.parametrize("period_s", [0.5, 1.0, 10.0])
@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("beyond_s", [-0.5, 0.5])
def test_the_page_and_the_node_exporter_call_the_same_agents_stuck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, period_s: float, side: int, beyond_s: float
) -> None:
    collectors = pytest.importorskip("slurm_energy_exporters.node_collector")
    now = time.time()
    shown = snapshot(period_s=period_s, wall_ns=round((now + side * (3 * period_s + 5 + beyond_s)) * 1e9))
    monkeypatch.setattr("slurm_energy.web.live.time.time", lambda: now)
    with agent(tmp_path / "a.sock", shown):
        (node,) = Live([tmp_path / "a.sock"]).read()["nodes"]
        families = collectors.NodeCollector(tmp_path / "a.sock", lambda: now).collect()
    (up,) = (one.value for family in families for one in family.samples if one.name == "slurm_energy_agent_up")
    assert node["live"] is bool(up) is (beyond_s < 0)


def test_months_and_projects_are_the_reports(ledger: Path) -> None:
    months = group_report(open_rows(Ledger(ledger), Selection(), None), ["month"])
    window = Selection(start=date(2026, 10, 1), end=date(2026, 11, 1))
    october = group_report(open_rows(Ledger(ledger), window, None, ["project"]), ["project"])
    every = group_report(open_rows(Ledger(ledger), Selection(), None, ["project"]), ["project"])
    with serving(page(ledger)) as port:
        assert json.loads(ask(port, "/api/months")[1])["rows"] == json.loads(json.dumps(months))
        found = json.loads(ask(port, "/api/projects?month=2026-10")[1])
        assert found["rows"] == json.loads(json.dumps(october))
        assert found["total"]["it_kwh"] == pytest.approx(sum(one["it_kwh"] for one in october))
        assert json.loads(ask(port, "/api/projects?month=all")[1])["rows"] == json.loads(json.dumps(every))
        last = json.loads(ask(port, "/api/projects")[1])
    assert (last["month"], last["last_day"]) == ("2026-11", "2026-11-15")
    assert last["months"] == [one["month"] for one in reversed(months)]


def test_too_many_projects_are_folded_and_add_up(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "MAX_PROJECTS", 1)
    found = History(Ledger(ledger), zone("UTC")).projects("all")
    assert (len(found["rows"]), found["folded"]) == (1, 2)
    for name in ("jobs", "facility_kwh", "co2e_kg", "electricity_usd"):
        assert found["rows"][0][name] + found["other"][name] == pytest.approx(found["total"][name])
    assert sum(found["total"]["provenance"].values()) == pytest.approx(1)


@pytest.mark.parametrize("month", ["2026-13", "1999-01", "../x", "' OR 1=1", "2026-11-24", "\0"])
def test_a_month_that_is_none_is_said_and_not_kept(ledger: Path, month: str) -> None:
    history = History(Ledger(ledger), zone("UTC"))
    assert history.projects(month)["error"] == "the ledger has no such month"
    assert not history._kept


def test_the_ledger_is_read_once_per_change(ledger: Path) -> None:
    history = History(Ledger(ledger), zone("UTC"))
    for _ in range(3):
        history.months()
        history.projects()
    assert history.readings == 2
    Ledger(ledger).days()[0].path.unlink()
    history.projects()
    assert history.readings == 3


@pytest.mark.parametrize("make", [lambda _: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_no_ledger_is_said(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "none")
    with serving(page(tmp_path / "none")) as port:
        for path in ("/api/months", "/api/projects", "/api/projects?month=all"):
            answer, body = ask(port, path)
            assert (answer.status, json.loads(body)["rows"]) == (200, [])
            assert "no days to report on" in json.loads(body)["error"]


def test_a_node_without_the_ledgers_libraries_says_so(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("slurm_energy.report.selection", "slurm_energy.report.groups", "slurm_energy.report.totals"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert "slurm-energy[admin]" in History(Ledger(ledger), zone("UTC")).months()["error"]


def test_a_damaged_day_is_said(ledger: Path) -> None:
    file = Ledger(ledger).days()[-1].path
    file.write_bytes(b"PAR1")
    with serving(page(ledger)) as port:
        assert f"{file} is damaged" in json.loads(ask(port, "/api/months")[1])["error"]


# To whom.


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", "\xff"])
def test_without_the_token_there_are_no_data(ledger: Path, token: str) -> None:
    with serving(page(ledger)) as port:
        for path in ("/api/live", "/api/months", "/api/projects", "/api/none"):
            answer, body = ask(port, path, token=token)
            assert answer.status == 401
            assert set(json.loads(body)) == {"error"}
        assert ask(port, "/", token="")[0].status == 200


def test_the_files_hold_no_data_and_nothing_from_elsewhere(ledger: Path) -> None:
    with serving(page(ledger)) as port:
        paths = ["/", *(f"/{file.name}" for file in STATIC.iterdir() if file.name != "index.html")]
        assert "/app.js" in paths
        for path in paths:
            answer, body = ask(port, path, token="")
            assert answer.status == 200
            name = path.strip("/") or "index.html"
            assert body == (STATIC / name).read_bytes()
            assert TOKEN.encode() not in body
            addresses = re.findall(rb"https?://[^\"'\s)]+", body)
            assert set(addresses) <= {b"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8085", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::1", "a b"]
)
def test_a_name_that_somebody_bound_to_our_address_gets_nothing(ledger: Path, host: str) -> None:
    with serving(page(ledger), ("login1.site.example",)) as port:
        for path in ("/", "/api/live"):
            assert ask(port, path, Host=host)[0].status == 421


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8085", "localhost", "LOCALHOST:1", "[::1]:8085", "10.1.2.3", "login1.site.example:80"]
)
def test_addresses_localhost_and_allowed_names_are_served(ledger: Path, host: str) -> None:
    with serving(page(ledger), ("login1.site.example",)) as port:
        assert ask(port, "/", Host=host)[0].status == 200


def test_every_answer_has_the_strict_headers(ledger: Path) -> None:
    with serving(page(ledger)) as port:
        answers = [
            ask(port, "/"), ask(port, "/api/months"), ask(port, "/none"), ask(port, "/api/live", token=""),
            ask(port, "/", Host="evil.example"), ask(port, "/", "POST"), ask(port, "/", "BREW"),
        ]  # fmt: skip
    assert [answer.status for answer, _ in answers] == [200, 200, 404, 401, 421, 405, 405]
    for answer, _ in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Python" not in answer.headers["Server"]
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_page_has_no_script_or_style_inline_and_makes_no_markup_of_text() -> None:
    text = (STATIC / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:", text)
    scripts = list(STATIC.glob("*.js"))
    assert scripts
    for script in scripts:
        code = script.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", code)


@pytest.mark.parametrize(
    "path", ["/../app.py", "/static/app.js", "//etc/passwd", "/%2e%2e/app.py", "/app.js/", "/x" * 900]
)
def test_only_the_files_of_the_page_are_served(ledger: Path, path: str) -> None:
    with serving(page(ledger)) as port:
        assert ask(port, path)[0].status in (404, 421)


def test_head_has_no_body(ledger: Path) -> None:
    with serving(page(ledger)) as port:
        answer, body = ask(port, "/", "HEAD")
        assert (answer.status, body) == (200, b"")
        assert int(answer.headers["Content-Length"]) == (STATIC / "index.html").stat().st_size


# Bounds.


def test_more_clients_than_places_are_turned_away_and_threads_stay_few(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "WHOLE_S", 1.0)
    with serving(page(ledger)) as port:
        before = threading.active_count()
        slow = []
        for _ in range(100):
            client = socket.create_connection(("127.0.0.1", port))
            with contextlib.suppress(OSError):
                client.sendall(b"GET / HTTP/1.1\r\n")  # and never the rest
            slow.append(client)

        def goes_on() -> bool:
            assert threading.active_count() - before <= server_module.MAX_REQUESTS
            with contextlib.suppress(OSError, http.client.HTTPException):
                return ask(port, "/")[0].status == 200
            return False

        until("those who hang to be cut off, and the page to go on", goes_on, 10)
        for client in slow:
            client.close()


def test_a_client_that_drips_is_cut_off(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "WHOLE_S", 0.5)
    with serving(page(ledger)) as port, socket.create_connection(("127.0.0.1", port)) as client:
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - begun < 8:
                client.sendall(b"X")
                time.sleep(0.05)
        assert time.monotonic() - begun < 4


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9.9\r\n\r\n", b"G" * 100_000, b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n", b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /api/projects?" + b"a=b&" * 99 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)  # fmt: skip
def test_rubbish_is_answered_or_ended_and_nothing_breaks(ledger: Path, said: bytes) -> None:
    with serving(page(ledger)) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client, contextlib.suppress(OSError):
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            assert len(client.recv(1 << 16)) < 5000
        assert ask(port, "/")[0].status == 200


def test_a_fault_of_ours_is_said_without_its_words(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(_: object) -> Any:
        raise RuntimeError("a secret")

    with serving(broken) as port:
        answer, body = ask(port, "/")
    assert answer.status == 500
    assert b"secret" not in body
    assert "RuntimeError" in capsys.readouterr().err


# The command.

WEB = "import typer; from slurm_energy.cli.web import web; typer.run(web)"


def test_the_command_prints_an_address_with_a_token_that_is_new_each_time(ledger: Path, tmp_path: Path) -> None:
    tokens = set()
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", WEB, "--listen", "127.0.0.1:0", "--ledger", ledger, "--socket", tmp_path / "no.sock"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout
        address, _, token = process.stdout.readline().strip().partition("#token=")
        port = int(address.rstrip("/").rpartition(":")[2])
        assert len(token) >= 32
        assert ask(port, "/api/months", token="")[0].status == 401
        assert json.loads(ask(port, "/api/months", token=token)[1])["rows"]
        assert "no agent here" in json.loads(ask(port, "/api/live", token=token)[1])["errors"][0]
        process.send_signal(2)
        assert process.wait(10) == 0
        process.stdout.close()
        tokens.add(token)
    assert len(tokens) == 2


@pytest.mark.parametrize("listen", ["8085", "127.0.0.1:", "127.0.0.1:99999", "nowhere:x"])
def test_a_wrong_address_is_one_clear_line(listen: str) -> None:
    import typer

    from slurm_energy.cli.web import web

    app = typer.Typer()
    app.command()(web)
    done = CliRunner().invoke(app, ["--listen", listen])
    assert done.exit_code == 2
    assert "127.0.0.1:8085" in done.output


def test_a_port_that_is_taken_is_said(ledger: Path) -> None:
    import typer

    from slurm_energy.cli.web import web

    app = typer.Typer()
    app.command()(web)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = CliRunner().invoke(app, ["--listen", f"127.0.0.1:{taken.getsockname()[1]}", "--ledger", str(ledger)])
    assert done.exit_code == 2
    assert "port 0" in done.output
