"""`senergy ledger`."""

from __future__ import annotations

from typing import Annotated

import typer

from slurm_energy.cli.options import ConfigOption, LedgerOption, site_zone

ledger_app = typer.Typer(help="The ledger itself: whether it holds all that was measured.", no_args_is_help=True)


@ledger_app.callback()
def _ledger() -> None:
    pass


@ledger_app.command()
def verify(
    json_: Annotated[bool, typer.Option("--json", help="JSON, raw numbers, microjoules by node.")] = False,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """Prove that the ledger and idle energy together are the energy of the segments, day by day.

    --json has the segments' exact microjoules by node beside each day.

    Ends with 1 where a day is off: aggregate that day again.

    \b
    Examples:
      senergy ledger verify
      senergy ledger verify --json
    """
    from slurm_energy.config import ledger_path, load_config
    from slurm_energy.ledger.store import Ledger
    from slurm_energy.ledger.verify import verify as days_of

    settings, _ = load_config(config)
    days = list(days_of(Ledger(ledger_path(settings, ledger)), site_zone(settings)))
    wrong = [day for day in days if not day.holds]
    if json_:
        from slurm_energy.report.formats import to_json

        more = [{"day": str(day.day), "difference_kwh": day.difference_kwh, "holds": day.holds} for day in days]
        typer.echo(to_json([{**day._asdict(), **one} for day, one in zip(days, more, strict=True)]))
    else:
        from slurm_energy.report.sections import Section
        from slurm_energy.report.terminal import show
        from slurm_energy.report.texts import plural
        from slurm_energy.units import UJ_PER_KWH

        rows = [
            (
                day.cluster, str(day.day), str(day.nodes), f"{day.segments_uj / UJ_PER_KWH:,.6f}", f"{day.ledger_kwh:,.6f}",
                f"{day.idle_kwh:,.6f}", f"{day.without_record_kwh:,.6f}", "yes" if day.holds else f"off by {day.difference_kwh:.3g}",
            )
            for day in days
        ]  # fmt: skip
        header = (
            "Cluster",
            "Day",
            "Nodes",
            "Segments\nkWh",
            "Ledger\nkWh",
            "of it idle\nkWh",
            "no record\nkWh",
            "Equal",
        )
        show([Section("Energy of the segments and of the ledger", header, rows, left=2)])
        typer.echo(
            f"{plural(len(days), 'day')} with measured energy, {len(wrong)} off"
            if days
            else "no measured energy in this ledger yet"
        )
    if wrong:
        raise typer.Exit(1)
