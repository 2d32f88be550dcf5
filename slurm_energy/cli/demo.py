"""`senergy demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def demo(
    write: Annotated[
        Optional[Path],
        typer.Option("--write", help="Only write the log, as sacct -X -P prints it, to this file.", show_default=False),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="The report as JSON, raw numbers.")] = False,
) -> None:
    """Make the paper's case study as a Slurm log, account it in a throw-away ledger, print the report.

    Needs no Slurm and no root. To do the same on an ordinary ledger:

    \b
      senergy demo --write lisa.txt
      senergy aggregate --from lisa.txt --profile strubell2019
      senergy report --project lisa --profile strubell2019
    """
    from slurm_energy.demo.case_study import PROJECT
    from slurm_energy.demo.case_study import write as write_log

    if write is not None:
        with write.open("w", encoding="utf-8") as file:
            count = write_log(file)
        typer.echo(f"{count:,} jobs written to {write}", err=True)
        return
    import tempfile

    from slurm_energy.cli.aggregate_run import run
    from slurm_energy.cli.report import report

    with tempfile.TemporaryDirectory(prefix="senergy-demo-") as folder:
        log = Path(folder) / "lisa.txt"
        with log.open("w", encoding="utf-8") as file:
            write_log(file)
        config, ledger = Path(folder) / "config.toml", Path(folder) / "ledger"
        config.write_text('[site]\ntimezone = "UTC"\n', encoding="utf-8")  # a site's own rules have no say in it
        run(config, ledger, str(log), (None, None), (), "strubell2019", None, (), "", json_)
        report(project=[PROJECT], profile="strubell2019", ledger=ledger, config=config, json_=json_)
