"""A report as titled tables of text, for a terminal or Markdown: the unit once in the header, measured first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from slurm_energy.units import format_co2e, format_duration, format_hours, format_kwh, format_usd


class Section(NamedTuple):
    """A title, a header, rows of text (the first `left` columns are names), and a sentence below."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    left: int = 1
    numbers: bool = True
    """Whether the columns after the names are numbers, to be aligned to the right."""


def number(value: float) -> str:
    """Whole numbers with thousands separators."""
    return f"{value:,.0f}"


def project_sections(report: dict[str, Any]) -> list[Section]:
    """One project: what it used, the R&D accounting, how it was developed, comparisons."""
    return [_totals(report), _rnd(report), _development(report), _own(report), _comparisons(report)]


def _totals(report: dict[str, Any]) -> Section:
    factors = report["factors"]
    shares = ", ".join(f"{100 * share:.1f} % {name}" for name, share in report["provenance"].items() if share)
    rows = [
        ("Jobs", number(report["jobs"])),
        ("GPU time", format_hours(report["gpu_hours"])),
        ("CPU time", format_hours(report["cpu_hours"])),
        ("IT energy", format_kwh(report["it_kwh"])),
        (f"Facility energy (PUE {_factor(factors['pue'])})", format_kwh(report["facility_kwh"])),
        (
            f"Emissions ({_factor(factors['carbon_g_per_kwh'])} gCO2e/kWh)",
            f"{format_co2e(report['co2e_kg'] * 1000)} CO2e ({report['co2e_lb']:,.0f} lb)",
        ),
        (f"Electricity ({_factor(factors['electricity_usd_per_kwh'])} USD/kWh)", format_usd(report["electricity_usd"])),
        ("Cloud equivalent", f"{format_usd(report['cloud_low_usd'])} to {format_usd(report['cloud_high_usd'])}"),
        ("Energy known from", shares or "nothing: no energy was recorded and no rated power is known"),
    ]
    for key, label in (("failed", "Of it failed jobs"), ("cancelled", "Of it cancelled jobs")):
        part = report[key]
        if part["jobs"]:
            rows.append(
                (
                    label,
                    f"{number(part['jobs'])} jobs, {number(part['gpu_hours'])} GPU-h, {format_kwh(part['facility_kwh'])}, "
                    f"{format_co2e(part['co2e_kg'] * 1000)} CO2e, {format_usd(part['electricity_usd'])}",
                )
            )
    notes = []
    if report["unpriced_gpu_hours"]:
        notes.append(f"{number(report['unpriced_gpu_hours'])} GPU-hours are of models without a cloud price.")
    if report["running_jobs"]:
        notes.append(f"{number(report['running_jobs'])} jobs were still running when the ledger was written.")
    span = f"{str(report['start'])[:10]} to {str(report['end'])[:10]}"
    title = f"Project {report['project']}, {span}, profile {report['profile']}"
    return Section(title, ("", "Total"), rows, " ".join(notes), numbers=False)


def _factor(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _rnd(report: dict[str, Any]) -> Section:
    rows = [
        (
            row["what"], number(row["models"]), number(row["gpu_hours"]), number(row["cloud_low_usd"]),
            number(row["cloud_high_usd"]), number(row["electricity_usd"]), number(row["co2e_lb"]),
        )
        for row in report["rnd"]
    ]  # fmt: skip
    header = ("", "Models", "GPU-hours", "Cloud\nlow USD", "Cloud\nhigh USD", "Electr.\nUSD", "CO2e lb")
    chosen = [f"the model is job {report['model']}"] if report["model"] else []
    chosen += [f"the tune is sweep {report['tune']}"] if report["tune"] else []
    said = " and ".join(chosen)
    note = f"{said[:1].upper()}{said[1:]}; --model and --sweep choose others." if chosen else ""
    return Section("R&D accounting (Strubell et al. 2019, Table 4)", header, rows, note)


def _development(report: dict[str, Any]) -> Section:
    grown = report["development"]
    models = ", ".join(f"{name} {100 * share:.1f} %" for name, share in grown["gpu_models"].items())
    rows = [
        ("Span", f"{grown['span_days']:,.1f} days"),
        ("Sweeps", number(grown["sweeps"])),
        ("Jobs", number(grown["jobs"])),
        (
            "Shortest, mean, longest job",
            ", ".join(format_duration(grown[f"{key}_s"]) for key in ("shortest", "mean", "longest")),
        ),
        ("GPU time", f"{grown['gpu_days']:,.0f} GPU-days"),
        ("GPUs in use on average", f"{grown['mean_gpus']:.1f}"),
        ("GPU models, by GPU time", models or "none"),
    ]
    return Section("Development", ("", "Value"), rows, numbers=False)


def _own(report: dict[str, Any]) -> Section:
    own = report["own_hardware"]
    rows = [
        (f"{number(own['gpus'])} GPUs of one's own, bought", number(own["usd"])),
        ("and their electricity for this project", number(own["electricity_usd"])),
        ("the same GPU-hours in a cloud, low", number(own["cloud_low_usd"])),
        ("the same GPU-hours in a cloud, high", number(own["cloud_high_usd"])),
    ]
    return Section("Own hardware against cloud", ("", "USD"), rows)


def _comparisons(report: dict[str, Any]) -> Section:
    rows = [(row["what"], number(row["co2e_lb"]), _times(row["times"])) for row in report["comparisons"]]
    return Section(
        "The project's emissions beside others (Strubell et al. 2019, Table 1)",
        ("", "CO2e lb", "Project / this"), rows,
    )  # fmt: skip


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} x" if ratio >= 100 else f"{ratio:.3g} x"


def group_section(rows: Sequence[dict[str, Any]], by: Sequence[str], profile: str) -> Section:
    """Totals by group."""
    header = (
        *(key.capitalize() for key in by),
        "Jobs",
        "GPU-h",
        "CPU-h",
        "Energy",
        "CO2e",
        "Electr.\nUSD",
        "Cloud\nlow USD",
        "Cloud\nhigh USD",
    )
    texts = [
        (
            *(str(row[key]) or "(none)" for key in by), number(row["jobs"]), number(row["gpu_hours"]), number(row["cpu_hours"]),
            format_kwh(row["facility_kwh"]), format_co2e(row["co2e_kg"] * 1000), number(row["electricity_usd"]),
            number(row["cloud_low_usd"]), number(row["cloud_high_usd"]),
        )
        for row in rows
    ]  # fmt: skip
    energy = sum(row["it_kwh"] for row in rows)
    shares = {
        name: sum(row["it_kwh"] * row["provenance"][name] for row in rows)
        for name in ("measured", "slurm", "estimated")
    }
    known = ", ".join(f"{100 * share / energy:.1f} % {name}" for name, share in shares.items() if share and energy)
    note = f"Energy is facility energy (with PUE), profile {profile}; it is known from: {known or 'nothing'}."
    unpriced = sum(row["unpriced_gpu_hours"] for row in rows)
    if unpriced:
        note += f" {number(unpriced)} GPU-hours are of models without a cloud price."
    return Section(f"By {', '.join(by)}", header, texts, note, left=len(by))
