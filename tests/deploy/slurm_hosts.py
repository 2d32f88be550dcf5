"""A Slurm cluster as a site has it, on the hosts of hosts.py: Debian's packages, its units, a configuration in /etc.

An admin node (slurmctld, slurmdbd, MariaDB), compute nodes, a login node. Nothing of slurm-energy is there yet.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path

import bare_root
import hosts
from common.processes import free_port
from common.waiting import until

DEVCLUSTER = Path(__file__).resolve().parents[2] / "deploy/devcluster"
ADMIN, LOGIN, COMPUTE = "adm", "login", ("n1", "n2")
CPUS, MEMORY_MB = 4, 2000
DAEMONS = ("slurmctld.service", "slurmdbd.service", "mariadb.service", "slurmd.service")
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"})
SLURM_CONF = """\
ClusterName=alpha
SlurmctldHost={admin}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=slurm
AuthType=auth/munge
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/cgroup
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
PrologFlags=Alloc,Contain
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=64
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
{hooks}{nodes}
PartitionName=main Nodes=ALL Default=YES State=UP OverSubscribe=NO
"""
NODE = "NodeName={name} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory}\n"
HOOKS = "Prolog=/etc/slurm/prolog.d/*\nEpilog=/etc/slurm/epilog.d/*\n"
CGROUP_CONF = "CgroupPlugin=cgroup/v2\nConstrainCores=no\nConstrainRAMSpace=no\nConstrainDevices=no\n"
SLURMDBD_CONF = """\
AuthType=auth/munge
DbdHost={admin}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=slurm
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=on-this-host-only
StorageLoc=slurm_acct
LogFile=/var/log/slurm/slurmdbd.log
PidFile=/run/slurmdbd.pid
"""
SQL = (
    "create database slurm_acct; create user slurm@localhost identified by 'on-this-host-only';"
    " grant all on slurm_acct.* to slurm@localhost;"
)


class Site:
    """The cluster's hosts, and what an admin does on them."""

    def __init__(self, found: dict[str, hosts.Host], shared: Path) -> None:
        self.hosts, self.shared = found, shared
        self.ports = {name: free_port() for name in ("ctld", "dbd", *COMPUTE)}
        self.admin, self.login = found[ADMIN], found[LOGIN]

    def write_conf(self, hooked: bool) -> None:
        """slurm.conf on every host."""
        nodes = "".join(NODE.format(name=name, port=self.ports[name], cpus=CPUS, memory=MEMORY_MB) for name in COMPUTE)
        text = SLURM_CONF.format(admin=ADMIN, nodes=nodes, hooks=HOOKS if hooked else "", **self.ports)
        for host in self.hosts.values():
            host.write("/etc/slurm/slurm.conf", text)
            host.write("/etc/slurm/cgroup.conf", CGROUP_CONF)

    def start(self) -> None:
        """The database, the accounting, the controller, the nodes; until all nodes are idle."""
        self.write_conf(hooked=False)
        for host in self.hosts.values():
            host.run("useradd", "--uid", "2001", "--create-home", "emma")
            host.run("install", "-d", "-o", "slurm", "-g", "slurm", "/var/log/slurm", "/var/lib/slurm/slurmctld")
        admin = self.admin
        admin.write("/etc/slurm/slurmdbd.conf", SLURMDBD_CONF.format(admin=ADMIN, **self.ports), "0600", "slurm:slurm")
        admin.write("/etc/mysql/mariadb.conf.d/90-local.cnf", "[mysqld]\nskip-networking\n")
        admin.run("systemctl", "restart", "mariadb")
        admin.run("mariadb", given=SQL)
        admin.run("systemctl", "start", "slurmdbd")
        until("slurmdbd", lambda: admin.run("sacctmgr", "-n", "show", "cluster", check=False).returncode == 0)
        for what in ("cluster alpha", "account nlp", "account lisa parent=nlp", "user emma account=lisa"):
            admin.run("sacctmgr", "-i", "add", *what.split())
        admin.run("systemctl", "start", "slurmctld")
        for name in COMPUTE:
            self._hide_v1(self.hosts[name])
            self.hosts[name].run("systemctl", "start", "slurmd")
        self.wait_idle()

    def _hide_v1(self, host: hosts.Host) -> None:
        """Lets slurmd use cgroup v2 on a machine that has v1 mounted as well."""
        if all(line.startswith("0::") for line in Path("/proc/self/cgroup").read_text().splitlines()):
            return
        library = self.shared / "v2only.so"
        if not library.exists():
            subprocess.run(
                ["gcc", "-shared", "-fPIC", "-O2", "-o", library, DEVCLUSTER / "v2only.c", "-ldl"], check=True
            )
        drop_in = "[Service]\nEnvironment=LD_PRELOAD=/shared/v2only.so\n"
        host.write("/etc/systemd/system/slurmd.service.d/v2only.conf", drop_in)
        host.run("systemctl", "daemon-reload")

    def wait_idle(self) -> None:
        def states() -> list[str]:
            return self.admin.run("sinfo", "-h", "-N", "-o", "%T", check=False).stdout.split()

        until("all nodes to be idle", lambda: states() == ["idle"] * len(COMPUTE))

    def submit(self, label: str, node: str, cpus: int, work: str) -> str:
        """The id of a job of emma's that works until `end(label)`."""
        loop = f"while [ ! -e /shared/end-{label} ]; do {work}; done"
        options = ["--parsable", "-J", label, "-w", node, "-c", str(cpus), "-o", "/dev/null", "-D", "/tmp"]
        job = self.login.run("sbatch", *options, "--wrap", loop, user="emma").stdout.strip()
        self.wait(job, {"RUNNING"})
        return job

    def end(self, label: str, job: str) -> None:
        """Lets a job end well."""
        (self.shared / f"end-{label}").touch()
        self.wait(job, ENDED)
        assert self.state(job) == "COMPLETED"

    def state(self, job: str) -> str:
        """In the accounting."""
        words = self.login.run("sacct", "-X", "-P", "-n", "-j", job, "-o", "State").stdout.split()
        return words[0] if words else ""

    def wait(self, job: str, states: Collection[str]) -> None:
        until(f"job {job} to be {' or '.join(sorted(states))}", lambda: self.state(job) in states, 60)


@contextlib.contextmanager
def running(systems: dict[str, Path], shared: Path) -> Iterator[Site]:
    """The cluster, idle. systems: what is /sys on each host. Raises bare_root.NoRoot."""
    assert set(systems) == {ADMIN, LOGIN, *COMPUTE}
    shared.chmod(0o755)
    masked = dict.fromkeys(COMPUTE, DAEMONS[:3]) | {LOGIN: DAEMONS, ADMIN: DAEMONS[3:]}
    with hosts.booted(systems, shared, masked) as found:
        try:
            site = Site(found, shared)
            site.start()
        except (AssertionError, subprocess.CalledProcessError) as reason:
            raise bare_root.NoRoot(f"the hosts came up, but no Slurm cluster on them: {reason}") from reason
        yield site
