"""`senergy report`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from slurm_energy.cli.options import (
    ClustersOption,
    ConfigOption,
    EndOption,
    LedgerOption,
    StartOption,
    moment,
    site_zone,
    split,
    valid,
    window_days,
)

if TYPE_CHECKING:
    from datetime import date

    from slurm_energy.config import Config
    from slurm_energy.factors.profile import Profile
    from slurm_energy.ledger.store import Ledger
    from slurm_energy.report.selection import Selection


def report(
    project: Annotated[
        Optional[list[str]], typer.Option("--project", "-p", help="Only this project (repeatable).")
    ] = None,
    user: Annotated[Optional[list[str]], typer.Option("-u", "--user", help="Only these users.")] = None,
    account: Annotated[Optional[list[str]], typer.Option("-A", "--account", help="Only these Slurm accounts.")] = None,
    clusters: ClustersOption = None,
    start: StartOption = None,
    end: EndOption = None,
    by: Annotated[
        Optional[list[str]],
        typer.Option(
            "--by", help="Totals by project, user, account, month, day, gpu, state, partition, sweep, qos, cluster."
        ),
    ] = None,
    profile: Annotated[
        Optional[str],
        typer.Option(
            "--profile",
            help="Price under this profile instead of the stored factors; the energy stays as it was stored.",
        ),
    ] = None,
    idle: Annotated[bool, typer.Option("--idle", help="With what no job used, as project '(idle)'.")] = False,
    model: Annotated[
        Optional[str], typer.Option("--model", help="The job that counts as the one model (JOBID).")
    ] = None,
    sweep: Annotated[Optional[str], typer.Option("--sweep", help="The sweep that counts as the one tune.")] = None,
    sort: Annotated[
        Optional[str], typer.Option("--sort", help="Order groups by this column, by its name in JSON or its header.")
    ] = None,
    top: Annotated[Optional[int], typer.Option("--top", min=1, help="Only the first groups.")] = None,
    parsable2: Annotated[bool, typer.Option("-P", "--parsable2", help="Fields separated by |, raw numbers.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="JSON, raw numbers.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="CSV, raw numbers.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown tables.")] = False,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """Report what a project, a user or everybody used, from the ledger.

    One project gets its whole R&D accounting; anything else a table of totals.

    \b
    Examples:
      senergy report --project lisa
      senergy report --project lisa -S 2026-01-01 --profile strubell2019 --json
      senergy report --by user -A nlp -S now-30days --top 10
      senergy report --user $USER --by month
    """
    from slurm_energy.config import ledger_path, load_config, profile_of
    from slurm_energy.ledger.store import Ledger
    from slurm_energy.report.groups import COLUMNS
    from slurm_energy.report.selection import Selection
    from slurm_energy.slurm.states import IDLE_PROJECT

    if sum((parsable2, json_, csv, markdown)) > 1:
        raise typer.BadParameter("--parsable2, --json, --csv and --markdown exclude each other", param_hint="output")
    form = "parsable2" if parsable2 else "json" if json_ else "csv" if csv else "markdown" if markdown else "table"
    one = not by and project is not None and len(project) == 1
    if one and (sort or top):
        raise typer.BadParameter("it needs --by, or several projects", param_hint="--sort/--top")
    if (model or sweep) and not one:
        raise typer.BadParameter("it needs --project and no --by", param_hint="--model/--sweep")
    settings, _ = load_config(config)
    if settings.factors or settings.profiles:  # a mistake in them is told here, too, not when the ledger is written
        for name in (None, *settings.profiles):
            profile_of(settings, name)
    projects = [valid(name) for name in project or []]
    window = _window(settings, start, end)
    first, last = (None if edge is None else _day(edge, settings) for edge in window)
    users, accounts = split(user, "-u/--user"), split(account, "-A/--account")
    wanted = split(clusters, "-M/--clusters")
    with_idle = idle or IDLE_PROJECT in projects  # who asks for what no job used has it without --idle
    chosen = Selection(projects, users, accounts, wanted, first, last, with_idle)
    priced = profile_of(settings, profile) if profile else None
    keys = split(by, "--by") or ["project"]
    given = {"project": projects, "user": users, "account": accounts}
    also = [key for key in COLUMNS if key in keys or given.get(key)]
    con, said = _rows(Ledger(ledger_path(settings, ledger)), chosen, priced, also)
    for sentence in said:
        typer.echo(f"senergy: {sentence}", err=True)
    if one:
        _one_project(con, projects[0], settings, priced, model and valid(model), sweep and valid(sweep), form, window)
        return
    _groups(con, keys, sort, top, form, bool(said))


def _rows(ledger: Ledger, chosen: Selection, priced: Profile | None, also: list[str]) -> tuple[Any, list[str]]:
    """The rows to report on, None where there are none, and what to say of names without rows."""
    from slurm_energy.report.errors import NoDays
    from slurm_energy.report.names import asked, without_rows
    from slurm_energy.report.selection import open_rows

    try:
        con = open_rows(ledger, chosen, priced, also)
    except NoDays:
        if not asked(chosen) or not ledger.days(chosen.clusters):
            raise
        return None, without_rows(ledger, chosen, None)
    said = without_rows(ledger, chosen, con)
    any_row = con.execute("SELECT 1 FROM stored LIMIT 1").fetchone()
    return (con if any_row else None), said


def _window(settings: Config, start: str | None, end: str | None) -> tuple[int | None, int | None]:
    """-S and -E as the midnights (epoch seconds) before the first day and after the last."""
    zone = site_zone(settings)
    return window_days(moment(start, zone, "-S"), moment(end, zone, "-E"))


def _day(edge: int, settings: Config) -> date:
    """The day that begins at this midnight."""
    from datetime import datetime

    return datetime.fromtimestamp(edge, site_zone(settings)).date()


def _one_project(
    con: Any,
    project: str,
    settings: Config,
    priced: Profile | None,
    model: str | None,
    sweep: str | None,
    form: str,
    window: tuple[int | None, int | None],
) -> None:
    from slurm_energy.report import formats
    from slurm_energy.report.totals import HEADER

    columns = ("project", "start", "end", "first_day", "last_day", "profile")
    if con is None:
        if form == "json":
            typer.echo(formats.to_json({**dict.fromkeys(columns), "project": project, "jobs": 0, "rnd": []}))
        else:
            _print_rows([], (*columns, *HEADER), form)
        return
    from slurm_energy.report.project import project_report

    found = project_report(con, project, priced or _stored(con, settings), model, sweep, window)
    if form == "json":
        typer.echo(formats.to_json(found))
    elif form in ("csv", "parsable2"):
        row = {key: found[key] for key in (*columns, *HEADER, "provenance") if key in found}
        _print_rows([row], (), form)
    else:
        from slurm_energy.report.sections import project_sections

        _show(project_sections(found), form)


def _stored(con: Any, settings: Config) -> Profile:
    """The profile that the rows were priced with; of several the first by name."""
    from slurm_energy.config import ConfigError, profile_of

    stored = con.execute("SELECT min(profile) FROM rows").fetchone()
    try:
        return profile_of(settings, stored[0] if stored and stored[0] else None)
    except ConfigError:  # the ledger was written with a profile that the configuration has no more
        return profile_of(settings, "site")


def _groups(con: Any, by: list[str], sort: str | None, top: int | None, form: str, told: bool) -> None:
    from slurm_energy.report import formats
    from slurm_energy.report.groups import check_keys, group_report, jobs_in_all
    from slurm_energy.report.totals import HEADER, known

    check_keys(by, sort)
    rows = group_report(con, by, sort, top) if con is not None else []
    if not rows and not told:
        typer.echo("senergy: the ledger has no such jobs in these days", err=True)
    if form == "json":
        typer.echo(formats.to_json({"rows": [known(row) for row in rows]}))
    elif form in ("csv", "parsable2"):
        _print_rows([known(row) for row in rows], (*by, *HEADER), form)
    elif rows:
        from slurm_energy.report.sections import group_section

        stored = con.execute("SELECT string_agg(DISTINCT profile, ', ' ORDER BY profile) FROM rows").fetchone()
        _show([group_section(rows, by, stored[0] if stored else "", jobs_in_all(con, by))], form)


def _print_rows(rows: list[dict[str, Any]], header: tuple[str, ...], form: str) -> None:
    """CSV or --parsable2, the header in any case; nothing in the forms for people."""
    from slurm_energy.report import formats

    if form in ("csv", "parsable2"):
        write = formats.to_csv if form == "csv" else formats.to_parsable2
        typer.echo(write(rows, header), nl=False)


def _show(sections: Any, form: str) -> None:
    if form == "table":
        from slurm_energy.report.terminal import show

        show(sections)
        return
    from slurm_energy.report.formats import escape, to_markdown

    for section in sections:
        if section.rows:
            typer.echo(f"### {escape(section.title)}\n")
            typer.echo(to_markdown(section.header, section.rows, section.left, section.numbers))
        if section.note:
            typer.echo(f"{escape(section.note)}\n")
