"""What jobs do on the nodes of agents.py: one scenario per node or two, all at the same time, for test_agent_on_slurm.py."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents import CPUS, HOUR_NS, NS, Node
from common.waiting import until
from sim.law import Constant, Sine

if TYPE_CHECKING:
    from conftest import Cluster

NODES = ("shared", "gpu1", "gpu2", "array", "requeue", "hour", "restarted", "orphan", "crash", "unhooked")
HOUR_ENDS_IN_S = 15
BURN = """\
use Time::HiRes qw(time clock sleep);
my ($cpus, $seconds) = @ARGV;
my $begin = time;
while ((my $passed = time - $begin) < $seconds) {
  if (clock() < $cpus * $passed) { 1 for 1 .. 20000 } else { sleep 0.005 }
}
"""
"""Uses so many CPUs in the mean, whatever else runs on the machine."""


def waves(name: str) -> Sine:
    """Power that is never the same, and another for each counter."""
    if name == "rapl:psys":
        return Sine(1200, 90, 23)
    salt = sum(name.encode()) % 13
    if name.startswith("nvml"):
        return Sine(60 + 40 * (salt % 4), 25, 29 + salt)
    return Sine(9 + salt, 4, 31) if "/" in name else Sine(80 + salt, 22, 37 + salt)


def steady(name: str) -> Constant:
    """Power that stays, another for each counter."""
    salt = sum(name.encode()) % 13
    return Constant(100 + 7 * salt if name.startswith("nvml") else 5 + salt if "/" in name else 48 + salt)


class World:
    """A cluster, its nodes, and what its jobs are told to do."""

    def __init__(self, cluster: Cluster, prefix: str, folder: Path, cgroup_root: Path) -> None:
        self.cluster, self.cgroup_root = cluster, cgroup_root
        self.names = {label: f"{prefix}{number}" for number, label in enumerate(NODES, 1)}
        outside = cluster.outside(cluster.files)
        outside.chmod(0o777)  # jobs write down when they begin and end
        (outside / "burn").write_text(BURN)
        self.ids: dict[str, int] = {}

        def node(label: str, law: Any = waves, **more: Any) -> Node:
            return Node(cluster, self.names[label], folder, cgroup_root, law, **more)

        ahead = (HOUR_NS - time.time_ns() - HOUR_ENDS_IN_S * NS) % HOUR_NS
        self.nodes = {
            "shared": node("shared", steady), "gpu1": node("gpu1", hooks="both"), "gpu2": node("gpu2", hooks="both"),
            "array": node("array", psys=True), "requeue": node("requeue"),
            "hour": node("hour", clock_ns=ahead, options=("--period", "0.2")), "restarted": node("restarted"),
            "orphan": node("orphan"), "crash": node("crash", steady), "unhooked": node("unhooked", hooks="none"),
        }  # fmt: skip
        for one in self.nodes.values():  # each agent makes its own; these two share one
            if one.hooks.name == "both":
                cluster.outside(one.hooks).mkdir(exist_ok=True)
                cluster.outside(cluster.folder / "hooks" / one.name).symlink_to("both")

    def submit(self, label: str, *options: str, work: str) -> int:
        """A job that leaves the moments of its begin and end in files: LABEL.TASK.RESTART.begin and ...end."""
        name = f"{self.cluster.files}/{label}.${{SLURM_ARRAY_TASK_ID:-0}}.${{SLURM_RESTART_COUNT:-0}}"
        wrap = f"cat /proc/self/cgroup >{name}.cgroup; date +%s%N >{name}.begin; {work}; date +%s%N >{name}.end"
        self.ids[label] = int(self.cluster.submit("sealice", "-J", label, *options, wrap=wrap))
        return self.ids[label]

    def on(self, label: str) -> tuple[str, str]:
        """sbatch's options for a node by its part in this."""
        return ("-w", self.names[label])

    def file(self, label: str, what: str, task: int = 0, restart: int = 0) -> Path:
        return self.cluster.outside(self.cluster.files / f"{label}.{task}.{restart}.{what}")

    def wait(self, label: str, what: str = "begin", seconds: float = 0, **which: int) -> None:
        """Until a job began (or ended), and then so many seconds have passed."""
        file = self.file(label, what, **which)

        def there() -> bool:
            text = file.read_text() if file.exists() else ""
            return bool(text.strip()) and time.time_ns() >= int(text) + seconds * NS

        until(f"job {label} to {what} and {seconds} s to pass", there, 60 + seconds)

    def job_folder(self, label: str) -> Path:
        """Its job's folder in the cgroup tree, as the job itself saw it: cpuacct's of v1, else v2's."""
        lines = self.file(label, "cgroup").read_text().splitlines()
        part = {tuple(line.split(":")[1].split(",")): line.split(":", 2)[2] for line in lines}
        v1 = next((path for kinds, path in part.items() if "cpuacct" in kinds), "")
        inside = v1 if "/job_" in v1 else part[("",)]
        root = self.cgroup_root / "cpuacct" if inside == v1 else self.cgroup_root
        return root / inside.partition("/step_")[0].lstrip("/")

    def cpu_s(self, folder: Path) -> float:
        """CPU time that a job has used."""
        if (folder / "cpuacct.usage").exists():
            return int((folder / "cpuacct.usage").read_text()) / 1e9
        return int((folder / "cpu.stat").read_text().split()[1]) / 1e6


def run_shared(world: World) -> list[tuple[int, dict[str, float]]]:
    """Two jobs that use 0.5 and 0.25 CPUs; what their cgroups had counted when, closely while they begin."""
    labels = ("half", "quarter")
    for label, cpus, share in (("half", 2, 0.5), ("quarter", 4, 0.25)):
        world.submit(label, *world.on("shared"), "-c", str(cpus), work=f"perl {world.cluster.files}/burn {share} 25")
    world.wait(labels[0])
    seen: list[tuple[int, dict[str, float]]] = []
    while True:
        used = dict.fromkeys(labels, 0.0)
        for label in labels:
            with contextlib.suppress(FileNotFoundError, KeyError):  # it has not begun, or is over
                used[label] = world.cpu_s(world.job_folder(label))
        if any(used[label] < seen[-1][1][label] for label in labels if seen):
            return seen
        seen.append((time.time_ns(), used))
        time.sleep(1 if len(seen) > 12 else 0.25)


def run_gpu(world: World) -> dict[str, dict[str, list[int]]]:
    """A job of two nodes with two GPUs on each, and one that holds another GPU of the first; GPUs by node as Slurm says."""
    nodes = (world.names["gpu1"], world.names["gpu2"])
    world.submit("gpus", "-w", ",".join(nodes), "-N", "2", "-c", "2", "--gres=gpu:2", work="srun sleep 20")
    world.wait("gpus", seconds=2)
    world.submit("gpu", "-w", nodes[0], "--gres=gpu:1", work="sleep 14")
    world.wait("gpu")
    held: dict[str, dict[str, list[int]]] = {}
    for label in ("gpus", "gpu"):
        text = world.cluster.run("scontrol", "-d", "show", "job", str(world.ids[label]))
        for names, index in re.findall(r"Nodes=(\S+) CPU_IDs=.*GRES=gpu\S*\(IDX:([0-9,-]+)\)", text):
            numbers = [int(number) for number in re.findall(r"\d+", index.replace("-", ","))]
            if "-" in index:
                numbers = list(range(numbers[0], numbers[-1] + 1))
            for name in nodes if "[" in names else (names,):
                held.setdefault(label, {})[name] = numbers
    return held


def run_array(world: World) -> None:
    world.submit("array", *world.on("array"), "--exclusive", "--array=0-2", "--gres=gpu:1", work="sleep 11")
    world.wait("array", "end", task=2)


def run_requeue(world: World) -> None:
    job = world.submit("requeue", *world.on("requeue"), "--exclusive", "--requeue", work="sleep 13")
    world.wait("requeue", seconds=11)
    world.cluster.run("scontrol", "requeue", str(job))
    until("the requeued job to wait", lambda: world.cluster.live(str(job)) == "PENDING")
    world.cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now+3")  # it would wait two minutes
    world.wait("requeue", "end", restart=1)


def run_hour(world: World) -> None:
    world.submit("hour", *world.on("hour"), "--exclusive", "--gres=gpu:4", work="sleep 26")
    world.wait("hour", "end")


def run_restarted(world: World) -> None:
    """slurmd is killed while a job runs, and started again before it ends."""
    node = world.nodes["restarted"]
    world.submit("restarted", *world.on("restarted"), "--exclusive", work="sleep 20")
    world.wait("restarted", seconds=4)
    kill_slurmd(node)
    world.wait("restarted", seconds=9)
    node.start_slurmd()
    world.wait("restarted", "end")


def run_orphan(world: World) -> int:
    """slurmd and all that it had started are killed, as when its unit is; it is back when the agent has given the job up.

    What is left is the job's folder in the cgroup tree, with no process in it. Gives the moment.
    """
    node = world.nodes["orphan"]
    job = world.submit("orphan", *world.on("orphan"), "--exclusive", "--no-requeue", work="sleep 300")
    world.wait("orphan", seconds=13)
    folder = world.job_folder("orphan")
    inside = {int(pid) for file in folder.rglob("cgroup.procs") for pid in file.read_text().split()}
    stepds = {pid for one in inside for pid in (one, parent_of(one)) if "slurmstepd" in command_of(pid)}
    kill_slurmd(node)
    for pid in (*stepds, *(inside - stepds)):
        os.kill(pid, signal.SIGKILL)
    moment = time.time_ns()
    until("the agent to close the orphan", lambda: (shown := node.snapshot()) is not None and not shown.jobs)
    assert folder.exists()
    node.start_slurmd()
    world.cluster.run("scancel", str(job))  # Slurm 26.05 takes minutes to see that it is not there any more
    return moment


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def kill_slurmd(node: Node) -> None:
    os.kill(node.slurmd(), signal.SIGKILL)
    until(f"the slurmd of {node.name} to be gone", lambda: not node.slurmd())


def run_crash(world: World) -> None:
    """The agent is killed in the middle of a job, and in the middle of another that ends before it comes back."""
    node = world.nodes["crash"]
    world.submit("survived", *world.on("crash"), "--exclusive", work="sleep 18")
    world.wait("survived", seconds=5)
    node.kill()
    world.wait("survived", seconds=10)
    node.start()
    world.submit("missed", *world.on("crash"), "--exclusive", work="sleep 12")
    world.wait("missed", seconds=4)
    node.kill()
    world.wait("missed", "end", seconds=2)
    until("the Epilog's file", lambda: list(world.cluster.outside(node.hooks).glob("*-epilog.*")))
    node.start()


def run_unhooked(world: World) -> None:
    """A node without hooks; the job uses a little CPU time, for which it gets what is above the idle floor."""
    work = f"perl {world.cluster.files}/burn 0.1 20"
    world.submit("unhooked", *world.on("unhooked"), "-c", str(CPUS), "--gres=gpu:2", work=work)
    world.wait("unhooked", "end")


SCENARIOS: dict[str, Callable[[World], Any]] = {
    "shared": run_shared, "gpu": run_gpu, "array": run_array, "requeue": run_requeue, "hour": run_hour,
    "restarted": run_restarted, "orphan": run_orphan, "crash": run_crash, "unhooked": run_unhooked,
}  # fmt: skip

PART_OF = {"half": "shared", "quarter": "shared", "gpus": "gpu", "survived": "crash", "missed": "crash"}
"""Jobs that are named otherwise than their scenario."""
