"""An exporter as a process, the node exporter with an agent's socket before it, and clients behind it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import itertools
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
from common.agent_socket import Stub, fixed, job
from common.waiting import until

from slurm_energy.agent.snapshot import Snapshot


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Exporter:
    """A running senergy-node-exporter, or senergy-ledger-exporter, on a free port of the loopback."""

    def __init__(self, module: str, *arguments: str, stderr: Path) -> None:
        self.stderr = stderr
        command = [sys.executable, "-m", f"slurm_energy_exporters.{module}", "--web.listen-address=127.0.0.1:0"]
        with stderr.open("wb") as file:
            self.process = subprocess.Popen([*command, *arguments], stderr=file)
        self.port = until("the exporter to listen", self._listens, 20)

    def _listens(self) -> int:
        """Its port; 0 before it has one."""
        assert self.process.poll() is None, self.log
        found = re.search(r"listening on 127\.0\.0\.1:(\d+)", self.log)
        return int(found[1]) if found else 0

    @property
    def log(self) -> str:
        return self.stderr.read_text()

    def get(
        self, path: str = "/metrics", tls: ssl.SSLContext | None = None, method: str = "GET", **headers: str
    ) -> Answer:
        """One request on a connection of its own; header names with _ for -."""
        if tls:
            client: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=20, context=tls
            )
        else:
            client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(client):
            client.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = client.getresponse()
            return Answer(response.status, dict(response.headers), response.read())

    def raw(self, data: bytes, timeout: float = 10.0) -> bytes:
        """Sends these bytes and reads until the other side ends it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(data)
            parts = []
            with contextlib.suppress(ConnectionError):
                while part := client.recv(1 << 16):
                    parts.append(part)
            return b"".join(parts)

    def status(self, name: str) -> int:
        """A figure of /proc/PID/status: Threads, VmHWM (kB)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"(?m)^{name}:\s+(\d+)", text)
        assert found
        return int(found[1])

    def files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


def now(snapshot: Snapshot) -> Snapshot:
    """The same, looked at this moment; the tests' processes have ten minutes to read it."""
    return msgspec.structs.replace(snapshot, wall_ns=time.time_ns(), period_s=200.0)


def many_jobs(count: int) -> Snapshot:
    """`fixed` with so many jobs."""
    jobs = [
        job(number, (1.5, 0.5, 0.25, 1.0), (1.5 * number, 2.0, 3.0, 4.0), user=f"user{number % 16}")
        for number in range(1, count + 1)
    ]
    return msgspec.structs.replace(fixed(), jobs=jobs)


@contextlib.contextmanager
def running(*more: str, snapshot: Snapshot | None = None) -> Iterator[tuple[Exporter, Stub]]:
    """An exporter with an agent's socket that answers with this snapshot, now."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        stub = Stub(root / "agent.sock", msgspec.json.encode(now(snapshot or fixed())))
        exporter = Exporter("node", "--socket", str(stub.path), *more, stderr=root / "log")
        try:
            yield exporter, stub
        finally:
            if exporter.process.poll() is None:
                exporter.stop()
            stub.close()


def unsent(port: int) -> list[int]:
    """Bytes that the kernel holds for each client that a server on this port is connected with."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(row[4].split(":")[0], 16) for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01"]


@contextlib.contextmanager
def deaf(
    port: int, count: int, request: bytes, source: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> Iterator[None]:
    """So many clients that ask often and read nothing; who is dropped comes again at once."""
    over = threading.Event()
    clients: list[socket.socket | None] = [None] * count

    def connected() -> socket.socket | None:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(5)
        try:
            client.bind((source, 0))
            client.connect(("127.0.0.1", port))
            if tls:
                client = tls.wrap_socket(client, server_hostname="127.0.0.1")
            client.sendall(request)
        except OSError:
            client.close()
            return None
        return client

    def come_again() -> None:
        while not over.wait(0.05):
            for number, client in enumerate(clients):
                if client is None or client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    if client:
                        client.close()
                    clients[number] = connected()

    clients[:] = [connected() for _ in range(count)]
    thread = threading.Thread(target=come_again)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for client in clients:
            if client:
                client.close()


@contextlib.contextmanager
def guessing(port: int, name: str, count: int, source: str) -> Iterator[Counter[int]]:
    """So many clients of this address, each trying one password after the other; how often they got which status."""
    found: Counter[int] = Counter()
    over = threading.Event()
    numbers = itertools.count()

    async def guess() -> None:
        while not over.is_set():
            given = base64.b64encode(f"{name}:guess {next(numbers)}".encode())
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
                writer.write(
                    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic " + given + b"\r\n\r\n"
                )
                found[int((await reader.readexactly(12))[-3:])] += 1
                writer.transport.abort()
            await asyncio.sleep(0.02)

    async def all_of_them() -> None:
        await asyncio.gather(*(guess() for _ in range(count)))

    thread = threading.Thread(target=asyncio.run, args=(all_of_them(),))
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def make_certificates(root: Path) -> None:
    """ca.pem and other-ca.pem; server, client (by ca) and stranger (by other-ca), each NAME.pem and NAME.key."""
    for authority in ("ca", "other-ca"):
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", f"/CN={authority}",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout", str(root / f"{authority}.key"), "-out", str(root / f"{authority}.pem"),
        )  # fmt: skip
    for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "other-ca")):
        request, extensions = root / f"{name}.csr", root / f"{name}.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n")
        openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
            "-keyout", str(root / f"{name}.key"), "-out", str(request),
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", str(request), "-days", "2", "-CA", str(root / f"{authority}.pem"), "-CAkey",
            str(root / f"{authority}.key"), "-CAcreateserial", "-extfile", str(extensions), "-out", str(root / f"{name}.pem"),
        )  # fmt: skip


HAS_OPENSSL = shutil.which("openssl") is not None
