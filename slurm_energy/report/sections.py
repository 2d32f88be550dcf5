"""A report as titled tables of text, for a terminal or Markdown: the unit once in the header, measured first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from slurm_energy.report import notes
from slurm_energy.report.texts import FIGURES, UNKNOWN, column, covered, number, percent, plural, priced, shares
from slurm_energy.units import SECONDS_PER_DAY, format_co2e, format_duration, format_hours, format_kwh, format_usd


class Section(NamedTuple):
    """A title, a header, rows of text (the first `left` columns are names), and a sentence below."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    left: int = 1
    numbers: bool = True
    """Whether the columns after the names are numbers, to be aligned to the right."""


def project_sections(report: dict[str, Any]) -> list[Section]:
    """One project: what it used, the R&D accounting, how it was developed, comparisons.

    What nobody has a record of, idle energy above all, has no research behind it: totals only.
    """
    if not report["jobs"]:
        return [_totals(report)]
    own = [_own(report)] if report["gpu_hours"] else []
    return [_totals(report), _rnd(report), _development(report), *own, _comparisons(report)]


def _totals(report: dict[str, Any]) -> Section:
    rows = [
        ("Jobs", number(report["jobs"])),
        ("GPU time", format_hours(report["gpu_hours"])),
        ("CPU time", format_hours(report["cpu_hours"])),
        ("IT energy", format_kwh(report["it_kwh"])),
        (f"Facility energy{_factor(report, 'pue', 'PUE {}')}", format_kwh(report["facility_kwh"])),
        (
            f"Emissions{_factor(report, 'carbon_g_per_kwh', '{} gCO2e/kWh')}",
            f"{format_co2e(report['co2e_kg'] * 1000)} CO2e ({number(report['co2e_lb'])} lb)",
        ),
        (
            f"Electricity{_factor(report, 'electricity_usd_per_kwh', '{} USD/kWh')}",
            format_usd(report["electricity_usd"]),
        ),
        ("Cloud equivalent", _cloud(report)),
        ("Energy known from", shares(report["provenance"]) or f"nothing: {_why_nothing(report)}"),
    ]
    if seen := covered(report):
        rows.append(("Agents covered", seen))
    for key, label in (("failed", "Of it failed jobs"), ("cancelled", "Of it cancelled jobs")):
        part = report[key]
        if part["jobs"]:
            rows.append(
                (
                    label,
                    f"{plural(part['jobs'], 'job')}, {_hours(part)}, {format_kwh(part['facility_kwh'])}, "
                    f"{format_co2e(part['co2e_kg'] * 1000)} CO2e, {format_usd(part['electricity_usd'])}",
                )
            )
    said = [*notes.gaps([report]), *notes.profiles(report["profile"]), *notes.running(report)]
    span = f"{report['first_day']} to {report['last_day']}"
    title = f"Project {report['project']}, {span}, profile {report['profile']}"
    return Section(title, ("", "Total"), rows, " ".join(said), numbers=False)


def _factor(report: dict[str, Any], key: str, text: str) -> str:
    """The factor in brackets; said to be a mean where it changed, left out where there was no energy."""
    factors = report["factors"]
    value, low, high = (factors[f"{key}{end}"] for end in ("", "_min", "_max"))
    if value is None:
        return ""
    mean = "mean " if low is not None and high - low > 1e-9 * high else ""
    return f" ({text.format(f'{mean}{value:.4g}')})"


def _cloud(report: dict[str, Any]) -> str:
    if report["cloud_price"] == "none":
        return UNKNOWN
    return priced(report, f"{format_usd(report['cloud_low_usd'])} to {format_usd(report['cloud_high_usd'])}")


def _why_nothing(report: dict[str, Any]) -> str:
    if report["coverage"] is None:
        return "its jobs ran 0 s"
    return "no energy was recorded and no rated power is known"


def _hours(row: dict[str, Any]) -> str:
    return f"{number(row['gpu_hours'])} GPU-h" if row["gpu_hours"] else f"{number(row['cpu_hours'])} CPU-h"


def _rnd(report: dict[str, Any]) -> Section:
    rnd = report["rnd"]
    unit, hours = ("GPU-hours", "gpu_hours") if report["gpu_hours"] else ("CPU-hours", "cpu_hours")
    figures = {key: column([row[key] for row in rnd]) for key in (hours, *_USD, "co2e_lb")}
    for key in ("cloud_low_usd", "cloud_high_usd"):
        figures[key] = [priced(row, text) for row, text in zip(rnd, figures[key], strict=True)]
    rows = [
        (row["what"], number(row["models"]), *(cells[index] for cells in figures.values()))
        for index, row in enumerate(rnd)
    ]
    header = ("", "Models", unit, "Cloud\nlow USD", "Cloud\nhigh USD", "Electr.\nUSD", "CO2e lb")
    return Section("R&D accounting (Strubell et al. 2019, Table 4)", header, rows, notes.chosen(report))


_USD = ("cloud_low_usd", "cloud_high_usd", "electricity_usd")


def _development(report: dict[str, Any]) -> Section:
    grown = report["development"]
    models = ", ".join(f"{name} {percent(share)}" for name, share in grown["gpu_models"].items())
    days = grown["span_days"]
    rows = [
        ("Span", f"{days:,.1f} days" if days >= 0.1 else format_duration(days * SECONDS_PER_DAY)),
        ("Sweeps", number(grown["sweeps"])),
        ("Jobs", number(grown["jobs"])),
        (
            "Shortest, mean, longest job",
            ", ".join(format_duration(grown[f"{key}_s"]) for key in ("shortest", "mean", "longest")),
        ),
        ("GPU time", f"{number(grown['gpu_days'])} GPU-days"),
        ("GPUs in use on average", number(grown["mean_gpus"])),
        ("GPU models, by GPU time", models or "none"),
    ]
    return Section("Development", ("", "Value"), rows, numbers=False)


def _own(report: dict[str, Any]) -> Section:
    own = report["own_hardware"]
    bought, power, low, high = column(
        [own[key] for key in ("usd", "electricity_usd", "cloud_low_usd", "cloud_high_usd")]
    )
    rows = [
        (f"{plural(own['gpus'], 'GPU')} of one's own, bought", bought),
        ("and their electricity for this project", power),
        ("the same GPU-hours in a cloud, low", priced(report, low)),
        ("the same GPU-hours in a cloud, high", priced(report, high)),
    ]
    return Section("Own hardware against cloud", ("", "USD"), rows)


def _comparisons(report: dict[str, Any]) -> Section:
    rows = [(row["what"], f"{row['co2e_lb']:,.0f}", _times(row["times"])) for row in report["comparisons"]]
    return Section(
        "The project's emissions beside others (Strubell et al. 2019, Table 1)",
        ("", "CO2e lb", "Project / this"), rows,
    )  # fmt: skip


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} x" if ratio >= 100 else f"{ratio:.3g} x"


def group_section(rows: Sequence[dict[str, Any]], by: Sequence[str], profile: str, jobs: int | None = None) -> Section:
    """Totals by group. jobs: how many there are in all, where one may be in several groups."""
    texts = [
        (
            *(str(row[key]) or "(none)" for key in by), number(row["jobs"]), number(row["gpu_hours"]), number(row["cpu_hours"]),
            format_kwh(row["facility_kwh"]), format_co2e(row["co2e_kg"] * 1000), number(row["electricity_usd"]),
            *(priced(row, number(row[key] or 0.0)) for key in ("cloud_low_usd", "cloud_high_usd")),
        )
        for row in rows
    ]  # fmt: skip
    energy = sum(row["it_kwh"] for row in rows)
    whole = {
        name: sum(row["it_kwh"] * row["provenance"][name] for row in rows) / energy if energy else 0.0
        for name in ("measured", "slurm", "estimated")
    }
    node_hours = sum(row["node_hours"] for row in rows)
    seen = sum(row["node_hours"] * (row["coverage"] or 0.0) for row in rows) / node_hours if node_hours else None
    known = shares(whole) or "nothing"
    if share := covered({"coverage": seen, "provenance": whole}):
        known += f"; agents covered {share}"
    said = [f"Energy is facility energy (with PUE), profile {profile}; it is known from: {known}."]
    said += [*notes.gaps(rows, jobs is None), *notes.profiles(profile)]
    if jobs is not None and jobs != sum(row["jobs"] for row in rows):
        said.append(f"A job counts in each row that it has a part in; {plural(jobs, 'job')} in all.")
    header = (*(key.capitalize() for key in by), *FIGURES.values())
    return Section(f"By {', '.join(by)}", header, texts, " ".join(said), left=len(by))
