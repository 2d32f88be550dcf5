"""Who gets the energy that a node's counters moved: exact in microjoules, whatever the shares.

Per interval and domain, jobs and idle together get what moved, no more and no less (largest remainder):

- package: the node's idle floor by allocated CPUs (those of no job are idle), the rest by CPU time used; where no job
  used any, the rest is idle
- memory: the floor by allocated memory, the rest by memory in use; where none is seen, by allocated CPUs
- a GPU: to the jobs that hold it, in equal parts; held by none, idle
- other (the node's input less the three above): by what each got of these three
- a job that has its node for itself gets all of it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec


class Usage(msgspec.Struct):
    """One job's use of a node in one interval: counts, ns, bytes; `gpus` are device names; `alone`: no other job may be
    on its node. Mutable, for the agent fills in the figures of a tick and makes none anew."""

    cpus: int
    cpu_ns: int
    mem_alloc: int
    mem_used: int
    gpus: list[str]
    alone: bool


class NodeShape(NamedTuple):
    """What the node has (CPUs, bytes of memory), and what it draws when nothing runs on it (uW)."""

    cpus: int
    mem_bytes: int
    package_floor_uw: int
    dram_floor_uw: int


class Moved(NamedTuple):
    """What the counters of a node moved in one interval, uJ; `gpus` by device; `other` as defined above."""

    package: int
    dram: int
    gpus: Mapping[str, int]
    other: int


class Shares(NamedTuple):
    """uJ per job, in the order of the jobs, and last what no job gets. `gpus`: per device, a list of the same form."""

    package: list[int]
    dram: list[int]
    gpu: list[int]
    other: list[int]
    gpus: dict[str, list[int]]


def split_exact(total: int, weights: Sequence[int]) -> list[int]:
    """Parts of `total` in proportion to the weights, whose sum is `total` exactly (largest remainder, earlier wins).

    total: any integer >= 0; weights: integers >= 0, not all 0. Raises ValueError otherwise.
    """
    whole = sum(weights)
    if total < 0 or whole <= 0 or min(weights) < 0:
        raise ValueError(f"cannot split {total} by weights {list(weights)[:8]}")
    if total == 0:
        return [0] * len(weights)
    divided = [divmod(total * weight, whole) for weight in weights]
    parts = [part for part, _ in divided]
    rest = total - sum(parts)
    if rest:
        remainders = [-remainder for _, remainder in divided]
        for index in sorted(range(len(weights)), key=remainders.__getitem__)[:rest]:
            parts[index] += 1
    return parts


def attribute(moved: Moved, jobs: Sequence[Usage], node: NodeShape, length_ns: int) -> Shares:
    """Shares of one interval of `length_ns`. Pure; sum(shares.package) == moved.package, and so for each domain."""
    count = len(jobs)
    if not count:
        gpus = {device: [uj] for device, uj in moved.gpus.items()}
        return Shares([moved.package], [moved.dram], [sum(moved.gpus.values())], [moved.other], gpus)
    if count == 1 and jobs[0].alone:
        gpus = {device: [uj, 0] for device, uj in moved.gpus.items()}
        return Shares([moved.package, 0], [moved.dram, 0], [sum(moved.gpus.values()), 0], [moved.other, 0], gpus)

    cpus = [job.cpus for job in jobs]
    package = _floor_and_rest(
        moved.package, node.package_floor_uw * length_ns // 1_000_000_000, cpus, node.cpus, [job.cpu_ns for job in jobs]
    )
    used = [job.mem_used for job in jobs]
    dram_floor = node.dram_floor_uw * length_ns // 1_000_000_000
    held = [job.mem_alloc for job in jobs]
    if any(held):
        dram = _floor_and_rest(moved.dram, dram_floor, held, node.mem_bytes, used if any(used) else held)
    else:
        dram = _floor_and_rest(moved.dram, dram_floor, cpus, node.cpus, used if any(used) else cpus)
    holders: dict[str, list[int]] = {}
    for index, job in enumerate(jobs):
        for device in job.gpus:
            holders.setdefault(device, []).append(index)
    gpu = [0] * (count + 1)
    by_device = {}
    for device, uj in moved.gpus.items():
        parts = by_device[device] = [0] * (count + 1)
        by = holders.get(device)
        if by:
            for index, part in zip(by, split_exact(uj, [1] * len(by)), strict=True):
                parts[index] += part
                gpu[index] += part
        else:
            parts[-1] = uj
            gpu[-1] += uj
    other = [0] * (count + 1)
    if moved.other:
        weights = [a + b + c for a, b, c in zip(package, dram, gpu, strict=True)]
        other = split_exact(moved.other, weights) if any(weights) else [0] * count + [moved.other]
    return Shares(package, dram, gpu, other, by_device)


def _floor_and_rest(total: int, floor: int, allocated: Sequence[int], capacity: int, used: Sequence[int]) -> list[int]:
    """The floor by what is allocated, the rest by what is used; both as one exact split, idle last."""
    if total == 0:
        return [0] * (len(allocated) + 1)
    floor = min(floor, total)
    rest = total - floor
    taken = sum(allocated)
    capacity = max(capacity, taken, 1)
    whole_use = sum(used)
    if not whole_use:
        weights = [floor * share for share in allocated]
        weights.append(floor * (capacity - taken) + rest * capacity)
    elif not floor:
        weights = [*used, 0]
    else:
        by_floor, by_use = floor * whole_use, rest * capacity
        weights = [by_floor * share + by_use * use for share, use in zip(allocated, used, strict=True)]
        weights.append(by_floor * (capacity - taken))
    return split_exact(total, weights)
