"""A Debian root with nothing in it but Python, made once and copied for each use, and commands that run inside it.

Made by debootstrap in $SENERGY_BARE_ROOT_CACHE (default ~/.cache/slurm-energy/roots/bookworm-bare). What the commands
need mounted (/proc, /dev) is in a mount namespace of each command's own, and gone with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

SUITE = "bookworm"
PACKAGES = "ca-certificates,python3,python3-venv,python3-apt"
_MARK = ".bare-root"


class NoRoot(Exception):
    """There is no root to be had here; the message says why."""


def cache() -> Path:
    """Where the root is kept that others are copied from."""
    given = os.environ.get("SENERGY_BARE_ROOT_CACHE")
    return Path(given) if given else Path.home() / f".cache/slurm-energy/roots/{SUITE}-bare"


def make() -> Path:
    """The root in the cache, made at the first use. Raises NoRoot."""
    if os.geteuid() != 0:
        raise NoRoot("a bare Debian root needs root (debootstrap, mount, chroot)")
    root = cache()
    root.parent.mkdir(parents=True, exist_ok=True)
    with root.with_name(f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (root / _MARK).exists():
            return root
        if shutil.which("debootstrap") is None:
            raise NoRoot("debootstrap is not installed")
        mirror = _mirror()
        new = Path(tempfile.mkdtemp(prefix=f"{root.name}-", dir=root.parent))
        try:
            done = subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(new), mirror],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise NoRoot(f"debootstrap failed: {(done.stdout + done.stderr).strip()[-2000:]}")
            new.chmod(0o755)
            for point in ("proc", "sys"):  # some versions of debootstrap leave theirs mounted
                subprocess.run(["umount", "-l", new / point], capture_output=True, check=False)
            shutil.rmtree(new / "var/cache/apt", ignore_errors=True)
            (new / "var/cache/apt/archives/partial").mkdir(parents=True)
            (new / _MARK).write_text(f"{SUITE}\n")
            shutil.rmtree(root, ignore_errors=True)
            new.rename(root)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return root


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
    """A copy of the root that may be changed, with this machine's way to its package mirrors. Raises NoRoot."""
    source = make()
    folder = Path(tempfile.mkdtemp(prefix="senergy-root-", dir="/var/tmp"))
    root = folder / "root"
    try:
        subprocess.run(["cp", "-a", "--reflink=auto", source, root], check=True)
        for name in ("resolv.conf", "hosts", "pip.conf"):
            with contextlib.suppress(OSError):
                shutil.copy(f"/etc/{name}", root / "etc" / name)
        with contextlib.suppress(OSError):
            shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
        for links in os.environ.get("PIP_FIND_LINKS", "").split():
            if Path(links).is_dir():
                (root / links.lstrip("/")).mkdir(parents=True, exist_ok=True)
        (root / "var/cache/pip").mkdir(parents=True, exist_ok=True)
        yield root
    finally:
        _remove(folder)


def inside(root: Path | str, command: Sequence[str]) -> list[str]:
    """The command line that runs a command in the root, with mounts that only it sees."""
    # What pip downloads once is kept between runs of the tests, and found by this machine's own folders of wheels.
    kept = Path.home() / ".cache/slurm-energy/pip"
    kept.mkdir(parents=True, exist_ok=True)
    links = [one for one in os.environ.get("PIP_FIND_LINKS", "").split() if Path(one).is_dir()]
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
