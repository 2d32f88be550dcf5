"""The demo log: what the paper prints of its case study, to the digit, and what the ledger makes of it."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import DAY, aggregate_file, parse

from slurm_energy.demo.case_study import COLUMNS, GPUS, jobs, lines, write
from slurm_energy.ledger.store import Ledger
from slurm_energy.slurm import states
from slurm_energy.units import LB_G


@pytest.fixture(scope="module")
def log() -> str:
    return "\n".join(lines()) + "\n"


@pytest.fixture(scope="module")
def totals(log: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("case")
    (folder / "jobs.txt").write_text(log)
    outcome = aggregate_file(folder / "jobs.txt", folder / "ledger", profile="strubell2019")
    assert (outcome.counts.records, outcome.set_aside) == (4789, ())
    rows = Ledger(folder / "ledger").relation()
    sums = (
        "sum(gpu_h), sum(co2e_g), sum(electricity_usd), sum(cloud_low_usd), sum(cloud_high_usd), count(DISTINCT date)"
    )
    names = ("gpu_h", "co2e_g", "electricity_usd", "cloud_low_usd", "cloud_high_usd", "days", "sweeps")
    return dict(zip(names, rows.aggregate(f"{sums}, count(DISTINCT sweep)").fetchall()[0], strict=True))


def test_the_jobs_are_those_that_the_paper_counts() -> None:
    found = jobs()
    assert len(found) == 4789
    assert len({job.sweep for job in found}) == 123
    assert sum(job.seconds for job in found) == 239_942 * 3600
    assert min(job.seconds for job in found) == 180
    assert max(job.seconds for job in found) == 9 * DAY
    assert Counter(job.seconds for job in found)[180] == 1
    titan = sum(job.seconds for job in found if job.gpu == "titanx")
    assert titan / (239_942 * 3600) == pytest.approx(0.72, abs=1e-6)


def test_they_span_172_days() -> None:
    found = jobs()
    span = max(job.start + job.seconds for job in found) - min(job.start for job in found)
    assert span == 172 * DAY


def test_the_last_search_is_24_jobs_of_120_hours_at_the_end() -> None:
    found = jobs()
    last = [job for job in found if job.sweep == 122]
    assert [(job.seconds, job.gpu) for job in last] == [(120 * 3600, "titanx")] * 24
    assert {job.start + job.seconds for job in last} == {max(job.start + job.seconds for job in found)}


def test_no_gpu_runs_two_jobs_at_once() -> None:
    taken: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for job in jobs():
        taken.setdefault((job.gpu, job.gpu_index), []).append((job.start, job.start + job.seconds))
    for spans in taken.values():
        ordered = sorted(spans)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ordered))
    assert Counter(kind for kind, _ in taken) == GPUS


def test_the_log_is_the_same_each_time(log: str) -> None:
    assert "\n".join(lines()) + "\n" == log


def test_the_log_is_what_sacct_prints(log: str) -> None:
    parsed = parse(log)
    assert parsed.set_aside == []
    assert parsed.counts == (4789, 0, 0, 0, 0, 0)
    assert len({record["job_id"] for record in parsed.records}) == 4789
    assert {record["state"] for record in parsed.records} <= states.ENDED
    assert all(record["end"] - record["start"] == record["elapsed_s"] > 0 for record in parsed.records)
    assert all(record["submit"] < record["start"] for record in parsed.records)
    assert {record["state"] for record in parsed.records if record["elapsed_s"] == 180} == {"FAILED"}


def test_writing_says_how_many_jobs_and_begins_with_the_header(log: str) -> None:
    file = io.StringIO()
    assert write(file) == 4789
    assert file.getvalue() == log
    assert file.getvalue().startswith("|".join(COLUMNS) + "\n")


def test_the_ledger_has_all_its_gpu_hours_and_sweeps(totals: dict[str, Any]) -> None:
    assert totals["gpu_h"] == pytest.approx(239_942, rel=1e-12)
    assert (totals["sweeps"], totals["days"]) == (123, 173)  # from nine in the morning on


def test_the_ledger_gives_the_paper_s_emissions_and_costs(totals: dict[str, Any]) -> None:
    assert round(totals["co2e_g"] / LB_G) == 78_468
    assert round(totals["electricity_usd"]) == 9_870
    assert (round(totals["cloud_low_usd"]), round(totals["cloud_high_usd"])) == (103_175, 350_315)


def test_the_same_log_gives_the_same_ledger_in_any_order_of_its_lines(log: str, tmp_path: Path) -> None:
    header, *rest = log.splitlines()
    sample = rest[::7]
    for name, order in (("a", sample), ("b", sample[::-1])):
        (tmp_path / f"{name}.txt").write_text("\n".join([header, *order]) + "\n")
        aggregate_file(tmp_path / f"{name}.txt", tmp_path / name)
    one, other = (
        {file.path.name: file.path.read_bytes() for file in Ledger(tmp_path / name).days()} for name in ("a", "b")
    )
    assert len(one) == 173
    assert one == other
