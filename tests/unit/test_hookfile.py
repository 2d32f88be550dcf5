"""Hook files: typed and bounded, and nothing but ValueError for what is none."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_energy.slurm.hookfile import MAX_BYTES, MAX_TEXT, Hook, parse_hook

USUAL = {"EVENT": "prolog", "SLURM_JOB_ID": "7", "SLURM_JOB_UID": "1001"}


def data(**values: str | bytes) -> bytes:
    """The bytes of a hook file; END=1 comes last."""
    records = {**USUAL, **values}
    made = b""
    for key, value in {**records, "END": "1"}.items():
        made += key.encode() + b"=" + (value.encode() if isinstance(value, str) else value) + b"\0"
    return made


def parse(**values: str | bytes) -> Hook:
    return parse_hook(data(**values), 5, "n1")


def refused(**values: str | bytes) -> str:
    """Why a file is refused; '' where it is not."""
    try:
        parse(**values)
    except ValueError as error:
        return str(error)
    return ""


def test_what_slurm_does_not_say_is_empty_none_or_zero() -> None:
    assert parse() == Hook("prolog", 7, 0, 1001, "", "", "", "", "n1", None, None, 0, (), False, 5)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"EVENT": "start"}, "EVENT is 'start', expected prolog or epilog"),
        ({"SLURM_JOB_ID": ""}, "SLURM_JOB_ID is ''"),
        ({"SLURM_JOB_ID": "-7"}, "SLURM_JOB_ID is '-7', expected a whole number"),
        ({"SLURM_JOB_ID": "7a"}, "SLURM_JOB_ID is '7a'"),
        ({"SLURM_JOB_ID": "٧"}, "SLURM_JOB_ID is"),
        ({"SLURM_JOB_ID": " 7"}, "SLURM_JOB_ID is ' 7'"),
        ({"SLURM_JOB_ID": "0"}, "SLURM_JOB_ID is 0"),
        ({"SLURM_JOB_ID": "4294967296"}, "SLURM_JOB_ID is '4294967296'"),
        ({"SLURM_JOB_ID": "9" * 5000}, "SLURM_JOB_ID is '9999"),
        ({"SLURM_JOB_UID": ""}, "SLURM_JOB_UID is ''"),
        ({"SLURM_JOB_RESTART_COUNT": "1.0"}, "SLURM_JOB_RESTART_COUNT is '1.0'"),
        ({"SLURM_JOB_START_TIME": "Unknown"}, "SLURM_JOB_START_TIME is 'Unknown'"),
        ({"SLURM_JOB_SLUID": "../x"}, r"SLURM_JOB_SLUID is '\.\./x'"),
        ({"SLURM_JOB_SLUID": "s" * 33}, "SLURM_JOB_SLUID is"),
        ({"SLURM_JOB_GPUS": "0,"}, "SLURM_JOB_GPUS is '0,'"),
        ({"SLURM_JOB_GPUS": "3-0"}, "SLURM_JOB_GPUS is '3-0'"),
        ({"SLURM_JOB_GPUS": "0-99999"}, "SLURM_JOB_GPUS is '0-99999'"),
        ({"SLURM_JOB_GPUS": "GPU-6f3a"}, "SLURM_JOB_GPUS is 'GPU-6f3a'"),
        ({"SLURM_JOB_CPUS_PER_NODE": "2(x0)"}, r"SLURM_JOB_CPUS_PER_NODE is '2\(x0\)'"),
        ({"SLURM_JOB_CPUS_PER_NODE": "two"}, "SLURM_JOB_CPUS_PER_NODE is 'two'"),
        ({"SLURM_JOB_CPUS_PER_NODE": "2(x9999999),4"}, "speaks of 10000000 nodes"),
        ({"SLURM_JOB_USER": b"\xff"}, "not UTF-8 at byte"),
        ({"SLURM_JOB_USER": "x" * MAX_BYTES}, "longer than 65536 bytes"),
        ({"lower": "x"}, "'lower=x' is not KEY=VALUE"),
    ],
)
def test_a_wrong_value_is_refused_with_the_reason(values: dict[str, str | bytes], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(**values)


def test_a_file_cut_anywhere_is_torn() -> None:
    whole = data(SLURM_JOB_USER="emma")
    parse_hook(whole, 0, "n1")
    for length in range(len(whole)):
        with pytest.raises(ValueError, match="torn"):
            parse_hook(whole[:length], 0, "n1")


def test_a_key_that_comes_twice_or_too_many_records_are_refused() -> None:
    with pytest.raises(ValueError, match="SLURM_JOB_ID is there twice"):
        parse_hook(b"SLURM_JOB_ID=8\0" + data(), 0, "n1")
    with pytest.raises(ValueError, match="records, expected at most 64"):
        parse(**{f"KEY{number}": "" for number in range(64)})


def test_keys_of_a_newer_script_are_passed_over() -> None:
    assert parse(SLURM_JOB_NEWS="1") == parse()


def test_names_lose_control_characters_and_are_cut() -> None:
    hook = parse(SLURM_JOB_USER="em\nma\x1b[2J\u202e", SLURM_JOB_ACCOUNT="ü" * 1000, SLURM_JOB_PARTITION="(null)")
    assert (hook.user, hook.account, hook.partition) == ("emma[2J", "ü" * MAX_TEXT, "")


@pytest.mark.parametrize(
    ("exclusive", "oversubscribe", "expected"),
    [
        ("NODE", "NO", True), ("TOPO", "NO", True), ("NO", "NO", False), ("USER", "NO", False), ("MCS", "NO", False),
        ("", "NO", True), ("", "OK", False), ("", "YES", False), ("", "", False),
    ],
)  # fmt: skip
def test_exclusive_is_read_as_new_and_old_slurm_say_it(exclusive: str, oversubscribe: str, expected: bool) -> None:
    assert parse(SLURM_JOB_EXCLUSIVE=exclusive, SLURM_JOB_OVERSUBSCRIBE=oversubscribe).exclusive is expected


@pytest.mark.parametrize(
    ("cpus", "nodes", "node", "expected"),
    [
        ("", "n1", "n1", 0),
        ("8", "n1", "n1", 8),
        ("8(x3)", "", "n9", 8),
        ("2(x2),4", "n[1-3]", "n1", 2),
        ("2(x2),4", "n[1-3]", "n2", 2),
        ("2(x2),4", "n[1-3]", "n3", 4),
        ("2,4,8(x2)", "a[01-02],b7,c", "b7", 8),
        ("2,4", "rack1-n[1,3]", "rack1-n3", 4),
        ("2,4", "n[1-2]", "stranger", 2),
        ("2,4", "", "n2", 2),
    ],
)
def test_cpus_are_those_of_this_nodes_place_in_the_list(cpus: str, nodes: str, node: str, expected: int) -> None:
    pytest.importorskip("hostlist")
    assert parse(SLURM_JOB_CPUS_PER_NODE=cpus, SLURM_JOB_NODELIST=nodes, SLURMD_NODENAME=node).cpus == expected


@given(st.lists(st.integers(1, 256), min_size=1, max_size=40))
def test_every_node_of_a_job_finds_its_own_cpus(counts: list[int]) -> None:
    pytest.importorskip("hostlist")
    groups: list[list[int]] = []
    for count in counts:
        if groups and groups[-1][0] == count:
            groups[-1][1] += 1
        else:
            groups.append([count, 1])
    text = ",".join(f"{cpus}(x{times})" if times > 1 else f"{cpus}" for cpus, times in groups)
    nodes = f"n[1-{len(counts)}]" if len(counts) > 1 else "n1"
    found = [
        parse(SLURM_JOB_CPUS_PER_NODE=text, SLURM_JOB_NODELIST=nodes, SLURMD_NODENAME=f"n{number}").cpus
        for number in range(1, len(counts) + 1)
    ]
    assert found == counts


def test_without_hostlist_the_first_nodes_cpus_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hostlist", None)
    assert parse(SLURM_JOB_CPUS_PER_NODE="2,4", SLURM_JOB_NODELIST="n[1-2]", SLURMD_NODENAME="n2").cpus == 2


@pytest.mark.parametrize(
    "nodes",
    [
        "n[1-99999999]", "n[" + "1-99999," * 4000 + "1]", "n[1-300]" * 300, "n[1]" * 8000, "[" * 32000, "x[1" * 10000,
        ",".join(["n[1-9]x[1-9]y[1-9]z[1-9]"] * 1300), "n[" + "0" * 30000 + "1-9]", "n[9-1]", "n[a-b]",
    ],
)  # fmt: skip
def test_no_node_list_costs_much_time_or_memory(nodes: str) -> None:
    begin = time.process_time()
    reason = refused(SLURM_JOB_CPUS_PER_NODE="2,4(x1000)", SLURM_JOB_NODELIST=nodes)
    assert not reason or "SLURM_JOB_NODELIST" in reason
    assert time.process_time() - begin < 2


@given(st.sets(st.integers(0, 40)))
def test_gpus_are_the_numbers_of_a_list_of_ranges(numbers: set[int]) -> None:
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    text = ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts)
    assert parse(SLURM_JOB_GPUS=text).gpus == tuple(sorted(numbers))


def bounded(raw: bytes) -> None:
    """Parses, and holds what comes out to what Hook promises."""
    try:
        hook = parse_hook(raw, 1, "n1")
    except ValueError as error:
        hook, reason = None, str(error)
    if hook is None:
        assert 0 < len(reason) < 400
        return
    assert hook.event in ("prolog", "epilog")
    assert 0 < hook.job_id < 2**32
    assert 0 <= hook.restart_count < 2**32
    assert 0 <= hook.uid < 2**32
    for text in (hook.user, hook.account, hook.partition, hook.cluster, hook.node):
        assert len(text) <= MAX_TEXT
        assert text.isprintable()
    assert hook.sluid is None or hook.sluid.isalnum()
    assert len(hook.gpus) <= 65536
    assert list(hook.gpus) == sorted(set(hook.gpus))


@given(st.binary(max_size=300))
def test_any_bytes_give_a_hook_or_a_reason(raw: bytes) -> None:
    bounded(raw)
    bounded(raw + b"\0END=1\0")


KEYS = (
    "EVENT", "SLURM_JOB_ID", "SLURM_JOB_UID", "SLURM_JOB_RESTART_COUNT", "SLURM_JOB_USER", "SLURM_JOB_SLUID",
    "SLURM_JOB_START_TIME", "SLURM_JOB_CPUS_PER_NODE", "SLURM_JOB_NODELIST", "SLURM_JOB_GPUS", "SLURMD_NODENAME",
    "SLURM_JOB_EXCLUSIVE",
)  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from(KEYS), st.one_of(st.binary(max_size=60), st.text("0123456789-,()x[]n ", max_size=40))
    )
)
def test_any_values_of_our_keys_give_a_hook_or_a_reason(values: dict[str, bytes | str]) -> None:
    bounded(data(**values))


@given(st.data())
def test_a_hook_with_flipped_bytes_gives_a_hook_or_a_reason(draw: st.DataObject) -> None:
    raw = bytearray(data(SLURM_JOB_CPUS_PER_NODE="2(x2),4", SLURM_JOB_NODELIST="n[1-3]", SLURM_JOB_GPUS="0,2-3"))
    for place in draw.draw(st.lists(st.integers(0, len(raw) - 1), max_size=4)):
        raw[place] = draw.draw(st.integers(0, 255))
    bounded(bytes(raw))


def test_a_compute_node_loads_nothing_heavy_for_it() -> None:
    code = "import sys, slurm_energy.slurm.hookfile; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"hostlist", "pandas", "duckdb", "ibis", "pyarrow", "typer", "rich", "msgspec"} & set(
        done.stdout.split()
    )
