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
        self.gate: object = None
        """Stands for how TLS checks clients. Where it is another one, those that came in before have to come anew."""
        self._known: OrderedDict[bytes, bool] = OrderedDict()
        """Passwords, right and wrong. It outlives a change: what was said of another hash is found no more (see _key)."""
        self._secret = secrets.token_bytes(32)
        self._looked = clock()
        self._files: tuple[Path, ...] = ()
        if path is not None:
            self._files = (path,)
            self._load()

    def refresh(self) -> None:
        """Takes over what changed in the files."""
        now = self._clock()
        if self.path is None or now - self._looked < LOOK_S:
            return
        self._looked = now
        if _marks(self._files) == self._seen:
            return
        try:
            self._load()
        except WebConfigError as error:
            log.error("%s; the earlier configuration stays", error)
        else:
            log.info("%s: read anew", self.path)

    def _load(self) -> None:
        """Marks are taken before a file is read, so that what changes meanwhile is seen the next time."""
        assert self.path is not None  # noqa: S101
        self._seen = _marks(self._files)
        at = _marks((self.path,))
        config = read(self.path)
        self._files = (self.path, *config.files)
        self._seen = at + _marks(tuple(config.files))
        tls = context(config.tls) if config.tls else None
        self.config, self.tls = config, tls
        self.gate = (config.tls.client_auth_type, *self._seen[3:]) if config.tls else None

    def _key(self, name: str, password: bytes, hashed: str) -> bytes:
        """What stands for a name and a password in memory. Its secret makes the time of a look-up tell nothing."""
        parts = (hashlib.sha256(part).digest() for part in (name.encode(), password, hashed.encode()))
        return hmac.digest(self._secret, b"".join(parts), "sha256")

    def remembered(self, authorization: str) -> bool | None:
        """Whether these credentials are right, where that is known without the work of bcrypt; else None."""
        users = self.config.users
        if not users:
            return True
        given = credentials(authorization)
        if given is None:
            return False
        return self._known.get(self._key(*given, users.get(given[0], "")))

    def check(self, authorization: str) -> bool:
        """The same with the work of bcrypt, which is some 50 ms of a processor."""
        import bcrypt

        given = credentials(authorization)
        if given is None:
            return False
        name, password = given
        users = self.config.users  # once: it may be another one at the next look
        hashed = users.get(name, "")
        key = self._key(name, password, hashed)
        cost = max((one.split("$")[2] for one in users.values()), default="10")
        # PHP's and htpasswd's $2y$ is what others call $2b$; $2x$ is left to be refused by bcrypt itself.
        against = (hashed or NOBODY.format(cost=cost)).replace("$2y$", "$2b$", 1)
        try:
            right = bcrypt.checkpw(password[:MOST_BYTES], against.encode()) and bool(hashed)
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


def _marks(files: tuple[Path, ...]) -> list[tuple[int, ...]]:
    """By which a file that changed is known."""
    marks: list[tuple[int, ...]] = []
    for file in files:
        try:
            status = file.stat()
            marks.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            marks.append(())
    return marks
