#!/usr/bin/env python3
"""A real Slurm cluster on one machine, for development and tests: no systemd, nothing in /etc.

    devcluster.py up      start munged, MariaDB, slurmdbd, slurmctld and two slurmd; wait until the nodes are idle
    devcluster.py env     print `export SLURM_CONF=...` for a shell:  eval "$(devcluster.py env)"
    devcluster.py status  say what runs
    devcluster.py down    cancel the jobs and end the processes started by `up`, by their process ids

Everything lives in the state folder (--dir). Programs are taken from this machine, or from a folder with another
Debian in it (--root, see make-root.sh); a cluster in a root and one on the machine run side by side on other ports.
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
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sacctmgr", "sbatch")
ACCOUNTS = {"nlp": None, "lisa": "nlp", "vision": None}  # account: parent
USERS = {"sealice": ("lisa", "vision"), "sebob": ("vision",)}  # user: accounts, the first is the default

SLURM_CONF = """\
ClusterName={cluster}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={state}/munge.socket
CredType=cred/munge
SlurmUser=root
StateSaveLocation={state}/ctld
SlurmdSpoolDir={state}/spool-%n
SlurmctldLogFile={state}/slurmctld.log
SlurmctldPidFile={state}/slurmctld.pid
SlurmdLogFile={state}/slurmd-%n.log
SlurmdPidFile={state}/slurmd-%n.pid
MailProg=/bin/true
{confinement}
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
MinJobAge=5
SchedulerParameters=batch_sched_delay=0,sched_interval=2,default_queue_depth=500
MaxArraySize=10001
MaxJobCount=20000
PrologFlags=Alloc,Contain
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=64
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
AccountingStoragePass={state}/munge.socket
AccountingStorageTRES=gres/gpu,gres/gpu:titanx,gres/gpu:m40
AccountingStoreFlags=job_comment
JobAcctGatherFrequency=1
TrackWCKey=yes
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1_port} CPUs=8 RealMemory=2000 Gres=gpu:titanx:4
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2_port} CPUs=8 RealMemory=2000 Gres=gpu:m40:4
PartitionName=main Nodes=ALL Default=YES State=UP OverSubscribe=NO MaxTime=INFINITE
"""
# The cgroup v1 hierarchy is what a plain Debian 12 machine mounts without systemd; a root runs without cgroups.
CONFINEMENT = {
    "cgroup/v1": (
        "ProctrackType=proctrack/cgroup\nTaskPlugin=task/cgroup\nJobAcctGatherType=jobacct_gather/cgroup",
        "CgroupPlugin=cgroup/v1\nConstrainCores=no\nConstrainRAMSpace=no\nConstrainDevices=no\n",
    ),
    "none": (
        "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/linux",
        "CgroupPlugin={no_cgroup}\n",
    ),
}
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={state}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd_port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql_port}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct
LogFile={state}/slurmdbd.log
PidFile={state}/slurmdbd.pid
TrackWCKey=yes
"""


class ClusterError(Exception):
    """The cluster could not be started; the message says what to look at."""


class Cluster:
    """Paths, ports and programs of one cluster; `root` is None for this machine's own programs."""

    def __init__(self, state: Path, root: Path | None, name: str, port: int) -> None:
        self.state, self.root, self.name, self.port = state, root, name, port
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
        ended = cluster.started[label].poll() is not None
        if ended or time.monotonic() > deadline:
            state = cluster.outside(cluster.state)
            logs = [log for log in (state / f"{label}.log", state / f"{label}.out") if log.exists()]
            tail = "\n".join(log.read_text(errors="replace")[-1500:] for log in logs)
            raise ClusterError(f"{label} {'ended' if ended else f'was not ready in {seconds:.0f} s'}:\n{tail}")
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


def write_configuration(cluster: Cluster, confinement: str) -> None:
    state = cluster.outside(cluster.state)
    plugins, cgroup = CONFINEMENT[confinement]
    # Slurm 22.05 has no plugin that does nothing; nothing here asks v1's to do anything, mounted or not.
    old = cluster.run("slurmd", "-V").stdout.split()[-1] < "23.02"
    cgroup = cgroup.format(no_cgroup="cgroup/v1" if old else "disabled")
    values = {
        "cluster": cluster.name, "host": cluster.host, "state": cluster.state, "port": cluster.port,
        "dbd_port": cluster.port + 1, "sql_port": cluster.port + 2, "n1_port": cluster.port + 3,
        "n2_port": cluster.port + 4, "confinement": plugins, "password": secrets.token_hex(8),
    }  # fmt: skip
    (state / "slurm.conf").write_text(SLURM_CONF.format(**values))
    (state / "cgroup.conf").write_text(cgroup)
    (state / "gres.conf").write_text(
        "".join(
            f"NodeName={node} Name=gpu Type={model} File={cluster.state}/dev/{node}-nvidia[0-3]\n"
            for node, model in (("n1", "titanx"), ("n2", "m40"))
        )
    )
    dbd = state / "slurmdbd.conf"
    dbd.touch(mode=0o600)
    dbd.write_text(SLURMDBD_CONF.format(**values))
    (state / "sql").write_text(
        "create database slurm_acct character set utf8mb4;"  # job names are in the users' own alphabets
        f" create user slurm@'127.0.0.1' identified by '{values['password']}';"
        " grant all on slurm_acct.* to slurm@'127.0.0.1';"
    )
    (state / "dev").mkdir()
    for node in ("n1", "n2"):
        for number in range(4):  # a GPU that Slurm can hand out: any character device will do
            os.mknod(state / "dev" / f"{node}-nvidia{number}", 0o666 | 0o020000, os.makedev(1, 3))


def ensure_names(cluster: Cluster) -> None:
    """The host name must resolve for slurmctld, and the cluster's users must exist where jobs run."""
    hosts = cluster.outside(Path("/etc/hosts"))
    if cluster.host not in hosts.read_text().split():
        with hosts.open("a") as file:
            file.write(f"127.0.0.1 {cluster.host}\n")
    for user in USERS:
        if cluster.run("id", user, check=False).returncode:
            cluster.run("useradd", "--create-home", "--home-dir", f"/tmp/{user}", user)


def mounts(root: Path, up: bool) -> None:
    """Gives a root the kernel's file systems where they are not there yet, or takes away what it gave before."""
    listed = root / ".devcluster-mounted"
    if up:
        for name, how in (("proc", ("-t", "proc", "proc")), ("dev", ("--bind", "/dev")), ("sys", ("--rbind", "/sys"))):
            if not os.path.ismount(root / name):
                # A slave, or the unmounting of a bound folder would reach this machine's own.
                subprocess.run(["mount", "--make-rslave", *how, str(root / name)], check=True)
                with listed.open("a") as file:
                    file.write(f"{name}\n")
    elif listed.exists():
        for name in listed.read_text().split():
            subprocess.run(["umount", "--lazy", "--recursive", str(root / name)], check=False)
        listed.unlink()


def up(cluster: Cluster, confinement: str) -> None:
    if cluster.root:
        mounts(cluster.root, up=True)
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
    for folder in ("ctld", "mysql", "spool-n1", "spool-n2"):
        (state / folder).mkdir()
    os.chmod(state, 0o755)
    cluster.port = free_ports(cluster.port, 5)
    ensure_names(cluster)
    write_configuration(cluster, confinement)
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
    for node in ("n1", "n2"):
        cluster.daemon(f"slurmd-{node}", "slurmd", "-D", "-N", node)
    nodes = lambda: cluster.run("sinfo", "-h", "-N", "-o", "%T", check=False).stdout.split()  # noqa: E731
    wait_for(cluster, "slurmctld", lambda: nodes() == ["idle", "idle"])


def down(cluster: Cluster) -> None:
    """Jobs first, for a slurmstepd outlives its slurmd; then the daemons, the database last."""
    running = dict(cluster.processes())
    if "slurmctld" in running:
        cluster.run("scancel", "--full", "--state=RUNNING", check=False)
        cluster.run("scancel", "--state=PENDING", check=False)
        deadline = time.monotonic() + 20
        while cluster.run("squeue", "-h", check=False).stdout.strip() and time.monotonic() < deadline:
            time.sleep(0.2)
    for label in ("slurmd-n1", "slurmd-n2", "slurmctld", "slurmdbd", "mariadbd", "munged"):
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
    if cluster.root:
        mounts(cluster.root, up=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("up", "down", "env", "status"))
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp/slurm-energy-devcluster"), help="state folder")
    parser.add_argument("--root", type=Path, help="folder with another Debian in it (chroot); --dir is inside it")
    parser.add_argument("--name", default="devc", help="ClusterName")
    parser.add_argument("--port", type=int, default=27810, help="where to look for five free loopback ports")
    parser.add_argument("--confinement", choices=tuple(CONFINEMENT), help="default: cgroup/v1 where it is mounted")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("devcluster: run it as root (slurmd starts jobs as other users)", file=sys.stderr)
        return 2
    cluster = Cluster(options.dir, options.root, options.name, options.port)
    v1 = options.root is None and Path("/sys/fs/cgroup/cpuacct").is_dir()
    try:
        if options.action == "up":
            up(cluster, options.confinement or ("cgroup/v1" if v1 else "none"))
            print(f"cluster {cluster.name} is up; use it with:  export SLURM_CONF={cluster.state}/slurm.conf")
        elif options.action == "down":
            down(cluster)
        elif options.action == "env":
            print(f"export SLURM_CONF={cluster.state}/slurm.conf")
        else:
            print(json.dumps(dict(cluster.processes()), indent=2))
    except ClusterError as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
