"""All commands, registered. Only Typer is imported here: `senergy --help` and completion must not wait for a database."""

from __future__ import annotations

from typing import Annotated

import typer

from slurm_energy.cli.aggregate import aggregate
from slurm_energy.cli.demo import demo
from slurm_energy.cli.doctor import doctor
from slurm_energy.cli.ledger import ledger_app
from slurm_energy.cli.paper import paper
from slurm_energy.cli.project import project_app
from slurm_energy.cli.report import report
from slurm_energy.cli.sd import sd
from slurm_energy.cli.top import top
from slurm_energy.cli.web import web

app = typer.Typer(
    name="senergy",
    help="What Slurm jobs drew from the wall, emitted and would have cost in a cloud.\n\n"
    "Start with `senergy demo`, then `senergy aggregate` and `senergy report --project NAME`.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from slurm_energy import __version__

        typer.echo(f"senergy {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    pass


app.command()(report)
app.command()(aggregate)
app.command()(top)
app.command()(doctor)
app.command()(web)
app.command()(sd)
app.add_typer(project_app, name="project")
app.add_typer(ledger_app, name="ledger")


@app.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def agent() -> None:
    """Sample this node's power and split it between its jobs (a daemon; see `senergy agent --help`)."""


@app.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def ship() -> None:
    """Move segments from the outbox to the inbox (see `senergy ship --help`)."""


app.command(short_help="Recompute the tables of Strubell et al. 2019.")(paper)
app.command()(demo)
