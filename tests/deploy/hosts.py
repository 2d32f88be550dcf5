"""Hosts with a living systemd on this machine: each a Debian of its own in its own namespaces, on the machine's network.

What is in them before they boot is bare_root.host(); what is /sys there is a folder that the tests give (counters in the
kernel's layout). /shared is one folder for all, as a shared filesystem is. Nothing is left behind: mounts go with the
namespaces, processes with the first process, cgroups with the last.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import bare_root
from common.waiting import until

BOOT = Path(__file__).with_name("boot-host.sh")
NOT_HERE = (
    "systemd-udevd.service", "systemd-udevd-kernel.socket", "systemd-udevd-control.socket", "systemd-udev-trigger.service",
    "systemd-modules-load.service", "systemd-sysctl.service", "systemd-binfmt.service", "getty.target",
    "console-getty.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer",
    "dpkg-db-backup.timer", "systemd-tmpfiles-clean.timer",
)  # fmt: skip
"""Units that would look after the machine, or for updates."""
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8",
    "PIP_CACHE_DIR": "/var/cache/pip",
}  # fmt: skip


class Host:
    """One host; `first` is its process 1 as this machine numbers it."""

    def __init__(self, name: str, first: int) -> None:
        self.name, self.first = name, first

    def enter(self, *command: str) -> list[str]:
        """The command line that runs a command on the host as root."""
        settings = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        return ["nsenter", "--target", str(self.first), "--all", "env", "-i", "-C", "/", *settings, *command]

    def run(
        self, *command: str, check: bool = True, user: str = "", given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command on the host. given: what it reads."""
        done = subprocess.run(
            self.enter(*(["runuser", "-u", user, "--"] if user else []), *command), input=given, text=True,
            stdin=subprocess.DEVNULL if given is None else None, capture_output=True, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{self.name}: {command}:\n{done.stdout}{done.stderr}"
        return done

    def write(self, path: str, text: str, mode: str = "0644", owner: str = "root:root") -> None:
        """A file on the host, its folder made where there is none."""
        self.run("install", "-D", "-m", mode, "/dev/stdin", path, given=text)
        self.run("chown", owner, path)

    def stat(self, path: str) -> str:
        """Owner, group and mode."""
        return self.run("stat", "-c", "%U %G %a", path).stdout.strip()

    def shown(self, unit: str, *properties: str) -> dict[str, str]:
        """What systemd says of a unit."""
        lines = self.run("systemctl", "show", unit, "-p", ",".join(properties)).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines)

    def journal(self, unit: str) -> str:
        """What a unit has said."""
        return self.run("journalctl", "-o", "cat", "--no-pager", "-u", unit).stdout


@contextlib.contextmanager
def booted(systems: Mapping[str, Path], shared: Path, masked: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Host]]:
    """Hosts by name, each with the folder that is its /sys and units that are not to run. Raises bare_root.NoRoot."""
    lower = bare_root.host()
    with contextlib.ExitStack() as after:
        # Not where temporary files are: an overlay cannot lie on top of another.
        folder = Path(tempfile.mkdtemp(prefix="senergy-hosts-", dir="/var/tmp"))
        after.callback(subprocess.run, ["rm", "-rf", "--one-file-system", folder], check=False)
        cgroups = after.enter_context(_cgroups(folder / "cgroups"))
        hosts = {}
        for name, system in systems.items():
            own = folder / name
            units = own / "upper/etc/systemd/system"
            units.mkdir(parents=True)
            for unit in (*NOT_HERE, *masked.get(name, ())):
                (units / unit).symlink_to("/dev/null")
            bare_root.reach_mirrors(own / "upper")
            (own / "upper/etc/hosts").write_text(f"127.0.0.1 localhost {' '.join(systems)}\n")
            (own / "upper/etc/hostname").write_text(f"{name}\n")
            (system / "fs/cgroup").mkdir(parents=True, exist_ok=True)
            hosts[name] = after.enter_context(_one(name, lower, own, system, shared, cgroups / name))
        for host in hosts.values():
            _wait(host)
        yield hosts


@contextlib.contextmanager
def _cgroups(point: Path) -> Iterator[Path]:
    """A folder of cgroup v2 for the hosts, whatever else is mounted on this machine."""
    point.mkdir()
    done = subprocess.run(["mount", "-t", "cgroup2", "none", point], capture_output=True, text=True, check=False)
    if done.returncode:
        raise bare_root.NoRoot(f"cgroup v2 cannot be mounted here: {done.stderr.strip()}")
    top = point / f"senergy-hosts-{os.getpid()}"
    try:
        top.mkdir()
        yield top
    finally:
        # The kernel needs a moment for the processes that were in them.
        until("the hosts' cgroups to be gone", lambda: _removed(top), 10, fail=warnings.warn)
        subprocess.run(["umount", point], check=False)


def _removed(top: Path) -> bool:
    """Removes the cgroups that are empty by now; whether all are gone."""
    for path, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()
    return not top.exists()


@contextlib.contextmanager
def _one(name: str, lower: Path, own: Path, system: Path, shared: Path, cgroup: Path) -> Iterator[Host]:
    cgroup.mkdir()
    pip = [str(bare_root.pip_cache()), *(f"{one}:{one}" for one in bare_root.wheels())]
    where = [name, str(lower), str(own), str(system), str(shared), *pip]
    spaces = ["--pid", "--mount", "--uts", "--ipc", "--cgroup", "--propagation", "private"]
    script = 'echo $$ > "$1/cgroup.procs"; shift; exec unshare --fork --kill-child "$@"'
    with (own / "console").open("wb") as console:
        process = subprocess.Popen(
            ["sh", "-c", script, "sh", cgroup, *spaces, BOOT, *where], stdin=subprocess.DEVNULL, stdout=console,
            stderr=console, start_new_session=True,
        )  # fmt: skip

    def not_here(said: str) -> NoReturn:
        console = (own / "console").read_text().strip()[-500:]
        raise bare_root.NoRoot(f"a host cannot be booted here: {said}: {console}")

    def first() -> int:
        """The host's first process, once it is systemd; 0 before."""
        if process.poll() is not None:
            not_here("it has ended")
        found = _words(Path(f"/proc/{process.pid}/task/{process.pid}/children"))
        return int(found[0]) if found and b"systemd" in _command(int(found[0])) else 0

    try:
        yield Host(name, until("its systemd", first, 20, not_here))
    finally:
        process.send_signal(signal.SIGKILL)  # with it goes the host's first process, and with that all others
        process.wait(20)
        # What is left then shows when the folders are removed.
        until(f"the processes of {name} to end", lambda: not _inside(cgroup), 20, print)


def _inside(cgroup: Path) -> str:
    """Process ids in the folder and those below."""
    found = ""
    for file in cgroup.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            found += file.read_text()
    return found


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _wait(host: Host) -> None:
    """Until systemd has started what it is to start."""

    def state() -> str:
        return host.run("systemctl", "is-system-running", check=False).stdout.strip()

    def not_up(_: str) -> NoReturn:
        failed = host.run("systemctl", "list-units", "--failed", "--no-pager", check=False).stdout
        raise bare_root.NoRoot(f"{host.name} does not come up ({state()}): {failed}")

    until(f"{host.name} to be up", lambda: state() == "running", 60, not_up)
