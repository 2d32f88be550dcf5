"""Findings out of facts: each says what was looked at, whether it is well, what was seen, and how to put it right.

Pure functions. `ok` is None where something could not be looked at here, or need not be there.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

ROLES = ("compute", "admin", "login")
HOOK = "50-slurm-energy"
USER = "slurm-energy"
STUCK_S = 10.0
"""An agent that looked longer ago than this, and than five of its periods, is stuck."""
WAITING_HOOK_S = 120.0
UNSHIPPED_S = 1800.0
STALE_LEDGER_S = 36 * 3600.0
RECENT_S = 7 * 86400.0


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


class Agent(NamedTuple):
    """What the agent's socket answered; error where it did not."""

    error: str = ""
    version: str = ""
    age_s: float = 0.0
    period_s: float = 1.0
    watts: float = 0.0
    jobs: int = 0
    counters: int = 0
    outbox_fill: float = 0.0
    problems: tuple[str, ...] = ()


class Unit(NamedTuple):
    """A unit as systemd has it: LoadState, ActiveState, UnitFileState, Result."""

    name: str
    load: str = ""
    active: str = ""
    enabled: str = ""
    result: str = ""
    status: int = 0


class Hooks(NamedTuple):
    """slurm.conf's Prolog or Epilog. here: which of the files of that name on this node call our hook."""

    patterns: tuple[str, ...]
    here: tuple[str, ...]
    not_executable: tuple[str, ...] = ()


class Jobs(NamedTuple):
    """What `sacct -a` showed of the last days. error: its words where it failed."""

    asked_as: str
    users: tuple[str, ...] = ()
    users_of_root: tuple[str, ...] | None = None
    error: str = ""


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


# Compute nodes


def agent(seen: Agent, socket: str, version: str) -> list[Finding]:
    """Whether the agent answers, has looked at its counters lately, is of the version installed, and has no problem."""
    role, unit = "compute", "slurm-energy-agent"
    if seen.error:
        remedy = (
            "run this as root or as a member of the group slurm-energy" if "permission" in seen.error
            else f"systemctl enable --now {unit}; journalctl -u {unit} says why it does not run"
        )  # fmt: skip
        return [Finding(role, "agent", False, seen.error, remedy)]
    found = []
    if seen.age_s > max(STUCK_S, 5 * seen.period_s):
        detail = f"{socket}: it looked at its counters {seen.age_s:.0f} s ago"
        found.append(Finding(role, "agent", False, detail, f"systemctl restart {unit}; no energy is lost by that"))
    else:
        detail = f"answers on {socket}: {seen.jobs} jobs, {seen.watts:,.0f} W, {seen.counters} counters"
        found.append(Finding(role, "agent", True, detail))
    if seen.version != version:
        detail = f"version {seen.version} runs, {version} is installed"
        found.append(
            Finding(role, "agent version", False, detail, f"systemctl restart {unit}; no energy is lost by that")
        )
    if not seen.counters:
        detail = "the agent has no counter: jobs get estimates only"
        remedy = "what is refused above says how to allow it; [agent.sources] model is the last resort"
        found.append(Finding(role, "counters", None, detail, remedy))
    found += [
        Finding(role, "agent problem", False, text, f"journalctl -u {unit} has more") for text in seen.problems
    ]  # fmt: skip
    return found


def hook_folder(place: Place, waiting: int, oldest_s: float) -> Finding:
    """Whether hooks can drop their files, and someone takes them."""
    what = "hook folder"
    if not place.there or not place.folder:
        return Finding(
            "compute", what, False, look_of(place) if not place.there else f"{place.path}: not a folder",
            "the agent's unit makes it: systemctl restart slurm-energy-agent",
        )  # fmt: skip
    if place.uid != 0 or place.mode & 0o077:
        return Finding(
            "compute", what, False, f"{look_of(place)}: others than root may look or write there",
            f"chown root:root {place.path} && chmod 700 {place.path}",
        )  # fmt: skip
    if waiting and oldest_s > WAITING_HOOK_S:
        return Finding(
            "compute", what, False, f"{waiting} files wait, the oldest for {oldest_s:.0f} s: nobody takes them",
            "systemctl restart slurm-energy-agent; [agent] hooks has to name this folder",
        )  # fmt: skip
    return Finding("compute", what, True, f"{look_of(place)}, {waiting} files wait")


def hooks(name: str, seen: Hooks | None) -> Finding:
    """Whether slurmd runs our hook. name: Prolog or Epilog; seen: None where Slurm does not say."""
    folder = f"/etc/slurm/{name.lower()}.d"
    if seen is None:
        return Finding("compute", name, None, "scontrol show config does not answer here", "scontrol ping")
    copy = f"install -D -m 0755 deploy/slurm/{name.lower()}.d/{HOOK} {folder}/{HOOK} on every compute node"
    if not seen.patterns:
        return Finding(
            "compute", name, False, f"slurm.conf has no {name}: jobs are found late, by their cgroup",
            f"{copy}, then {name}={folder}/* in slurm.conf and scontrol reconfigure",
        )  # fmt: skip
    said = ", ".join(seen.patterns)
    if seen.not_executable:
        files = " ".join(seen.not_executable)
        return Finding("compute", name, False, f"{files}: not executable, slurmd drains the node", f"chmod 755 {files}")
    if not seen.here:
        return Finding("compute", name, False, f"{said}: none of these calls {HOOK}", f"{copy}, or call it from there")
    return Finding("compute", name, True, f"{', '.join(seen.here)} (slurm.conf: {said})")


def prolog_flags(flags: str | None) -> Finding:
    """Whether the Prolog runs when the allocation is made, not at the first step."""
    if flags is None:
        return Finding("compute", "PrologFlags", None, "scontrol show config does not answer here", "scontrol ping")
    have = {flag.strip().lower() for flag in flags.split(",")}
    if have & {"alloc", "contain", "x11"}:  # the latter two imply the first
        return Finding("compute", "PrologFlags", True, flags)
    return Finding(
        "compute", "PrologFlags", False, f"{flags or '(none)'}: the Prolog waits for a job's first step",
        "PrologFlags=Alloc,Contain in slurm.conf, then scontrol reconfigure",
    )  # fmt: skip


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


def outbox(
    place: Place, state: Place, fill: float, files: int, oldest_s: float, limit_mb: int, shipper: Person
) -> Finding:  # fmt: skip
    """Whether segments can go through the outbox, and do."""
    if not place.there or not place.folder:
        made = "the agent's unit makes it: systemctl restart slurm-energy-agent"
        return Finding("compute", "outbox", False, look_of(place), made)
    if state.there and state.device != place.device:
        return Finding(
            "compute", "outbox", False, f"{place.path} and {state.path} are on two file systems: the agent cannot rename",
            "put [agent] state_dir and outbox on one",
        )  # fmt: skip
    if shipper.uid >= 0 and not may(shipper, place, 7):
        remedy = f"chown root:slurm-energy {place.path} && chmod 770 {place.path}"
        return Finding("compute", "outbox", False, f"{look_of(place)}: {shipper.name} may not take files away", remedy)
    said = f"{look_of(place)}: {files} files, {100 * fill:.0f} % of {limit_mb} MB"
    if oldest_s > UNSHIPPED_S or fill > 0.5:
        return Finding(
            "compute", "outbox", False, f"{said}, the oldest waits for {oldest_s / 60:.0f} min: nothing ships them",
            "systemctl status slurm-energy-ship; its journal names what is in the way",
        )  # fmt: skip
    return Finding("compute", "outbox", True, said)


def inbox_of_node(place: Place | None, shipper: Person) -> Finding:
    """Whether this node's shipper can reach the inbox. place: None where no inbox is configured."""
    if place is None:
        return Finding(
            "compute", "inbox", False, "no inbox is named: segments stay in the outbox",
            "systemctl edit slurm-energy-ship: Environment=SENERGY_INBOX=FOLDER and ReadWritePaths=FOLDER",
        )  # fmt: skip
    if not place.there or not place.folder:
        return Finding(
            "compute", "inbox", False, look_of(place),
            f"mount what it is on; made once, on the admin node: install -d -m 2750 -o {USER} -g {USER} {place.path}",
        )  # fmt: skip
    if shipper.uid < 0:
        remedy = f"useradd --system --user-group {USER}, with the same number as on the admin node"
        return Finding("compute", "inbox", False, f"no user {shipper.name} here", remedy)
    if not may(shipper, place, 3):
        return Finding(
            "compute", "inbox", False, f"{look_of(place)}: {shipper.name} ({shipper.uid}) may not write there",
            f"chown {USER}:{USER} {place.path} && chmod 2750 {place.path}; numbers of the user have to be alike on all nodes",
        )  # fmt: skip
    return Finding("compute", "inbox", True, look_of(place))


def port(role: str, what: str, number: int, answers: bool | None, unit_name: str, needed: bool) -> Finding:
    """Whether an exporter answers. needed: its unit is installed here."""
    if answers:
        return Finding(role, what, True, f"port {number} answers")
    if not needed:
        return Finding(role, what, None, f"port {number} does not answer, {unit_name} is not installed: optional")
    remedy = f"systemctl enable --now {unit_name}; journalctl -u {unit_name} says why it does not listen"
    return Finding(role, what, False, f"port {number} does not answer", remedy)


# The admin node


def sacct(seen: Jobs) -> Finding:
    """Whether sacct answers, and shows other people's jobs to who aggregates."""
    if seen.error:
        return Finding("admin", "sacct", False, seen.error, "install Slurm's client commands; is slurmdbd running?")
    others = [user for user in seen.users if user not in ("", seen.asked_as)]
    if others:
        return Finding("admin", "sacct", True, f"{seen.asked_as} sees jobs of {len(others)} other users (last 7 days)")
    hidden = [user for user in seen.users_of_root or () if user not in ("", seen.asked_as)]
    if hidden:
        return Finding(
            "admin", "sacct", False, f"{seen.asked_as} sees none of the jobs of {len(hidden)} users that root sees",
            f"sacctmgr -i add user {seen.asked_as} account=root adminlevel=operator  (PrivateData=jobs is set)",
        )  # fmt: skip
    return Finding(
        "admin", "sacct", None, f"answers; {seen.asked_as} sees no other user's job of the last 7 days",
        "where there were jobs: sacctmgr show user slurm-energy format=user,adminlevel should say Operator",
    )  # fmt: skip


def ledger(place: Place, parent: Place, until: Mapping[str, int] | str, now_s: float, writer: Person) -> Finding:
    """Whether the ledger can be written and was lately. until: by cluster, or why it cannot be read."""
    if writer.uid >= 0 and not may(writer, place if place.there else parent, 3):
        where = place if place.there else parent
        return Finding(
            "admin", "ledger", False, f"{look_of(where)}: {writer.name} may not write there",
            f"install -d -m 0750 -o {writer.name} -g {USER} {place.path}",
        )  # fmt: skip
    first = f"runuser -u {USER} -- senergy aggregate -S 2026-01-01"
    if isinstance(until, str):
        return Finding("admin", "ledger", False, until, "run this as root or a member of the group slurm-energy")
    if not until:
        return Finding("admin", "ledger", False, f"{place.path}: nothing was aggregated yet", first)
    late = {name: (now_s - moment) / 3600 for name, moment in until.items() if now_s - moment > STALE_LEDGER_S}
    if late:
        said = ", ".join(f"{name} {hours:,.0f} h" for name, hours in sorted(late.items()))
        return Finding(
            "admin", "ledger", False, f"{place.path} is behind: {said}",
            "systemctl status slurm-energy-aggregate; journalctl -u slurm-energy-aggregate says why; any run catches up",
        )  # fmt: skip
    youngest = min((now_s - moment) / 3600 for moment in until.values())
    opened = ", readable by everybody" if place.mode & 0o004 else ""
    return Finding("admin", "ledger", True, f"{look_of(place)}: up to {max(youngest, 0):.0f} h ago{opened}")


def inbox_of_admin(place: Place, nodes: int, youngest_s: float | None, reader: Person) -> Finding:
    """Whether what nodes shipped can be read, and taken away afterwards."""
    if not place.there or not place.folder:
        return Finding(
            "admin", "inbox", None, f"{look_of(place)}: no node ships here, jobs are estimated",
            f"install -d -m 2750 -o {USER} -g {USER} {place.path}  and [site] inbox, once nodes have agents",
        )  # fmt: skip
    if reader.uid >= 0 and not may(reader, place, 7):
        return Finding(
            "admin", "inbox", False, f"{look_of(place)}: {reader.name} may not read it and take from it",
            f"chown {USER}:{USER} {place.path} && chmod 2750 {place.path}",
        )  # fmt: skip
    said = (
        "nothing came yet or all is booked"
        if youngest_s is None
        else f"the youngest file came {youngest_s / 60:.0f} min ago"
    )
    return Finding("admin", "inbox", True, f"{look_of(place)}: {nodes} nodes, {said}")


def timer(seen: Unit | None, run: Unit | None, cron: Collection[str]) -> Finding:
    """Whether something aggregates each night, and the last run went well."""
    name = "slurm-energy-aggregate.timer"
    if seen is not None and seen.load == "loaded":
        found = unit("admin", seen, name)
        # 1 is a run that set rows aside: those have a line of their own.
        if found.ok and run is not None and run.result not in ("", "success") and run.status not in (0, 1):
            return Finding(
                "admin", name, False, f"the last run ended with {run.result} ({run.status})",
                "journalctl -u slurm-energy-aggregate says why; then systemctl start slurm-energy-aggregate",
            )  # fmt: skip
        return found
    if cron:
        return Finding("admin", name, True, f"cron runs it: {', '.join(cron)}")
    if seen is None:
        return Finding("admin", name, None, "neither systemd nor a cron file runs it here", "see docs/install.md")
    return unit("admin", seen, name)


def set_aside(rows: int, recent: int, folder: str) -> Finding:
    """Rows of the input that could not be read; recent: those of the last seven days."""
    if recent:
        return Finding(
            "admin", "rows set aside", False, f"{recent} in the last 7 days, {rows} in all",
            f"each stands with its reason in {folder}/*.jsonl; remove a file there once it is dealt with",
        )  # fmt: skip
    return Finding("admin", "rows set aside", True, f"none in the last 7 days, {rows} in all")


# Login nodes


def readable_ledger(place: Place, days: Sequence[str], error: str, reader: str) -> Finding:
    """Whether people can read the ledger here."""
    if error or not place.there:
        return Finding(
            "login", "ledger", False, error or look_of(place),
            "mount or copy it here ([site] ledger names it); who may read it is in its group: "
            f"usermod -aG {USER} PERSON",
        )  # fmt: skip
    if not days:
        return Finding("login", "ledger", False, f"{place.path}: no days in it", "senergy aggregate, on the admin node")
    return Finding("login", "ledger", True, f"{place.path}: {len(days)} days up to {days[-1]}, as {reader} sees it")


def modules(missing: Sequence[str]) -> Finding:
    """Whether what reports need is installed."""
    if missing:
        return Finding(
            "login", "reports", False, f"not installed: {', '.join(missing)}", "pip install 'slurm-energy[admin]'"
        )
    return Finding("login", "reports", True, "what they need is installed")
