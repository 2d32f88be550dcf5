"""Watts and prices of an allocation, by its GPUs, its partition and its nodes."""

from __future__ import annotations

import pytest
from helpers import config
from hypothesis import given
from hypothesis import strategies as st

from slurm_energy.config import ConfigError, profile_of
from slurm_energy.ledger.rating import Rater, expand_nodes


def rater(text: str = "", profile: str = "site") -> Rater:
    site = config(text)
    return Rater(profile_of(site, profile), site.power)


@pytest.mark.parametrize(
    ("names", "nodes"),
    [
        ("n1", ["n1"]),
        ("n[001-003,010],gpu5", ["n001", "n002", "n003", "n010", "gpu5"]),
        ("n[1-2],n[9-11]", ["n1", "n2", "n9", "n10", "n11"]),
        ("rack[1-2]n[01-02]", ["rack1n01", "rack1n02", "rack2n01", "rack2n02"]),
    ],
)
def test_a_node_list_is_read_as_slurm_writes_it(names: str, nodes: list[str]) -> None:
    assert expand_nodes(names) == nodes


@pytest.mark.parametrize("names", ["n[1-", "n[3-1]", "n]1[", "n[1-2]]"])
def test_what_is_no_node_list_is_refused(names: str) -> None:
    with pytest.raises(ConfigError, match="is not a node list"):
        expand_nodes(names)


@given(st.lists(st.tuples(st.integers(0, 990), st.integers(0, 9)), min_size=1, max_size=5), st.integers(1, 4))
def test_every_node_of_a_list_is_there_once_with_its_zeros(spans: list[tuple[int, int]], width: int) -> None:
    wanted = [f"n{number:0{width}d}" for first, more in spans for number in range(first, first + more + 1)]
    text = ",".join(f"{first:0{width}d}-{first + more:0{width}d}" for first, more in spans)
    if (
        len({len(str(first)) if len(str(first)) > width else width for span in spans for first in (span[0], sum(span))})
        > 1
    ):
        return  # Slurm writes numbers of different width apart
    assert expand_nodes(f"n[{text}]") == list(dict.fromkeys(wanted))


def test_typed_gpus_have_their_own_watts_and_model() -> None:
    rating = rater().rate("gres/gpu:v100=2,gres/gpu=2", "gpu", "n1")
    profile = profile_of(config(), "site")
    assert (rating.gpus, rating.gpu_units, rating.gpu_model) == (2, 2.0, profile.gpu("v100").model)
    assert rating.gpu_w == 2 * (profile.gpu("v100").rated_w or 0)


def test_without_gpus_there_is_no_model_and_the_price_is_zero() -> None:
    rating = rater().rate("", "cpu", "n1")
    assert (rating.gpus, rating.gpu_model, rating.gpu_w) == (0, None, 0.0)
    assert (rating.cloud_low_usd_per_h, rating.cloud_high_usd_per_h) == (0.0, 0.0)


def test_untyped_gpus_are_unknown_and_take_the_profile_s_watts() -> None:
    rating = rater("[factors]\nunknown_gpu_w = 111.0").rate("gres/gpu=3", "gpu", "n1")
    assert (rating.gpus, rating.gpu_model, rating.gpu_w) == (3, "unknown", 333.0)


def test_the_configuration_says_what_untyped_gpus_are() -> None:
    text = '[factors.gpu_w]\nv100 = 250\n[power.partition.gpu]\ngpu = "v100"'
    assert rater(text).rate("gres/gpu=2", "gpu", "n1").gpu_w == 500.0
    assert rater(text).rate("gres/gpu=2", "other", "n1").gpu_model == "unknown"
    assert rater(text).rate("gres/gpu:m40=2", "gpu", "n1").gpu_model == "M40"  # what Slurm says goes first


def test_mixed_gpus_add_up_and_name_both_models() -> None:
    text = "[factors]\nunknown_gpu_w = 100\n[factors.gpu_w]\nv100 = 250\nm40 = 200"
    rating = rater(text).rate("gres/gpu:m40=1,gres/gpu:v100=2,gres/gpu=4", "gpu", "n[1-2]")
    assert (rating.gpus, rating.gpu_w) == (4, 200 + 2 * 250 + 100)
    assert rating.gpu_model == "M40+V100-16GB+unknown"


def test_a_mig_slice_is_a_share_of_its_gpu() -> None:
    rating = rater("[factors.gpu_w]\nA100-40GB = 350").rate("gres/gpu:a100_1g.5gb=2,gres/gpu=2", "gpu", "n1")
    assert rating.gpus == 2
    assert rating.gpu_units == pytest.approx(2 / 7)
    assert rating.gpu_w == pytest.approx(100.0)


def test_the_price_of_an_allocation_is_that_of_its_gpus_or_not_known() -> None:
    rating = rater(profile="strubell2019").rate("gres/gpu:v100=2,gres/gpu=2", "gpu", "")
    assert (rating.cloud_low_usd_per_h, rating.cloud_high_usd_per_h) == (pytest.approx(1.48), pytest.approx(4.96))
    unpriced = rater().rate("gres/gpu:frobnicator=1,gres/gpu:v100=1,gres/gpu=2", "gpu", "")
    assert (unpriced.cloud_low_usd_per_h, unpriced.cloud_high_usd_per_h) == (None, None)


def test_the_cpu_power_of_a_gh200_is_not_counted_twice() -> None:
    rating = rater().rate("gres/gpu:gh200=1,gres/gpu=1", "gpu", "n1")
    assert rating.gpu_w > 0
    assert (rating.cpu_core_w, rating.dram_w_per_gb) == (0.0, 0.0)


def test_a_gh200_beside_another_gpu_leaves_the_host_of_the_other_counted() -> None:
    assert rater().rate("gres/gpu:gh200=1,gres/gpu:v100=1,gres/gpu=2", "gpu", "n[1-2]").cpu_core_w > 0


HARDWARE = """
[factors]
cpu_core_w = 8
dram_w_per_gb = 0.1
[power.partition.fat]
cpu_core_w = 5
cpus_per_node = 128
[[power.nodes]]
names = "n[01-10]"
cpu_core_w = 3
dram_w_per_gb = 0.5
cpus_per_node = 64
[[power.nodes]]
names = "n10,big1"
cpu_core_w = 99
exclusive = true
"""


def test_hardware_is_that_of_the_node_else_of_the_partition_else_of_the_profile() -> None:
    found = rater(HARDWARE)
    assert found.looks_at_nodes
    assert (found.rate("", "fat", "n01").cpu_core_w, found.rate("", "fat", "n01").dram_w_per_gb) == (3, 0.5)
    assert (found.rate("", "fat", "x1").cpu_core_w, found.rate("", "fat", "x1").dram_w_per_gb) == (5, 0.1)
    assert (found.rate("", "thin", "x1").cpu_core_w, found.rate("", "thin", "x1").dram_w_per_gb) == (8, 0.1)
    assert not rater("[power.partition.fat]\ncpu_core_w = 5").looks_at_nodes


def test_a_job_on_different_nodes_gets_their_mean() -> None:
    assert rater(HARDWARE).rate("", "fat", "n[01-03],x1").cpu_core_w == pytest.approx((3 * 3 + 5) / 4)


def test_the_first_entry_that_names_a_node_counts() -> None:
    assert rater(HARDWARE).rate("", "fat", "n10").cpu_core_w == 3
    assert rater(HARDWARE).rate("", "fat", "big1").cpu_core_w == 99


@pytest.mark.parametrize("nodes", ["None assigned", "", "n[1-"])
def test_a_job_without_readable_nodes_is_rated_by_its_partition(nodes: str) -> None:
    assert rater(HARDWARE).rate("", "fat", nodes).cpu_core_w == 5


def test_the_size_of_whole_nodes_is_known_only_where_that_of_each_is() -> None:
    found = rater(HARDWARE)
    assert found.rate("", "fat", "n01").cpus_per_node == 64
    assert found.rate("", "thin", "n01,x1").cpus_per_node == 0
    assert found.rate("", "fat", "n01,x1").cpus_per_node * 2 == 64 + 128


def test_an_allocation_is_exclusive_only_where_all_its_nodes_are() -> None:
    assert rater(HARDWARE).rate("", "fat", "big1").exclusive is True
    assert rater(HARDWARE).rate("", "fat", "big1,n01").exclusive is False


def test_a_cpu_may_be_named_and_one_that_nobody_knows_is_refused() -> None:
    found = rater('[power.partition.p]\ncpu = "AMD EPYC 7763"').rate("", "p", "")
    assert found.cpu_core_w == pytest.approx(280 / 64, rel=0.05)
    with pytest.raises(ConfigError, match=r'^\[power\] cpu = "Abacus 3000": expected a .* give cpu_core_w in W'):
        rater('[power.partition.p]\ncpu = "Abacus 3000"')


def test_under_the_paper_every_gpu_has_the_paper_s_watts_and_cores_have_none() -> None:
    found = rater(profile="strubell2019")
    assert found.rate("gres/gpu:h100=1,gres/gpu=1", "", "").gpu_w == found.rate("gres/gpu=1", "", "").gpu_w == 216.961
    assert (found.rate("", "", "").cpu_core_w, found.rate("", "", "").dram_w_per_gb) == (0.0, 0.0)
