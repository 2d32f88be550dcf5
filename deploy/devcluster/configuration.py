"""What a cluster of devcluster.py has in its files: slurm.conf, cgroup.conf, gres.conf, slurmdbd.conf, hook scripts."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devcluster import Cluster

ACCOUNTS = {"nlp": None, "lisa": "nlp", "vision": None}  # account: parent
USERS = {"sealice": ("lisa", "vision"), "sebob": ("vision",)}  # user: accounts, the first is the default
MODELS = ("titanx", "m40")  # a node has four of one, its neighbour four of the other
CGROUP2 = Path("/mnt/cgroup2")  # inside a root; /sys there is this machine's

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
{hooks}SelectType=select/cons_tres
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
{nodes}
PartitionName=main Nodes=ALL Default=YES State=UP OverSubscribe=NO MaxTime=INFINITE
"""
NODE = "NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=2000 Gres=gpu:{model}:4"
# The cgroup v1 hierarchy is what a plain Debian 12 machine mounts without systemd. A root runs without cgroups, or with
# cgroup v2, whose controllers may all be taken by v1: the CPU time is counted even so, memory is not.
CONFINEMENT = {
    "cgroup/v1": (
        "ProctrackType=proctrack/cgroup\nTaskPlugin=task/cgroup\nJobAcctGatherType=jobacct_gather/cgroup",
        "CgroupPlugin=cgroup/v1\nConstrainCores=no\nConstrainRAMSpace=no\nConstrainDevices=no\n",
    ),
    "cgroup/v2": (
        "ProctrackType=proctrack/cgroup\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/linux",
        f"CgroupPlugin=cgroup/v2\nCgroupMountpoint={CGROUP2}\nIgnoreSystemd=yes\n"
        "ConstrainCores=no\nConstrainRAMSpace=no\nConstrainDevices=no\n",
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
# slurmd passes nothing of its own environment on to a Prolog or Epilog.
SITE_SCRIPT = """\
#!/bin/sh
# What a site has whose {kind} is a single script: it calls the others, and says where the agent of this node looks.
for script in {folder}/*; do
  [ ! -x "$script" ] || SENERGY_HOOKS={hooks} "$script"
done
"""


def write_configuration(cluster: Cluster, confinement: str, prolog: Path | None, epilog: Path | None) -> None:
    """All files of a new cluster, into its state folder."""
    state = cluster.outside(cluster.state)
    plugins, cgroup = CONFINEMENT[confinement]
    # Slurm 22.05 has no plugin that does nothing; nothing here asks v1's to do anything, mounted or not.
    old = cluster.run("slurmd", "-V").stdout.split()[-1] < "23.02"
    cgroup = cgroup.format(no_cgroup="cgroup/v1" if old else "disabled")
    models = {node: MODELS[number % len(MODELS)] for number, node in enumerate(cluster.nodes)}
    nodes = [
        NODE.format(node=node, host=cluster.host, port=cluster.port + 3 + number, model=models[node])
        for number, node in enumerate(cluster.nodes)
    ]
    hooks = _hook_lines(cluster, {"Prolog": prolog, "Epilog": epilog})
    values = {
        "cluster": cluster.name, "host": cluster.host, "state": cluster.state, "port": cluster.port,
        "dbd_port": cluster.port + 1, "sql_port": cluster.port + 2, "confinement": plugins, "hooks": hooks,
        "nodes": "\n".join(nodes), "password": secrets.token_hex(8),
    }  # fmt: skip
    (state / "slurm.conf").write_text(SLURM_CONF.format(**values))
    (state / "cgroup.conf").write_text(cgroup)
    gpus = [
        f"NodeName={node} Name=gpu Type={models[node]} File={_gpu(cluster, node, '[0-3]')}" for node in cluster.nodes
    ]
    (state / "gres.conf").write_text("\n".join(gpus) + "\n")
    dbd = state / "slurmdbd.conf"
    dbd.touch(mode=0o600)
    dbd.write_text(SLURMDBD_CONF.format(**values))
    (state / "sql").write_text(
        "create database slurm_acct character set utf8mb4;"  # job names are in the users' own alphabets
        f" create user slurm@'127.0.0.1' identified by '{values['password']}';"
        " grant all on slurm_acct.* to slurm@'127.0.0.1';"
    )
    (state / "dev").mkdir()
    for node in cluster.nodes:
        for number in range(4):  # a GPU that Slurm can hand out: any character device will do
            device = cluster.outside(Path(_gpu(cluster, node, str(number))))
            os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))


def _gpu(cluster: Cluster, node: str, number: str) -> str:
    return f"{cluster.state}/dev/{node}-nvidia{number}"


def _hook_lines(cluster: Cluster, given: dict[str, Path | None]) -> str:
    """Copies the folders of scripts; the lines of slurm.conf. STATE/hooks/NODE is where each node's files are dropped."""
    lines = ""
    for kind, scripts in given.items():
        if scripts is None:
            continue
        name = kind.lower()
        folder = cluster.state / f"{name}.d"
        shutil.copytree(scripts, cluster.outside(folder))
        script = cluster.outside(cluster.state / name)
        script.write_text(
            SITE_SCRIPT.format(kind=kind, folder=folder, hooks=f'"{cluster.state}/hooks/$SLURMD_NODENAME"')
        )
        script.chmod(0o755)
        lines += f"{kind}={cluster.state}/{name}\n"
    return lines


def spool_folders(nodes: Sequence[str]) -> list[str]:
    """Folders of the state folder that the daemons expect."""
    return ["ctld", "mysql", "hooks", *(f"spool-{node}" for node in nodes)]
