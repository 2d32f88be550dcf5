"""The work behind `senergy aggregate`: sources, window and state put together."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from slurm_energy.cli.options import site_zone
from slurm_energy.cli.progress import progress
from slurm_energy.config import Config, inbox_path, ledger_path, load_config, profile_of
from slurm_energy.ledger.aggregate import aggregate
from slurm_energy.ledger.run import Outcome, Run
from slurm_energy.ledger.segments import booked, take_in
from slurm_energy.ledger.store import Ledger
from slurm_energy.slurm.errors import SourceError
from slurm_energy.slurm.records import RawRecords
from slurm_energy.slurm.sacct import read_sacct
from slurm_energy.slurm.sacctfile import scan
from slurm_energy.slurm.site import account_parents, energy_plugin

LIVE = ("sacct", "pyslurm")


class Done(NamedTuple):
    """What a run did: with the records, and with the inbox (segments that came in; an inbox that it left alone)."""

    outcome: Outcome
    segments: int
    left_alone: Path | None


def run(
    config_path: Path | None,
    ledger_given: Path | None,
    source: str,
    window: tuple[int | None, int | None],
    clusters: Sequence[str],
    profile: str | None,
    cluster_name: str | None,
    columns: tuple[str, ...],
    delimiter: str,
    quiet: bool,
    inbox: Path | None = None,
) -> Done:
    """Aggregates under the ledger's lock and remembers how far a live source has been read.

    What lies in the inbox is moved into the ledger, once. So a ledger beside the site's own (--ledger) gets it only
    where --inbox says so: a trial would take the site's measurements away.
    """
    config, _ = load_config(config_path)
    if cluster_name:
        import msgspec

        config = msgspec.structs.replace(config, site=msgspec.structs.replace(config.site, cluster=cluster_name))
    ledger = Ledger(ledger_path(config, ledger_given))
    chosen = profile_of(config, profile)
    live = source in LIVE
    asked = list(clusters) or list(config.slurm.clusters)
    if source == "pyslurm" and asked:
        raise SourceError(
            "pyslurm reads the cluster of slurm.conf alone: leave -M and [slurm] clusters out, or use --from sacct"
        )
    with ledger.writer(), tempfile.TemporaryDirectory(prefix="senergy-") as folder:
        workdir = Path(folder)
        now = int(time.time())
        state = ledger.read_state()
        waiting = inbox_path(config, ledger.path, inbox)
        own = inbox is not None or ledger.path.resolve() == ledger_path(config).resolve()
        taken = take_in(ledger, waiting if own else workdir / "no inbox")
        first, last = window
        if live and first is None:
            first = _since(config, state.get(_state_key(source, asked)), now)
            # Jobs of days that have new segments are read again, for their energy is known only now.
            first = min([first, *(_midnight(day, config) for _, day in taken.days)])
        sources: Iterator[RawRecords] | Sequence[RawRecords]
        if live:
            sources = _live(source, first or 0, min(last, now) if last else now, asked)
        else:
            sources = [file_records(source, workdir, columns, delimiter)]
        work = Run(
            sources=sources, first=first, last=last, config=config, profile=chosen, site=site_zone(config),
            plugin=_plugin(config, live), account_parents=account_tree(config, live),
            clusters=() if live else tuple(asked), measured_days=taken.days, set_aside=taken.set_aside,
        )  # fmt: skip
        with progress(quiet) as show:
            outcome = aggregate(ledger, work, workdir, show)
        near = {(cluster, day + timedelta(days=shift)) for cluster, day in taken.days for shift in (-1, 0, 1)}
        booked(ledger, outcome.unjoined & near)
        if live and window == (None, None):
            ledger.write_state({**state, _state_key(source, asked): now})
    return Done(outcome, taken.segments, waiting if not own and waiting.is_dir() else None)


def _state_key(source: str, clusters: Sequence[str]) -> str:
    return ",".join(sorted(clusters)) or "local"


def _since(config: Config, last_run: int | None, now: int) -> int:
    """Midnight before the last run less the days in which late records may come; at first as far as the site says."""
    days = config.site.lookback_days if last_run is not None else config.site.first_days
    moment = datetime.fromtimestamp(last_run or now, site_zone(config)) - timedelta(days=days)
    return round(moment.replace(hour=0, minute=0, second=0, microsecond=0).timestamp())


def _midnight(day: date, config: Config) -> int:
    """When the day before this UTC day begins on the site's clock."""
    before = day - timedelta(days=1)
    return round(datetime(before.year, before.month, before.day, tzinfo=site_zone(config)).timestamp())


def _live(source: str, first: int, last: int, clusters: Sequence[str]) -> Iterator[RawRecords]:
    if source == "pyslurm":
        from slurm_energy.slurm.pyslurm_source import read_pyslurm

        yield RawRecords("pyslurm", rows=[(None, row) for row in read_pyslurm(first, last)])
        return
    for batch in read_sacct(first, last, clusters):
        yield RawRecords("sacct", rows=[(None, row) for row in batch])


def file_records(source: str, workdir: Path, columns: tuple[str, ...], delimiter: str) -> RawRecords:
    """The records of a saved file, or of standard input for `-`. Raises SourceError."""
    if source == "-":
        path = workdir / "stdin"
        with path.open("wb") as file:
            while block := sys.stdin.buffer.read(1 << 20):
                file.write(block)
        return scan(path, workdir, columns, delimiter)
    if not Path(source).is_file():
        raise SourceError(f"{source}: no such file; --from takes a file, sacct or pyslurm")
    return scan(Path(source), workdir, columns, delimiter)


def _plugin(config: Config, live: bool) -> str:
    """The energy plugin: configured, or asked for where Slurm is there to ask; a file's site is not known."""
    if config.slurm.energy_plugin != "auto":
        return config.slurm.energy_plugin
    return energy_plugin() if live else "none"


def account_tree(config: Config, live: bool) -> dict[str, str]:
    """The tree of accounts, only where a rule needs it."""
    if config.account_parents or not any(rule.account for rule in config.projects):
        return config.account_parents
    return account_parents() if live else {}
