"""Measured energy to job records: which segments are of which run of which job, and what no record speaks of.

A session (one run of a job on one node) is joined to a record by Slurm's SLUID where both have it, else by cluster, job
id and overlap in time; of several that overlap the one that overlaps longest. What stays over keeps rows of its own:
idle energy (job 0), and sessions without a record (state NO_RECORD) until their record comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb

from slurm_energy.accounting.equations import electricity_usd, emissions_g, facility_from_it_kwh
from slurm_energy.accounting.sql import Sql
from slurm_energy.ledger.calendar import date_of
from slurm_energy.ledger.damage import SEGMENTS_ADVICE, Expected, telling_damage
from slurm_energy.ledger.segments import SCHEMA, segment_files
from slurm_energy.ledger.store import Ledger
from slurm_energy.slurm import states
from slurm_energy.slurm.zone import offset_sql
from slurm_energy.sql import parquet, quoted
from slurm_energy.units import UJ_PER_KWH

SEGMENT_DAYS = Expected(lambda: SCHEMA.names, SEGMENTS_ADVICE)
"""The files of segments."""
TOLERANCE_S = 120
"""Clocks of nodes and controller may differ by so much."""
EDGE_NS = 2_000_000_000
"""A session that begins or ends so close to its record covers it to there: sacct counts whole seconds."""

MEASURED_UJ = {
    "package": "CASE WHEN contains(measured, 'package') THEN package_uj ELSE 0 END",
    "dram": "CASE WHEN contains(measured, 'dram') THEN dram_uj ELSE 0 END",
    "gpu": "CASE WHEN contains(measured, 'gpu') THEN gpu_uj ELSE 0 END",
    "other": "other_uj",
}
"""SQL for what of a segment's energy is a measurement, and no model of one, by domain."""


def local_days(site: ZoneInfo) -> str:
    """SQL for the site's day (days since 1970-01-01) of a segment: the day on which it starts.

    It starts within the hour on its label, whatever a clock that was put right says.
    """
    label = "epoch(strptime(\"hour\", '%Y-%m-%dT%H'))::BIGINT"
    moment_s = f'least(greatest("start" // 1000000000, {label}), {label} + 3599)'
    return f"(({moment_s}) + ({offset_sql(site, f'({moment_s})', wall=False)})) // 86400"


def make_tables(
    con: duckdb.DuckDBPyConnection, ledger: Ledger, site: ZoneInfo, affected: Sequence[tuple[str, int]]
) -> None:  # fmt: skip
    """The tables `energy` (a row per record and day) and `leftover` (per session and day without a record).

    Needs the view `placed`. Both are empty where no node has sent anything.
    """
    files: list[Path] = []
    for cluster in sorted({cluster for cluster, _ in affected}):
        days = {date_of(day + shift) for name, day in affected if name == cluster for shift in (-1, 0, 1)}
        files += segment_files(ledger, cluster, sorted(days))
    con.execute("CREATE TEMP TABLE unjoined (cluster VARCHAR, day BIGINT)")
    con.execute("CREATE TEMP TABLE wanted_days (cluster VARCHAR, day BIGINT)")
    con.executemany("INSERT INTO wanted_days VALUES (?, ?)", [list(item) for item in affected]) if files else None
    with telling_damage(files, SEGMENT_DAYS):
        _make_sessions(con, site, files)
    con.execute(f"""
        CREATE TEMP TABLE matched AS
        SELECT s.* REPLACE (s.covered_ns + {_edge("s.begin_ns - p.start * 1000000000")}
            + {_edge("(p.start + p.span_s) * 1000000000 - s.end_ns")} AS covered_ns,
            s.gpu_covered_ns + {_edge("s.begin_ns - p.start * 1000000000")}
            + {_edge("(p.start + p.span_s) * 1000000000 - s.end_ns")} AS gpu_covered_ns), p.record
        FROM sessions s JOIN placed p
          ON s.cluster = p.cluster AND s.job_id <> 0 AND s.day BETWEEN p.first_day AND p.last_day
          AND CASE WHEN s.sluid <> '' AND p.sluid <> '' THEN s.sluid = p.sluid ELSE s.job_id = p.job_id
              AND p.start - {TOLERANCE_S} <= s.end_s AND p.start + p.span_s + {TOLERANCE_S} >= s.session_start END
        QUALIFY row_number() OVER (
          PARTITION BY s.cluster, s.node, s.job_id, s.restart_count, s.sluid, s.session_start, s.day
          ORDER BY least(p.start + p.span_s, s.end_s) - greatest(p.start, s.begin_s) DESC,
            abs(p.start - s.session_start), p.start) = 1""")
    con.execute(f"""
        CREATE TEMP TABLE energy AS
        SELECT record, day, {", ".join(map(_of_record, ("package", "dram", "gpu")))},
          sum(other_uj) / {UJ_PER_KWH} AS m_other, {_covered("package", "dram", "gpu")} AS covered_s,
          {_covered("package")} AS package_covered_s, {_covered("dram")} AS dram_covered_s,
          sum(gpu_covered_ns) / 1e9 AS gpu_covered_s,
          bool_or(has_package) AS has_package, bool_or(has_dram) AS has_dram, bool_or(has_gpu) AS has_gpu,
          bool_or(has_node) AS has_node
        FROM matched GROUP BY record, day""")
    con.execute("""
        CREATE TEMP TABLE leftover AS
        SELECT * FROM sessions ANTI JOIN matched USING (cluster, node, job_id, restart_count, sluid, session_start, day)""")


def _make_sessions(con: duckdb.DuckDBPyConnection, site: ZoneInfo, files: Sequence[Path]) -> None:
    """`sessions`: what each session used on each of the wanted days."""
    con.execute(f"""
        CREATE TEMP TABLE sessions AS
        WITH read AS (SELECT *, {local_days(site)} AS day FROM {_source(files)})
        SELECT cluster, node, job_id, restart_count, sluid, session_start, day, max("user") AS "user",
          max(account) AS account, max("partition") AS "partition", min("start") // 1000000000 AS begin_s,
          min("start") AS begin_ns, max("end") AS end_ns,
          max("end") // 1000000000 AS end_s, sum(package_uj)::BIGINT AS package_uj, sum(dram_uj)::BIGINT AS dram_uj,
          sum(gpu_uj)::BIGINT AS gpu_uj, sum(other_uj)::BIGINT AS other_uj,
          {", ".join(f"sum({part})::BIGINT AS {name}_real" for name, part in MEASURED_UJ.items())},
          sum(greatest("end" - "start" - round(gap_s * 1e9)::BIGINT, 0))::BIGINT AS covered_ns,
          sum(greatest("end" - "start" - round(gpu_gap_s * 1e9)::BIGINT, 0))::BIGINT AS gpu_covered_ns,
          bool_or(contains(measured, 'package')) AS has_package, bool_or(contains(measured, 'dram')) AS has_dram,
          bool_or(contains(measured, 'gpu')) AS has_gpu, bool_or(contains(measured, 'node')) AS has_node
        FROM read SEMI JOIN wanted_days USING (cluster, day) GROUP BY ALL""")


def _edge(distance_ns: str) -> str:
    """The distance where it is a rounding of sacct's, else nothing."""
    return f"CASE WHEN {distance_ns} BETWEEN 0 AND {EDGE_NS} THEN {distance_ns} ELSE 0 END"


def _of_record(domain: str) -> str:
    """kWh of a record: what was measured; where nothing of it was, what was modelled."""
    uj = f"CASE WHEN bool_or(has_{domain}) THEN sum({domain}_real) ELSE sum({domain}_uj) END"
    return f"({uj}) / {UJ_PER_KWH} AS m_{domain}"


def _covered(*domains: str) -> str:
    """Node-seconds of a record in which any of these was measured, null where none ever was.

    Nodes may have different sensors, and a node that only models its power has measured nothing.
    """
    measured = " OR ".join(f"has_{name}" for name in (*domains, "node"))
    return f"sum(covered_ns) FILTER ({measured}) / 1e9"


def _source(files: Sequence[Path]) -> str:
    """SQL for the segments in these files; without files a table of the same columns without rows."""
    if files:
        return parquet(files)
    empty = ", ".join(f'NULL::{field.type} AS "{field.name}"' for field in SCHEMA)
    return f"(SELECT {empty} WHERE false)"


def leftover_rows_sql(profile: str) -> str:
    """Ledger rows (as the expression gives them) of idle energy and of sessions without a record.

    Those of `days` only. A session of a job that the ledger knows from an earlier run is left to that job's row.
    """
    it = Sql("package_uj + dram_uj + gpu_uj + other_uj") / UJ_PER_KWH
    real = Sql("package_real + dram_real + gpu_real + other_real") / UJ_PER_KWH
    facility = facility_from_it_kwh(it, Sql("d.pue"))
    return f"""
        SELECT l.cluster, d.day AS date, l.job_id, NULL::BIGINT AS array_job_id, NULL::INTEGER AS array_task_id,
          l.restart_count, l."user", l.account, CASE WHEN l.job_id = 0 THEN {quoted(states.IDLE_PROJECT)} ELSE l.account END AS project,
          NULL::VARCHAR AS sweep, l."partition", '' AS qos, '' AS wckey, l.node AS job_name,
          CASE WHEN l.job_id = 0 THEN {quoted(states.IDLE)} ELSE {quoted(states.NO_RECORD)} END AS state, NULL::BIGINT AS submit,
          l.session_start AS start, l.end_s AS "end", 0::BIGINT AS elapsed_s, 1 AS nodes, 0 AS cpus, 0 AS gpus,
          NULL::VARCHAR AS gpu_model, 0::DOUBLE AS gpu_h, 0::DOUBLE AS cpu_h, package_uj / {UJ_PER_KWH} AS package_kwh,
          dram_uj / {UJ_PER_KWH} AS dram_kwh, gpu_uj / {UJ_PER_KWH} AS gpu_kwh, other_uj / {UJ_PER_KWH} AS other_kwh,
          {it} AS it_kwh, {real} AS measured_kwh, 0::DOUBLE AS slurm_kwh, {it} - {real} AS estimated_kwh, d.pue,
          {facility} AS facility_kwh, d.carbon_g_per_kwh, {emissions_g(facility, Sql("d.carbon_g_per_kwh"))} AS co2e_g,
          {electricity_usd(facility, Sql("d.electricity_usd_per_kwh"))} AS electricity_usd,
          0::DOUBLE AS cloud_low_usd, 0::DOUBLE AS cloud_high_usd,
          CASE WHEN {real} > 0 OR {it} = 0 THEN 'measured' ELSE 'estimated' END AS provenance,
          1::DOUBLE AS coverage, {quoted(profile)} AS profile
        FROM leftover l JOIN days d ON l.cluster = d.cluster AND l.day = d.day
        WHERE d.day BETWEEN getvariable('first_day') AND getvariable('last_day')"""
