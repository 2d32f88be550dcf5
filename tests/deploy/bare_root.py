"""Debian roots, made once by debootstrap and copied for each use, and commands that run inside a copy.

They are kept in $SENERGY_BARE_ROOT_CACHE (default ~/.cache/slurm-energy/roots). What the commands need mounted (/proc,
/dev) is in a mount namespace of each command's own, and gone with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "python3", "python3-venv", "python3-apt")
HOST_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "sudo", "munge", "slurmctld", "slurmd", "slurmdbd", "slurm-client",
    "mariadb-server",
)  # fmt: skip
_MARK = ".bare-root"


class NoRoot(Exception):
    """There is no root to be had here; the message says why."""


def _cache(name: str) -> Path:
    """Where a root is kept that others are copied from."""
    given = os.environ.get("SENERGY_BARE_ROOT_CACHE")
    folder = Path(given) if given else Path.home() / ".cache/slurm-energy/roots"
    return folder / f"{SUITE}-{name}"


def bare() -> Path:
    """A Debian with nothing in it but Python, made at the first use. Raises NoRoot."""

    def fill(new: Path) -> None:
        if shutil.which("debootstrap") is None:
            raise NoRoot("debootstrap is not installed")
        _do(["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(new), _mirror()])
        for point in ("proc", "sys"):  # some versions of debootstrap leave theirs mounted
            subprocess.run(["umount", "-l", new / point], capture_output=True, check=False)
        _tidy(new)

    return _made("bare", PACKAGES, fill)


def host() -> Path:
    """A host of a Slurm cluster, with systemd; Debian's packages as they are installed. Raises NoRoot."""

    def fill(new: Path) -> None:
        _do(["cp", "-a", "--reflink=auto", f"{bare()}/.", str(new)])
        reach_mirrors(new)
        policy = new / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")  # nothing is started while it is installed
        policy.chmod(0o755)
        quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
        _do(inside(new, [*quiet, "update"]))
        _do(inside(new, [*quiet, "install", "-y", "--no-install-recommends", *HOST_PACKAGES]))
        policy.unlink()
        _tidy(new)

    return _made("host", HOST_PACKAGES, fill)


def _made(name: str, packages: Sequence[str], fill: Callable[[Path], None]) -> Path:
    """The root of that name in the cache; filled where there is none, or one with other packages."""
    if os.geteuid() != 0:
        raise NoRoot("a Debian root needs root (debootstrap, mount, chroot)")
    root, says = _cache(name), f"{SUITE} {' '.join(packages)}\n"
    root.parent.mkdir(parents=True, exist_ok=True)
    with root.with_name(f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (root / _MARK).exists() and (root / _MARK).read_text() == says:
            return root
        new = Path(tempfile.mkdtemp(prefix=f"{root.name}-", dir=root.parent))
        try:
            fill(new)
            new.chmod(0o755)
            (new / _MARK).write_text(says)
            shutil.rmtree(root, ignore_errors=True)
            new.rename(root)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return root


def _do(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoRoot(f"{' '.join(command)} failed: {(done.stdout + done.stderr).strip()[-2000:]}")


def _tidy(root: Path) -> None:
    """Removes what apt has downloaded."""
    shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)


def _mirror() -> str:
    """The first Debian archive that this machine's apt has, or $MIRROR. Raises NoRoot."""
    if os.environ.get("MIRROR"):
        return os.environ["MIRROR"]
    folder = Path("/etc/apt")
    files = [folder / "sources.list.d/debian.sources", folder / "sources.list"]
    for file in [*files, *sorted((folder / "sources.list.d").glob("*.list"))]:
        with contextlib.suppress(OSError):
            found = re.search(r"^(?:URIs:|deb(?: +\[[^]]*\])?) +(\S+)", file.read_text(), re.MULTILINE)
            if found:
                return found[1]
    raise NoRoot("no Debian mirror in /etc/apt; name one with MIRROR=URL")


@contextlib.contextmanager
def copied() -> Iterator[Path]:
    """A copy of a bare root that may be changed, with this machine's way to its package mirrors. Raises NoRoot."""
    source = bare()
    folder = Path(tempfile.mkdtemp(prefix="senergy-root-", dir="/var/tmp"))
    root = folder / "root"
    try:
        subprocess.run(["cp", "-a", "--reflink=auto", source, root], check=True)
        reach_mirrors(root)
        yield root
    finally:
        _remove(folder)


def reach_mirrors(root: Path) -> None:
    """Gives a root this machine's way to its package mirrors, and the places where pip's folders are mounted."""
    for name in ("resolv.conf", "hosts", "pip.conf"):
        with contextlib.suppress(OSError):
            shutil.copy(f"/etc/{name}", root / "etc" / name)
    with contextlib.suppress(OSError):
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
    for place in ("/var/cache/pip", *wheels()):
        (root / place.lstrip("/")).mkdir(parents=True, exist_ok=True)


def pip_cache() -> Path:
    """What pip downloads once is kept here between runs of the tests; mounted at /var/cache/pip in a root."""
    kept = Path.home() / ".cache/slurm-energy/pip"
    kept.mkdir(parents=True, exist_ok=True)
    return kept


def wheels() -> list[str]:
    """This machine's own folders of wheels, which pip finds in a root under the same names."""
    return [one for one in os.environ.get("PIP_FIND_LINKS", "").split() if Path(one).is_dir()]


def inside(root: Path | str, command: Sequence[str]) -> list[str]:
    """The command line that runs a command in the root, with mounts that only it sees."""
    kept, links = pip_cache(), wheels()
    script = "set -e; root=$1; kept=$2; shift 2; mount -t proc proc $root/proc; mount --rbind /dev $root/dev; "
    script += "mount --bind $kept $root/var/cache/pip; "
    script += "".join(f"mount --bind {one} $root{one}; " for one in links)
    script += 'exec chroot $root env PIP_CACHE_DIR=/var/cache/pip LC_ALL=C.UTF-8 HOME=/root "$@"'
    return [
        "unshare",
        "--mount",
        "--propagation",
        _propagation(),
        "sh",
        "-c",
        script,
        "sh",
        str(root),
        str(kept),
        *command,
    ]


def _propagation() -> str:
    """Private, but for a process whose own / is no mount (one in a chroot): there unshare(1) has nothing to change."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return "private" if "/" in mounts else "unchanged"


def _remove(folder: Path) -> None:
    """Removes a copy, and nothing that may still be mounted in it."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in sorted((one for one in places if one.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "-l", place], check=False)
    subprocess.run(["rm", "-rf", "--one-file-system", folder], check=False)
