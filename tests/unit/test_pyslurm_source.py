"""The conversion of pyslurm's job objects; tests/cluster compares the whole with sacct on a real Slurm."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from slurm_energy.slurm import pyslurm_source
from slurm_energy.slurm.columns import RAW_COLUMNS
from slurm_energy.slurm.errors import SourceError
from slurm_energy.slurm.pyslurm_source import read_pyslurm, record, sluid, span_text, task_ranges, tres_text


def tres(gres: dict[str, int] | None = None, **counts: int) -> SimpleNamespace:
    names = ("billing", "cpu", "energy", "mem", "node", "pages", "vmem")
    scalars = {name: SimpleNamespace(count=counts[name]) if name in counts else None for name in names}
    devices = {name: SimpleNamespace(type_and_name=f"gres/{name}", count=count) for name, count in (gres or {}).items()}
    return SimpleNamespace(**scalars, gres=devices, fs={}, interconnect={}, license={}, other={})


def job(**values: Any) -> SimpleNamespace:
    """A job as pyslurm 25.11 gives it, from a cluster with Slurm 26.05."""
    allocated = tres({"gpu": 2, "gpu:titanx": 2}, billing=2, cpu=2, mem=128, node=1)
    usual = {
        "id": 3, "array_id": None, "array_task_id": None, "array_tasks_waiting": None, "array_tasks_parallel": None,
        "heterogeneous_id": None, "heterogeneous_offset": 4294967294, "cluster": "hpc26", "user_name": "sealice",
        "account": "lisa", "partition": "main", "qos": "normal", "wckey": "*paper", "name": "gpu-typed",
        "state": "COMPLETED", "submit_time": 1795549117, "eligible_time": 1795549117, "start_time": 1795549119,
        "end_time": 1795549121, "elapsed_time": 2, "suspended_time": None, "num_nodes": 1, "cpus": 2,
        "allocated_tres": allocated, "requested_tres": allocated, "nodelist": "n1", "comment": None,
        "requeue_count": 0, "db_index": 6757238083352508416,
    }  # fmt: skip
    return SimpleNamespace(**{**usual, **values})


def test_the_row_is_the_one_that_sacct_prints() -> None:
    sacct = (
        "3|3|hpc26|sealice|lisa|main|normal|*paper|gpu-typed|COMPLETED|1795549117|1795549119|1795549121|2|00:00:00|1|2"
        "|billing=2,cpu=2,gres/gpu:titanx=2,gres/gpu=2,mem=128M,node=1|n1|||0|s5VHM87H2FFE00"
    )
    assert record(job()) == dict(zip(RAW_COLUMNS, sacct.split("|"), strict=True))


def test_a_pending_job_has_no_times_and_the_nodes_that_it_asks_for() -> None:
    waiting = record(
        job(
            state="PENDING", start_time=None, end_time=None, elapsed_time=None, num_nodes=0, cpus=0, nodelist=None,
            allocated_tres=None, requested_tres=tres(node=4),
        )
    )  # fmt: skip
    assert (waiting["Start"], waiting["End"], waiting["ElapsedRaw"]) == ("Unknown", "Unknown", "0")
    assert (waiting["NNodes"], waiting["NodeList"], waiting["AllocTRES"]) == ("4", "None assigned", "")


def test_a_job_cancelled_before_its_start_has_an_end_only() -> None:
    assert record(job(state="CANCELLED", start_time=None))["Start"] == "None"


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({}, "3"),
        ({"array_id": 13, "array_task_id": 5}, "13_5"),
        ({"array_id": 13}, "13_0"),
        ({"array_id": 33, "array_tasks_waiting": "0x3FF", "array_tasks_parallel": 2}, "33_[0-9%2]"),
        ({"array_id": 37, "array_tasks_waiting": "0x20"}, "37_[5]"),
        ({"heterogeneous_id": 20, "heterogeneous_offset": None}, "20+0"),
        ({"id": 21, "heterogeneous_id": 20, "heterogeneous_offset": 1}, "20+1"),
    ],
)
def test_job_ids_are_shown_as_sacct_shows_them(values: dict[str, Any], shown: str) -> None:
    assert record(job(**values))["JobID"] == shown


@pytest.mark.parametrize(
    ("mask", "ranges"),
    [
        ("0x155", "0,2,4,6,8"),
        ("0x38A", "1,3,7-9"),
        ("0x3", "0-1"),
        ("0x8102040810204081020408102", "1-99:7"),
        ("0xFFFFFFFFFFFFFFFFFFFFFFFF8", "3-99"),
        ("0-9", "0-9"),
    ],
)
def test_masks_of_waiting_tasks_as_26_05_prints_them(mask: str, ranges: str) -> None:
    assert task_ranges(mask) == ranges


def test_energy_is_empty_unless_measured() -> None:
    assert record(job())["ConsumedEnergyRaw"] == ""
    assert record(job(allocated_tres=tres(cpu=1, energy=1234)))["ConsumedEnergyRaw"] == "1234"
    assert record(job(allocated_tres=tres(cpu=1, energy=0)))["ConsumedEnergyRaw"] == "0"


def test_licenses_and_untyped_devices_are_kept() -> None:
    some = tres({"gpu": 1}, cpu=4)
    some.license = {"matlab": SimpleNamespace(type_and_name="license/matlab", count=1)}
    assert tres_text(some) == "cpu=4,gres/gpu=1,license/matlab=1"


def test_a_name_that_is_no_utf8_does_not_stop_the_reading() -> None:
    class Broken(SimpleNamespace):
        @property
        def name(self) -> str:
            return b"\xff".decode()

    values = vars(job())
    del values["name"]
    assert record(Broken(**values))["JobName"] == "\ufffd"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00:00"), (4, "00:00:04"), (3661, "01:01:01"), (90061, "1-01:01:01")]
)
def test_spans_of_time(seconds: int, text: str) -> None:
    assert span_text(seconds) == text


def test_an_index_from_before_sluids_is_none() -> None:
    assert sluid(6757238083353606145) == "s5VHM87H2GGY01"
    assert sluid(4711) == ""


def test_without_pyslurm_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pyslurm", raising=False)
    died = subprocess.CompletedProcess([], 1, "", "Traceback\nModuleNotFoundError: No module named 'pyslurm'\n")
    monkeypatch.setattr(pyslurm_source.subprocess, "run", lambda *_args, **_named: died)
    with pytest.raises(SourceError, match=r"install slurm-energy\[pyslurm\].*or take the job records from sacct"):
        next(read_pyslurm(0, 1))
