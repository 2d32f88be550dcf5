"""Job records from slurmdbd through pyslurm, in the words that sacct has for them.

What pyslurm 25.11 does not give, and how it is met here:

- It keeps one record per job id, the youngest. The earlier runs of a requeued or resized job, which `sacct -D` shows,
  are asked for one by one with a window that ends where the next run begins. Runs of *another* job that once had the
  same id (ids start again at MaxJobId) come back only where the younger job lies outside the window.
- `State` is the bare word: `CANCELLED`, where sacct adds ` by UID`.
- `ConsumedEnergyRaw` is empty for a job without a measured energy, where sacct prints 0 once such a job has ended.
- `NNodes` follows AllocTRES. In a RESIZING record of Slurm 26.05 that is the size after the change already, while
  sacct and NodeList still have the nodes of before.
- `SLUID` is worked out from the database index, whose text form it is. OriginalSLUID is not there.
- A user's text that is no UTF-8 cannot be read through it; it comes as U+FFFD.
- Jobs that were never eligible (held from the start) are not listed, as with `sacct -S`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from slurm_energy.slurm.columns import RAW_COLUMNS
from slurm_energy.slurm.errors import SourceError

INSTEAD = "or take the job records from sacct instead"
_SLUID_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U
_SMALLEST_SLUID = 1 << 40  # it holds the time in milliseconds; older databases count their index from 1
_TRIAL = "import pyslurm; pyslurm.slurm_init(); print(pyslurm.__version__)"


def read_pyslurm(start: int, end: int) -> Iterator[dict[str, str]]:
    """The local cluster's allocations that overlap [start, end), all users, one dictionary of RAW_COLUMNS each.

    Times are epoch seconds. The order is slurmdbd's; earlier runs of a job follow at the end. Raises SourceError where
    pyslurm cannot be imported, fits Slurm badly, or slurmdbd does not answer.
    """
    pyslurm = _pyslurm()
    try:
        connection = pyslurm.db.Connection.open()
        window = {"start_time": max(start, 1), "end_time": end}  # 0 would mean "today"
        records = list(pyslurm.db.Jobs.load(pyslurm.db.JobFilter(**window), connection).values())
        while records:
            yield from map(record, records)
            records = list(_earlier_runs(pyslurm, connection, records, window["start_time"]))
    except pyslurm.PyslurmError as error:
        raise SourceError(
            f"slurmdbd did not answer pyslurm ({error}); see whether `sacct -X` works on this machine, {INSTEAD}"
        ) from error


def _earlier_runs(pyslurm: Any, connection: Any, records: Iterable[Any], start: int) -> Iterator[Any]:
    """The run before each of the records that may have had one within the window."""
    by_submission: dict[int, list[int]] = defaultdict(list)
    for job in records:
        # A requeued job counts its restarts. A resized one shows nothing, but Slurm books its new size as submitted,
        # eligible and started in one second; so a job that did not have to wait is asked for as well.
        resized = job.submit_time == job.start_time == job.eligible_time
        if job.submit_time and job.submit_time > start and (job.requeue_count or resized):
            by_submission[job.submit_time].append(job.id)
    for submitted, ids in by_submission.items():
        window = pyslurm.db.JobFilter(ids=ids, start_time=start, end_time=submitted)
        for job in pyslurm.db.Jobs.load(window, connection).values():
            # The id of an array or of a heterogeneous job brings its other members along.
            if job.id in ids and job.submit_time < submitted:
                yield job


def _pyslurm() -> Any:
    """The imported and initialised module."""
    if "pyslurm" not in sys.modules:
        # libslurm ends the process where it finds no configuration or does not fit: so let a child try it first.
        os.environ["PYSLURM_DISABLE_AUTO_INIT"] = "1"
        trial = subprocess.run([sys.executable, "-c", _TRIAL], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if trial.returncode:
            said = (trial.stderr.strip() or f"it ended with status {trial.returncode}").splitlines()[-1]
            advice = (
                "install slurm-energy[pyslurm] with a pyslurm of Slurm's own release"
                if "ModuleNotFoundError" in said
                else "see that slurm.conf is found (SLURM_CONF) and that pyslurm was built for this Slurm"
            )
            raise SourceError(f"pyslurm cannot be used: {said}; {advice}, {INSTEAD}")
    flags = sys.getdlopenflags()
    try:
        import pyslurm
        import pyslurm.db.stats
    finally:
        sys.setdlopenflags(flags)  # pyslurm changes how every later extension module would be loaded

    if pyslurm.db.stats.nodelist_from_range_str is not _no_nodes:
        pyslurm.slurm_init()
        # For each step pyslurm looks up which node had the largest use, and fails with IndexError on a step that spans
        # the parts of a heterogeneous job; then no job at all can be read. Without a node list it leaves that out.
        pyslurm.db.stats.nodelist_from_range_str = _no_nodes
    return pyslurm


def _no_nodes(_text: str | None) -> list[str]:
    return []


def record(job: Any) -> dict[str, str]:
    """The RAW_COLUMNS of one pyslurm.db.Job."""
    tres = job.allocated_tres
    asked = job.requested_tres
    values = {
        "JobID": job_id(job),
        "JobIDRaw": job.id,
        "Cluster": job.cluster,
        "User": job.user_name,
        "Account": job.account,
        "Partition": job.partition,
        "QOS": job.qos,
        "WCKey": _free_text(job, "wckey"),
        "JobName": _free_text(job, "name"),
        "State": job.state,
        "Submit": job.submit_time or "Unknown",
        "Start": job.start_time or ("None" if job.end_time else "Unknown"),  # None: cancelled before it could start
        "End": job.end_time or "Unknown",
        "ElapsedRaw": job.elapsed_time or 0,
        "Suspended": span_text(job.suspended_time or 0),
        "NNodes": job.num_nodes or (asked.node.count if asked and asked.node else 0),
        "NCPUS": job.cpus,
        "AllocTRES": tres_text(tres) if tres else "",
        "NodeList": job.nodelist or "None assigned",
        "ConsumedEnergyRaw": tres.energy.count if tres and tres.energy else "",
        "Comment": _free_text(job, "comment"),
        "Restarts": job.requeue_count or 0,
        "SLUID": sluid(job.db_index or 0),
    }
    return {name: "" if values[name] is None else str(values[name]) for name in RAW_COLUMNS}


def _free_text(job: Any, name: str) -> str | None:
    try:
        text: str | None = getattr(job, name)
    except UnicodeDecodeError:
        return "\ufffd"
    return text


def job_id(job: Any) -> str:
    """The id as sacct shows it: 7, 7_5 (array task), 7_[0-9%2] (tasks that wait), 7+1 (part of a heterogeneous job)."""
    if job.array_id:
        if job.array_tasks_waiting:
            limit = f"%{job.array_tasks_parallel}" if job.array_tasks_parallel else ""
            return f"{job.array_id}_[{task_ranges(job.array_tasks_waiting)}{limit}]"
        return f"{job.array_id}_{job.array_task_id or 0}"  # pyslurm has None for task 0
    if job.heterogeneous_id:
        return f"{job.heterogeneous_id}+{job.heterogeneous_offset or 0}"  # and for part 0
    return str(job.id)


def task_ranges(tasks: str) -> str:
    """Array tasks from slurmdbd's bit mask (0x38A) as sacct writes them: 1,3,7-9, or 0-90:10 for more than five.

    sacct cuts it off at 64 characters; this does not.
    """
    if not tasks.startswith("0x"):
        return tasks
    numbers = [number for number, bit in enumerate(reversed(f"{int(tasks, 16):b}")) if bit == "1"]
    if len(numbers) > 5:
        step = numbers[1] - numbers[0]
        if step > 1 and numbers == list(range(numbers[0], numbers[-1] + 1, step)):
            return f"{numbers[0]}-{numbers[-1]}:{step}"
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def tres_text(tres: Any) -> str:
    """A pyslurm TrackableResources as Slurm's text: billing=2,cpu=2,gres/gpu:titanx=2,gres/gpu=2,mem=128M,node=1."""
    counts: dict[str, int | str] = {}
    for name in ("billing", "cpu", "energy", "mem", "node", "pages", "vmem"):
        resource = getattr(tres, name, None)
        if resource is not None:
            counts[name] = f"{resource.count}M" if name in ("mem", "vmem") else resource.count
    for kind in ("fs", "gres", "interconnect", "license", "other"):
        for resource in (getattr(tres, kind, None) or {}).values():
            counts[resource.type_and_name] = resource.count
    return ",".join(sorted(f"{name}={count}" for name, count in counts.items()))  # gres/gpu:a=1 before gres/gpu=1


def span_text(seconds: int) -> str:
    """Seconds as sacct prints a span of time: [D-]HH:MM:SS."""
    days, rest = divmod(seconds, 86400)
    text = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{text}" if days else text


def sluid(index: int) -> str:
    """The SLUID whose number is the index in the accounting database; empty where the database is older than SLUIDs."""
    if index < _SMALLEST_SLUID:
        return ""
    digits = ""
    for _ in range(13):  # 64 bits, five to the digit
        index, digit = divmod(index, 32)
        digits = _SLUID_DIGITS[digit] + digits
    return f"s{digits}"
