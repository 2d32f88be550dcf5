"""`senergy aggregate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from slurm_energy.cli.options import (
    ClustersOption,
    ConfigOption,
    EndOption,
    LedgerOption,
    ProfileOption,
    StartOption,
    moment,
    site_zone,
    split,
    window_days,
)

if TYPE_CHECKING:
    from slurm_energy.cli.aggregate_run import Done


def aggregate(
    start: StartOption = None,
    end: EndOption = None,
    source: Annotated[
        str,
        typer.Option("--from", help="sacct, pyslurm, or a file that sacct wrote (plain or .gz; -: standard input)."),
    ] = "sacct",
    clusters: ClustersOption = None,
    profile: ProfileOption = None,
    cluster_name: Annotated[
        Optional[str], typer.Option("--cluster", help="Cluster of records that name none.", show_default=False)
    ] = None,
    columns: Annotated[
        Optional[str], typer.Option("--columns", help="Columns of a file without a header.", show_default=False)
    ] = None,
    delimiter: Annotated[str, typer.Option("--delimiter", help="Delimiter of a file.", show_default=False)] = "",
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    inbox: Annotated[
        Optional[Path], typer.Option("--inbox", help="Folder into which nodes ship their segments.", show_default=False)
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Say what was done as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only errors and rows set aside.")] = False,
) -> None:
    """Turn job records into days of the ledger.

    Without -S and -E: the days since the last run and those that changed. Safe to run again at any time: each record
    counts once. Ends with 1 where rows were set aside.

    \b
    Examples:
      senergy aggregate                                   nightly, from sacct
      senergy aggregate -S 2026-01-01 -E 2026-02-01       a month again
      senergy aggregate --from jobs.txt.gz --profile strubell2019
    """
    from slurm_energy.cli.aggregate_run import run

    asked = (moment(start, zone := site_zone(_load(config)), "-S"), moment(end, zone, "-E"))
    done = run(
        config, ledger, source, window_days(*asked), split(clusters), profile, cluster_name,
        tuple((columns or "").split(",")) if columns else (), delimiter, quiet or json_, inbox,
    )  # fmt: skip
    _tell(done, json_, quiet)
    if done.outcome.counts.set_aside:
        raise typer.Exit(1)


def _load(path: Path | None):  # type: ignore[no-untyped-def]  # noqa: ANN202
    from slurm_energy.config import load_config

    return load_config(path)[0]


def _tell(done: Done, as_json: bool, quiet: bool) -> None:
    """What was done, for a person or a machine; rows set aside always on stderr."""
    import json
    import sys

    outcome, counts = done.outcome, done.outcome.counts
    if as_json:
        print(
            json.dumps(
                {
                    "records": counts.records, "waiting": counts.waiting, "repeated": counts.repeated,
                    "elsewhere": counts.elsewhere, "outside": counts.outside,
                    "set_aside": counts.set_aside, "set_aside_file": str(outcome.set_aside_file or ""),
                    "days_written": outcome.days_written, "days_unchanged": outcome.days_unchanged,
                    "first_day": str(outcome.first_day or ""), "last_day": str(outcome.last_day or ""),
                    "segments": done.segments, "inbox_left_alone": str(done.left_alone or ""),
                },
                indent=2,
            )
        )  # fmt: skip
    elif not quiet:
        span = f" from {outcome.first_day} to {outcome.last_day}" if outcome.first_day else ""
        print(
            f"{counts.records:,} allocations{span}; {outcome.days_written:,} days written, {outcome.days_unchanged:,} unchanged"
        )
        notes = []
        if done.segments:
            notes.append(f"{done.segments:,} segment{'s' if done.segments > 1 else ''} taken in from the inbox")
        if done.left_alone is not None:
            notes.append(
                f"{done.left_alone} left alone: it is not this ledger's inbox; --inbox takes it in, once for all"
            )
        if counts.waiting:
            notes.append(f"{counts.waiting:,} never started or still pending")
        if counts.elsewhere:
            notes.append(f"{counts.elsewhere:,} records of other clusters than asked for")
        if counts.outside:
            notes.append(f"{counts.outside:,} records before or after the time asked for")
        if counts.repeated:
            notes.append(f"{counts.repeated:,} records repeated (the latest state counts)")
        if outcome.slurm_energy_unused:
            notes.append(
                f"{outcome.slurm_energy_unused:,} with a Slurm energy figure not used (see [slurm] energy_plugin)"
            )
        for note in notes:
            print(f"  {note}")
    if counts.set_aside:
        from slurm_energy.report.formats import printable

        for row in outcome.set_aside[:10]:
            print(f"senergy: {printable(str(row))}", file=sys.stderr)
        more = " (the first 10 are shown)" if counts.set_aside > 10 else ""
        print(
            f"senergy: {counts.set_aside:,} rows set aside{more}; they are kept in {outcome.set_aside_file}",
            file=sys.stderr,
        )
