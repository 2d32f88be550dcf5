"""`senergy project`."""

from __future__ import annotations

from typing import Annotated

import typer

from slurm_energy.cli.options import ClustersOption, ConfigOption, split

project_app = typer.Typer(help="Projects: which job belongs to which, and why.", no_args_is_help=True)


@project_app.callback()
def _projects() -> None:
    pass


@project_app.command()
def explain(
    jobid: Annotated[str, typer.Argument(help="Job id as sacct shows it: 1234, 1234_5 or 1234+1.")],
    source: Annotated[str, typer.Option("--from", help="sacct, or a file that sacct wrote.")] = "sacct",
    clusters: ClustersOption = None,
    config: ConfigOption = None,
) -> None:
    """Say to which project a job belongs and which rule says so.

    \b
    Examples:
      senergy project explain 1234_5
      senergy project explain 1234 --from jobs.txt.gz
    """
    from slurm_energy.cli.project_run import find_jobs, tell

    jobs, parents, settings = find_jobs(jobid, source, split(clusters), config)
    if not jobs:
        typer.echo(f"senergy: no record of job {jobid} in {source}", err=True)
        raise typer.Exit(1)
    for job in jobs:
        tell(job, settings, parents)
