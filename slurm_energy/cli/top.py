"""`senergy top`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from slurm_energy.segment import DOMAINS
from slurm_energy.units import J_PER_KWH

if TYPE_CHECKING:
    from slurm_energy.agent.snapshot import JobView, Snapshot

DEFAULT = Path("/run/slurm-energy/agent.sock")


def top(
    sockets: Annotated[
        Optional[list[Path]], typer.Option("--socket", help="An agent's socket (repeatable).", show_default=False)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two looks.")] = 2.0,
    json_: Annotated[bool, typer.Option("--json", help="Print once, as JSON, raw numbers.")] = False,
) -> None:
    """Show what this node and its jobs draw now, from the agent's socket.

    Ends with 1 where an agent does not answer, or is stuck: then no watts are shown.

    \b
    Examples:
      senergy top
      senergy top --once --json
    """
    from slurm_energy.agent.client import AgentError, read_snapshot

    paths = sockets or [DEFAULT]
    if once or json_:
        found, errors = [], []
        for path in paths:
            try:
                found.append(read_snapshot(path))
            except AgentError as error:
                errors.append(str(error))
            else:
                errors += [f"{path}: {said}" for said in _stuck(found[-1])]
        if json_:
            import msgspec

            typer.echo(msgspec.json.format(msgspec.json.encode([_plain(one) for one in found]), indent=2).decode())
        else:
            import sys

            from rich.console import Console

            Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(_table(found))
        for text in errors:
            typer.echo(f"senergy: {text}", err=True)
        if errors:
            raise typer.Exit(1)
        return
    _live(paths, every)


def _live(paths: list[Path], every: float) -> None:
    import contextlib
    import time

    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from slurm_energy.agent.client import AgentError, read_snapshot

    with contextlib.suppress(KeyboardInterrupt), Live(screen=True, auto_refresh=False) as live:
        while True:
            found, errors = [], []
            for path in paths:
                try:
                    found.append(read_snapshot(path))
                except AgentError as error:
                    errors.append(Text(str(error), style="red"))
            live.update(Group(_table(found), *errors), refresh=True)
            time.sleep(every)


def _stuck(snapshot: Snapshot) -> list[str]:
    """What to say of an agent whose watts are none of now; nothing of others."""
    import time

    from slurm_energy.agent.freshness import age_s, is_old

    now = time.time()
    if not is_old(snapshot, now):
        return []
    return [f"looked {age_s(snapshot, now):.0f} s ago; stuck? systemctl restart slurm-energy-agent loses no energy"]


def _plain(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot for machines; watts of the node beside those of its parts. live: whether they are of now."""
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(snapshot)
    found["live"] = not _stuck(snapshot)
    found["node_watts"] = sum(snapshot.node_watts().values())
    return found


def _table(snapshots: list[Snapshot]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from slurm_energy.report.formats import printable
    from slurm_energy.units import format_duration

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("Node", "Job", "User", "Account"):
        table.add_column(name, min_width=len(name), overflow="fold")
    for name in ("Running", "CPU W", "DRAM W", "GPU W", "Other W", "Sum W", "kWh"):
        table.add_column(name, justify="right", no_wrap=True)
    for snapshot in snapshots:
        jobs = sorted(snapshot.jobs, key=lambda job: -sum(job.watts.values()))
        total = list(snapshot.node_watts().values())
        stuck = _stuck(snapshot)
        sign = ", ".join([*(["stuck: no live watts"] if stuck else []), *snapshot.problems])
        table.add_row(
            Text(printable(snapshot.node), style="bold"), f"{len(jobs)} jobs", "", Text(printable(sign)[:40], style="red"), "",
            *_watts(total, bool(stuck)), "",
        )  # fmt: skip
        for job in jobs:
            age = snapshot.wall_ns / 1e9 - job.session_start
            table.add_row("", *_who(job), format_duration(max(age, 0)), *_figures(job, bool(stuck)))
        table.add_row("", "idle", "", "", "", *_figures(snapshot.idle, bool(stuck)), end_section=True)
    return table


def _who(job: JobView) -> tuple[Any, Any, Any]:
    from rich.text import Text

    from slurm_energy.report.formats import printable

    name = str(job.job_id) if job.job_id > 0 else job.sluid or "?"
    mark = "*" if job.origin == "discovered" else ""
    return Text(f"{printable(name)}{mark}"), Text(printable(job.user)), Text(printable(job.account))


def _watts(by_domain: list[float], stuck: bool) -> list[str]:
    """Each and their sum; nothing where they are none of now."""
    return [f"{value:,.1f}" if not stuck else "" for value in (*by_domain, sum(by_domain))]


def _figures(job: JobView, stuck: bool) -> list[str]:
    watts = _watts([job.watts[domain] for domain in DOMAINS], stuck)
    return [*watts, f"{sum(job.joules.values()) / J_PER_KWH:,.3f}"]
