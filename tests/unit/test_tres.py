"""GPUs in TRES text, in Python and in the statement that reads millions of rows: both must count alike."""

from __future__ import annotations

import pytest
from helpers import parse, parse_each, row
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_energy.slurm.tres import parse_gpus

KINDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-.", min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("", {}),
        ("billing=4,cpu=4,mem=8G,node=1", {}),
        ("gres/gpu=2", {"": 2}),
        ("gres/gpu:a100=2,gres/gpu=2", {"a100": 2}),
        ("gres/gpu=2,gres/gpu:a100=2", {"a100": 2}),
        ("gres/gpu:a100=2", {"a100": 2}),
        ("gres/gpu:a100=2,gres/gpu:v100=1,gres/gpu=3", {"a100": 2, "v100": 1}),
        ("gres/gpu:a100=2,gres/gpu=5", {"a100": 2, "": 3}),
        ("gres/gpu:a100=0,gres/gpu=0", {}),
        ("gres/gpumem=40G,gres/gpuutil=90,gres/gpu=1", {"": 1}),
        ("gres/shard=4,gres/gpu:a100_1g.5gb=1,gres/gpu=1", {"a100_1g.5gb": 1}),
        ("gres/gpu:a100=1,gres/gpu:a100=1", {"a100": 2}),
    ],
)
def test_typed_counts_and_the_total_beside_them_are_not_added(text: str, gpus: dict[str, int]) -> None:
    assert parse_gpus(text) == gpus


@pytest.mark.parametrize(
    "text", ["gres/gpu", "gres/gpu=", "gres/gpu:a100=x", "gres/gpu=-1", "gres/gpu=1.5", "gres/gpu=²"]
)
def test_a_count_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a GPU count"):
        parse_gpus(text)


@given(st.dictionaries(KINDS, st.integers(1, 64), max_size=4), st.integers(0, 64), st.randoms())
def test_what_slurm_writes_is_read_back_whatever_the_order(typed: dict[str, int], rest: int, order) -> None:
    counts = {f"gres/gpu:{kind}": number for kind, number in typed.items()}
    if typed or rest:
        counts["gres/gpu"] = sum(typed.values()) + rest
    parts = [f"{name}={count}" for name, count in counts.items()] + ["cpu=4", "mem=8G", "node=1", "gres/gpumem=4G"]
    order.shuffle(parts)
    assert parse_gpus(",".join(parts)) == {**typed, **({"": rest} if rest else {})}


@given(st.text("gres/pu:=,a1 ", max_size=60))
def test_any_text_gives_counts_or_a_value_error(text: str) -> None:
    try:
        counts = parse_gpus(text)
    except ValueError:
        return
    assert all(number > 0 for number in counts.values())


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.lists(
            st.sampled_from(
                ("gres/gpu:a100=2", "gres/gpu=2", "gres/gpu=3", "gres/gpu:v100=1", "gres/gpumem=40G", "gres/gpuutil=5",
                 "cpu=4", "mem=8G", "node=1", "gres/shard:a100=4", "license/gres@x=1", "billing=2")
            ), min_size=1, max_size=8, unique=True,
        ), min_size=1, max_size=20,
    )
)  # fmt: skip
def test_the_statement_takes_the_same_gpus_out_of_alloctres_as_python(texts: list[list[str]]) -> None:
    rows = [row(JobID=number, AllocTRES=",".join(parts)) for number, parts in enumerate(texts, 1)]
    parsed = parse(rows)
    assert parsed.reasons == []
    for record, parts in zip(parsed.records, texts, strict=True):
        assert parse_gpus(record["gpu_key"]) == parse_gpus(",".join(parts))


def test_memory_is_read_in_slurm_s_binary_units() -> None:
    gb = {
        "mem=1.50G": 1.5, "mem=1536M": 1.5, "mem=1572864K": 1.5, "mem=2T": 2048.0, "mem=1P": 1_048_576.0, "mem=512": 0.5,
        "mem=16g": 16.0, "mem=0": 0.0, "gres/gpumem=40G,mem=2G": 2.0, "vmem=9G,mem=1G": 1.0, "billing=1": 0.0,
    }  # fmt: skip
    found = parse_each(row(AllocTRES=f"cpu=1,{mem},node=1") for mem in gb)
    assert [one["mem_gb"] for one in found] == pytest.approx(list(gb.values()), rel=1e-12)


def test_memory_that_is_no_number_is_set_aside_not_taken_for_none() -> None:
    assert parse([row(AllocTRES="cpu=1,mem=lots,node=1")]).reasons == [
        "AllocTRES 'cpu=1,mem=lots,node=1' has a mem that is no number"
    ]


def test_rubbish_in_alloctres_is_set_aside() -> None:
    reasons = {
        "rubbish": "is not TRES text", "cpu=1,,mem=1G": "is not TRES text", "cpu=1,gres/gpu": "is not TRES text",
        "cpu=1,gres/gpu=many": "has a GPU count that is no number", "cpu=1,gres/gpu:a100=1.5": "has a GPU count that is no number",
        "cpu=1,gres/gpu=12345678901": "has a GPU count that is no number",
    }  # fmt: skip
    assert parse_each(row(AllocTRES=tres) for tres in reasons) == [
        f"AllocTRES '{tres}' {why}" for tres, why in reasons.items()
    ]
