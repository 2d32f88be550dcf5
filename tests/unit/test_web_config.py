"""The web configuration file: what it may say, TLS and passwords, right and wrong ones, and changes while it runs."""

from __future__ import annotations

import asyncio
import base64
import http.client
import os
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt
import pytest
from common.waiting import until
from exporter_harness import (
    HAS_OPENSSL,
    Exporter,
    deaf,
    guessing,
    make_certificates,
    many_jobs,
    openssl,
    running,
    unsent,
)
from slurm_energy_exporters import web_access
from slurm_energy_exporters.node import main
from slurm_energy_exporters.password_checks import PasswordChecks
from slurm_energy_exporters.web_access import REMEMBERED, Access, credentials
from slurm_energy_exporters.web_config import WebConfigError, read

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
needs_openssl = pytest.mark.skipif(not HAS_OPENSSL, reason="openssl is not installed")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


def written(folder: Path, text: str) -> Path:
    path = folder / "web.yml"
    path.write_text(text)
    return path


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def trusting(folder: Path, client: str = "", authority: str = "ca") -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(folder / f"{authority}.pem"))
    if client:
        made.load_cert_chain(folder / f"{client}.pem", folder / f"{client}.key")
    return made


@pytest.mark.parametrize(
    "text", ["", "{}", "tls_server_config:\nbasic_auth_users:\nhttp_server_config:\n  http2: true\n"]
)
def test_an_empty_file_asks_for_nothing(tmp_path: Path, text: str) -> None:
    config = read(written(tmp_path, text))
    assert (config.tls, dict(config.users), dict(config.headers)) == (None, {}, {})


def test_a_full_file(tmp_path: Path) -> None:
    text = f"""
tls_server_config:
  cert_file: server.pem
  key_file: /etc/ssl/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  min_version: TLS13
  prefer_server_cipher_suites: true
basic_auth_users:
  prometheus: {HASH}
http_server_config:
  headers: {{X-Frame-Options: deny, Strict-Transport-Security: max-age=31536000}}
"""
    config = read(written(tmp_path, text))
    assert config.tls == (
        tmp_path / "server.pem", Path("/etc/ssl/server.key"), "RequireAndVerifyClientCert", tmp_path / "ca.pem", "TLS13", "TLS13",
    )  # fmt: skip
    assert (dict(config.users), config.headers["X-Frame-Options"]) == ({"prometheus": HASH}, "deny")


TLS = "tls_server_config: {cert_file: a, key_file: b, "
WRONG = {
    "nonsense": "the file: expected a table",
    "a: [": "not YAML",
    "[" * 5000: "not YAML|nested too deeply",
    "!!python/object/apply:os.system ['true']": "not YAML",
    "tls_config: {}": "tls_config: unknown key; expected one of tls_server_config, basic_auth_users, http_server_config",
    "tls_server_config: {cert_fil: a}": "tls_server_config.cert_fil: unknown key; expected one of cert_file",
    "tls_server_config: {key_file: a}": "cert_file: missing; expected the name of a PEM file",
    "tls_server_config: {cert_file: a}": "key_file: missing",
    "tls_server_config: [1]": "tls_server_config: expected a table",
    "tls_server_config: {cert_file: 7, key_file: b}": "cert_file: expected text",
    TLS + "client_auth_type: Nobody}": "'Nobody'; expected one of NoClientCert",
    TLS + "client_auth_type: RequestClientCert}": "checks no certificate and is not supported",
    TLS + "client_auth_type: RequireAndVerifyClientCert}": "without client_ca_file",
    TLS + "client_ca_file: c}": "NoClientCert with client_ca_file",
    TLS + "min_version: SSL3}": "'SSL3'; expected one of TLS12, TLS13",
    TLS
    + "min_version: TLS10}": "tls_server_config.min_version: TLS10 is not supported, .* expected TLS12, which is the least",
    TLS + "min_version: TLS11}": "tls_server_config.min_version: TLS11 is not supported",
    TLS + "max_version: TLS11}": "tls_server_config.max_version: TLS11 is not supported",
    TLS + "client_auth_type: RequireClientCert}": "checks no certificate",
    TLS + "prefer_server_cipher_suites: maybe}": "prefer_server_cipher_suites: 'maybe'; expected true or false",
    "tls_server_config: ''": "tls_server_config: expected a table of keys and values",
    "tls_server_config: false": "tls_server_config: expected a table of keys and values",
    "tls_server_config: 0": "tls_server_config: expected a table of keys and values",
    "tls_server_config: []": "tls_server_config: expected a table of keys and values",
    "tls_server_config: {}": "tls_server_config.cert_file: missing; expected the name of a PEM file",
    "basic_auth_users: false": "basic_auth_users: expected a table of keys and values",
    "http_server_config: ''": "http_server_config: expected a table of keys and values",
    "http_server_config: {http2: maybe}": "http_server_config.http2: 'maybe'; expected true or false",
    "http_server_config: {http2: 1}": "http_server_config.http2: 1; expected true or false",
    "http_server_config: {http2: }": "http_server_config.http2: None; expected true or false",
    f"basic_auth_users: {{emma: '{HASH}'}}\nbasic_auth_users: {{}}": "basic_auth_users: there more than once",
    "rate_limit: {interval: 1s, burst: 20}": "rate_limit: not supported by this exporter.* expected tls_server_config, basic_auth",
    TLS + "min_version: TLS13, max_version: TLS12}": "max_version: expected at least min_version",
    TLS + "cipher_suites: [x]}": "cipher_suites: not supported by this exporter",
    "basic_auth_users: {emma: secret}": "basic_auth_users.emma: expected a bcrypt hash",
    "basic_auth_users: {emma: 7}": "basic_auth_users.emma: expected a bcrypt hash",
    "basic_auth_users: {7: x}": "basic_auth_users.7: unknown key; expected text",
    f"basic_auth_users: {{'a:b': '{HASH}'}}": "without a colon",
    f"basic_auth_users: {{emma: '{HASH.replace('$04$', '$31$')}'}}": "of cost 4 to 16",
    "http_server_config: {headers: {X-Powered-By: me}}": "headers.X-Powered-By: unknown key",
    'http_server_config: {headers: {X-Frame-Options: "a\\r\\nb"}}': "expected one line of ASCII text",
    "http_server_config: {headers: {X-Frame-Options: 1}}": "expected one line of ASCII text",
    "http_server_config: {http3: true}": "http_server_config.http3: unknown key",
}


@pytest.mark.parametrize("text", WRONG, ids=list(WRONG.values()))
def test_what_is_wrong_is_one_line_and_exit_status_2(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(WebConfigError, match=WRONG[text]) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert main(["--web.config.file", str(path), "--listen=127.0.0.1:0"]) == 2
    assert str(caught.value) in caplog.text


def test_a_part_that_another_takes_over_is_no_key_that_is_there_twice(tmp_path: Path) -> None:
    text = f"basic_auth_users: &users {{emma: '{HASH}'}}\nhttp_server_config: {{http2: false, <<: {{http2: true}}}}"
    assert set(read(written(tmp_path, text)).users) == {"emma"}


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(WebConfigError, match="none: No such file"):
        Access(tmp_path / "none")
    with pytest.raises(WebConfigError, match="a: No such file"):
        Access(written(tmp_path, TLS + "}"))


@needs_openssl
def test_certificates_that_are_none(tmp_path: Path, certificates: Path) -> None:
    (tmp_path / "junk").write_text("junk")
    where = {name: certificates / name for name in ("server.pem", "server.key", "client.key")}
    table = "tls_server_config: {{cert_file: {}, key_file: {}, client_auth_type: {}, client_ca_file: {}}}"
    for certificate, key in ((tmp_path / "junk", where["server.key"]), (where["server.pem"], where["client.key"])):
        with pytest.raises(WebConfigError, match="no certificate with its unencrypted key"):
            Access(written(tmp_path, table.format(certificate, key, "NoClientCert", "''")))
    text = table.format(where["server.pem"], where["server.key"], "RequireAndVerifyClientCert", tmp_path / "junk")
    with pytest.raises(WebConfigError, match="no certificates in PEM"):
        Access(written(tmp_path, text))
    openssl("ec", "-in", str(where["server.key"]), "-aes128", "-passout", "pass:x", "-out", str(tmp_path / "locked"))
    with pytest.raises(WebConfigError, match="unencrypted key"):
        Access(written(tmp_path, table.format(where["server.pem"], tmp_path / "locked", "NoClientCert", "''")))


def test_a_password_is_checked_by_bcrypt_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access(written(tmp_path, f"basic_auth_users: {{emma: {HASH}}}"))
    right, wrong, nobody = basic("emma", "secret"), basic("emma", "Secret"), basic("nobody", "secret")
    asked = []
    real = bcrypt.checkpw
    monkeypatch.setattr(bcrypt, "checkpw", lambda *given: asked.append(given) or real(*given))
    for given, good in ((right, True), (wrong, False), (nobody, False)):
        assert access.remembered(given) is None
        assert access.check(given) is good
        assert access.remembered(given) is good
    assert len(asked) == 3, "an unknown name costs as much as a known one"
    assert asked[2][1].startswith(b"$2b$04$"), "and as long"
    for number in range(2 * REMEMBERED):
        access.check(basic("emma", f"guess {number}"))
    assert len(access._known) == REMEMBERED
    assert access.remembered(right) is True, "who guesses pushes nobody out"
    assert not any(b"secret" in key for key in access._known)


def test_hashes_of_htpasswd_and_long_passwords(tmp_path: Path) -> None:
    long = "é" * 100
    hashed = bcrypt.hashpw(long.encode()[:72], bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$")
    access = Access(written(tmp_path, f"basic_auth_users: {{emma: '{hashed}'}}"))
    assert access.check(basic("emma", long))
    assert not access.check(basic("emma", "x"))
    assert not access.check(basic("emma", "\0"))


@pytest.mark.parametrize(
    "text",
    ["", "Basic", "Basic !", "Basic ZW1tYQ==", "Bearer x", "Basic " + base64.b64encode(b"\xff:x").decode(), "Basic é"],
)
def test_what_is_no_name_and_password(tmp_path: Path, text: str) -> None:
    assert credentials(text) is None
    access = Access(written(tmp_path, f"basic_auth_users: {{emma: {HASH}}}"))
    assert access.remembered(text) is False
    assert access.check(text) is False


def test_changes_are_taken_over_and_wrong_ones_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    time_s = [0.0]
    path = written(tmp_path, f"basic_auth_users: {{emma: {HASH}}}")
    access = Access(path, lambda: time_s[0])

    def change(text: str) -> None:
        path.write_text(text)
        time_s[0] += 2 * web_access.LOOK_S
        access.refresh()

    assert access.check(basic("emma", "secret"))
    change("nonsense")
    assert "the earlier configuration stays" in caplog.text
    assert access.remembered(basic("emma", "secret")) is True
    change(f"basic_auth_users: {{noam: {HASH}}}")
    assert access.remembered(basic("emma", "secret")) is None, "what was remembered is not any more"
    assert not access.check(basic("emma", "secret"))
    assert access.check(basic("noam", "secret"))
    path.unlink()
    time_s[0] += 2
    access.refresh()
    assert access.config.users, "a file that is gone opens nothing"


@needs_openssl
def test_certificates_that_come_after_the_file_that_names_them(tmp_path: Path, certificates: Path) -> None:
    time_s = [0.0]
    path = written(tmp_path, "")
    access = Access(path, lambda: time_s[0])
    for text in (None, "server.pem", "server.key"):
        if text:
            (tmp_path / text).write_bytes((certificates / text).read_bytes())
        else:
            path.write_text("tls_server_config: {cert_file: server.pem, key_file: server.key}")
        assert access.tls is None
        time_s[0] += 2
        access.refresh()
    assert access.tls


def test_passwords_are_checked_in_turns_by_address_and_the_same_ones_once() -> None:
    asked: list[str] = []
    gate = threading.Event()

    def check(given: str) -> bool:
        gate.wait(10)
        asked.append(given)
        if given == "broken":
            raise RuntimeError("an accident")
        return given == "right"

    async def run() -> None:
        checks = PasswordChecks(check)

        async def ask(peer: str, *given: str) -> list[bool | None]:
            return await asyncio.gather(*(checks.ask(peer, one) for one in given))

        many = [asyncio.create_task(ask(f"guesser {n}", *(f"{n}-{k}" for k in range(20)))) for n in range(4)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        honest = asyncio.create_task(ask("honest", *["right"] * 100, "broken"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gate.set()
        assert await honest == [True] * 100 + [None]
        found = [one for task in many for one in await task]
        assert found.count(None) == 4 * 4 + 2, (
            "four of each found their line full, and two made room for the honest one"
        )
        assert asked.count("right") == 1
        assert asked.index("right") == 4, "after one of each other"
        checks.close()

    asyncio.run(run())


def asked(client: http.client.HTTPConnection, given: str) -> int:
    client.request("GET", "/metrics", headers={"Authorization": given})
    response = client.getresponse()
    response.read()
    return response.status


def test_a_password_that_is_taken_back_ends_on_a_kept_connection_too(tmp_path: Path) -> None:
    path = written(tmp_path, f"basic_auth_users: {{emma: {HASH}}}")
    with running(f"--web.config.file={path}") as (exporter, _):
        client = http.client.HTTPConnection("127.0.0.1", exporter.port, timeout=10)
        assert asked(client, basic("emma", "secret")) == 200
        kept = client.sock
        path.write_text(f"basic_auth_users: {{noam: {HASH}}}")
        begin = time.monotonic()
        until("it to be taken back", lambda: asked(client, basic("emma", "secret")) == 401, 5)
        assert time.monotonic() - begin < 2
        assert asked(client, basic("noam", "secret")) == 200
        assert client.sock is kept
        client.close()


@needs_openssl
def test_an_authority_that_is_taken_back_ends_on_a_kept_connection_too(tmp_path: Path, certificates: Path) -> None:
    authority = tmp_path / "clients.pem"
    authority.write_bytes((certificates / "ca.pem").read_bytes())
    more = ("client_auth_type: RequireAndVerifyClientCert", f"client_ca_file: {authority}")
    path = written(tmp_path, tls_text(certificates, *more))
    with running(f"--web.config.file={path}") as (exporter, _):
        client = http.client.HTTPSConnection(
            "127.0.0.1", exporter.port, timeout=10, context=trusting(certificates, "client")
        )
        assert asked(client, "") == 200
        path.write_text(path.read_text() + f"basic_auth_users: {{emma: {HASH}}}\n")
        kept = client.sock
        until("a password to be asked for", lambda: asked(client, "") == 401, 5)
        assert client.sock is kept, "who may come in by TLS is the same"
        authority.write_bytes((certificates / "other-ca.pem").read_bytes())

        def ended() -> bool:
            try:
                asked(client, "")
            except http.client.RemoteDisconnected:
                return True
            return False

        until("the connection to end", ended, 5)
        assert refused(exporter, trusting(certificates, "client"))
        assert exporter.get(tls=trusting(certificates, "stranger")).status == 401
        client.close()


GUESSERS = 80


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_who_guesses_passwords_locks_nobody_out(tmp_path: Path, source: str) -> None:
    """After a start from another address; after a change of the file from the same one too, for what is known stays so."""
    slow = bcrypt.hashpw(b"secret", bcrypt.gensalt(10)).decode()
    path = written(tmp_path, f"basic_auth_users: {{emma: '{slow}'}}")
    right = basic("emma", "secret")
    with running(f"--web.config.file={path}") as (exporter, _):
        if source == "127.0.0.1":
            assert exporter.get(Authorization=right).status == 200
        with guessing(exporter.port, "emma", GUESSERS, source) as statuses:
            until("many guesses", lambda: statuses[503] > GUESSERS and statuses[401] > 5, 10)

            def scrapes() -> None:
                for _ in range(5):
                    begin = time.monotonic()
                    assert exporter.get(Authorization=right).status == 200
                    assert time.monotonic() - begin < 2

            scrapes()
            os.utime(path)
            until("the file to be read", lambda: "read anew" in exporter.log, 10)
            scrapes()
        assert set(statuses) <= {401, 503}
        assert exporter.status("Threads") <= 3


def test_passwords_on_the_wire(tmp_path: Path) -> None:
    slow = bcrypt.hashpw(b"secret", bcrypt.gensalt(10)).decode()
    path = written(
        tmp_path, f"basic_auth_users: {{emma: '{slow}'}}\nhttp_server_config: {{headers: {{X-Frame-Options: deny}}}}"
    )
    with running(f"--web.config.file={path}") as (exporter, stub):
        refused = [exporter.get(page) for page in ("/metrics", "/", "/-/healthy", "/none")]
        assert {answer.status for answer in refused} == {401}
        assert refused[0].headers["WWW-Authenticate"].startswith("Basic")
        assert b"slurm_energy" not in b"".join(answer.body for answer in refused)
        for given in (basic("emma", "wrong"), basic("noam", "secret"), basic("", ""), "Basic %%", "Bearer x"):
            assert exporter.get(Authorization=given).status == 401
        assert stub.asked == 0, "who may not come in does not make the agent work"
        right = basic("emma", "secret")
        answer = exporter.get(Authorization=right)
        assert answer.status == 200
        assert answer.headers["X-Frame-Options"] == "deny"
        begin = time.monotonic()
        for _ in range(20):
            assert exporter.get(Authorization=right).status == 200
        assert time.monotonic() - begin < 1, "bcrypt does not run at each scrape"
        # Many who guess: the one who may come in still does, and quickly.
        with ThreadPoolExecutor(50) as pool:
            guesses = [pool.submit(exporter.get, Authorization=basic("emma", f"{n}")) for n in range(100)]
            begin = time.monotonic()
            assert exporter.get(Authorization=right).status == 200
            assert time.monotonic() - begin < 2
            assert {guess.result().status for guess in guesses} <= {401, 503}
        assert exporter.status("Threads") <= 3


def tls_text(folder: Path, *more: str) -> str:
    lines = [f"cert_file: {folder}/server.pem", f"key_file: {folder}/server.key", *more]
    return "tls_server_config:\n" + "".join(f"  {line}\n" for line in lines)


@needs_openssl
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_tls(tmp_path: Path, certificates: Path) -> None:
    path = written(tmp_path, tls_text(certificates, "min_version: TLS12"))
    with running(f"--web.config.file={path}") as (exporter, _):
        assert "(TLS)" in exporter.log
        answer = exporter.get(tls=trusting(certificates))
        assert answer.status == 200
        assert b"slurm_energy_agent_up 1.0" in answer.body
        with pytest.raises(ssl.SSLCertVerificationError):
            exporter.get(tls=trusting(certificates, authority="other-ca"))
        old = trusting(certificates)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, OSError)):
            exporter.get(tls=old)
        assert b"slurm_energy" not in exporter.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), "not in the clear"
        assert exporter.get(tls=trusting(certificates)).status == 200
        assert "Traceback" not in exporter.log


@needs_openssl
def test_tls_clients_that_never_finish_their_handshake(tmp_path: Path, certificates: Path) -> None:
    path = written(tmp_path, tls_text(certificates))
    with running(f"--web.config.file={path}") as (exporter, _):
        clients = [socket.create_connection(("127.0.0.1", exporter.port)) for _ in range(700)]
        for client in clients[:400]:
            client.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        begin = time.monotonic()
        assert exporter.get(tls=trusting(certificates)).status == 200
        assert time.monotonic() - begin < 3
        until("the surplus to be closed", lambda: exporter.files() < 300, 2)
        assert exporter.status("Threads") <= 3
        until("them to be dropped", lambda: exporter.files() < 40, 15)
        with ThreadPoolExecutor(20) as pool:
            trusted = trusting(certificates)
            assert {pool.submit(exporter.get, tls=trusted).result().status for _ in range(200)} == {200}
        assert exporter.status("VmHWM") < 64 * 1024
        for client in clients:
            client.close()


@needs_openssl
def test_big_answers_by_tls_and_clients_that_never_read_them(tmp_path: Path, certificates: Path) -> None:
    path = written(tmp_path, tls_text(certificates))
    trusted = trusting(certificates)
    get = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    with running(f"--web.config.file={path}", snapshot=many_jobs(500)) as (exporter, _):
        begin = time.monotonic()
        assert len(exporter.get(tls=trusted).body) > 400_000
        assert time.monotonic() - begin < 2
        with deaf(exporter.port, 300, get * 100, tls=trusted):
            until("answers to pile up", lambda: sum(size > 0 for size in unsent(exporter.port)) > 200, 40)
            for _ in range(10):
                begin = time.monotonic()
                assert exporter.get(tls=trusted).status == 200
                assert time.monotonic() - begin < 2
            until("the surplus to be closed", lambda: exporter.files() < 300, 2)
        assert exporter.status("Threads") <= 3
        assert exporter.status("VmHWM") < 64 * 1024


def refused(exporter: Exporter, context: ssl.SSLContext) -> bool:
    try:
        exporter.get(tls=context)
    except (ssl.SSLError, OSError):
        return True
    return False


@needs_openssl
def test_client_certificates(tmp_path: Path, certificates: Path) -> None:
    more = ("client_auth_type: RequireAndVerifyClientCert", f"client_ca_file: {certificates}/ca.pem")
    path = written(tmp_path, tls_text(certificates, *more) + f"basic_auth_users: {{emma: {HASH}}}\n")
    with running(f"--web.config.file={path}") as (exporter, _):
        right = trusting(certificates, "client")
        assert exporter.get(tls=right).status == 401, "a certificate is no password"
        assert exporter.get(tls=right, Authorization=basic("emma", "secret")).status == 200
        assert refused(exporter, trusting(certificates))
        assert refused(exporter, trusting(certificates, "stranger"))
    path.write_text(path.read_text().replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven"))
    with running(f"--web.config.file={path}") as (exporter, _):
        assert exporter.get(tls=trusting(certificates), Authorization=basic("emma", "secret")).status == 200
        assert exporter.get(tls=trusting(certificates, "client"), Authorization=basic("emma", "secret")).status == 200
        assert refused(exporter, trusting(certificates, "stranger"))


@needs_openssl
def test_a_new_certificate_is_taken_over_while_it_runs(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    path = written(tmp_path, tls_text(tmp_path))
    with running(f"--web.config.file={path}") as (exporter, _):
        first = trusting(tmp_path)
        assert exporter.get(tls=first).status == 200
        make_certificates(tmp_path)
        until("the new one", lambda: not refused(exporter, trusting(tmp_path)), 10)
        assert exporter.get(tls=trusting(tmp_path)).status == 200
        with pytest.raises(ssl.SSLError):
            exporter.get(tls=first)
        (tmp_path / "server.key").write_text("")

        def seen() -> bool:
            assert exporter.get(tls=trusting(tmp_path)).status == 200, "a wrong one is not taken"
            return "the earlier configuration stays" in exporter.log

        until("the wrong one to be seen", seen, 10)
