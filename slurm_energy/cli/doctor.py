"""`senergy doctor`: what is missing on a machine by its role, and what a node's power can be read from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from slurm_energy.cli.options import ConfigOption, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slurm_energy.doctor.common import Finding
    from slurm_energy.report.sections import Section
    from slurm_energy.sources import Discovery
    from slurm_energy.sources.base import Counter
    from slurm_energy.sources.options import Options


def doctor(
    role: Annotated[
        Optional[list[str]],
        typer.Option("--role", help="What this machine is: compute, admin or login (repeatable; default: guessed)."),
    ] = None,
    sysfs_root: Annotated[
        Optional[Path], typer.Option("--sysfs-root", help="Look here instead of /sys.", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0, max=3600, help="How long to watch the counters.")] = 3,
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    config: ConfigOption = None,
) -> None:
    """Say what is missing on this machine, by its role, and how to put it right.

    A compute node: what its power can be read from, the agent, hooks, units, outbox and inbox. The admin node: sacct,
    ledger, inbox, timer. A login node: whether the ledger can be read. Where nothing is installed yet, the power sources
    alone. Ends with 1 on a finding. Run it as root on compute and admin nodes, as anybody on login nodes.

    \b
    Examples:
      senergy doctor                  by what is installed here; three seconds of live readings
      senergy doctor --role admin     what the admin node still needs
      senergy doctor --seconds 0      only what is there, without watching
    """
    from slurm_energy.agent.options import agent_options
    from slurm_energy.config import ledger_path, load_config
    from slurm_energy.doctor.common import ROLES
    from slurm_energy.doctor.machine import Machine
    from slurm_energy.doctor.roles import admin, compute, login

    asked = split(role)
    if unknown := [name for name in asked if name not in ROLES]:
        raise typer.BadParameter(f"{unknown[0]!r}: expected {', '.join(ROLES)}", param_hint="'--role'")
    settings, file = load_config(config)
    options = agent_options(config, str(sysfs_root) if sysfs_root else None)
    machine = Machine()
    roles = asked or machine.roles(settings, file)
    ledger = ledger_path(settings)
    findings: list[Finding] = []
    if "compute" in roles:
        findings += compute(machine, options, settings)
    if "admin" in roles:
        findings += admin(machine, settings, ledger)
    if "login" in roles:
        findings += login(machine, ledger)
    report: dict[str, Any] = {"roles": roles, "findings": [finding._asdict() for finding in findings]}
    power = not roles or "compute" in roles
    report.update(_power(options.sources, seconds) if power else {"sources": [], "counters": [], "refused": []})
    if json_:
        import json

        print(json.dumps(report, indent=2))
    else:
        from slurm_energy.report.terminal import show

        tables = sections(report, options.sources) if power else []
        show([*tables, *role_sections(findings, guessed=not asked)])
    if report["refused"] or any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


def _power(options: Options, seconds: float) -> dict[str, Any]:
    """What this node's power can be read from."""
    from slurm_energy.sources import find_all

    discovery = find_all(options, keep_spare=True)
    try:
        return examine(discovery, seconds)
    finally:
        for counter in (*discovery.counters, *(spare.counter for spare in discovery.spare)):
            counter.close()


def role_sections(findings: Sequence[Finding], guessed: bool) -> list[Section]:
    """A table for each role, and one of what to do."""
    from slurm_energy.report.sections import Section

    if not findings:
        note = "Nothing else of slurm-energy is installed here; --role says what this machine is to be."
        return [Section("Role", ("",), [("none found",)], note, 1, False)] if guessed else []
    words = {True: "ok", False: "FIX", None: "-"}
    titles = {"compute": "Compute node", "admin": "Admin node", "login": "Login node"}
    tables = []
    for role in dict.fromkeys(finding.role for finding in findings):
        rows = [(finding.what, words[finding.ok], finding.detail) for finding in findings if finding.role == role]
        tables.append(Section(titles[role], ("What", "", "Seen"), rows, "", 3, False))
    todo = [(finding.what, finding.remedy) for finding in findings if finding.ok is False]
    if todo:
        tables.append(Section("To do", ("What", "How"), todo, "", 2, False))
    else:
        tables.append(Section("To do", ("",), [("nothing",)], "", 1, False))
    return tables


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
