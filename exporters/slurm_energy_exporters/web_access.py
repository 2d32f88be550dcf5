"""Who may come in: the web configuration file as it is now, and the check of passwords against it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import secrets
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from slurm_energy_exporters.web_config import WebConfig, WebConfigError, context, read

log = logging.getLogger("senergy.exporter")
LOOK_S = 1.0
"""Whether the files changed is looked at this often, at most."""
REMEMBERED = 128
MOST_BYTES = 72
"""bcrypt's own limit: what follows in a password does not count, here as in Go."""
NOBODY = "$2b${cost}$eHvHkWcy6MBx.qOMG.PqVeO/hwDO5kUx2RHlNzg5Y3QVcJjSKkmfq"
"""A hash that takes as long as the others: the answer to an unknown name comes no sooner."""


class Access:
    """The configuration, read anew when one of its files changes. Without a file: plain HTTP, everybody."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises WebConfigError where the file is wrong now; later a wrong one is not taken, and the log says so."""
        self.path, self._clock = path, clock
        self.config = WebConfig()
        self.tls: ssl.SSLContext | None = None
        self._known: OrderedDict[bytes, bool] = OrderedDict()
        self._secret = secrets.token_bytes(32)
        self._looked = clock()
        if path is not None:
            self._seen = self._marks()
            self._load()

    def refresh(self) -> None:
        """Takes over what changed in the files."""
        now = self._clock()
        if self.path is None or now - self._looked < LOOK_S:
            return
        self._looked = now
        marks = self._marks()
        if marks == self._seen:
            return
        self._seen = marks
        try:
            self._load()
        except WebConfigError as error:
            log.error("%s; the earlier configuration stays", error)
        else:
            log.info("%s: read anew", self.path)

    def _load(self) -> None:
        assert self.path is not None  # noqa: S101
        config = read(self.path)
        tls = context(config.tls) if config.tls else None
        self.config, self.tls = config, tls
        self._cost = max((hashed.split("$")[2] for hashed in config.users.values()), default="10")
        self._known.clear()
        self._seen = self._marks()

    def _marks(self) -> list[tuple[int, ...]]:
        assert self.path is not None  # noqa: S101
        marks: list[tuple[int, ...]] = []
        for file in (self.path, *self.config.files):
            try:
                status = file.stat()
                marks.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError:
                marks.append(())
        return marks

    def _key(self, name: str, password: bytes) -> bytes:
        """What stands for a name and a password in memory. Its secret makes the time of a look-up tell nothing."""
        hashed = self.config.users.get(name, "")
        parts = (hashlib.sha256(part).digest() for part in (name.encode(), password, hashed.encode()))
        return hmac.digest(self._secret, b"".join(parts), "sha256")

    def remembered(self, authorization: str) -> bool | None:
        """Whether these credentials are right, where that is known without the work of bcrypt; else None."""
        if not self.config.users:
            return True
        given = credentials(authorization)
        if given is None:
            return False
        return self._known.get(self._key(*given))

    def check(self, authorization: str) -> bool:
        """The same with the work of bcrypt, which is some 50 ms of a processor."""
        import bcrypt

        given = credentials(authorization)
        if given is None:
            return False
        name, password = given
        key, hashed = self._key(name, password), self.config.users.get(name)
        # PHP's and htpasswd's $2y$ is what others call $2b$; $2x$ is left to be refused by bcrypt itself.
        against = (hashed or NOBODY.format(cost=self._cost)).replace("$2y$", "$2b$", 1)
        try:
            right = bcrypt.checkpw(password[:MOST_BYTES], against.encode()) and hashed is not None
        except ValueError:
            right = False
        self._known[key] = right
        while len(self._known) > REMEMBERED:
            # Wrong ones go first: who guesses does not push out who may come in.
            wrong = next((one for one, good in self._known.items() if not good), None)
            self._known.pop(wrong) if wrong else self._known.popitem(last=False)
        return right


def credentials(authorization: str) -> tuple[str, bytes] | None:
    """Name and password of an `Authorization: Basic ...` header; None where it is none."""
    scheme, _, coded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(coded.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None
