"""The Prolog hook as slurmd runs it, as a whole process, next to `/bin/true`: what a job's start pays for it.

The folder there, missing, read-only and full (the last two on small memory filesystems, which only root can mount;
elsewhere they are left out and said so). Prints medians and ratios; wanted: at most 4 times /bin/true.

usage: python benchmarks/hooks.py [RUNS]
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import in_turns

HOOK = Path(__file__).parent.parent / "deploy/slurm/prolog.d/50-slurm-energy"
LIMIT = 4
VARIABLES = {
    "SLURM_JOB_ID": "4711", "SLURM_JOB_UID": "1001", "SLURM_JOB_GID": "1001", "SLURM_JOB_USER": "emma",
    "SLURM_JOB_ACCOUNT": "lisa", "SLURM_JOB_PARTITION": "gpu", "SLURM_JOB_CPUS_PER_NODE": "16(x2)",
    "SLURM_JOB_NUM_NODES": "2", "SLURM_NODELIST": "n[1-2]", "SLURM_JOB_GPUS": "0,2-3", "SLURM_JOB_RESTART_COUNT": "0",
    "SLURM_CLUSTER_NAME": "alpha", "SLURMD_NODENAME": "n1", "SLURM_JOB_COMMENT": "project=lisa",
    "SLURM_SCRIPT_CONTEXT": "prolog_slurmd", "CUDA_VISIBLE_DEVICES": "0,2,3", "SLURM_CONF": "/etc/slurm/slurm.conf",
}  # fmt: skip


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[bool]:
    """A memory filesystem there for as long; whether it could be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", str(folder)], check=True)


def measure(name: str, folder: Path, runs: int) -> bool:
    """Prints one case; whether its ratio is within the limit."""
    os.environ["SENERGY_HOOKS"] = str(folder)
    ours, floor = in_turns([str(HOOK)], ["/bin/true"], runs)
    ratio = statistics.median(a.wall_s / b.wall_s for a, b in zip(ours, floor, strict=True))
    hook, true = (1e3 * statistics.median(run.wall_s for run in found) for found in (ours, floor))
    print(
        f"folder {name + ':':11} hook {hook:.2f} ms, /bin/true {true:.2f} ms; ratio {ratio:.2f}; wanted: at most {LIMIT}"
    )
    return ratio <= LIMIT


def main(runs: int) -> int:
    """Prints the figures; 1 where a ratio is over its limit."""
    # slurmd gives its own few variables and no PATH of a login.
    for name in list(os.environ):
        del os.environ[name]
    os.environ.update(VARIABLES)
    good = True
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        (work / "there").mkdir()
        good &= measure("there", work / "there", runs)
        good &= measure("missing", work / "missing", runs)
        with mounted(work / "read-only", "ro,size=16k") as can:
            if can:
                good &= measure("read-only", work / "read-only", runs)
        with mounted(work / "full", "size=16k") as can:
            if can:
                with contextlib.suppress(OSError):
                    (work / "full" / "filler").write_bytes(bytes(65536))
                good &= measure("full", work / "full", runs)
            else:
                print("folder read-only, full: left out; mounting a small filesystem needs root")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 301))
