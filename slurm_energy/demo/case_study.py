"""The research project of Strubell et al. 2019, Section 4.2, as sacct would have logged it.

Made the same each time. What the paper prints holds to the digit: 4789 jobs in 123 grid searches over 172 days, the
shortest 3 minutes (a crash), the longest 9 days, 239,942 GPU-hours, 72 % of them on Titan X and 28 % on M40; the last
search is 24 jobs of 120 hours, one of which is the model. What it does not print (names, days, how long each job ran)
is drawn from a fixed seed. Every job holds one GPU; hence the mean job takes 50.1 hours, not the printed 52
(docs/equations.md, "Where the paper disagrees with itself").
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import IO, NamedTuple

JOBS, SWEEPS, SPAN_DAYS = 4789, 123, 172
GPU_SECONDS = 239_942 * 3600
SHORTEST_S, LONGEST_S = 180, 9 * 86400
TUNE_JOBS, MODEL_S = 24, 120 * 3600
TITAN_X_SHARE = 0.72
PROJECT = "lisa"
START = int(datetime(2017, 10, 2, 9, tzinfo=timezone.utc).timestamp())
GPUS = {"titanx": 45, "m40": 17}
"""A pool that 58.1 GPUs in use on average fit into."""
COLUMNS = (
    "JobID", "JobIDRaw", "Cluster", "User", "Account", "Partition", "QOS", "WCKey", "JobName", "State", "Submit",
    "Start", "End", "ElapsedRaw", "NNodes", "NCPUS", "AllocTRES", "NodeList",
)  # fmt: skip


class CaseJob(NamedTuple):
    """One job: its sweep (from 0) and place in it, GPU type, seconds, and when it starts (epoch seconds)."""

    sweep: int
    task: int
    gpu: str
    seconds: int
    start: int
    gpu_index: int


def jobs() -> list[CaseJob]:
    """All jobs, by sweep and task."""
    draw = random.Random(20190606)  # noqa: S311  the same log each time is the point
    sizes = _sweep_sizes(draw)
    kinds, lengths = _lengths(draw, sum(sizes))
    waiting = [(sweep, task) for sweep, size in enumerate(sizes) for task in range(size)]
    last = START + SPAN_DAYS * 86400
    tune_start = last - MODEL_S
    # The final search holds its GPUs from five days before the end on; the others share all GPUs until then.
    pools = {kind: [(START, index) for index in range(count)] for kind, count in GPUS.items()}
    found = []
    for (sweep, task), kind, seconds in zip(waiting, kinds, lengths, strict=True):
        free, index = heapq.heappop(pools[kind])
        heapq.heappush(pools[kind], (free + seconds, index))
        found.append(CaseJob(sweep, task, kind, seconds, free, index))
    latest = max(job.start + job.seconds for job in found)
    if latest > last:
        raise AssertionError("the jobs do not fit in the span")
    tune = [CaseJob(SWEEPS - 1, task, "titanx", MODEL_S, tune_start, task) for task in range(TUNE_JOBS)]
    return [*_spread_out(found, tune_start, last), *tune]


def _sweep_sizes(draw: random.Random) -> list[int]:
    """Jobs of each grid search but the last; grids are products of a few choices."""
    total, count = JOBS - TUNE_JOBS, SWEEPS - 1
    sizes = [draw.choice((8, 12, 16, 18, 24, 27, 32, 36, 48, 54, 64, 72)) for _ in range(count)]
    while (off := total - sum(sizes)) != 0:
        index = draw.randrange(count)
        step = max(-sizes[index] + 2, min(8, off)) if off > 0 else max(off, 2 - sizes[index], -8)
        sizes[index] += step
    return sizes


def _lengths(draw: random.Random, count: int) -> tuple[list[str], list[int]]:
    """GPU type and seconds of each job: log-normal lengths, scaled so that each type's total is exact."""
    titan_total = round(GPU_SECONDS * TITAN_X_SHARE) - TUNE_JOBS * MODEL_S
    totals = {"titanx": titan_total, "m40": GPU_SECONDS - round(GPU_SECONDS * TITAN_X_SHARE)}
    share = titan_total / sum(totals.values())
    kinds = ["titanx" if draw.random() < share else "m40" for _ in range(count)]
    weights = [draw.lognormvariate(0.0, 0.75) for _ in range(count)]
    lengths = [0] * count
    for kind, total in totals.items():
        members = [index for index in range(count) if kinds[index] == kind]
        fixed = {members[0]: LONGEST_S, members[1]: SHORTEST_S} if kind == "titanx" else {}
        free = [index for index in members if index not in fixed]
        rest = total - sum(fixed.values())
        low, high = SHORTEST_S + 60, LONGEST_S - 3600
        scale = _scale([weights[index] for index in free], rest, low, high)
        for index in free:
            lengths[index] = round(min(max(weights[index] * scale, low), high))
        off = rest - sum(lengths[index] for index in free)
        for index in free:  # rounding left a few seconds over
            step = max(low - lengths[index], min(high - lengths[index], off))
            lengths[index] += step
            off -= step
        lengths = [fixed.get(index, seconds) for index, seconds in enumerate(lengths)]
    return kinds, lengths


def _scale(weights: list[float], total: float, low: float, high: float) -> float:
    """The factor by which clipped weights sum to the total."""
    under, over = 0.0, total
    for _ in range(200):
        middle = (under + over) / 2
        if sum(min(max(weight * middle, low), high) for weight in weights) < total:
            under = middle
        else:
            over = middle
    return under


def _spread_out(found: list[CaseJob], tune_start: int, last: int) -> list[CaseJob]:
    """The jobs with the pauses that each GPU had: a little later, in the same order on every GPU."""
    chains: dict[tuple[str, int], list[CaseJob]] = {}
    for job in found:
        chains.setdefault((job.gpu, job.gpu_index), []).append(job)
    placed = []
    for (kind, index), chain in chains.items():
        until = tune_start if kind == "titanx" and index < TUNE_JOBS else last
        slack = until - max(job.start + job.seconds for job in chain)
        if slack < 0:
            raise AssertionError(f"GPU {kind} {index} is taken for longer than it is there")
        for number, job in enumerate(chain):
            placed.append(job._replace(start=job.start + slack * number // len(chain)))
    return sorted(placed, key=lambda job: (job.sweep, job.task))


def lines() -> Iterator[str]:
    """The log as `sacct -X -P` prints it: header, then a line per job; times in UTC."""
    yield "|".join(COLUMNS)
    everything = jobs()
    sizes: dict[int, int] = {}
    submits: dict[int, int] = {}
    for job in everything:
        sizes[job.sweep] = sizes.get(job.sweep, 0) + 1
        submits[job.sweep] = min(submits.get(job.sweep, job.start), job.start)
    array_ids, at = {}, 1000
    for sweep in sorted(sizes):
        array_ids[sweep] = at
        at += sizes[sweep] + 1
    users = ("emma", "ananya", "andrew")
    crashes = random.Random(4789)  # noqa: S311
    for job in everything:
        array = array_ids[job.sweep]
        raw = array if job.task == sizes[job.sweep] - 1 else array + 1 + job.task
        state = "COMPLETED"
        if job.seconds == SHORTEST_S:
            state = "FAILED"
        elif job.sweep < SWEEPS - 1 and crashes.random() < 0.06:
            state = crashes.choice(("FAILED", "CANCELLED by 2001", "OUT_OF_MEMORY", "TIMEOUT"))
        node = f"{'titanx' if job.gpu == 'titanx' else 'm40'}-{job.gpu_index // 4 + 1:02d}"
        yield "|".join(
            (
                f"{array}_{job.task}", str(raw), "gypsum", users[job.sweep % 3], PROJECT, f"{job.gpu}-long", "normal", "",
                f"lisa-{'tune' if job.sweep == SWEEPS - 1 else 'grid'}-{job.sweep + 1:03d}", state,
                _iso(submits[job.sweep] - 30), _iso(job.start), _iso(job.start + job.seconds), str(job.seconds), "1", "2",
                f"billing=2,cpu=2,gres/gpu:{job.gpu}=1,gres/gpu=1,mem=24G,node=1", node,
            )
        )  # fmt: skip


def write(file: IO[str]) -> int:
    """Writes the log; the number of jobs."""
    count = -1
    for line in lines():
        file.write(line + "\n")
        count += 1
    return count


def _iso(moment: int) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
