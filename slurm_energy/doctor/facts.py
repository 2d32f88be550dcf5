"""Looks at this machine for the doctor. Everything is looked at below `root`, so that tests can show it another machine.

Nothing here changes anything, waits long, or raises: what cannot be seen is said in the fact.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slurm_energy.doctor import checks
from slurm_energy.doctor.checks import Agent, Finding, Hooks, Jobs, Person, Place, Unit

if TYPE_CHECKING:
    from slurm_energy.agent.options import AgentOptions
    from slurm_energy.config import Config

NODE_PORT, LEDGER_PORT = 9854, 9855
UNITS = Path("/etc/systemd/system")
_PATIENCE_S = 20.0


class Machine:
    """What can be seen of a machine. root: where its files are; ask: runs a command, None where it cannot be run."""

    def __init__(self, root: Path = Path("/"), environment: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.environment = os.environ if environment is None else environment

    # Single looks

    def at(self, path: Path | str) -> Path:
        """Where a path of the machine is for us."""
        return self.root / str(path).lstrip("/") if self.root != Path("/") else Path(path)

    def place(self, path: Path | str) -> Place:
        """A file or folder, links followed as the programs do."""
        try:
            found = self.at(path).stat()
        except OSError as error:
            return Place(str(path), error=(error.strerror or "not there").lower())
        folder = self.at(path).is_dir()
        return Place(str(path), True, folder, found.st_uid, found.st_gid, found.st_mode & 0o7777, found.st_dev)

    def person(self, name: str) -> Person:
        """A user and its groups."""
        import grp
        import pwd

        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return Person(name)
        with contextlib.suppress(OSError):
            return Person(name, entry.pw_uid, tuple(os.getgrouplist(name, entry.pw_gid)))
        return Person(name, entry.pw_uid, tuple(group.gr_gid for group in grp.getgrall() if name in group.gr_mem))

    def ask(self, command: Sequence[str], user: Person | None = None) -> tuple[int, str, str]:
        """Exit code, output and complaints of a command; code -1 where there is no such command or it takes too long."""
        program = shutil.which(command[0], path=self.environment.get("PATH"))
        if program is None:
            return -1, "", f"{command[0]} is not on the PATH"
        groups = {"user": user.uid, "group": user.gids[0], "extra_groups": list(user.gids)} if user is not None else {}
        try:
            done = subprocess.run(
                [program, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, check=False,
                timeout=_PATIENCE_S, cwd="/", env={**self.environment, "LC_ALL": "C.UTF-8"}, **groups,
            )  # type: ignore[call-overload]  # fmt: skip
        except subprocess.TimeoutExpired:
            return -1, "", f"{command[0]} does not answer within {_PATIENCE_S:.0f} s"
        except OSError as error:
            return -1, "", f"{command[0]}: {error.strerror}"
        return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace").strip()

    def listens(self, port: int) -> bool:
        """Whether something takes a connection on the port."""
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=2):
            return True
        return False

    def unit(self, name: str) -> Unit | None:
        """A unit, None where systemd does not run."""
        if not self.at("/run/systemd/system").is_dir():
            return None
        properties = "LoadState,ActiveState,UnitFileState,Result,ExecMainStatus"
        code, said, _ = self.ask(["systemctl", "show", "--property", properties, name])
        if code:
            return None
        have = dict(line.partition("=")[::2] for line in said.splitlines())
        status = have.get("ExecMainStatus", "0")
        return Unit(
            name, have.get("LoadState", ""), have.get("ActiveState", ""), have.get("UnitFileState", ""),
            have.get("Result", ""), int(status) if status.isdigit() else 0,
        )  # fmt: skip

    def installed(self, unit: str) -> bool:
        """Whether a unit's file is there, systemd or not."""
        return any(self.at(folder / unit).exists() for folder in (UNITS, Path("/usr/lib/systemd/system")))

    # What a role is guessed from

    def roles(self, config: Config, file: Path | None) -> list[str]:
        """What this machine is, by what of ours is installed; empty where nothing is."""
        found = []
        hooks = [f"/etc/slurm/{kind}.d/{checks.HOOK}" for kind in ("prolog", "epilog")]
        if self.installed("slurm-energy-agent.service") or any(self.at(hook).exists() for hook in hooks):
            found.append("compute")
        if self.installed("slurm-energy-aggregate.timer") or self.cron():
            found.append("admin")
        if not found and file is not None and config.site.ledger:
            found.append("login")
        return found

    def cron(self) -> list[str]:
        """Files of cron that run the aggregation."""
        found = []
        for name in ("cron.d", "crontab"):
            path = self.at(Path("/etc") / name)
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                with contextlib.suppress(OSError):
                    text = file.read_text(errors="replace")
                    if re.search(r"(?m)^[^#\n]*senergy\s+aggregate", text):
                        found.append(f"/etc/cron.d/{file.name}" if path.is_dir() else "/etc/crontab")
        return found

    # Compute nodes

    def agent(self, path: str) -> Agent:
        """What the agent answers."""
        from slurm_energy.agent.client import AgentError, read_snapshot

        try:
            shown = read_snapshot(self.at(path))
        except AgentError as error:
            return Agent(error=str(error))
        watts = sum(sum(one.watts.values()) for one in (*shown.jobs, shown.idle))
        age = max(time.time() - shown.wall_ns / 1e9, 0.0)
        return Agent(
            "", shown.version, age, shown.period_s, watts, len(shown.jobs), len(shown.counters), shown.outbox_fill,
            tuple(shown.problems),
        )  # fmt: skip

    def files(self, folder: Path | str, suffix: str = "") -> tuple[int, int, float, float | None]:
        """Of the files of a folder, dot-files aside: how many, bytes, age of the oldest, and of the youngest."""
        count = size = 0
        times = []
        with contextlib.suppress(OSError), os.scandir(self.at(folder)) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.endswith(suffix):
                    continue
                with contextlib.suppress(OSError):
                    seen = entry.stat(follow_symlinks=False)
                    count, size = count + 1, size + seen.st_size
                    times.append(seen.st_mtime)
        now = time.time()
        return count, size, max(now - min(times), 0.0) if times else 0.0, max(now - max(times), 0.0) if times else None

    def slurm_conf(self) -> dict[str, list[str]] | None:
        """`scontrol show config`: values by key; the entries of Prolog[0], Prolog[1] ... in one list."""
        code, said, _ = self.ask(["scontrol", "show", "config"])
        if code:
            return None
        found: dict[str, list[str]] = {}
        for line in said.splitlines():
            match = re.match(r"(\w+)(?:\[\d+\])?\s*=\s*(.*?)\s*$", line)
            if match and match[2] not in ("(null)", "(none)", ""):
                found.setdefault(match[1], []).append(match[2])
        return found

    def hooks(self, name: str, conf: Mapping[str, Sequence[str]] | None) -> Hooks | None:
        """Prolog or Epilog, and which of those files are, or call, our hook on this node."""
        if conf is None:
            return None
        # Before 23.02 several are one value, with colons.
        patterns = [part for value in conf.get(name, ()) for part in value.split(":") if part]
        here: list[str] = []
        idle: list[str] = []
        for pattern in patterns:
            base = pattern if pattern.startswith("/") else f"/etc/slurm/{pattern}"
            for file in sorted(self.at("/").glob(base.lstrip("/"))):
                shown = f"/{file.relative_to(self.at('/'))}"
                with contextlib.suppress(OSError):
                    ours = file.name == checks.HOOK
                    if not ours and not (file.is_file() and checks.HOOK in file.read_text(errors="replace")[:65536]):
                        continue
                    (here if file.stat().st_mode & 0o111 else idle).append(shown)
        return Hooks(tuple(patterns), tuple(here), tuple(idle))

    def inbox_of_node(self, options: AgentOptions, config: Config) -> str:
        """Where this node ships to: the agent's own setting, the ship unit's files (the last word counts), else the site's."""
        if options.ship_to:
            return options.ship_to
        named = ""
        units = self.at(UNITS)
        unit = units / "slurm-energy-ship.service"
        for file in (unit, *sorted(Path(f"{unit}.d").glob("*.conf"))):
            with contextlib.suppress(OSError):
                for match in re.finditer(r'(?m)^Environment=.*?"?SENERGY_INBOX=([^\s"]+)', file.read_text()):
                    named = match[1]
        return named or self.environment.get("SENERGY_INBOX", "") or config.site.inbox

    # The admin node

    def jobs(self, who: Person) -> Jobs:
        """Whose jobs `sacct -a` shows to the service's user, and to root where root asks."""
        command = ["sacct", "-a", "-X", "-n", "-P", "-S", "now-7days", "-o", "User"]
        import pwd

        root = os.geteuid() == 0
        as_service = root and who.uid > 0
        try:
            mine = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            mine = str(os.geteuid())
        asked_as = who.name if as_service else mine
        code, said, complaint = self.ask(command, who if as_service else None)
        if code:
            first = complaint.splitlines()[0] if complaint else f"sacct ended with {code}"
            return Jobs(asked_as, error=first)
        users = tuple(sorted(set(said.split())))
        if not as_service:
            return Jobs(asked_as, users)
        code, said, _ = self.ask(command)
        return Jobs(asked_as, users, tuple(sorted(set(said.split()))) if code == 0 else None)

    def set_aside(self, ledger: Path) -> tuple[int, int]:
        """Rows set aside: all, and those of files of the last seven days."""
        rows = recent = 0
        with contextlib.suppress(OSError):
            for file in self.at(ledger / "set-aside").glob("*.jsonl"):
                with contextlib.suppress(OSError):
                    count = file.read_bytes().count(b"\n")
                    rows += count
                    if time.time() - file.stat().st_mtime < checks.RECENT_S:
                        recent += count
        return rows, recent


# By role


def compute(machine: Machine, options: AgentOptions, config: Config) -> list[Finding]:
    """What a compute node needs."""
    from slurm_energy.version import __version__

    shipper = machine.person(checks.USER)
    seen = machine.agent(options.socket)
    found = checks.agent(seen, options.socket, __version__)
    waiting, _, oldest, _ = machine.files(options.hooks)
    found.append(checks.hook_folder(machine.place(options.hooks), waiting, oldest))
    conf = machine.slurm_conf()
    found += [checks.hooks(name, machine.hooks(name, conf)) for name in ("Prolog", "Epilog")]
    found.append(checks.prolog_flags(None if conf is None else ",".join(conf.get("PrologFlags", ()))))
    for name in ("slurm-energy-agent.service", "slurm-energy-ship.service"):
        if name != "slurm-energy-ship.service" or not options.ship_to:
            found.append(checks.unit("compute", machine.unit(name), name))
    files, size, oldest, _ = machine.files(options.outbox, ".jsonl")
    fill = seen.outbox_fill if not seen.error else size / (options.outbox_limit_mb * 1e6)
    where, state = machine.place(options.outbox), machine.place(options.state_dir)
    found.append(checks.outbox(where, state, fill, files, oldest, options.outbox_limit_mb, shipper))
    inbox = machine.inbox_of_node(options, config)
    found.append(checks.inbox_of_node(machine.place(inbox) if inbox else None, shipper))
    found += _exporter(machine, "compute", "slurm-energy-node-exporter.service", NODE_PORT)
    return found


def admin(machine: Machine, config: Config, ledger: Path) -> list[Finding]:
    """What the admin node needs."""
    from slurm_energy.config import inbox_path
    from slurm_energy.ledger.store import Ledger, LedgerError

    service = machine.person(checks.USER)
    found = [checks.sacct(machine.jobs(service))]
    until: dict[str, int] | str
    try:
        until = Ledger(machine.at(ledger)).read_state()
    except LedgerError as error:
        until = str(error)
    place = machine.place(ledger)
    found.append(checks.ledger(place, machine.place(ledger.parent), until, time.time(), service))
    inbox = inbox_path(config, ledger)
    nodes, youngest = 0, None
    with contextlib.suppress(OSError):
        for node in machine.at(inbox).glob("*/*/"):
            nodes += 1
            age = machine.files(inbox / node.relative_to(machine.at(inbox)))[3]
            youngest = age if youngest is None else youngest if age is None else min(age, youngest)
    found.append(checks.inbox_of_admin(machine.place(inbox), nodes, youngest, service))
    name = "slurm-energy-aggregate"
    found.append(checks.timer(machine.unit(f"{name}.timer"), machine.unit(f"{name}.service"), machine.cron()))
    found.append(checks.set_aside(*machine.set_aside(ledger), str(ledger / "set-aside")))
    found += _exporter(machine, "admin", "slurm-energy-ledger-exporter.service", LEDGER_PORT)
    return found


def login(machine: Machine, ledger: Path) -> list[Finding]:
    """What a login node needs, for who runs this."""
    from importlib.util import find_spec

    from slurm_energy.ledger.store import Ledger

    missing = [name for name in ("duckdb", "pandas", "pyarrow") if find_spec(name) is None]
    place, days, error = machine.place(ledger), [], ""
    folder = machine.at(ledger) / "days"
    try:
        if place.there:
            list(os.scandir(folder))  # says what a glob would keep to itself
            days = sorted({one.day.isoformat() for one in Ledger(machine.at(ledger)).days()})
            for one in Ledger(machine.at(ledger)).days()[-1:]:
                one.path.open("rb").close()
    except FileNotFoundError:
        pass
    except OSError as problem:
        error = f"{ledger}: {(problem.strerror or '').lower()}"
    who = os.environ.get("USER", "") or str(os.geteuid())
    return [checks.readable_ledger(place, days, error, who), checks.modules(missing)]


def _exporter(machine: Machine, role: str, name: str, port: int) -> list[Finding]:
    needed = machine.installed(name)
    what = name.removesuffix(".service").removeprefix("slurm-energy-").replace("-", " ")
    found = [checks.unit(role, machine.unit(name), name)] if needed else []
    return [*found, checks.port(role, what, port, machine.listens(port), name, needed)]
