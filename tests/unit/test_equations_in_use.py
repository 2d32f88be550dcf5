"""What is booked, reported and exported is what the equations give, to the last bit: the same functions work it out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
from helpers import NOON, config, row, save
from hypothesis import given, settings
from hypothesis import strategies as st
from slurm_energy_exporters.ledger_sums import DaySums, look

from slurm_energy.accounting import equations as eq
from slurm_energy.accounting.sql import Sql
from slurm_energy.config import profile_of
from slurm_energy.factors.profile import Profile
from slurm_energy.ledger.aggregate import aggregate
from slurm_energy.ledger.run import Run
from slurm_energy.ledger.segments import take_in
from slurm_energy.ledger.store import Ledger
from slurm_energy.report.selection import Selection, open_rows
from slurm_energy.segment import Segment
from slurm_energy.slurm.sacctfile import scan
from slurm_energy.slurm.zone import zone
from slurm_energy.units import SECONDS_PER_HOUR, UJ_PER_KWH

WATTS = st.floats(0, 1000, allow_subnormal=False)
FACTORS = st.fixed_dictionaries(
    {
        "pue": st.floats(1, 3),
        "carbon_g_per_kwh": st.floats(0, 2000, allow_subnormal=False),
        "electricity_usd_per_kwh": st.floats(0, 2, allow_subnormal=False),
    }
)
CORES, GB = 4, 16.0
"""What a job of row() has, beside one a100."""


def factors(values: dict[str, float], watts: tuple[float, float, float]) -> str:
    """A site's configuration."""
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    core_w, dram_w, gpu_w = watts
    return "\n".join(
        ["[factors]", *lines, f"cpu_core_w = {core_w!r}", f"dram_w_per_gb = {dram_w!r}", f"gpu_w.a100 = {gpu_w!r}"]
    )


def idle(uj: dict[str, int]) -> bytes:
    """A line of what no job used on n1 in the hour of noon."""
    line = Segment(
        schema=1, cluster="alpha", node="n1", job_id=0, restart_count=0, sluid=None, session_start=NOON, user="", uid=0,
        account="", partition="", hour="2026-11-24T12", start=NOON * 10**9, end=(NOON + 3600) * 10**9, uj=uj, gpus=[],
        cpu_time_ns=0, samples=3600, gap_s=0.0, sources=["rapl/1"], origin="idle", final=False,
    )  # fmt: skip
    return msgspec.json.encode(line) + b"\n"


def booked(root: Path, text: str, seconds: int, uj: dict[str, int]) -> Ledger:
    """The ledger of one job and one hour of idle energy."""
    site, ledger = config(text), Ledger(root / "ledger")
    (root / "inbox").mkdir()
    (root / "inbox" / "n1.jsonl").write_bytes(idle(uj))
    path = save(root / "jobs.txt", [row(ElapsedRaw=seconds)])
    with ledger.writer():
        taken = take_in(ledger, root / "inbox")
        run = Run(
            sources=[scan(path, root)],
            config=site,
            profile=profile_of(site),
            site=zone("UTC"),
            measured_days=taken.days,
        )
        aggregate(ledger, run, root)
    return ledger


def priced(one: dict[str, Any], profile: Profile) -> dict[str, float]:
    """What the equations make of a row's energy."""
    facility = eq.facility_from_it_kwh(one["it_kwh"], profile.pue)
    return {
        "facility_kwh": facility,
        "co2e_g": eq.emissions_g(facility, profile.carbon_g_per_kwh),
        "electricity_usd": eq.electricity_usd(facility, profile.electricity_usd_per_kwh),
    }


def reported(ledger: Ledger, profile: Profile | None) -> list[dict[str, Any]]:
    con = open_rows(ledger, Selection(idle=True), profile)
    rows: list[dict[str, Any]] = con.sql("SELECT * FROM rows ORDER BY state").to_arrow_table().to_pylist()
    return rows


@settings(max_examples=25, deadline=None)
@given(
    FACTORS,
    FACTORS,
    st.tuples(WATTS, WATTS, WATTS),
    st.integers(1, 11 * 3600),
    st.fixed_dictionaries({name: st.integers(0, 10**13) for name in ("package", "dram", "gpu", "other")}),
)
def test_a_job_idle_energy_another_profile_and_the_exporter_are_priced_by_the_equations_to_the_last_bit(
    here: dict[str, float], there: dict[str, float], watts: tuple[float, float, float], seconds: int, uj: dict[str, int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = booked(Path(folder), factors(here, watts), seconds, uj)
        profile, other = (profile_of(config(factors(values, watts))) for values in (here, there))
        job, rest = sorted(ledger.arrow().to_pylist(), key=lambda one: str(one["state"]))

        core_w, dram_w, gpu_w = watts
        hours = seconds / SECONDS_PER_HOUR
        rated = [eq.rated_energy_kwh(w, hours) for w in (CORES * core_w, GB * dram_w, gpu_w)]
        assert [job["package_kwh"], job["dram_kwh"], job["gpu_kwh"]] == rated
        assert job["it_kwh"] == rated[0] + rated[1] + rated[2]
        assert rest["it_kwh"] == sum(uj.values()) / UJ_PER_KWH
        gpu = profile.gpu("a100")
        for column, price in (("cloud_low_usd", gpu.low_usd_per_h), ("cloud_high_usd", gpu.high_usd_per_h)):
            assert price is not None
            assert job[column] == eq.cloud_usd(hours, price)
        for one in (job, rest):
            assert {name: one[name] for name in priced(one, profile)} == priced(one, profile)

        for stored, again, now in zip((job, rest), reported(ledger, None), reported(ledger, other), strict=True):
            assert {name: again[name] for name in priced(stored, profile)} == priced(stored, profile)
            assert {name: now[name] for name in priced(stored, other)} == priced(stored, other)

        sums = DaySums(ledger, zone("UTC"))
        sums.follow(look(ledger))
        found = sums.con.execute(
            "SELECT facility_kwh, co2e_g, electricity_usd FROM project_sums ORDER BY idle"
        ).fetchall()
        assert found == [tuple(priced(one, profile).values()) for one in (job, rest)]


@given(st.lists(st.floats(0, 1e9, allow_subnormal=False), min_size=3, max_size=3))
def test_sql_keeps_the_order_in_which_an_equation_computes(numbers: list[float]) -> None:
    import duckdb

    watts, hours, pue = (Sql(f"{number!r}::DOUBLE") for number in numbers)
    power, time, factor = numbers
    text = eq.facility_energy_kwh(watts - hours, hours, pue)
    ((got,),) = duckdb.sql(f"SELECT {text}").fetchall()
    assert got == factor * time * (power - time) / 1000
