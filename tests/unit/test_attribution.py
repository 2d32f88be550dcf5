"""Who gets what the counters moved: exact sums, fair shares."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from slurm_energy.accounting.attribution import Moved, NodeShape, Shares, Usage, attribute, split_exact

SECOND = 1_000_000_000
NODE = NodeShape(cpus=8, mem_bytes=64 << 30, package_floor_uw=80_000_000, dram_floor_uw=8_000_000)
NO_FLOOR = NODE._replace(package_floor_uw=0, dram_floor_uw=0)
DEVICES = ("a", "b", "c")
uj = st.integers(0, 1 << 50)
usages = st.builds(
    Usage,
    cpus=st.integers(1, 512),
    cpu_ns=st.integers(0, 1 << 50),
    mem_alloc=st.integers(0, 1 << 40),
    mem_used=st.integers(0, 1 << 40),
    gpus=st.lists(st.sampled_from(DEVICES), unique=True),
    alone=st.booleans(),
)
moves = st.builds(Moved, uj, uj, st.dictionaries(st.sampled_from(DEVICES), uj), uj)
shapes = st.builds(
    NodeShape, st.integers(1, 512), st.integers(0, 1 << 42), st.integers(0, 10**9), st.integers(0, 10**9)
)


def usage(
    cpus: int = 2, cpu_s: float = 0, mem_alloc: int = 0, mem_used: int = 0, gpus=(), alone: bool = False
) -> Usage:
    return Usage(cpus, int(cpu_s * SECOND), mem_alloc, mem_used, gpus, alone)


def changed(job: Usage, **fields: Any) -> Usage:
    names = ("cpus", "cpu_ns", "mem_alloc", "mem_used", "gpus", "alone")
    return Usage(**{**{name: getattr(job, name) for name in names}, **fields})


def package(total: int, jobs: list[Usage], node: NodeShape = NODE) -> list[int]:
    return attribute(Moved(total, 0, {}, 0), jobs, node, SECOND).package


@given(moves, st.lists(usages, max_size=6), shapes, st.integers(0, 1 << 45))
def test_every_domain_is_dealt_out_exactly_and_nobody_gets_less_than_nothing(moved, jobs, node, length) -> None:
    shares = attribute(moved, jobs, node, length)
    assert sum(shares.package) == moved.package
    assert sum(shares.dram) == moved.dram
    assert sum(shares.gpu) == sum(moved.gpus.values())
    assert sum(shares.other) == moved.other
    assert {device: sum(parts) for device, parts in shares.gpus.items()} == dict(moved.gpus)
    for column in (shares.package, shares.dram, shares.gpu, shares.other, *shares.gpus.values()):
        assert len(column) == len(jobs) + 1
        assert min(column) >= 0
    for index in range(len(jobs) + 1):
        assert shares.gpu[index] == sum(parts[index] for parts in shares.gpus.values())


@given(st.integers(0, 1 << 60), st.lists(st.integers(0, 1 << 60), min_size=1, max_size=9))
def test_a_split_is_exact_and_within_one_of_the_true_share(total, weights) -> None:
    assume(sum(weights))
    parts = split_exact(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - total * weight) < sum(weights)
        assert part == 0 or weight > 0


@pytest.mark.parametrize(("total", "weights"), [(-1, [1]), (1, [0, 0]), (1, [2, -1]), (1, [])])
def test_a_split_that_has_no_answer_is_refused(total, weights) -> None:
    with pytest.raises(ValueError):
        split_exact(total, weights)


@given(uj, st.lists(usages, min_size=2, max_size=5), shapes, st.integers(1, 1 << 40), st.integers(0, 1 << 50))
def test_who_uses_more_cpu_time_never_gets_less_of_the_package(total, jobs, node, length, more) -> None:
    assume(any(job.cpu_ns for job in jobs))
    before = attribute(Moved(total, 0, {}, 0), jobs, node, length).package
    greedy = [changed(jobs[0], cpu_ns=jobs[0].cpu_ns + more), *jobs[1:]]
    after = attribute(Moved(total, 0, {}, 0), greedy, node, length).package
    assert after[0] >= before[0] - 1  # a microjoule of rounding
    assert all(b <= a + 1 for a, b in zip(before[1:], after[1:], strict=True))


@given(st.lists(usages, min_size=1, max_size=5), shapes, st.integers(1, 1 << 40), uj, uj)
def test_more_energy_never_makes_a_share_smaller(jobs, node, length, total, more) -> None:
    before = attribute(Moved(total, 0, {}, 0), jobs, node, length).package
    after = attribute(Moved(total + more, 0, {}, 0), jobs, node, length).package
    if total * SECOND >= node.package_floor_uw * length:
        assert all(b >= a - 1 for a, b in zip(before, after, strict=True))


@given(moves, usages, st.integers(0, 1 << 40))
def test_a_job_alone_on_its_node_gets_all_of_it(moved, job, length) -> None:
    shares = attribute(moved, [changed(job, alone=True)], NODE, length)
    for column in (shares.package, shares.dram, shares.gpu, shares.other):
        assert column[-1] == 0
    assert shares.package[0] == moved.package
    assert shares.gpu[0] == sum(moved.gpus.values())


def test_two_jobs_that_each_claim_the_node_share_it() -> None:
    both = [usage(8, cpu_s=3, alone=True), usage(8, cpu_s=1, alone=True)]
    assert package(160, both, NO_FLOOR) == [120, 40, 0]


@given(moves)
def test_a_node_without_jobs_is_idle(moved) -> None:
    assert attribute(moved, [], NODE, SECOND) == Shares(
        [moved.package], [moved.dram], [sum(moved.gpus.values())], [moved.other],
        {device: [part] for device, part in moved.gpus.items()},
    )  # fmt: skip


def test_the_idle_floor_goes_by_allocated_cpus_and_the_rest_by_cpu_time() -> None:
    # 80 J floor over 8 CPUs, 120 J above it by use.
    shares = package(200_000_000, [usage(2, cpu_s=1), usage(4, cpu_s=3)])
    assert shares == [20_000_000 + 30_000_000, 40_000_000 + 90_000_000, 20_000_000]


def test_a_package_that_draws_less_than_its_floor_goes_by_cpus() -> None:
    assert package(8_000, [usage(2, cpu_s=1), usage(4)]) == [2_000, 4_000, 2_000]


def test_jobs_that_use_no_cpu_get_the_floor_of_their_cpus_and_no_more() -> None:
    assert package(200_000_000, [usage(2), usage(2)]) == [20_000_000, 20_000_000, 160_000_000]


def test_more_allocated_cpus_than_the_node_has_leave_no_idle_floor() -> None:
    assert package(80_000_000, [usage(8, 1), usage(8, 1)]) == [40_000_000, 40_000_000, 0]


def test_without_a_known_floor_all_goes_by_cpu_time() -> None:
    assert package(100, [usage(1, cpu_s=1), usage(7, cpu_s=3)], NO_FLOOR) == [25, 75, 0]


def memory(total: int, jobs: list[Usage], node: NodeShape = NODE) -> list[int]:
    return attribute(Moved(0, total, {}, 0), jobs, node, SECOND).dram


def test_memory_goes_by_allocation_up_to_the_floor_and_by_use_above() -> None:
    jobs = [usage(mem_alloc=16 << 30, mem_used=1 << 30), usage(mem_alloc=32 << 30, mem_used=3 << 30)]
    assert memory(12_000_000, jobs) == [2_000_000 + 1_000_000, 4_000_000 + 3_000_000, 2_000_000]


def test_memory_of_which_no_use_is_seen_goes_by_allocation() -> None:
    jobs = [usage(mem_alloc=16 << 30), usage(mem_alloc=48 << 30)]
    assert memory(12_000_000, jobs) == [3_000_000, 9_000_000, 0]


def test_memory_of_which_nothing_is_known_goes_by_cpus() -> None:
    assert memory(12_000_000, [usage(2), usage(6)]) == [3_000_000, 9_000_000, 0]


def test_a_gpu_goes_to_its_holder_and_one_that_nobody_holds_is_idle() -> None:
    shares = attribute(Moved(0, 0, {"a": 70, "b": 30}, 0), [usage(gpus=["a"]), usage()], NODE, SECOND)
    assert shares.gpu == [70, 0, 30]
    assert shares.gpus == {"a": [70, 0, 0], "b": [0, 0, 30]}


def test_a_gpu_that_several_hold_is_shared_equally() -> None:
    shares = attribute(Moved(0, 0, {"a": 101}, 0), [usage(gpus=["a"]), usage(), usage(gpus=["a"])], NODE, SECOND)
    assert shares.gpu == [51, 0, 50, 0]


def test_what_the_node_draws_beyond_goes_by_the_share_of_the_rest() -> None:
    moved = Moved(300, 0, {"a": 100}, 40)
    shares = attribute(moved, [usage(cpu_s=1, gpus=["a"]), usage(cpu_s=2)], NO_FLOOR, SECOND)
    assert shares.package == [100, 200, 0]
    assert shares.other == [20, 20, 0]


def test_what_the_node_draws_while_nothing_else_moves_is_idle() -> None:
    assert attribute(Moved(0, 0, {}, 40), [usage(cpu_s=1)], NODE, SECOND).other == [0, 40]
