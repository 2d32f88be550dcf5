"""`senergy project`."""

from __future__ import annotations

from typing import Annotated

import typer

from slurm_energy.cli.options import ClustersOption, ConfigOption, LedgerOption, split

project_app = typer.Typer(help="Projects: which job belongs to which, and why.", no_args_is_help=True)


@project_app.callback()
def _projects() -> None:
    pass


@project_app.command()
def explain(
    jobid: Annotated[str, typer.Argument(help="Job id as sacct shows it: 1234, 1234_5 or 1234+1.")],
    source: Annotated[str, typer.Option("--from", help="sacct, or a file that sacct wrote.")] = "sacct",
    clusters: ClustersOption = None,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """Say to which project a job belongs, which rule says so, and whether the ledger has it there.

    \b
    Examples:
      senergy project explain 1234_5
      senergy project explain 1234 --from jobs.txt.gz
    """
    from slurm_energy.cli.project_run import find_jobs, tell
    from slurm_energy.report.formats import printable

    try:
        found = find_jobs(jobid, source, split(clusters), config, ledger)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="JOBID") from error
    for row in found.set_aside:
        typer.echo(f"senergy: {printable(str(row))}", err=True)
    if not found.jobs:
        typer.echo(f"senergy: no record of job {jobid} in {source}", err=True)
        raise typer.Exit(1)
    for job in found.jobs:
        tell(job, found)
