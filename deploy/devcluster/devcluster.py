#!/usr/bin/env python3
"""A real Slurm cluster on one machine, for development and tests: no systemd, nothing in /etc.

    devcluster.py up      start munged, MariaDB, slurmdbd, slurmctld and a slurmd per node; wait until the nodes are idle
    devcluster.py env     print `export SLURM_CONF=...` for a shell:  eval "$(devcluster.py env)"
    devcluster.py status  say what runs
    devcluster.py slurmd  start the slurmd of --nodes again, after one has ended
    devcluster.py down    cancel the jobs and end the processes started by `up`, by their process ids

Everything lives in the state folder (--dir). Programs are taken from this machine, or from a folder with another
Debian in it (--root, see make-root.sh); a cluster in a root and one on the machine run side by side on other ports, and
under other names of nodes where both use cgroups. `up --prolog deploy/slurm/prolog.d --epilog deploy/slurm/epilog.d` has
the hooks of node n1 drop their files in STATE/hooks/n1, where that folder is made for them.
Needs root, and Debian's packages slurmctld slurmd slurmdbd slurm-client munge mariadb-server.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from configuration import ACCOUNTS, CGROUP2, CONFINEMENT, USERS, spool_folders, write_configuration

PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sacctmgr", "sbatch")


class ClusterError(Exception):
    """The cluster could not be started; the message says what to look at."""


class Cluster:
    """Paths, ports and programs of one cluster; `root` is None for this machine's own programs."""

    def __init__(self, state: Path, root: Path | None, name: str, port: int, nodes: Sequence[str]) -> None:
        self.state, self.root, self.name, self.port, self.nodes = state, root, name, port, nodes
        self.host = socket.gethostname().split(".")[0]
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def outside(self, inside: Path) -> Path:
        """Where a path of the cluster's own file system lies on this machine."""
        return inside if self.root is None else self.root / inside.relative_to("/")

    def command(self, *args: str) -> list[str]:
        environment = ["env", f"SLURM_CONF={self.state}/slurm.conf", "LC_ALL=C.UTF-8"]
        return [*(["chroot", str(self.root)] if self.root else []), *environment, *args]

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.command(*args), capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if check and done.returncode:
            raise ClusterError(f"{' '.join(args)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
        return done

    def daemon(self, label: str, *args: str) -> None:
        """Starts a program in the foreground form, in its own session, and remembers its process id."""
        log = (self.outside(self.state) / f"{label}.out").open("ab")
        process = subprocess.Popen(
            self.command(*args), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        self.started[label] = process
        with self.pids.open("a") as pids:
            pids.write(f"{label} {process.pid}\n")

    def start_slurmd(self, node: str) -> None:
        library = self.state / "v2only.so"
        preload = ("env", f"LD_PRELOAD={library}") if self.outside(library).exists() else ()
        self.daemon(f"slurmd-{node}", *preload, "slurmd", "-D", "-N", node)

    @property
    def pids(self) -> Path:
        return self.outside(self.state) / "pids"

    def processes(self) -> Iterator[tuple[str, int]]:
        """Label and process id of what `up` started and still runs (a reused id is recognised by its program)."""
        if not self.pids.exists():
            return
        for line in self.pids.read_text().splitlines():
            label, pid = line.split()
            with contextlib.suppress(OSError):  # it has ended
                text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                if str(self.state) in text or label.split("-")[0] in text:
                    yield label, int(pid)


def wait_for(cluster: Cluster, label: str, condition: Callable[[], bool], seconds: float = 60) -> None:
    """Polls until what `label` brings is there; where it ended or the time is over, the error shows its log."""
    deadline = time.monotonic() + seconds
    while not condition():
        ended = [name for name, process in cluster.started.items() if process.poll() is not None]
        if ended or time.monotonic() > deadline:
            state = cluster.outside(cluster.state)
            names = [f"{name}.{kind}" for name in (ended or [label])[:2] for kind in ("log", "out")]
            tail = "\n".join((state / n).read_text(errors="replace")[-1500:] for n in names if (state / n).exists())
            what = f"{', '.join(ended)} ended" if ended else f"{label} was not ready in {seconds:.0f} s"
            raise ClusterError(f"{what}:\n{tail}")
        time.sleep(0.1)


def free_ports(start: int, count: int) -> int:
    """The first of `count` adjacent free loopback ports at or after `start`."""
    for first in range(start, 60000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
    raise ClusterError("no free ports on the loopback address")


def ensure_names(cluster: Cluster) -> None:
    """The host name must resolve for slurmctld, and the cluster's users must exist where jobs run."""
    hosts = cluster.outside(Path("/etc/hosts"))
    if cluster.host not in hosts.read_text().split():
        with hosts.open("a") as file:
            file.write(f"127.0.0.1 {cluster.host}\n")
    for user in USERS:
        if cluster.run("id", user, check=False).returncode:
            cluster.run("useradd", "--create-home", "--home-dir", f"/tmp/{user}", user)


def mounts(cluster: Cluster, up: bool) -> None:
    """Gives a root the kernel's file systems where they are not there yet; its last cluster takes them away again."""
    root = cluster.root
    if root is None:
        return
    listed, used = root / ".devcluster-mounted", root / ".devcluster-users"
    users = set(used.read_text().splitlines()) if used.exists() else set()
    users = users | {str(cluster.state)} if up else users - {str(cluster.state)}
    used.write_text("".join(f"{user}\n" for user in sorted(users)))
    if up:
        (root / CGROUP2.relative_to("/")).mkdir(exist_ok=True)
        kinds = {
            "proc": ("-t", "proc", "proc"), "dev": ("--bind", "/dev"), "sys": ("--rbind", "/sys"),
            str(CGROUP2)[1:]: ("-t", "cgroup2", "none"),
        }  # fmt: skip
        for name, how in kinds.items():
            if not os.path.ismount(root / name):
                # A slave, or the unmounting of a bound folder would reach this machine's own.
                subprocess.run(["mount", "--make-rslave", *how, str(root / name)], check=True)
                with listed.open("a") as file:
                    file.write(f"{name}\n")
    elif listed.exists() and not users:
        for name in listed.read_text().split():
            subprocess.run(["umount", "--lazy", "--recursive", str(root / name)], check=False)
        listed.unlink()


def compile_library(cluster: Cluster) -> None:
    """What lets Slurm use cgroup v2 where v1 is mounted as well, compiled where it will run."""
    source = Path(__file__).with_name("v2only.c")
    shutil.copy(source, cluster.outside(cluster.state / source.name))
    here = str(cluster.state / "v2only")
    cluster.run("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-o", f"{here}.so", f"{here}.c", "-ldl")


def up(cluster: Cluster, confinement: str, prolog: Path | None, epilog: Path | None) -> None:
    if confinement == "cgroup/v2" and not cluster.root:
        raise ClusterError("cgroup/v2 goes in a root only; make one with make-root.sh and name it with --root")
    mounts(cluster, up=True)
    missing = [p for p in PROGRAMS if cluster.run("sh", "-c", f"command -v {p}", check=False).returncode]
    if missing:
        raise ClusterError(
            f"not installed: {', '.join(missing)}; as root: apt-get install --no-install-recommends "
            "slurmctld slurmd slurmdbd slurm-client munge mariadb-server"
        )
    state = cluster.outside(cluster.state)
    if state.exists():
        if list(cluster.processes()):
            raise ClusterError(f"a cluster runs already in {state}; `devcluster.py down --dir {cluster.state}` ends it")
        shutil.rmtree(state)
    state.mkdir(parents=True)
    for folder in spool_folders(cluster.nodes):
        (state / folder).mkdir()
    os.chmod(state, 0o755)
    cluster.port = free_ports(cluster.port, 3 + len(cluster.nodes))
    ensure_names(cluster)
    write_configuration(cluster, confinement, prolog, epilog)
    if confinement == "cgroup/v2":
        compile_library(cluster)
    here = str(cluster.state)

    key = state / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    cluster.daemon(
        "munged", "munged", "--foreground", "--force", f"--key-file={here}/munge.key", f"--socket={here}/munge.socket",
        f"--pid-file={here}/munged.pid", f"--log-file={here}/munged.log", f"--seed-file={here}/munge.seed",
    )  # fmt: skip
    cluster.run("mariadb-install-db", "--user=mysql", f"--datadir={here}/mysql", "--skip-test-db")
    cluster.run("chown", "-R", "mysql:", f"{here}/mysql")
    cluster.daemon(
        "mariadbd", "mariadbd", "--no-defaults", "--user=mysql", f"--datadir={here}/mysql",
        f"--socket={here}/mysql/sock", f"--pid-file={here}/mysql/pid", "--bind-address=127.0.0.1",
        f"--port={cluster.port + 2}", "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=2",
        "--innodb-lock-wait-timeout=900", "--loose-innodb-snapshot-isolation=OFF",  # as slurmdbd wants them
    )  # fmt: skip
    wait_for(cluster, "mariadbd", (state / "mysql/sock").exists)
    cluster.run("sh", "-c", f"mariadb --no-defaults --socket={here}/mysql/sock < {here}/sql")
    wait_for(cluster, "munged", (state / "munge.socket").exists)

    cluster.daemon("slurmdbd", "slurmdbd", "-D")
    answers = lambda: cluster.run("sacctmgr", "-n", "show", "cluster", check=False).returncode == 0  # noqa: E731
    wait_for(cluster, "slurmdbd", answers)
    cluster.run("sacctmgr", "-i", "add", "cluster", cluster.name)
    for account, parent in ACCOUNTS.items():
        cluster.run("sacctmgr", "-i", "add", "account", account, *([f"parent={parent}"] if parent else []))
    for user, accounts in USERS.items():
        where = (f"account={','.join(accounts)}", f"DefaultAccount={accounts[0]}")
        cluster.run("sacctmgr", "-i", "add", "user", user, *where)
        cluster.run("sacctmgr", "-i", "add", "user", user, "WCKey=paper", check=False)

    cluster.daemon("slurmctld", "slurmctld", "-D")
    for node in cluster.nodes:
        cluster.start_slurmd(node)
    nodes = lambda: cluster.run("sinfo", "-h", "-N", "-o", "%T", check=False).stdout.split()  # noqa: E731
    wait_for(cluster, "slurmctld", lambda: nodes() == ["idle"] * len(cluster.nodes))


def remove_cgroups(cluster: Cluster, nodes: Sequence[str]) -> None:
    """Takes away the folders that Slurm leaves behind in the cgroup trees, where this cluster has used them."""
    if not nodes or "proctrack/cgroup" not in (cluster.outside(cluster.state) / "slurm.conf").read_text():
        return
    for node in nodes:
        v2 = cluster.outside(CGROUP2) / "system.slice" / f"{node}_slurmstepd.scope"
        for top in (v2,) if cluster.root else Path("/sys/fs/cgroup").glob(f"*/slurm_{node}"):
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):  # a process is in it
                    Path(folder).rmdir()


def down(cluster: Cluster) -> None:
    """Jobs first, for a slurmstepd outlives its slurmd; then the daemons, the database last."""
    running = dict(cluster.processes())
    if "slurmctld" in running:
        cluster.run("scancel", "--full", "--state=RUNNING", check=False)
        cluster.run("scancel", "--state=PENDING", check=False)
        deadline = time.monotonic() + 20
        while cluster.run("squeue", "-h", check=False).stdout.strip() and time.monotonic() < deadline:
            time.sleep(0.2)
    nodes = [label for label in running if label.startswith("slurmd-")]
    for label in (*nodes, "slurmctld", "slurmdbd", "mariadbd", "munged"):
        pid = running.get(label)
        if pid is None:
            continue
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while label in dict(cluster.processes()):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                break
            with contextlib.suppress(ChildProcessError):  # reaps it where it is our own child
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.05)
    cluster.pids.unlink(missing_ok=True)
    remove_cgroups(cluster, [label.removeprefix("slurmd-") for label in nodes])
    mounts(cluster, up=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("up", "down", "env", "status", "slurmd"))
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp/slurm-energy-devcluster"), help="state folder")
    parser.add_argument("--root", type=Path, help="folder with another Debian in it (chroot); --dir is inside it")
    parser.add_argument("--name", default="devc", help="ClusterName")
    parser.add_argument("--port", type=int, default=27810, help="where to look for free loopback ports")
    parser.add_argument("--nodes", default="n1,n2", help="names of the nodes (default: n1,n2)")
    parser.add_argument("--confinement", choices=tuple(CONFINEMENT), help="default: cgroup/v1 where it is mounted")
    parser.add_argument("--prolog", type=Path, metavar="FOLDER", help="scripts to copy and run as Prolog")
    parser.add_argument("--epilog", type=Path, metavar="FOLDER", help="scripts to copy and run as Epilog")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("devcluster: run it as root (slurmd starts jobs as other users)", file=sys.stderr)
        return 2
    cluster = Cluster(options.dir, options.root, options.name, options.port, options.nodes.split(","))
    v1 = options.root is None and Path("/sys/fs/cgroup/cpuacct").is_dir()
    try:
        if options.action == "up":
            up(cluster, options.confinement or ("cgroup/v1" if v1 else "none"), options.prolog, options.epilog)
            print(f"cluster {cluster.name} is up; use it with:  export SLURM_CONF={cluster.state}/slurm.conf")
        elif options.action == "down":
            down(cluster)
        elif options.action == "env":
            print(f"export SLURM_CONF={cluster.state}/slurm.conf")
        elif options.action == "slurmd":
            for node in cluster.nodes:
                cluster.start_slurmd(node)
        else:
            print(json.dumps(dict(cluster.processes()), indent=2))
    except ClusterError as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
