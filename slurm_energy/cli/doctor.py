"""`senergy doctor`: what this node's power can be read from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from slurm_energy.cli.options import ConfigOption

if TYPE_CHECKING:
    from slurm_energy.report.sections import Section
    from slurm_energy.sources import Discovery
    from slurm_energy.sources.base import Counter
    from slurm_energy.sources.options import Options


def doctor(
    sysfs_root: Annotated[
        Optional[Path], typer.Option("--sysfs-root", help="Look here instead of /sys.", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0, max=3600, help="How long to watch the counters.")] = 3,
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    config: ConfigOption = None,
) -> None:
    """Say what this node's power can be read from, what is refused, and how to allow it.

    Ends with 1 where something is there and may not be read. Run it as the agent runs: as root.

    \b
    Examples:
      senergy doctor                  a table, with three seconds of live readings
      senergy doctor --seconds 0      only what is there
    """
    from slurm_energy.agent.options import source_options
    from slurm_energy.sources import find_all

    options = source_options(config, str(sysfs_root) if sysfs_root else None)
    discovery = find_all(options, keep_spare=True)
    try:
        report = examine(discovery, seconds)
    finally:
        for counter in (*discovery.counters, *(spare.counter for spare in discovery.spare)):
            counter.close()
    if json_:
        import json

        print(json.dumps(report, indent=2))
    else:
        from slurm_energy.report.terminal import show

        show(sections(report, options))
    if discovery.refused:
        raise typer.Exit(1)


def examine(discovery: Discovery, seconds: float) -> dict[str, Any]:
    """What was found, and the mean watts of every counter over some seconds; plain values for JSON."""
    readings = _watch([*discovery.counters, *(spare.counter for spare in discovery.spare)], seconds)
    return {
        "sources": [
            {
                "name": source.name, "covers": source.covers, "state": _state(source), "note": source.found.note,
                "counters": [counter.name for counter in source.found.counters],
            }
            for source in discovery.sources
        ],
        "counters": [_counter(counter, "", readings) for counter in discovery.counters]
        + [_counter(spare.counter, spare.why, readings) for spare in discovery.spare],
        "refused": [refusal._asdict() for refusal in discovery.refused],
        "seconds": seconds,
    }  # fmt: skip


def _state(source: Any) -> str:
    if source.skipped:
        return str(source.skipped)
    if source.found.refused:
        return "found in part" if source.found.counters else "refused"
    return "found" if source.found.counters else "not here"


def _counter(counter: Counter, why: str, readings: dict[str, float | str]) -> dict[str, Any]:
    reading = readings.get(counter.name, "")
    return {
        "name": counter.name, "domain": counter.domain, "device": counter.device, "minor": counter.minor,
        "model": counter.model, "counts": not why, "why_not": why, "integrated": counter.integrated,
        "estimated": counter.estimated, "range_uj": counter.range_uj,
        "watts": reading if isinstance(reading, float) else None,
        "problem": reading if isinstance(reading, str) else "",
    }  # fmt: skip


def _watch(counters: list[Counter], seconds: float) -> dict[str, float | str]:
    """Mean watts by the counter's name; a text where there was no reading. Reads once a second, as the agent does."""
    import time

    from slurm_energy.sources.base import Unreadable

    first: dict[str, tuple[int, int]] = {}
    last: dict[str, tuple[int, int]] = {}
    problems: dict[str, float | str] = {}
    end = time.monotonic_ns() + int(seconds * 1e9)
    while seconds:
        for counter in counters:
            now = time.monotonic_ns()
            try:
                count = counter.read(now)
            except Unreadable as error:
                problems[counter.name] = str(error)
                continue
            if counter.name in last and count < last[counter.name][1]:
                if not counter.range_uj:  # a reset: what it showed before says nothing more
                    first.pop(counter.name, None)
                else:
                    begun, from_uj = first[counter.name]
                    first[counter.name] = (begun, from_uj - counter.range_uj)
            first.setdefault(counter.name, (now, count))
            last[counter.name] = (now, count)
        left = (end - time.monotonic_ns()) / 1e9
        if left <= 0:
            break
        time.sleep(min(1.0, left))
    for name, (until, count) in last.items():
        since, begun = first[name]
        if until > since:
            problems[name] = round((count - begun) / (until - since) * 1000, 3)
        else:
            problems.setdefault(name, "one reading only")
    return problems


def sections(report: dict[str, Any], options: Options) -> list[Section]:
    """The report as tables for a terminal."""
    from slurm_energy.report.sections import Section

    found = [
        (source["name"], source["state"], str(len(source["counters"])), source["covers"])
        for source in report["sources"]
    ]
    header: tuple[str, ...] = ("Source", "", "Counters", "Covers")
    tables = [Section(f"Sources on this node ({options.sysfs_root})", header, found, "", 4, False)]
    if notes := [(source["name"], source["note"]) for source in report["sources"] if source["note"]]:
        tables.append(Section("What they say", ("Source", ""), notes, "", 2, False))
    if refused := [(refusal["what"], refusal["why"], refusal["remedy"]) for refusal in report["refused"]]:
        tables.append(Section("There, and may not be read", ("What", "Why", "What to do"), refused, "", 3, False))
    rows = [
        (
            counter["domain"], counter["name"], counter["model"],
            _watts(counter) + (" (estimated)" if counter["estimated"] else ""),
            "counts" if counter["counts"] else f"no: {counter['why_not']}",
        )
        for counter in report["counters"]
    ]  # fmt: skip
    header = ("Domain", "Counter", "Model", f"W over {report['seconds']:g} s", "Counts")
    note = "" if rows else "Nothing here can be read for power; jobs are estimated from rated powers."
    tables.append(Section("Counters", header, rows, note, 5, False))
    return tables


def _watts(counter: dict[str, Any]) -> str:
    """Three significant digits and more above 1000, or why there is no figure."""
    if counter["watts"] is None:
        return counter["problem"] or "-"
    watts: float = counter["watts"]
    return f"{watts:,.0f}" if watts >= 100 else f"{watts:.3g}"
