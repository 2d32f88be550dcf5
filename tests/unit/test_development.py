"""The figures of the paper's Section 4.2 from sums over a project's jobs, and the price of owning the GPUs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_energy.accounting.development import Development, development, own_hardware

HOUR, DAY = 3600, 86_400


def grown(**changed: Any) -> Development:
    """Two jobs of one and three hours on a GPU each, within two days."""
    usual: dict[str, Any] = {
        "jobs": 2, "sweeps": 1, "span_s": 2 * DAY, "shortest_s": HOUR, "longest_s": 3 * HOUR, "elapsed_s": 4 * HOUR,
        "gpu_hours": 4.0, "gpu_hours_by_model": {"A100": 1.0, "V100": 3.0},
    }  # fmt: skip
    return development(**{**usual, **changed})


def test_the_paper_s_case_study_had_58_gpus_in_use_on_average() -> None:
    study = grown(
        jobs=4789, sweeps=123, span_s=172 * DAY, shortest_s=180, longest_s=9 * DAY, elapsed_s=239_942 * HOUR,
        gpu_hours=239_942, gpu_hours_by_model={"TITANX": 0.72 * 239_942, "M40": 0.28 * 239_942},
    )  # fmt: skip
    assert round(study.mean_gpus, 1) == 58.1
    assert round(study.gpu_days) == 9998
    assert round(study.mean_s / HOUR, 1) == 50.1
    assert {model: round(share, 2) for model, share in study.gpu_models.items()} == {"TITANX": 0.72, "M40": 0.28}


def test_seconds_become_days_and_the_mean_is_of_the_jobs() -> None:
    assert grown()._asdict() == {
        "span_days": 2.0, "sweeps": 1, "jobs": 2, "shortest_s": HOUR, "longest_s": 3 * HOUR, "mean_s": 2 * HOUR,
        "gpu_days": 4 / 24, "mean_gpus": 4 / 48, "gpu_models": {"V100": 0.75, "A100": 0.25},
    }  # fmt: skip


def test_models_come_by_their_share_and_equal_ones_by_name() -> None:
    models = grown(gpu_hours_by_model={"b": 1.0, "a": 1.0, "c": 2.0}).gpu_models
    assert list(models) == ["c", "a", "b"]


def test_a_project_without_gpus_has_no_models_and_no_gpus_in_use() -> None:
    without = grown(gpu_hours=0.0, gpu_hours_by_model={})
    assert (without.gpu_days, without.mean_gpus, without.gpu_models) == (0.0, 0.0, {})


def test_gpus_that_were_never_used_for_a_second_divide_by_nothing() -> None:
    assert grown(gpu_hours=0.0, gpu_hours_by_model={"A100": 0.0}).gpu_models == {}


def test_a_project_of_no_length_has_no_gpus_in_use() -> None:
    assert grown(span_s=0, shortest_s=0, longest_s=0, elapsed_s=0, gpu_hours=0.0, gpu_hours_by_model={}).mean_gpus == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"jobs": 0},
        {"sweeps": -1},
        {"span_s": -1},
        {"shortest_s": -1},
        {"longest_s": -1},
        {"elapsed_s": -1},
        {"gpu_hours": -0.5},
    ],
)
def test_figures_that_no_project_has_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least one job"):
        grown(**wrong)


hours = st.dictionaries(st.text(min_size=1), st.floats(0, 1e6), min_size=1)


@given(hours)
def test_the_shares_of_the_models_are_one_together(by_model: dict[str, float]) -> None:
    total = sum(by_model.values())
    shares = grown(gpu_hours=total, gpu_hours_by_model=by_model).gpu_models
    assert sum(shares.values()) == pytest.approx(1.0 if total else 0.0, abs=1e-9)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_the_paper_s_58_gpus_cost_145000_usd() -> None:
    assert own_hardware(58.1, 2500) == (58, 145_000)


def test_gpus_are_bought_whole() -> None:
    assert own_hardware(0.4, 2500) == (0, 0)
    assert own_hardware(1.6, 2500) == (2, 5000)


@pytest.mark.parametrize("wrong", [(-1, 2500), (1, -2500)])
def test_negative_gpus_and_prices_are_refused(wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="not negative"):
        own_hardware(*wrong)
