"""Sentences below a report: what its numbers leave out, and what else is to be known of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slurm_energy.report.texts import number, plural, several
from slurm_energy.units import format_kwh


def gaps(rows: Sequence[dict[str, Any]], count_jobs: bool = True) -> list[str]:
    """What rows of totals lack together. count_jobs: False where a job may be in several of them."""
    total = {
        name: sum(row[name] for row in rows)
        for name in ("unrated_cpu_hours", "unrated_jobs", "unpriced_gpu_hours", "unpriced_cpu_hours")
    }
    found = []
    if total["unrated_cpu_hours"]:
        of = f" of {plural(total['unrated_jobs'], 'job')}" if count_jobs else ""
        found.append(
            f"{number(total['unrated_cpu_hours'])} CPU-hours{of} have no energy: {_unrated(_all(rows, 'unrated_profiles'))}."
        )
    if total["unpriced_gpu_hours"]:
        models = several(_all(rows, "unpriced_gpu_models"))
        found.append(f"{number(total['unpriced_gpu_hours'])} GPU-hours are of models without a cloud price: {models}.")
    if total["unpriced_cpu_hours"]:
        found.append(f"{number(total['unpriced_cpu_hours'])} CPU-hours of jobs without GPUs have no cloud price.")
    early = sum(row["without_record_facility_kwh"] for row in rows)
    if early:
        found.append(f"{format_kwh(early)} is of jobs whose record has not come yet.")
    return found


def profiles(names: str) -> list[str]:
    """That the rows were not all priced alike; names as the report has them, with a comma between."""
    several_names = names.split(", ")
    return [f"Several profiles priced these rows: {several(several_names)}."] if len(several_names) > 1 else []


def running(report: dict[str, Any]) -> list[str]:
    """The jobs whose end is not known."""
    found = []
    for key, word in (("running_jobs", "still running"), ("suspended_jobs", "suspended")):
        count = report[key]
        if count:
            found.append(
                f"{plural(count, 'job')} {'was' if count == 1 else 'were'} {word} when the ledger was written."
            )
    return found


def chosen(report: dict[str, Any]) -> str:
    """Which job is the model and which sweep the tune."""
    names = []
    clusters = report["model_clusters"]
    if report["model"]:
        on = f" of cluster {report['model_cluster']}" if len(report["clusters"]) > 1 else ""
        names.append(f"the model is job {report['model']}{on}")
    if report["tune"]:
        names.append(f"the tune is sweep {report['tune']}")
    said = " and ".join(names)
    note = f"{said[:1].upper()}{said[1:]}; --model and --sweep choose others." if names else ""
    if report["model_of_several"]:
        where = (
            f"clusters {several(clusters)} have such a job, -M chooses" if len(clusters) > 1 else "the id came round"
        )
        note += f" {report['model_of_several']} jobs have this id: {where}."
    return note


def _unrated(names: Sequence[str]) -> str:
    if "site" in names:
        return f"profile {several(names)} has no rated power for them"
    return f"profile {several(names)} rates GPUs only; aggregate again under site"


def _all(rows: Sequence[dict[str, Any]], key: str) -> list[str]:
    return sorted({name for row in rows for name in row[key]})
