"""Builders of sacct rows and files, and short ways through ingest and the aggregator."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import duckdb

from slurm_energy.config import Config, parse_config, profile_of
from slurm_energy.ledger.aggregate import aggregate
from slurm_energy.ledger.ingest import Counts, Ingest
from slurm_energy.ledger.run import Outcome, Run
from slurm_energy.ledger.store import Ledger
from slurm_energy.slurm.records import SetAside
from slurm_energy.slurm.sacctfile import scan
from slurm_energy.slurm.zone import zone

FIXTURES = Path(__file__).parent.parent / "fixtures" / "sacct"
VERSIONS = ("22.05", "24.11", "26.05")
NOON = 1_795_521_600
"""2026-11-24 12:00 UTC."""
DAY = 86_400
COLUMNS = (
    "JobID", "JobIDRaw", "Cluster", "User", "Account", "Partition", "QOS", "WCKey", "JobName", "State", "Submit",
    "Start", "End", "ElapsedRaw", "Suspended", "NNodes", "NCPUS", "AllocTRES", "NodeList", "ConsumedEnergyRaw",
    "Comment",
)  # fmt: skip


def row(**fields: Any) -> dict[str, str]:
    """A completed job of one hour on 4 cores and one a100 at noon; Start and ElapsedRaw give End unless it is given."""
    usual = {
        "JobID": "7", "Cluster": "alpha", "User": "emma", "Account": "lisa", "Partition": "gpu", "QOS": "normal",
        "JobName": "train", "State": "COMPLETED", "Start": NOON, "ElapsedRaw": 3600, "Suspended": "00:00:00",
        "NNodes": 1, "NCPUS": 4, "AllocTRES": "billing=4,cpu=4,gres/gpu:a100=1,gres/gpu=1,mem=16G,node=1",
        "NodeList": "n1", "ConsumedEnergyRaw": 0,
    }  # fmt: skip
    made = {**dict.fromkeys(COLUMNS, ""), **usual, **fields}
    made["JobIDRaw"] = fields.get("JobIDRaw", made["JobID"])
    start, elapsed = made["Start"], made["ElapsedRaw"]
    numbers = isinstance(start, int) and isinstance(elapsed, int)
    made["Submit"] = fields.get("Submit", start - 60 if isinstance(start, int) else NOON - 60)
    made["End"] = fields.get("End", start + elapsed if numbers else "Unknown")
    return {name: str(value) for name, value in made.items()}


def running(**fields: Any) -> dict[str, str]:
    """The same while it runs."""
    return row(**{"State": "RUNNING", "End": "Unknown", **fields})


def sacct_text(
    rows: Iterable[Mapping[str, str]], columns: Sequence[str] = COLUMNS, delimiter: str = "|", header: bool = True
) -> str:
    """The rows as `sacct -P` prints them."""
    lines = [delimiter.join(columns)] if header else []
    lines += [delimiter.join(one.get(name, "") for name in columns) for one in rows]
    return "".join(line + "\n" for line in lines)


def save(path: Path, rows: Iterable[Mapping[str, str]] | str | bytes, **options: Any) -> Path:
    """Rows, text or bytes in a file."""
    if not isinstance(rows, bytes):
        rows = (rows if isinstance(rows, str) else sacct_text(rows, **options)).encode("utf-8", "surrogateescape")
    path.write_bytes(rows)
    return path


class Parsed:
    """What ingest makes of files: records by displayed id, counts and what was set aside."""

    def __init__(self, records: list[dict[str, Any]], counts: Counts, set_aside: list[SetAside]) -> None:
        self.records, self.counts, self.set_aside = records, counts, set_aside

    @property
    def reasons(self) -> list[str]:
        return [aside.reason for aside in self.set_aside]

    @property
    def only(self) -> dict[str, Any]:
        assert not self.set_aside, self.set_aside
        (record,) = self.records
        return record


def parse(
    source: Iterable[Mapping[str, str]] | str | bytes | Path,
    timezone_name: str = "UTC",
    window: tuple[int | None, int | None] = (None, None),
    cluster: str = "cluster",
    clusters: Sequence[str] = (),
    columns: Sequence[str] = (),
    delimiter: str = "",
) -> Parsed:
    """Scans and types a file, or rows that are put in one."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        path = source if isinstance(source, Path) else save(work / "jobs.txt", source)
        con = duckdb.connect()
        ingest = Ingest(con, zone(timezone_name), cluster)
        ingest.add(scan(path, work, columns, delimiter))
        counts = ingest.finish(*window, clusters)
        table = con.sql("SELECT * FROM parsed ORDER BY cluster, job_id, start").to_arrow_table()
        con.close()
    return Parsed(table.to_pylist(), counts, ingest.set_aside)


def config(text: str = "") -> Config:
    """A configuration out of TOML."""
    return parse_config(text.encode(), "config.toml")


def aggregate_file(
    path: Path,
    ledger: Path,
    *,
    settings: Config | str = "",
    timezone_name: str = "UTC",
    window: tuple[int | None, int | None] = (None, None),
    plugin: str = "none",
    parents: Mapping[str, str] | None = None,
    profile: str | None = None,
    clusters: Sequence[str] = (),
) -> Outcome:
    """A saved file into a ledger, as the command does it."""
    site = config(settings) if isinstance(settings, str) else settings
    target = Ledger(ledger)
    with target.writer(), tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run = Run(
            sources=[scan(path, work)], first=window[0], last=window[1], config=site, profile=profile_of(site, profile),
            site=zone(timezone_name), plugin=plugin, account_parents=dict(parents or {}), clusters=tuple(clusters),
        )  # fmt: skip
        return aggregate(target, run, work)


def ledger_of(tmp_path: Path, rows: Iterable[Mapping[str, str]] | str | bytes, **options: Any) -> list[dict[str, Any]]:
    """The ledger's rows after these were aggregated."""
    aggregate_file(save(tmp_path / "jobs.txt", rows), tmp_path / "ledger", **options)
    return ledger_rows(tmp_path / "ledger")


def ledger_rows(path: Path) -> list[dict[str, Any]]:
    """A ledger's rows, by day."""
    rows: list[dict[str, Any]] = Ledger(path).arrow().to_pylist()
    return sorted(rows, key=lambda one: (one["cluster"], one["date"], one["job_id"], one["start"]))


def files(path: Path) -> dict[str, bytes]:
    """Every day file of a ledger, by its path in it."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.glob("days/**/*.parquet"))}


def epoch(text: str, site: str = "UTC", fold: int = 0) -> int:
    """Epoch seconds of an ISO time on a wall clock."""
    return round(datetime.fromisoformat(text).replace(tzinfo=zone(site), fold=fold).timestamp())


def utc(moment: int) -> datetime:
    return datetime.fromtimestamp(moment, timezone.utc)


def wall(moment: int, site: str) -> str:
    """An epoch second as sacct prints it in a zone."""
    return datetime.fromtimestamp(moment, zone(site)).strftime("%Y-%m-%dT%H:%M:%S")


def days_of(rows: Iterable[Mapping[str, Any]]) -> list[date]:
    return [one["date"] for one in rows]


def parse_each(rows: Iterable[Mapping[str, str]], timezone_name: str = "UTC") -> list[Any]:
    """What each of these rows becomes, in one go: its record, the reason why it was set aside, or None."""
    numbered = [{**one, "JobID": str(number), "JobIDRaw": str(number)} for number, one in enumerate(rows)]
    parsed = parse(numbered, timezone_name)
    found: list[Any] = [None] * len(numbered)
    for record in parsed.records:
        found[record["job_id"]] = record
    for aside in parsed.set_aside:
        assert aside.line is not None
        found[aside.line - 2] = aside.reason
    return found
