"""Segments into the ledger: each key once, joined to its job, conserved, the same bytes however they come."""

from __future__ import annotations

import contextlib
import json
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from helpers import COLUMNS, DAY, NOON, config, epoch, ledger_rows, row, save
from helpers import files as day_files
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_energy.config import profile_of
from slurm_energy.ledger import segments
from slurm_energy.ledger.aggregate import aggregate
from slurm_energy.ledger.measured import _source
from slurm_energy.ledger.run import Outcome, Run
from slurm_energy.ledger.segments import Taken, booked, segment_path, take_in
from slurm_energy.ledger.store import Ledger
from slurm_energy.ledger.verify import verify
from slurm_energy.segment import DOMAINS, Segment
from slurm_energy.slurm.sacctfile import scan
from slurm_energy.slurm.zone import zone

NS = 1_000_000_000
KWH = 3_600_000_000_000
WATTS = """
[factors]
pue = 1.5
carbon_g_per_kwh = 100
electricity_usd_per_kwh = 0.2
cpu_core_w = 10
dram_w_per_gb = 0.5
[factors.gpu_w]
a100 = 400
"""
"""A job of row() is rated 4 x 10 W + 16 x 0.5 W + 400 W, for one hour from noon."""


def hour_label(moment: int) -> str:
    import time

    return time.strftime("%Y-%m-%dT%H", time.gmtime(moment))


def segment(
    job_id: int = 7, begin: int = NOON, length_s: int = 3600, uj: dict[str, int] | None = None, **fields: Any
) -> dict[str, Any]:
    """What job 7 used on n1 in the hour of noon: 0.1 kWh in the packages, 0.02 in memory, 0.3 in its GPU."""
    usual = {
        "schema": 1, "cluster": "alpha", "node": "n1", "job_id": job_id, "restart_count": 0, "sluid": None,
        "session_start": begin, "user": "emma", "uid": 1000, "account": "lisa", "partition": "gpu",
        "hour": hour_label(begin), "start": begin * NS, "end": (begin + length_s) * NS,
        "uj": uj or {"package": KWH // 10, "dram": KWH // 50, "gpu": 3 * KWH // 10, "other": 0}, "gpus": [],
        "cpu_time_ns": 1, "samples": length_s, "gap_s": 0.0, "sources": ["rapl/0.1"],
        "measured": ["dram", "gpu", "package"], "origin": "hook", "closed": "epilog", "final": True,
    }  # fmt: skip
    return {**usual, **fields}


def idle(**fields: Any) -> dict[str, Any]:
    uj = {"package": KWH // 20, "dram": 0, "gpu": 0, "other": 0}
    return segment(**{"job_id": 0, "uj": uj, "user": "", "account": "", "origin": "idle", **fields})


class Site:
    """An inbox and a ledger."""

    def __init__(self, root: Path, settings_text: str = WATTS, timezone_name: str = "UTC") -> None:
        self.root, self.inbox, self.ledger = root, root / "inbox", Ledger(root / "ledger")
        self.config, self.zone = config(settings_text), zone(timezone_name)
        self.inbox.mkdir(parents=True, exist_ok=True)
        self.number = 0

    def put(self, *lines: dict[str, Any] | bytes | str, name: str = "") -> Path:
        """A file as the shipper leaves it."""
        self.number += 1
        folder = self.inbox / "alpha" / "n1"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / (name or f"n1.{self.number:010d}.jsonl")
        encoded = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
        path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in encoded))
        return path

    def take(self) -> Taken:
        with self.ledger.writer():
            return take_in(self.ledger, self.inbox)

    def aggregate(self, *rows: dict[str, str], fail: bool = False) -> Outcome:
        """As the command does it: segments, then records, then the days."""
        path = save(self.root / "jobs.txt", rows, columns=(*COLUMNS, "SLUID"))
        with self.ledger.writer(), tempfile.TemporaryDirectory() as folder:
            taken = take_in(self.ledger, self.inbox)
            if fail:
                raise KeyboardInterrupt
            work = Run(
                sources=[scan(path, Path(folder))], config=self.config, profile=profile_of(self.config), site=self.zone,
                measured_days=taken.days, set_aside=taken.set_aside,
            )  # fmt: skip
            outcome = aggregate(self.ledger, work, Path(folder))
            booked(self.ledger)
        return outcome

    @property
    def rows(self) -> list[dict[str, Any]]:
        return ledger_rows(self.ledger.path)

    @property
    def job(self) -> dict[str, Any]:
        """The only row of a real job."""
        (one,) = [one for one in self.rows if one["state"] not in ("IDLE", "NO_RECORD")]
        return one

    def states(self) -> list[str]:
        return sorted(one["state"] for one in self.rows)

    def holds(self) -> bool:
        days = list(verify(self.ledger, self.zone))
        assert days
        return all(day.holds for day in days)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


# Taking in


def test_what_was_taken_in_is_out_of_the_inbox_and_in_the_segments_of_its_day(site: Site) -> None:
    site.put(segment(), idle())
    taken = site.take()
    assert (taken.segments, taken.set_aside) == (2, ())
    assert [(cluster, day.isoformat()) for cluster, day in taken.days] == [("alpha", "2026-11-24")]
    assert list(site.inbox.rglob("*.jsonl")) == []
    assert segment_path(site.ledger, "alpha", next(iter(taken.days))[1]).exists()


def test_the_same_file_twice_is_the_same_energy_once(site: Site) -> None:
    site.put(segment(), idle())
    site.aggregate(row())
    before = day_files(site.ledger.path)
    site.put(segment(), idle())
    outcome = site.aggregate(row())
    assert outcome.days_written == 0
    assert day_files(site.ledger.path) == before
    assert site.job["it_kwh"] == pytest.approx(0.42)


def test_the_same_key_in_two_files_at_once_counts_once(site: Site) -> None:
    site.put(segment())
    site.put(segment())
    site.aggregate(row())
    assert site.job["it_kwh"] == pytest.approx(0.42)


def test_of_two_segments_with_one_key_the_one_that_saw_more_counts_in_whatever_order(tmp_path: Path) -> None:
    less = segment(samples=10, uj={"package": KWH // 100, "dram": 0, "gpu": 0, "other": 0})
    for number, order in enumerate(([less, segment()], [segment(), less])):
        site = Site(tmp_path / str(number))
        for one in order:
            site.put(one)
            site.aggregate(row())
        assert site.job["package_kwh"] == pytest.approx(0.1)


BAD = {
    "no JSON": b"{",
    "an array": b"[]",
    "another schema": segment(schema=2),
    "no schema": {key: value for key, value in segment().items() if key != "schema"},
    "a missing field": {key: value for key, value in segment().items() if key != "uj"},
    "text for a number": segment(job_id="7"),
    "negative energy": segment(uj={"package": -1}),
    "energy beyond all bounds": segment(uj={"package": 1 << 62}),
    "a number beyond 64 bits": segment(cpu_time_ns=1 << 70),
    "a job id beyond 64 bits": segment(job_id=1 << 63),
    "an end before the start": segment(end=1),
    "a negative gap": segment(gap_s=-1e9),
    "an hour that is none": segment(hour="2026-11-24T24"),
    "a day that is none": segment(hour="2026-02-30T01"),
    "an hour written otherwise": segment(hour="2026-11-24T+3"),
    "another separator": segment(hour="2026-11-24 13"),
    "a week for a day": segment(hour="2026-W48-2T13"),
    "no cluster": segment(cluster=""),
    "a cluster's name without end": segment(cluster="a" * 5000),
    "a cluster's name that no file may have": segment(cluster="ä" * 64),
    "a node's name without end": segment(node="a" * 5000),
    "no text": b"\xff\xfe\x00",
    "half a character": b'{"cluster": "\\ud800"}',
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_line_is_set_aside_with_file_and_line_and_the_rest_counts(site: Site, kind: str) -> None:
    path = site.put(segment(), BAD[kind], idle())
    taken = site.take()
    (aside,) = taken.set_aside
    assert (aside.source, aside.line) == (str(path), 2)
    assert taken.segments == 2


def test_bad_lines_are_kept_in_the_ledgers_folder_and_the_rest_is_booked(site: Site) -> None:
    site.put(segment(), *BAD.values(), idle())
    outcome = site.aggregate(row())
    assert outcome.set_aside_file is not None
    assert outcome.set_aside_file.read_text().count("\n") == len(BAD)
    assert site.states() == ["COMPLETED", "IDLE"]
    assert site.holds()


def test_bad_lines_of_a_run_that_did_not_end_are_told_by_the_next(site: Site) -> None:
    path = site.put(b"rubbish", segment())
    with pytest.raises(KeyboardInterrupt):
        site.aggregate(row(), fail=True)
    assert not path.exists()
    outcome = site.aggregate(row())
    assert [(aside.source, aside.line) for aside in outcome.set_aside] == [(str(path), 1)]
    assert site.aggregate(row()).set_aside == ()


def test_segments_of_a_run_that_did_not_end_are_booked_by_the_next(site: Site) -> None:
    site.put(segment(), idle())
    with pytest.raises(KeyboardInterrupt):
        site.aggregate(row(), fail=True)
    site.aggregate(row())
    assert site.states() == ["COMPLETED", "IDLE"]
    assert site.holds()


@pytest.mark.parametrize("at", range(8))
def test_a_run_cut_off_between_any_two_files_is_made_good_by_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The inbox, the days of the segments and the note of what is not booked yet change one after the other."""
    site.put(segment(), idle())
    site.put(segment(6, NOON - 86_400), idle(begin=NOON - 86_400))
    left, replace, unlink = [at], segments.replace, Path.unlink

    def counted(act):
        def one(*arguments, **more):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return act(*arguments, **more)

        return one

    with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        patched.setattr(segments, "replace", counted(replace))
        patched.setattr(Path, "unlink", counted(unlink))
        site.aggregate(row())
    site.aggregate(row())
    assert site.holds()


@pytest.mark.parametrize("cluster", ["../../etc", ".", "..", "a/b", "a\0b", "cluster=x", "ä" * 30, "a'b\"c;--"])
def test_a_hostile_name_of_a_cluster_stays_a_name(site: Site, cluster: str) -> None:
    site.put(segment(cluster=cluster), segment(user="a'; DROP TABLE x; --", account="\n|\0", node="n'1\"", job_id=9))
    assert site.aggregate(row()).set_aside == ()
    assert {one["cluster"] for one in site.rows} == {"alpha", cluster}
    inside = {path.resolve() for path in site.root.rglob("*.parquet")}
    assert all(path.is_relative_to(site.ledger.path.resolve()) for path in inside)
    assert len(inside) == 4
    assert site.holds()


def test_links_hidden_files_and_others_in_the_inbox_are_left_alone(site: Site) -> None:
    secret = site.root / "secret"
    secret.write_text(json.dumps(segment(job_id=66)))
    folder = site.put(segment()).parent
    (folder / "link.jsonl").symlink_to(secret)
    (folder / ".n1.part").write_text(json.dumps(segment(job_id=67)))
    (folder / ".half.jsonl").write_text("{")
    (folder / "notes.txt").write_text("?")
    assert site.take().segments == 1
    assert secret.exists()
    assert len(list(folder.iterdir())) == 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=80) | st.sampled_from([json.dumps(segment()).encode()]), max_size=6))
def test_no_bytes_in_a_segment_file_are_fatal(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        site.put(b"\n".join(lines))
        taken = site.take()
        good = sum(line == json.dumps(segment()).encode() for line in lines)
        assert taken.segments >= good
        assert list(site.inbox.rglob("*.jsonl")) == []


# What a line is in the files


def test_every_field_of_a_segment_has_its_column_and_in_its_place() -> None:
    columns = ["uj" if name.endswith("_uj") else name for name in segments.SCHEMA.names]
    assert list(dict.fromkeys(columns)) == [name for name in Segment.__struct_fields__ if name != "schema"]
    assert [name for name in segments.SCHEMA.names if name.endswith("_uj")] == [f"{domain}_uj" for domain in DOMAINS]


def test_a_line_of_an_agent_of_before_a_field_came_is_read_as_it_was_meant(site: Site) -> None:
    late = ("gpu_gap_s", "measured", "origin", "closed")
    early = segment(gpus=[{"uuid": "GPU-1", "model": "H100", "uj": 5}])
    site.put({key: value for key, value in early.items() if key not in late})
    assert site.take().set_aside == ()
    (path,) = site.ledger.path.glob("segments/*/*.parquet")
    (one,) = pq.read_table(path).to_pylist()
    assert [one[name] for name in late] == [0.0, "package,dram,gpu", "hook", ""]
    assert one["gpus"] == '[{"uuid":"GPU-1","model":"H100","uj":5}]'


def test_no_segments_have_the_columns_of_segments(site: Site) -> None:
    site.put(segment())
    site.take()
    (path,) = site.ledger.path.glob("segments/*/*.parquet")
    none, some = (duckdb.sql(f"SELECT * FROM {_source(files)}") for files in ([], [path]))
    assert (none.columns, none.types) == (some.columns, some.types)
    assert none.fetchall() == []


# Joining


def test_a_measured_job_has_its_energy_by_component_and_says_so(site: Site) -> None:
    site.put(segment())
    site.aggregate(row())
    job = site.job
    assert (job["package_kwh"], job["dram_kwh"], job["gpu_kwh"]) == pytest.approx((0.1, 0.02, 0.3))
    assert (job["provenance"], job["coverage"], job["estimated_kwh"]) == ("measured", 1.0, 0.0)
    assert job["facility_kwh"] == pytest.approx(0.63)
    assert site.holds()


def test_a_run_that_was_measured_for_a_part_has_the_rest_estimated(site: Site) -> None:
    site.put(segment(begin=NOON + 1800, length_s=1800, session_start=NOON))
    site.aggregate(row())
    job = site.job
    assert job["coverage"] == pytest.approx(0.5)
    assert job["measured_kwh"] == pytest.approx(0.42)
    assert job["estimated_kwh"] == pytest.approx(0.448 / 2)
    assert site.holds()


def test_a_gap_is_not_covered(site: Site) -> None:
    site.put(segment(gap_s=900.0))
    site.aggregate(row())
    assert site.job["coverage"] == pytest.approx(0.75)


def test_a_gpu_that_was_not_measured_is_estimated_beside_what_was(site: Site) -> None:
    site.put(segment(measured=["package", "dram"], uj={"package": KWH // 10, "dram": KWH // 50, "gpu": 0, "other": 0}))
    site.aggregate(row())
    job = site.job
    assert job["gpu_kwh"] == pytest.approx(0.4)
    assert (job["measured_kwh"], job["estimated_kwh"]) == pytest.approx((0.12, 0.4))
    assert job["provenance"] == "measured"
    assert site.holds()


def test_the_two_nodes_of_a_job_add_up(site: Site) -> None:
    site.put(segment(), segment(node="n2"))
    site.aggregate(row(NNodes=2, NCPUS=8, NodeList="n[1-2]"))
    assert site.job["it_kwh"] == pytest.approx(0.84)
    assert site.job["coverage"] == 1.0
    assert site.holds()


def test_one_of_two_nodes_alone_is_half_of_the_coverage(site: Site) -> None:
    site.put(segment())
    site.aggregate(row(NNodes=2, NCPUS=8, NodeList="n[1-2]"))
    assert site.job["coverage"] == pytest.approx(0.5)


def test_what_only_one_of_two_nodes_measures_is_estimated_for_the_other(site: Site) -> None:
    bare = {"package": KWH // 10, "dram": 0, "gpu": 0, "other": 0}
    site.put(segment(), segment(node="n2", measured=["package"], uj=bare, gpu_gap_s=3600.0))
    site.aggregate(
        row(NNodes=2, NCPUS=8, NodeList="n[1-2]", AllocTRES="cpu=8,mem=32G,node=2,gres/gpu=2,gres/gpu:a100=2")
    )
    job = site.job
    assert job["coverage"] == 1.0
    assert job["package_kwh"] == pytest.approx(0.2)
    assert job["dram_kwh"] == pytest.approx(0.02 + 0.5 * 32 * 0.5 / 1000)
    assert job["gpu_kwh"] == pytest.approx(0.3 + 0.5 * 2 * 0.4)
    assert job["measured_kwh"] == pytest.approx(0.1 + 0.02 + 0.3 + 0.1)
    assert site.holds()


def test_runs_of_a_requeued_job_each_get_their_own(site: Site) -> None:
    small = {"package": KWH // 100, "dram": 0, "gpu": 0, "other": 0}
    site.put(segment(length_s=600, uj=small), segment(begin=NOON + 1200, restart_count=1, length_s=1800))
    site.aggregate(
        row(State="REQUEUED", ElapsedRaw=600), row(Start=NOON + 1200, ElapsedRaw=1800, Submit=NOON + 600)
    )  # fmt: skip
    assert [one["package_kwh"] for one in site.rows] == pytest.approx([0.01, 0.1])
    assert site.holds()


def test_a_job_id_that_came_round_again_gets_the_energy_of_its_own_time(site: Site) -> None:
    mine = {"package": KWH // 4, "dram": 0, "gpu": 0, "other": 0}
    site.put(segment(), segment(begin=NOON + 5 * 3600, user="otto", uj=mine))
    site.aggregate(row(), row(User="otto", Start=NOON + 5 * 3600))
    assert {one["user"]: one["package_kwh"] for one in site.rows} == pytest.approx({"emma": 0.1, "otto": 0.25})


def test_the_sluid_joins_where_both_have_one_whatever_the_clocks_say(site: Site) -> None:
    sluid, other = "sEKNKTV3WPV500", "sEKNKTV3WPV501"
    site.put(segment(sluid=sluid, begin=NOON + 3000, length_s=600))
    site.aggregate(row(SLUID=other), row(Start=NOON + 7200, SLUID=sluid))
    assert [one["measured_kwh"] > 0 for one in site.rows] == [False, True]
    assert site.holds()


def test_idle_energy_has_a_row_per_node_of_its_own(site: Site) -> None:
    site.put(idle(), idle(node="n2"))
    site.aggregate(row())
    rows = [one for one in site.rows if one["state"] == "IDLE"]
    assert [(one["job_id"], one["job_name"], one["project"]) for one in rows] == [
        (0, "n1", "(idle)"),
        (0, "n2", "(idle)"),
    ]
    assert all(one["it_kwh"] == pytest.approx(0.05) for one in rows)
    assert site.holds()


def test_a_session_without_a_record_has_a_row_until_the_record_comes(site: Site) -> None:
    site.put(segment(), segment(job_id=8))
    site.aggregate(row())
    assert site.states() == ["COMPLETED", "NO_RECORD"]
    assert site.holds()
    site.aggregate(row(), row(JobID=8))
    assert site.states() == ["COMPLETED", "COMPLETED"]
    assert site.holds()


def test_segments_before_or_after_the_records_make_the_same_ledger(tmp_path: Path) -> None:
    records = (row(), row(JobID=8, Start=NOON + 1800, ElapsedRaw=DAY), row(JobID=9, Start=NOON - DAY))
    sent = [
        segment(),
        segment(job_id=8, begin=NOON + 1800, length_s=1800),
        segment(job_id=5, begin=NOON - 300, length_s=300),
        idle(),
    ]
    first, last, piece = (Site(tmp_path / name) for name in ("first", "last", "piece"))
    for one in sent:
        first.put(one)
        last.put(one)
    first.aggregate()
    first.aggregate(*records)
    last_inbox = [(path, path.read_bytes()) for path in sorted(last.inbox.rglob("*.jsonl"))]
    for path, _ in last_inbox:
        path.unlink()
    last.aggregate(*records)
    for path, content in last_inbox:
        path.write_bytes(content)
    last.aggregate(*records)
    for one in reversed(sent):
        piece.put(one)
        piece.aggregate(*records)
    assert day_files(first.ledger.path) == day_files(last.ledger.path) == day_files(piece.ledger.path)
    assert first.holds()


def test_a_job_across_midnight_has_each_days_energy_on_its_day(site: Site) -> None:
    midnight = epoch("2026-11-25")
    site.put(
        segment(begin=midnight - 3600, session_start=midnight - 3600, final=False, closed=""),
        segment(begin=midnight, session_start=midnight - 3600),
    )
    site.aggregate(row(Start=midnight - 3600, ElapsedRaw=7200))
    assert [one["measured_kwh"] for one in site.rows] == pytest.approx([0.42, 0.42])
    assert site.holds()


def test_an_epilog_a_moment_after_midnight_loses_nothing(site: Site) -> None:
    """The record ends on one day, the last second of the session lies on the next."""
    midnight = epoch("2026-11-25")
    late = {"package": 5_000_000, "dram": 0, "gpu": 0, "other": 0}
    site.put(
        segment(begin=midnight - 3600, final=False, closed=""),
        segment(begin=midnight, length_s=2, session_start=midnight - 3600, uj=late),
    )
    for _ in range(2):
        site.aggregate(row(Start=midnight - 3600, ElapsedRaw=3599))
        assert site.holds()


@pytest.mark.parametrize("jump_s", [-3 * DAY, -5400, 5400, 3 * DAY])
def test_a_segment_whose_clock_was_put_right_belongs_to_the_day_on_its_label(site: Site, jump_s: int) -> None:
    site.put(idle(start=(NOON + jump_s) * NS, end=(NOON + max(jump_s, 0) + 3600) * NS, hour=hour_label(NOON)))
    site.aggregate(row())
    assert {one["date"].day for one in site.rows} == {24}
    assert site.holds()


@pytest.mark.parametrize("timezone_name", ["Asia/Kolkata", "America/St_Johns", "Pacific/Chatham", "America/New_York"])
def test_in_every_zone_a_segment_is_booked_on_the_sites_own_day(tmp_path: Path, timezone_name: str) -> None:
    site = Site(tmp_path, timezone_name=timezone_name)
    for number in range(30):
        begin = NOON + number * 3600
        site.put(segment(begin=begin, session_start=NOON, samples=number + 1), idle(begin=begin, session_start=NOON))
    site.aggregate(row(ElapsedRaw=30 * 3600, Submit=NOON - 60))
    assert sum(one["measured_kwh"] for one in site.rows) == pytest.approx(30 * 0.47)
    assert site.holds()


def test_modelled_energy_is_told_as_an_estimate_and_verified_as_none(site: Site) -> None:
    modelled = {"package": KWH // 10, "dram": 0, "gpu": 0, "other": 0}
    site.put(
        segment(measured=[], uj=modelled), idle(measured=[], uj=modelled), segment(job_id=8, measured=[], uj=modelled)
    )
    site.aggregate(row())
    for one in site.rows:
        assert (one["measured_kwh"], one["provenance"]) == (0.0, "estimated"), one["state"]
        assert one["package_kwh"] == pytest.approx(0.1)
        assert one["estimated_kwh"] >= one["package_kwh"] - 1e-12
    assert site.holds()


# Proof


def test_verify_fails_when_a_row_is_taken_away(site: Site) -> None:
    import pyarrow.parquet as pq

    site.put(segment(), idle())
    site.aggregate(row())
    assert site.holds()
    (path,) = site.ledger.path.glob("days/**/*.parquet")
    table = pq.ParquetFile(path).read()
    for gone in range(2):
        pq.write_table(table.take([1 - gone]), path)
        (day,) = verify(site.ledger, site.zone)
        assert not day.holds
        assert day.difference_kwh == pytest.approx(-(0.05 if gone == 0 else 0.42), rel=1e-6)


def test_verify_fails_when_a_segment_was_never_booked(site: Site) -> None:
    site.put(segment())
    site.take()
    (day,) = verify(site.ledger, site.zone)
    assert not day.holds


def test_verify_finds_a_single_joule(site: Site) -> None:
    site.put(segment(), idle())
    site.aggregate(row())
    site.put(
        segment(
            samples=3601, uj={"package": KWH // 10 + 1_000_000, "dram": KWH // 50, "gpu": 3 * KWH // 10, "other": 0}
        )
    )
    site.take()
    (day,) = verify(site.ledger, site.zone)
    assert not day.holds
    assert day.by_node_uj == {"n1": KWH // 10 + KWH // 50 + 3 * KWH // 10 + KWH // 20 + 1_000_000}


def test_the_ledger_of_many_segments_is_the_same_bytes_in_whatever_order_they_come(tmp_path: Path) -> None:
    import random

    sent = [segment(job_id=n, node=f"n{n % 3}", gap_s=n / 7) for n in range(1, 60)]
    sent += [idle(node=f"n{n}") for n in range(20)] + [segment(job_id=-1, sluid=f"s{n:013d}") for n in range(9)]
    records = [row(JobID=n, ElapsedRaw=3600 - n) for n in range(1, 40)]
    written = []
    for order in range(3):
        site = Site(tmp_path / str(order))
        random.Random(order).shuffle(sent)
        for part in range(0, len(sent), 40):
            site.put(*sent[part : part + 40])
        site.aggregate(*records)
        assert site.holds()
        written.append(day_files(site.ledger.path))
    assert written[0] == written[1] == written[2]
    assert segments.UNBOOKED not in [path.name for path in site.ledger.path.iterdir()]


# What measured nothing, and what a run says of its days


def test_a_node_that_measured_nothing_covers_nothing_and_hides_no_figure_of_slurm_s(tmp_path: Path) -> None:
    site = Site(tmp_path, WATTS + '[slurm]\nenergy_plugin = "rapl"\n')
    nothing = {"package": 0, "dram": 0, "gpu": 0, "other": 0}
    site.put(segment(measured=[], uj=nothing), segment(8, node="n2"), segment(8, node="n3", measured=[], uj=nothing))
    both = row(JobID="8", JobIDRaw="8", NNodes=2, NCPUS=8, NodeList="n[2-3]")
    site.aggregate(row(), both)
    seven, eight = (next(one for one in site.rows if one["job_id"] == job) for job in (7, 8))
    assert (seven["coverage"], seven["measured_kwh"]) == (0.0, 0.0)
    assert eight["coverage"] == pytest.approx(0.5)
    assert eight["measured_kwh"] == pytest.approx(0.42)


def test_a_run_names_the_days_that_have_something_and_no_others(site: Site) -> None:
    site.put(idle(begin=NOON - 10 * 86_400))
    outcome = site.aggregate(row(), row(Cluster="beta", Start=NOON - 30 * 86_400))
    day = lambda moment: str(date.fromtimestamp(moment))  # noqa: E731
    assert (str(outcome.first_day), str(outcome.last_day)) == (day(NOON - 30 * 86_400), day(NOON))
    assert (outcome.days_written, outcome.days_unchanged) == (3, 0)
