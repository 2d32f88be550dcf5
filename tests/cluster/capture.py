#!/usr/bin/env python3
"""Runs a fixed set of awkward jobs on a real cluster and saves what sacct prints about them.

python tests/cluster/capture.py --conf SLURM_CONF [--root DIR] OUT_DIR

Run by hand and as root, on a freshly started cluster of deploy/devcluster (its users, accounts and node types are
expected). The output, kept as the very bytes that sacct wrote, is what the tests in tests/fixtures/sacct read. It
takes about 100 s, for one job has to reach its time limit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

FIELDS = (
    "JobID,JobIDRaw,Cluster,User,Account,Partition,QOS,WCKey,JobName,State,ExitCode,Submit,Eligible,Start,End,"
    "ElapsedRaw,Suspended,NNodes,NCPUS,AllocTRES,ReqTRES,NodeList,ConsumedEnergyRaw,Flags,Comment"
)
YOUNGER_FIELDS = ("Restarts", "SLUID", "OriginalSLUID")  # asked for where this sacct knows them
ENDED = {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "REQUEUED", "RESIZING"}
STAYING = {"running", "held", "array-held"}

# label: sbatch's options; the name is the label where none is given. tests/fixtures/sacct/README.md tells them apart.
JOBS: dict[str, tuple[str | bytes, ...]] = {
    "timeout": ("-t", "1", "--wrap", "sleep 300"),  # first, for it takes longest
    "requeued": ("--requeue", "--wrap", "sleep 3"),
    "typed": ("-J", "gpu-typed", "-c", "2", "--mem=128M", "--gres=gpu:titanx:2", "--wrap", "srun sleep 2"),
    "untyped": ("-J", "gpu-untyped", "--gres=gpu:1", "--wrap", "sleep 2"),
    "pipe": ("-J", "pipe|name \"double\" 'single'", "--wrap", "srun -J 'step|pipe' true"),
    "newline": ("-J", "new\nline", "--wrap", "sleep 1"),
    "alphabets": ("-J", "имя 模型 नाम é🙂", "--wrap", "sleep 1"),
    "broken": ("-J", b"bad\xff\xfeutf", "--wrap", "sleep 1"),
    "controls": ("-J", "carriage\rtab\there", "--wrap", "sleep 1"),
    "failed": ("-J", "exit-3", "--wrap", "sleep 1; exit 3"),
    "comment": ("-J", "comment", "--comment=project=aurora sweep=lr1", "--wrap", "sleep 1"),
    "comment-pipe": ("-J", "comment-pipe", "--comment=a|b\nc", "--wrap", "sleep 1"),
    "array": ("-J", "sweep", "--array=0-5%2", "--wckey=paper", "--wrap", "sleep 1"),
    "array-held": ("-J", "sweep-held", "--array=0-9%2", "-H", "--wrap", "sleep 1"),
    "two-nodes": ("-J", "two-nodes", "-N", "2", "--gres=gpu:2", "--wrap", "srun sleep 2"),
    "cancelled-by-user": ("--wrap", "sleep 300"),
    "cancelled-by-root": ("--wrap", "sleep 300"),
    "cancelled-held": ("-H", "--gres=gpu:1", "--wrap", "sleep 300"),
    "held": ("-H", "--gres=gpu:titanx:1", "--wrap", "sleep 300"),
    "het": ("-J", "het", "-n1", ":", "-n2", "--gres=gpu:m40:1", "--wrap", "srun --het-group=0,1 sleep 2"),
    "suspended": ("--wrap", "sleep 3"),
    "zero": ("-J", "zero", "--wrap", "true"),
    "resized": ("-N", "2", "--gres=gpu:1", "--wrap", "sleep 8"),
    "vision": ("-J", "vision", "-A", "vision", "--wrap", "sleep 1"),  # by the other user
    "running": ("--gres=gpu:m40:1", "-c", "2", "--wrap", "sleep 600"),
}
# Submitted once "running" holds n2, so that they wait for it: eligible, unlike the held ones.
LATE_JOBS: dict[str, tuple[str | bytes, ...]] = {
    "pending": ("-w", "n2", "--exclusive", "--gres=gpu:m40:2", "--wrap", "sleep 1"),
    "array-pending": ("-J", "sweep-pending", "-w", "n2", "--exclusive", "--array=0-9%2", "--wrap", "sleep 1"),
    "cancelled-waiting": ("-w", "n2", "--exclusive", "--wrap", "sleep 1"),
}


class Cluster:
    """The programs of one cluster, run as root or as one of its users."""

    def __init__(self, conf: str, root: str) -> None:
        self.conf, self.root = conf, root

    def run(self, *args: str | bytes, user: str = "root", **environment: str) -> bytes:
        """What a program writes; a failure ends the capture, for its output would lack a job."""
        variables = {"SLURM_CONF": self.conf, "LC_ALL": "C.UTF-8", "TZ": "UTC", **environment}
        command = ["chroot", f"--userspec={user}", self.root, "env", "-C", "/tmp"]
        command += [f"{name}={value}" for name, value in variables.items()]
        done = subprocess.run([*command, *args], stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode:
            raise SystemExit(f"capture: {args!r} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def states(self, job: str) -> set[str]:
        """The states of a job's allocations in the database; `CANCELLED by 0` counts as CANCELLED."""
        # Not the name beside them: that may hold anything.
        rows = self.run("sacct", "-X", "-P", "-n", "-D", "-j", job, "-o", "State").decode().splitlines()
        return {row.split(" ")[0] for row in rows}

    def listed(self, job: str) -> bool:
        """Whether sacct shows the job for a span of time, which takes a job that has once been eligible."""
        rows = self.run("sacct", "-X", "-P", "-n", "-a", "-S", "now-2hours", "-o", "JobIDRaw").decode().splitlines()
        return job in rows

    def live(self, job: str) -> set[str]:
        """The states in the controller; empty when the job has left it."""
        rows = self.run("squeue", "-h", "-o", "%A %T").decode().splitlines()
        return {row.split()[1] for row in rows if row.split()[0] == job}


def wait(what: str, condition: Callable[[], bool], seconds: float = 60) -> None:
    """Polls until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"capture: waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.2)


def submit(cluster: Cluster, jobs: dict[str, tuple[str | bytes, ...]]) -> dict[str, str]:
    """Job id by label."""
    ids = {}
    for label, options in jobs.items():
        user = "sebob" if label == "vision" else "sealice"
        name = () if "-J" in options else ("-J", label)
        reply = cluster.run("sbatch", "--parsable", "-o", "/dev/null", *name, *options, user=user)
        ids[label] = reply.decode().split(";")[0].strip()
    return ids


def steer(cluster: Cluster, ids: dict[str, str]) -> None:
    """Brings every job to where it shall be when sacct is asked; adds the late jobs to `ids`."""

    def reaches(label: str, state: str) -> None:
        wait(f"{label} {state}", lambda: state in cluster.live(ids[label]), 120)

    def over(label: str) -> bool:
        # The controller may be ahead of the database; a requeued or resized job has an ended record while it goes on.
        return not cluster.live(ids[label]) and cluster.states(ids[label]) <= ENDED

    reaches("requeued", "RUNNING")
    cluster.run("scontrol", "requeue", ids["requeued"])
    reaches("cancelled-by-user", "RUNNING")
    cluster.run("scancel", ids["cancelled-by-user"], user="sealice")
    reaches("cancelled-by-root", "RUNNING")
    cluster.run("scancel", ids["cancelled-by-root"])
    cluster.run("scancel", ids["cancelled-held"], user="sealice")
    reaches("suspended", "RUNNING")
    cluster.run("scontrol", "suspend", ids["suspended"])
    suspended_at = time.monotonic()
    reaches("resized", "RUNNING")
    time.sleep(2)  # so that both of its records last longer than nothing
    cluster.run("scontrol", "update", f"JobId={ids['resized']}", "NumNodes=1")
    time.sleep(max(0.0, suspended_at + 4 - time.monotonic()))
    cluster.run("scontrol", "resume", ids["suspended"])
    reaches("requeued", "PENDING")
    cluster.run("scontrol", "update", f"JobId={ids['requeued']}", "StartTime=now")
    reaches("running", "RUNNING")
    for label in ids:
        if label not in STAYING:
            wait(f"{label} to end", lambda label=label: over(label), 180)
    ids |= submit(cluster, LATE_JOBS)
    for label in LATE_JOBS:
        wait(f"{label} to be listed", lambda label=label: cluster.listed(ids[label]))
    cluster.run("scancel", ids["cancelled-waiting"], user="sealice")
    wait("cancelled-waiting to end", lambda: over("cancelled-waiting"))


def save(cluster: Cluster, out: Path) -> None:
    """What the tests read."""
    known = cluster.run("sacct", "--helpformat")
    names = {name.lower() for name in known.decode().split()}
    fields = ",".join([FIELDS, *(name for name in YOUNGER_FIELDS if name.lower() in names)])
    common = ("-P", "-D", "-a", "-S", "now-2hours", "-o", fields)
    out.mkdir(parents=True, exist_ok=True)
    (out / "helpformat.txt").write_bytes(known)
    (out / "sacct-X-P.txt").write_bytes(cluster.run("sacct", "-X", *common))
    (out / "sacct-steps.txt").write_bytes(cluster.run("sacct", *common))
    (out / "sacct-epoch.txt").write_bytes(cluster.run("sacct", "-X", *common, SLURM_TIME_FORMAT="%s"))


def main() -> int:
    """Submit, wait, save, and cancel what still runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conf", required=True, help="the cluster's slurm.conf, as seen from inside the root")
    parser.add_argument("--root", default="/", help="folder with the Debian that the cluster runs in")
    parser.add_argument("--keep", action="store_true", help="leave the running and the held jobs in the queue")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    options = parser.parse_args()
    cluster = Cluster(options.conf, options.root)
    ids = submit(cluster, JOBS)
    try:
        steer(cluster, ids)
        save(cluster, options.out)
    finally:
        if not options.keep:
            cluster.run("scancel", *ids.values())
    for label, job in ids.items():
        print(f"{job}\t{label}\t{','.join(sorted(cluster.states(job)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
