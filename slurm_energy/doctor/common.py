"""What the checks of every role share: findings, and facts that are judged in the same way everywhere.

Pure functions. `ok` is None where something could not be looked at here, or need not be there.
"""

from __future__ import annotations

import re
import stat
from typing import NamedTuple

ROLES = ("compute", "admin", "login")
HOOK = "50-slurm-energy"
USER = "slurm-energy"


class Finding(NamedTuple):
    """One line of the doctor's. remedy: empty where nothing is to be done."""

    role: str
    what: str
    ok: bool | None
    detail: str
    remedy: str = ""


class Place(NamedTuple):
    """A file or folder as it was seen. error: why it could not be; `there` is False then."""

    path: str
    there: bool = False
    folder: bool = False
    uid: int = -1
    gid: int = -1
    mode: int = 0
    device: int = -1
    error: str = ""


class Person(NamedTuple):
    """Who something is looked at for: a user and its groups; uid -1 where there is no such user."""

    name: str
    uid: int = -1
    gids: tuple[int, ...] = ()


class Unit(NamedTuple):
    """A unit as systemd has it: LoadState, ActiveState, UnitFileState, Result."""

    name: str
    load: str = ""
    active: str = ""
    enabled: str = ""
    result: str = ""
    status: int = 0


def may(who: Person, place: Place, want: int) -> bool:
    """Whether the mode lets a user do this: 4 read, 2 write, 1 enter, as in chmod. Root may, where no share squashes it."""
    if who.uid == 0:
        return True
    shift = 6 if who.uid == place.uid else 3 if place.gid in who.gids else 0
    return (place.mode >> shift) & want == want


def look_of(place: Place) -> str:
    """`/path (0750, 0:981)`, or why there is nothing to say."""
    if not place.there:
        return f"{place.path}: {place.error or 'not there'}"
    return f"{place.path} ({stat.S_IMODE(place.mode):04o}, {place.uid}:{place.gid})"


def unit(role: str, seen: Unit | None, name: str, needed: bool = True) -> Finding:
    """Whether a unit is there, runs, and will after the next boot. seen: None where systemd does not run."""
    if seen is None:
        return Finding(role, name, None, "systemd does not run here")
    put = f"install -m 0644 deploy/systemd/{name} /etc/systemd/system/ && systemctl daemon-reload && systemctl enable --now {name}"
    if seen.load != "loaded":
        detail = seen.load or "not known to systemd"
        return Finding(role, name, False if needed else None, f"not installed ({detail})", put)
    if seen.active not in ("active", "reloading"):
        remedy = f"systemctl enable --now {name}; journalctl -u {name} says why it ended"
        return Finding(role, name, False, f"{seen.active or 'not running'} ({seen.result or 'no result'})", remedy)
    if seen.enabled in ("disabled", "masked"):
        return Finding(role, name, False, f"runs, {seen.enabled}: not after a boot", f"systemctl enable {name}")
    return Finding(role, name, True, f"{seen.active}, {seen.enabled or 'enabled'}")


def listening(settings: str, port: int) -> tuple[str, int]:
    """Where a unit's exporter listens, by what systemd shows of its settings; the exporter's own port where they say nothing.

    >>> listening('Environment="OPTIONS=--web.listen-address=:9900"', 9854)
    ('127.0.0.1', 9900)
    """
    given = re.findall(r"--web\.listen-address[= ](?:\[([^]]*)\]|([^\s\":;]*)):(\d{1,5})", settings)
    if not given:
        return "127.0.0.1", port
    six, host, number = given[-1]
    anywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    return anywhere.get(six or host, six or host), int(number)


def port(role: str, what: str, at: tuple[str, int], answers: bool | None, unit_name: str, needed: bool) -> Finding:
    """Whether an exporter answers at its address. needed: its unit is installed here."""
    host, number = at
    where = f"port {number}" if host == "127.0.0.1" else f"{host} port {number}"
    if answers:
        return Finding(role, what, True, f"{where} answers")
    if not needed:
        return Finding(role, what, None, f"{where} does not answer, {unit_name} is not installed: optional")
    remedy = f"systemctl enable --now {unit_name}; journalctl -u {unit_name} says why it does not listen"
    return Finding(role, what, False, f"{where} does not answer", remedy)
