"""Options that several commands share, named as sacct and sreport name them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from slurm_energy.config import Config

ConfigOption = Annotated[
    Optional[Path], typer.Option("--config", help="Configuration file.", envvar="SENERGY_CONFIG", show_default=False)
]
LedgerOption = Annotated[
    Optional[Path], typer.Option("--ledger", help="Folder of the ledger.", envvar="SENERGY_LEDGER", show_default=False)
]
StartOption = Annotated[
    Optional[str],
    typer.Option("-S", "--starttime", help="From this day on, as sacct takes it (2026-11-01, now-7days)."),
]
EndOption = Annotated[
    Optional[str], typer.Option("-E", "--endtime", help="Up to this time; a day begun counts whole.")
]  # fmt: skip
ClustersOption = Annotated[
    Optional[list[str]], typer.Option("-M", "--clusters", help="Only these clusters (comma-separated or repeated).")
]
ProfileOption = Annotated[
    Optional[str], typer.Option("--profile", help="Profile of factors: site, strubell2019, or your own.")
]


def split(values: list[str] | None, option: str = "") -> list[str]:
    """Values of a repeatable, comma-separated option; one given without a name ends the command with code 2.

    It would mean everybody otherwise: `--user "$WHO"` in a script that has not set WHO.
    """
    parts = [part.strip() for value in values or [] for part in valid(value).split(",") if part.strip()]
    if values and not parts:
        raise typer.BadParameter("no name in it; expected NAME or NAME,NAME", param_hint=option or None)
    return parts


def valid(text: str) -> str:
    """An argument as text that UTF-8 has: other bytes become the sign that a log's reader puts for them, too."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def site_zone(config: Config) -> ZoneInfo:
    """The site's time zone. Raises ConfigError."""
    from slurm_energy.config import ConfigError
    from slurm_energy.slurm.zone import zone

    try:
        return zone(config.site.timezone)
    except ValueError as error:
        raise ConfigError(f"{config.file}, [site] timezone = {error}") from error


def moment(text: str | None, zone: ZoneInfo, option: str) -> datetime | None:
    """A -S or -E option as a moment in the site's zone; wrong ones end the command with code 2."""
    if text is None:
        return None
    from slurm_energy.slurm.timespec import parse_time

    try:
        return parse_time(text, datetime.now(zone))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=f"'{option}'") from error


def window_days(start: datetime | None, end: datetime | None) -> tuple[int | None, int | None]:
    """The moments widened to whole days: epoch seconds of the midnights before `start` and at or after `end`."""
    from datetime import timedelta

    first = last = None
    if start is not None:
        first = round(start.replace(hour=0, minute=0, second=0, microsecond=0).timestamp())
    if end is not None:
        midnight = end.replace(hour=0, minute=0, second=0, microsecond=0)
        last = round((midnight if midnight == end else midnight + timedelta(days=1)).timestamp())
    if first is not None and last is not None and last <= first:
        raise typer.BadParameter("the end is not after the start", param_hint="'-S/-E'")
    return first, last
