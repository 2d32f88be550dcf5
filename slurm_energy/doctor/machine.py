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

from slurm_energy.doctor.admin import RECENT_S, Jobs
from slurm_energy.doctor.common import HOOK, Person, Place, Unit, listening
from slurm_energy.doctor.compute import Agent, Hooks

if TYPE_CHECKING:
    from slurm_energy.agent.options import AgentOptions
    from slurm_energy.config import Config

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

    def listens(self, address: tuple[str, int]) -> bool:
        """Whether something takes a connection there."""
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=2):
            return True
        return False

    def listen_address(self, unit: str, port: int) -> tuple[str, int]:
        """Where the exporter of a unit listens."""
        return listening(self.ask(["systemctl", "show", "--property", "Environment,ExecStart", unit])[1], port)

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
        hooks = [f"/etc/slurm/{kind}.d/{HOOK}" for kind in ("prolog", "epilog")]
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
        from slurm_energy.agent.freshness import age_s

        try:
            shown = read_snapshot(self.at(path))
        except AgentError as error:
            return Agent(error=str(error))
        watts = sum(shown.node_watts().values())
        return Agent(
            "", shown.version, age_s(shown, time.time()), shown.period_s, watts, len(shown.jobs), len(shown.counters), shown.outbox_fill,
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
                    ours = file.name == HOOK
                    if not ours and not (file.is_file() and HOOK in file.read_text(errors="replace")[:65536]):
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
                    if time.time() - file.stat().st_mtime < RECENT_S:
                        recent += count
        return rows, recent
