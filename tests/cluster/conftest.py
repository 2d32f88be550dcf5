"""Real Slurm clusters for the tests in this folder, and awkward jobs that ran on them.

Both come from deploy/devcluster: this machine's own Slurm (22.05 on Debian 12), and Slurm 26.05 with pyslurm in a root
that make-root.sh fills once, in $SENERGY_ROOT_CACHE (default ~/.cache/slurm-energy/roots/forky). Where a cluster cannot
be had the tests skip and say why; with SENERGY_REQUIRE_CLUSTER=1 they fail instead. Nothing is installed on the machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from common.processes import environment
from common.required import unavailable
from common.waiting import until

REPOSITORY = Path(__file__).resolve().parents[2]
DEVCLUSTER = REPOSITORY / "deploy" / "devcluster"
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"})


def pytest_configure() -> None:
    """A test run that is told to end takes its clusters down first."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class Cluster:
    """A running Slurm cluster. Its folder has the same name inside the root and, below `root`, on this machine."""

    def __init__(self, name: str, folder: Path, root: Path, python: str) -> None:
        self.name, self.folder, self.root, self.python = name, folder, root, python
        self.conf = folder / "slurm.conf"
        self.files = folder / "files"
        """For whatever a test needs: readable by the cluster's users."""

    def outside(self, inside: Path) -> Path:
        """Where a path of the cluster's file system lies on this machine."""
        return self.root / inside.relative_to("/")

    def bytes_of(self, *args: str | bytes, user: str | None = None, **variables: str) -> bytes:
        """What a program prints in the cluster."""
        variables = {"SLURM_CONF": str(self.conf), "LC_ALL": "C.UTF-8", "TZ": "UTC", **variables}
        command = ["chroot", f"--userspec={user or 'root'}", str(self.root), "env", "-C", "/tmp"]
        command += [f"{name}={value}" for name, value in variables.items()]
        done = subprocess.run(
            [*command, *args], stdin=subprocess.DEVNULL, capture_output=True, env=environment(), check=False
        )
        assert done.returncode == 0, f"{args!r} ended with {done.returncode}: {done.stderr.decode(errors='replace')}"
        return done.stdout

    def run(self, *args: str | bytes, user: str | None = None, **variables: str) -> str:
        """The same as text, for output in which no user typed anything."""
        return self.bytes_of(*args, user=user, **variables).decode()

    def submit(self, user: str, *options: str | bytes, wrap: str) -> str:
        """The id of a new batch job."""
        reply = self.run("sbatch", "--parsable", "-o", "/dev/null", *options, "--wrap", wrap, user=user)
        return reply.split(";")[0].strip()

    def states(self, job: str) -> set[str]:
        """The state of the job's latest run, in the accounting; of an array's every task."""
        rows = self.run("sacct", "-X", "-P", "-n", "-j", job, "-o", "State").splitlines()
        states = {row.split(" ")[0] for row in rows}  # `CANCELLED by 0`
        return states - {"RESIZING"} or states  # an earlier part, shown beside the latest

    def live(self, job: str) -> str:
        """The state in the controller; empty when the job has left it."""
        rows = (row.split() for row in self.run("squeue", "-h", "-o", "%A %T").splitlines())
        return next((state for number, state in rows if number == job), "")

    def wait(self, job: str, states: Collection[str] = ENDED, seconds: float = 60) -> None:
        """Until the accounting has the job, and each task of an array, in one of these states."""
        wanted = {states} if isinstance(states, str) else set(states)
        until(
            f"job {job} to be {' or '.join(sorted(wanted))}",
            lambda: (now := self.states(job)) and now <= wanted,
            seconds,
        )

    def lasted(self, job: str, seconds: int, record: int = 1) -> bool:
        """Whether the job's youngest record is that number and says that it ran for so many seconds."""
        runs = self.run("sacct", "-X", "-D", "-P", "-n", "-j", job, "-o", "ElapsedRaw").splitlines()
        return len(runs) == record and int(runs[-1]) >= seconds

    def gate(self, name: str) -> str:
        """A command for --wrap that lasts until `open_gate(name)`."""
        return f"while [ ! -e {self.files}/{name} ]; do sleep 0.1; done"

    def open_gate(self, name: str) -> None:
        """Lets the jobs end that wait at the gate."""
        self.outside(self.files / name).touch()

    def senergy(
        self, *args: str | Path, check: bool = True, input: bytes | None = None, user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs the project's command in the cluster, with a ledger and a configuration of the tests' own."""
        variables = {
            "SLURM_CONF": self.conf, "PYTHONPATH": self.folder / "source", "PYTHONDONTWRITEBYTECODE": "1",
            "SENERGY_LEDGER": self.files / "ledger", "SENERGY_CONFIG": self.files / "empty.toml", "TZ": "UTC",
            "HOME": self.files, "LC_ALL": "C.UTF-8",
        }  # fmt: skip
        command = ["chroot", f"--userspec={user or 'root'}", str(self.root), "env", "-C", str(self.files)]
        command += [f"{name}={value}" for name, value in variables.items()]
        done = subprocess.run(
            [*command, self.python, "-m", "slurm_energy", *map(str, args)],
            input=input, stdin=subprocess.DEVNULL if input is None else None, capture_output=True,
            env=environment(), check=False,
        )  # fmt: skip
        text = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        if check:
            assert text.returncode == 0, f"senergy {args!r} ended with {text.returncode}:\n{text.stdout}{text.stderr}"
        return text


def devcluster(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DEVCLUSTER / "devcluster.py"), *map(str, args)],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment(), check=False,
    )  # fmt: skip


@contextlib.contextmanager
def started(name: str, port: int, root: Path | None, python: str, *options: str | Path) -> Iterator[Cluster]:
    """A cluster in a folder of its own, ended and removed afterwards. options: of devcluster.py up."""
    if os.geteuid() != 0:
        unavailable("a real cluster needs root: slurmd starts jobs as other users")
    within = Path("/") if root is None else root
    # Not below pytest's own folder: MariaDB and the jobs' users could not get there.
    outside = Path(tempfile.mkdtemp(prefix=f"senergy-{name}-", dir=within / "var/tmp"))
    folder = Path("/") / outside.relative_to(within)
    where = ("--dir", folder, "--name", name, "--port", str(port), *(("--root", root) if root else ()))
    try:
        # Without cgroups: another cluster on this machine would have the same ones for nodes of the same name.
        done = devcluster("up", *where, *(options or ("--confinement", "none")))
        if done.returncode:
            unavailable(f"no cluster {name}: {done.stderr.strip() or done.stdout.strip()}")
        cluster = Cluster(name, folder, within, python)
        outside_files = cluster.outside(cluster.files)
        outside_files.mkdir()
        (outside_files / "empty.toml").touch()
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "slurm_energy", outside / "source" / "slurm_energy", ignore=ignored)
        yield cluster
    finally:
        devcluster("down", *where)
        shutil.rmtree(outside)


@pytest.fixture(scope="session")
def cluster22() -> Iterator[Cluster]:
    """This machine's own Slurm."""
    with started("hpc22", 28810, None, sys.executable) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def cluster26(root26: Path) -> Iterator[Cluster]:
    """Slurm 26.05 in its root, with pyslurm and what the project needs."""
    with started("hpc26", 29810, root26, "/opt/venv/bin/python") as cluster:
        install_requirements(cluster)
        yield cluster


@pytest.fixture(scope="session")
def root26() -> Iterator[Path]:
    """The root with Slurm 26.05; made at the first use, and held by one run of the tests at a time."""
    if os.geteuid() != 0:
        unavailable("a root with another Debian needs root (debootstrap, mount, chroot)")
    cache = os.environ.get("SENERGY_ROOT_CACHE")
    root = Path(cache) if cache else Path.home() / ".cache/slurm-energy/roots/forky"
    root.parent.mkdir(parents=True, exist_ok=True)
    with root.with_name(f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = subprocess.run(
            [str(DEVCLUSTER / "make-root.sh"), str(root), "forky"],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if made.returncode:
            unavailable(f"no root with Slurm 26.05: {(made.stderr or made.stdout).strip()[-2000:]}")
        yield root


def install_requirements(cluster: Cluster) -> None:
    """What pyproject.toml wants of an admin node, into the root's Python, unless it is there already."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    wanted: list[str] = []
    for name in ("dependencies", "admin"):
        block = re.search(rf"^{name} = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
        assert block, f"pyproject.toml has no list {name}"
        wanted += re.findall(r'^\s*"([^"]+)"', block[1], re.MULTILINE)
    stamp = cluster.root / "opt/venv/.slurm-energy-requirements"
    digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    done = subprocess.run(
        ["chroot", str(cluster.root), "/opt/venv/bin/pip", "install", "--quiet", *wanted],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    if done.returncode:
        unavailable(f"pip could not install {', '.join(wanted)} in {cluster.root}: {done.stderr.strip()[-2000:]}")
    stamp.write_text(digest)


# Label: user, sbatch's options, what the job does. The name is the label where none is given.
JOBS: dict[str, tuple[str, tuple[str | bytes, ...], str]] = {
    "requeued": ("sealice", ("--requeue", "--gres=gpu:titanx:1"), "sleep 2"),
    "typed": ("sealice", ("-c", "2", "--mem=128M", "--gres=gpu:titanx:2"), "srun sleep 2"),
    "m40": ("sealice", ("--gres=gpu:m40:3",), "sleep 1"),
    "untyped": ("sealice", ("--gres=gpu:1",), "sleep 2"),
    "pipe": ("sealice", ("-J", "pipe|name \"double\" 'single'", "--gres=gpu:1"), "srun -J 'step|pipe' true; sleep 1"),
    "newline": ("sealice", ("-J", "new\nline|9|9", "--gres=gpu:1"), "sleep 1"),
    "alphabets": ("sealice", ("-J", "имя 模型 नाम é🙂", "--gres=gpu:1"), "sleep 1"),
    "broken": ("sealice", ("-J", b"bad\xff\xfeutf", "--gres=gpu:1"), "sleep 1"),
    "controls": ("sealice", ("-J", "carriage\rtab\there", "--gres=gpu:1"), "sleep 1"),
    "failed": ("sealice", ("--gres=gpu:m40:1",), "sleep 1; exit 3"),
    "comment": ("sealice", ("--comment=project=aurora sweep=lr1", "--gres=gpu:1"), "sleep 1"),
    "comment-pipe": ("sealice", ("--comment=a|b\nc", "--gres=gpu:1"), "sleep 1"),
    "array": ("sealice", ("--array=0-5%3", "--wckey=paper", "--gres=gpu:1"), "sleep 1"),
    "two-nodes": ("sealice", ("-N", "2", "--gres=gpu:2"), "srun sleep 1"),
    "zero": ("sealice", ("--gres=gpu:1",), "true"),
    "night": ("sealice", ("-J", "night-train", "--gres=gpu:1"), "sleep 1"),
    "plain": ("sealice", ("-c", "3", "--mem=96M"), "sleep 2"),
    "vision": ("sebob", ("-A", "vision", "--gres=gpu:1"), "sleep 1"),
}


def awkward_jobs(cluster: Cluster) -> dict[str, str]:
    """Runs the jobs to their end; job id by label. Fills the accounting with what sites have in theirs."""

    def submit(label: str, user: str, options: tuple[str | bytes, ...], wrap: str) -> None:
        named = () if "-J" in options else ("-J", label)
        ids[label] = cluster.submit(user, *named, *options, wrap=wrap)

    ids: dict[str, str] = {}
    submit("resized", "sealice", ("-N", "2", "--gres=gpu:1"), cluster.gate("resized"))
    for label, job in JOBS.items():
        submit(label, *job)

    until("the job to requeue to run", lambda: cluster.live(ids["requeued"]) == "RUNNING")
    until("its first second", lambda: cluster.lasted(ids["requeued"], 1))
    cluster.run("scontrol", "requeue", ids["requeued"])
    until("the requeued job to wait", lambda: cluster.live(ids["requeued"]) == "PENDING")
    cluster.run("scontrol", "update", f"JobId={ids['requeued']}", "StartTime=now")  # it would wait two minutes

    until("the job to resize to have run", lambda: cluster.lasted(ids["resized"], 2))
    cluster.run("scontrol", "update", f"JobId={ids['resized']}", "NumNodes=1")
    until("its smaller part to have run", lambda: cluster.lasted(ids["resized"], 4, record=2))
    cluster.open_gate("resized")
    for job in ids.values():
        cluster.wait(job)

    # One cancelled while it ran, one that waited for the same node.
    submit("cancelled", "sealice", ("-w", "n2", "--exclusive", "--gres=gpu:m40:2"), "sleep 300")
    until("the job to cancel to run", lambda: cluster.lasted(ids["cancelled"], 1))
    submit("cancelled-waiting", "sealice", ("-w", "n2", "--exclusive", "--gres=gpu:m40:2"), "sleep 300")
    cluster.wait(ids["cancelled-waiting"], {"PENDING"})
    for label, user in (("cancelled-waiting", "sealice"), ("cancelled", "root")):
        cluster.run("scancel", ids[label], user=user)
        cluster.wait(ids[label], {"CANCELLED"})
    return ids


@pytest.fixture(scope="session")
def jobs22(cluster22: Cluster) -> dict[str, str]:
    """The awkward jobs of the machine's own Slurm, all ended: job id by label."""
    return awkward_jobs(cluster22)


@pytest.fixture(scope="session")
def jobs26(cluster26: Cluster) -> dict[str, str]:
    """The awkward jobs of Slurm 26.05, all ended: job id by label."""
    return awkward_jobs(cluster26)
