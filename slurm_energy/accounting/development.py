"""How a project was developed, in the terms of Strubell et al. 2019, Section 4.2, and what owning its GPUs would cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Development(NamedTuple):
    """Days, counts, seconds, GPU-days; `mean_gpus` is the GPUs in use on average over the span; models by share."""

    span_days: float
    sweeps: int
    jobs: int
    shortest_s: int
    longest_s: int
    mean_s: float
    gpu_days: float
    mean_gpus: float
    gpu_models: dict[str, float]


class OwnHardware(NamedTuple):
    """GPUs to own so that as many are there as were in use on average, and what they cost, USD."""

    gpus: int
    usd: float


def development(
    *,
    jobs: int,
    sweeps: int,
    span_s: float,
    shortest_s: int,
    longest_s: int,
    elapsed_s: int,
    gpu_hours: float,
    gpu_hours_by_model: Mapping[str, float],
) -> Development:
    """The figures of Section 4.2 from sums over a project's jobs.

    span_s: from the first start to the last end, s; elapsed_s: of all jobs together, s; gpu_hours: of all jobs, h.
    Mean GPUs in use are GPU-days over the days of the span: 9998 / 172 = 58.1 in the paper.
    Raises ValueError for negative figures or no job.
    """
    if jobs < 1 or min(sweeps, span_s, shortest_s, longest_s, elapsed_s, gpu_hours) < 0:
        raise ValueError("a project has at least one job, and no negative figures")
    gpu_days = gpu_hours / 24
    span_days = span_s / 86400
    shares = {
        model: hours / gpu_hours
        for model, hours in sorted(gpu_hours_by_model.items(), key=lambda item: (-item[1], item[0]))
        if gpu_hours
    }
    return Development(
        span_days, sweeps, jobs, shortest_s, longest_s, elapsed_s / jobs, gpu_days,
        gpu_days / span_days if span_days else 0.0, shares,
    )  # fmt: skip


def own_hardware(mean_gpus: float, usd_per_gpu: float) -> OwnHardware:
    """The paper's comparison: 58 GPUs in servers of 8 for about 20,000 USD are 145,000 USD (2500 USD per GPU).

    mean_gpus >= 0; usd_per_gpu: purchase price of a server by its GPUs, USD, >= 0. Raises ValueError outside.
    """
    if mean_gpus < 0 or usd_per_gpu < 0:
        raise ValueError("GPUs and their price are not negative")
    gpus = round(mean_gpus)
    return OwnHardware(gpus, gpus * usd_per_gpu)
