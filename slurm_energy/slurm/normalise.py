"""From text under sacct's column names to typed job records: one DuckDB statement for millions of rows.

Every row gets a kind: `job` (an allocation that ran or runs), `waiting` (never started), `step`, or `bad` with the
reason. What a value means is said once, here, for every job source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zoneinfo import ZoneInfo

from slurm_energy.slurm import states
from slurm_energy.slurm.columns import RAW_COLUMNS, SYNONYMS
from slurm_energy.slurm.records import Table
from slurm_energy.slurm.zone import offset_sql, twice_sql
from slurm_energy.sql import one_of, quoted

_NO_TIME = "('', 'Unknown', 'None', 'INVALID', 'N/A', 'NONE', 'UNKNOWN', 'Invalid', '0')"
_NO_JOULES = "('4294967294', '4294967295', '18446744073709551614', '18446744073709551615')"
"""Slurm's NO_VAL and INFINITE, in 32 and 64 bits."""
_MOST_CPUS, _MOST_GB = 10_000_000, 100_000_000
"""More CPUs or GB of memory than any machine has: a broken row, not a job."""
_YEARS_20 = 20 * 366 * 86400
_LONGEST_NAME = 80  # as a folder, each byte may take 3 of 255; Slurm's own limit is 40
_EARLIEST, _LATEST = 631152000, 4102444800  # 1990 to 2100: outside of it a clock was wrong, not a job long


def table_sql(table: Table, *, numbered: bool = False) -> str:
    """SQL that reads a table's file as text, under our column names; with `numbered`, its rows from 0 and its text."""
    names = [f"c{index}" for index in range(len(table.columns))]
    types = ", ".join(f"'{name}': 'VARCHAR'" for name in names)
    source = (
        f"read_csv({quoted(str(table.path))}, delim={quoted(table.delimiter)}, header=false, skip={table.skip}, "
        f"quote='', escape='', comment='', auto_detect=false, new_line='\\n', max_line_size=8388608, columns={{{types}}})"
    )
    chosen = [f"{text} AS {name}" for name, text in _choose(table.columns, names)]
    if numbered:
        whole = f"concat_ws({quoted(table.delimiter)}, {', '.join(f'coalesce({name}, {_EMPTY})' for name in names)})"
        chosen += ["row_number() OVER () - 1 AS number", f"{whole} AS whole"]
    return f"SELECT {', '.join(chosen)} FROM {source}"


_EMPTY = "''"


def _choose(columns: Sequence[str], names: Sequence[str]) -> Iterable[tuple[str, str]]:
    for wanted in RAW_COLUMNS:
        same = [wanted, *(other for other, meaning in SYNONYMS.items() if meaning == wanted)]
        found = [f"nullif({names[columns.index(name)]}, '')" for name in same if name in columns]
        yield wanted, f"coalesce({', '.join(found)}, '')" if found else "''"


def normalised_sql(raw: str, site: ZoneInfo, default_cluster: str, extra: str = "") -> str:
    """The statement that types the rows of `raw` (SQL giving RAW_COLUMNS as text).

    Times on the wall clock are taken in the site's zone. extra: further columns of `raw` to pass through, as ', a, b'.
    Of a record that comes out, times are epoch seconds, `end` null while it runs; `span_s` is the time on the wall from
    start to end, `elapsed_s` the part of it not suspended; `gpu_key` the gres/gpu parts of AllocTRES; `slurm_j` joules.
    """
    walls = "".join(f"{_wall_sql(name)} AS {name.lower()}_w, " for name in ("Submit", "Start", "End"))
    times = "".join(f"{_time_sql(name, site)} AS {name.lower()}_t, " for name in ("Submit", "Start", "End"))
    return f"""
WITH raw AS (SELECT {walls} * FROM ({raw})),
read AS (
  SELECT {times} start_w,
    {_ID} AS id, JobID LIKE '%\\_%' ESCAPE '\\' AS is_array, JobID, JobIDRaw,
    CASE WHEN JobIDRaw <> '' THEN TRY_CAST(JobIDRaw AS BIGINT) END AS raw_id,
    {_seconds_sql("ElapsedRaw")} AS elapsed_t,
    CASE WHEN Suspended IN ('', '00:00:00', '0') THEN 0 ELSE {_seconds_sql("Suspended")} END AS suspended_t,
    upper(rtrim(split_part(State, ' ', 1), '+')) AS state_t,
    CASE WHEN Cluster = '' THEN {quoted(default_cluster)} ELSE Cluster END AS cluster,
    "User" AS "user", Account AS account, "Partition" AS "partition", QOS AS qos, WCKey AS wckey, JobName AS job_name,
    Comment AS comment, SLUID AS sluid, NodeList AS node_list, AllocTRES AS tres, NCPUS, NNodes, State, Submit, Start, "End",
    ElapsedRaw, Suspended, TRY_CAST(Restarts AS INTEGER) AS restart_count,
    TRY_CAST(NCPUS AS INTEGER) AS ncpus_i, coalesce(ncpus_i, TRY_CAST({_part("cpu")} AS INTEGER), 0) AS cpus_t,
    TRY_CAST(NNodes AS INTEGER) AS nnodes_i, coalesce(nnodes_i, TRY_CAST({_part("node")} AS INTEGER), 0) AS nodes_t,
    {_part("mem")} AS mem_t,
    CASE WHEN contains(AllocTRES, 'gres/gpu')
      THEN array_to_string(regexp_extract_all(AllocTRES, 'gres/gpu(:[^,=]*)?=[^,]*'), ',') ELSE '' END AS gpu_key,
    coalesce(nullif(CASE WHEN ConsumedEnergyRaw NOT IN {_NO_JOULES} THEN TRY_CAST(ConsumedEnergyRaw AS DOUBLE) END, 0),
      CASE WHEN contains(AllocTRES, 'energy=') AND {_part("energy")} NOT IN {_NO_JOULES}
        THEN TRY_CAST({_part("energy")} AS DOUBLE) END) AS slurm_j{extra}
  FROM raw
),
timed AS (
  SELECT *, {_MEM_GB} AS mem_gb,
    state_t IN {one_of(states.ENDED)} AS ended,
    coalesce(elapsed_t, CASE WHEN ElapsedRaw = '' THEN end_t - start_t - suspended_t END) AS elapsed_r
  FROM read
),
placed AS (
  SELECT * EXCLUDE (start_t),
    CASE WHEN resized THEN submit_t ELSE start_t END AS start_t,
    CASE WHEN resized THEN greatest(elapsed_r - (submit_t - start_t), 0) ELSE elapsed_r END AS elapsed_s
  FROM (
    -- After a resize sacct repeats the first start; Submit then holds the moment of the change.
    SELECT *, coalesce(submit_t > start_t AND submit_t <= coalesce(end_t, submit_t) AND NOT {_doubtful(site)}, false) AS resized
    FROM (SELECT * EXCLUDE (start_t, end_t), {_unfold("start_t", site)} AS start_t, {_unfold("end_t", site)} AS end_t
          FROM timed))
)
SELECT cluster, coalesce(raw_id, id + coalesce(TRY_CAST(nullif(split_part(JobID, '+', 2), '') AS BIGINT), 0)) AS job_id,
  CASE WHEN is_array THEN id END AS array_job_id,
  CASE WHEN is_array THEN TRY_CAST(split_part(JobID, '_', 2) AS INTEGER) END AS array_task_id,
  restart_count, sluid, "user", account, "partition", qos, wckey, job_name, comment, state_t AS state,
  submit_t AS submit, start_t AS start, CASE WHEN ended THEN coalesce(end_t, start_t + elapsed_s + suspended_t) END AS "end",
  elapsed_s, greatest(elapsed_s + suspended_t, CASE WHEN ended THEN coalesce(end_t - start_t, 0) ELSE 0 END) AS span_s,
  nodes_t AS nodes, cpus_t AS cpus, mem_gb, gpu_key, node_list, slurm_j,
  CASE
    WHEN {_STEP} THEN NULL
    WHEN id IS NULL AND raw_id IS NULL THEN 'JobID ' || {_show("JobID")} || ' is not a job id'
    WHEN strlen(cluster) > {_LONGEST_NAME} THEN 'Cluster ' || {_show("cluster")} || '... is longer than a name can be'
    WHEN state_t NOT IN {one_of(states.ALL)} THEN 'State ' || {_show("State")} || ' is unknown'
    {_unread("Submit", "submit_t")}
    {_unread("Start", "start_t")}
    {_unread('"End"', "end_t", "End")}
    WHEN elapsed_t IS NULL AND ElapsedRaw <> '' THEN 'ElapsedRaw ' || {_show("ElapsedRaw")} || ' is not a duration'
    WHEN suspended_t IS NULL THEN 'Suspended ' || {_show("Suspended")} || ' is not a duration'
    WHEN elapsed_r < 0 AND start_t IS NOT NULL THEN 'it ends before it starts'
    WHEN start_t IS NULL AND coalesce(elapsed_r, 0) > 0 THEN 'it ran for ' || elapsed_r || ' s but has no Start'
    WHEN start_t IS NULL THEN NULL
    WHEN start_t NOT BETWEEN {_EARLIEST} AND {_LATEST} THEN 'Start ' || {_show("Start")} || ' is not between 1990 and 2100'
    WHEN ended AND end_t < start_t AND NOT resized THEN 'End ' || {_show('"End"')} || ' is before Start ' || {_show("Start")}
    WHEN elapsed_s IS NULL AND state_t IN {one_of(states.WAITING)} THEN NULL
    WHEN elapsed_s IS NULL THEN 'neither ElapsedRaw nor End says how long it ran'
    WHEN elapsed_s + suspended_t > {_YEARS_20} OR (ended AND end_t - start_t > {_YEARS_20})
      THEN 'a run of more than 20 years is not believable'
    WHEN ended AND end_t IS NOT NULL AND elapsed_s > end_t - start_t + 86400
      THEN 'ElapsedRaw ' || elapsed_s || ' s is a day or more longer than Start to End'
    WHEN ended AND suspended_t > 0 AND end_t - start_t > elapsed_s + suspended_t + 86400
      THEN 'Start to End is a day or more longer than ElapsedRaw and Suspended say'
    WHEN tres <> '' AND length(tres) - length(replace(tres, '=', '')) <> length(tres) - length(replace(tres, ',', '')) + 1
      THEN 'AllocTRES ' || {_show("tres")} || ' is not TRES text'
    WHEN mem_gb IS NULL
      THEN 'AllocTRES ' || {_show("tres")} || ' has a mem that is no number'
    WHEN ncpus_i IS NULL AND NCPUS <> '' THEN 'NCPUS ' || {_show("NCPUS")} || ' is not a number'
    WHEN nnodes_i IS NULL AND NNodes <> '' THEN 'NNodes ' || {_show("NNodes")} || ' is not a number'
    WHEN cpus_t NOT BETWEEN 0 AND {_MOST_CPUS} OR nodes_t NOT BETWEEN 0 AND {_MOST_CPUS}
      THEN cpus_t || ' CPUs on ' || nodes_t || ' nodes is not believable'
    WHEN NOT coalesce(mem_gb BETWEEN 0 AND {_MOST_GB}, false)
      THEN 'AllocTRES ' || {_show("tres")} || ' has memory that is not believable'
    WHEN contains(gpu_key, 'gres') AND NOT regexp_full_match(gpu_key, '(gres/gpu(:[^=,]*)?=[0-9]{{1,9}}(,|$))+')
      THEN 'AllocTRES ' || {_show("tres")} || ' has a GPU count that is no number'
  END AS reason,
  CASE
    WHEN {_STEP} THEN 'step'
    WHEN start_t IS NULL OR (state_t IN {one_of(states.WAITING)} AND coalesce(elapsed_s, 0) = 0) THEN 'waiting'
    ELSE 'job'
  END AS kind{extra}
FROM placed
"""


_ID = (
    # DuckDB takes 1_000 for a number, hence no cast where an array task may stand.
    "CASE WHEN NOT contains(JobID, '_') AND NOT contains(JobID, '+') THEN TRY_CAST(JobID AS BIGINT) "
    "ELSE TRY_CAST(regexp_extract(JobID, '^([0-9]{1,18})(_[0-9]+|_\\[.*\\]|\\+[0-9]+)$', 1) AS BIGINT) END"
)
# sacct ends a long list of array tasks with dots: 12_[1,3,5,...]
_STEP = "((contains(JobID, '.') AND NOT contains(JobID, '[')) OR contains(JobIDRaw, '.'))"
# Slurm counts memory in binary units, and in M where it writes none.
_MEM_GB = """CASE WHEN mem_t = '' THEN 0 ELSE TRY_CAST(rtrim(mem_t, 'KMGTPEkmgtpe') AS DOUBLE) *
      CASE upper(right(mem_t, 1)) WHEN 'G' THEN 1 WHEN 'K' THEN 1/1048576 WHEN 'T' THEN 1024 WHEN 'P' THEN 1048576
        WHEN 'E' THEN 1073741824 ELSE 1/1024 END END"""


def _part(name: str) -> str:
    """The text of one TRES: `4` for cpu of `billing=4,cpu=4,mem=8G,node=1`; '' where it is not there."""
    return f"split_part(split_part(',' || AllocTRES, ',{name}=', 2), ',', 1)"


def _show(column: str) -> str:
    return f"'''' || left({column}, 80) || ''''"


def _unread(column: str, typed: str, label: str = "") -> str:
    return (
        f"WHEN {column} NOT IN {_NO_TIME} AND {typed} IS NULL THEN '{label or column} ' || {_show(column)} || "
        "' is neither YYYY-MM-DDTHH:MM:SS nor epoch seconds'"
    )


def _wall_sql(name: str) -> str:
    """Seconds on the wall clock, counted as if it were UTC, of YYYY-MM-DDTHH:MM:SS."""
    return f"""CASE WHEN "{name}" LIKE '____-%' THEN epoch(TRY_CAST("{name}" AS TIMESTAMP))::BIGINT END"""


def _time_sql(name: str, site: ZoneInfo) -> str:
    """Epoch seconds of a time as sacct prints it: epoch seconds, or wall clock in the site's zone."""
    wall = f"{name.lower()}_w"
    return (
        f"""CASE WHEN "{name}" IN {_NO_TIME} THEN NULL """
        f"""WHEN "{name}" LIKE '____-%' THEN {wall} - ({offset_sql(site, wall, wall=True)}) """
        f"""ELSE TRY_CAST("{name}" AS BIGINT) END"""
    )


def _seconds_sql(column: str) -> str:
    """Seconds of a count, or of sacct's [D-]HH:MM:SS."""
    clock = f"split_part({column}, '-', -1)"
    days = f"CASE WHEN contains({column}, '-') THEN TRY_CAST(split_part({column}, '-', 1) AS BIGINT) ELSE 0 END"
    return (
        f"coalesce(TRY_CAST({column} AS BIGINT), CASE WHEN contains({column}, ':') "
        f"THEN {days} * 86400 + epoch(TRY_CAST({clock} AS INTERVAL))::BIGINT END)"
    )


def _doubtful(site: ZoneInfo) -> str:
    """SQL for: the start is a wall-clock time that came twice, so that it may lie an hour later than was taken."""
    twice = twice_sql(site, "start_t")
    return f"(start_w IS NOT NULL AND ({twice}))" if twice else "false"


def _unfold(column: str, site: ZoneInfo) -> str:
    """Of a wall-clock time that came twice, the one that agrees with the elapsed time."""
    twice = twice_sql(site, column)
    if not twice:
        return column
    length = "end_t - start_t - suspended_t - elapsed_t"
    off = f"{length} BETWEEN 1800 AND 7200" if column == "start_t" else f"{length} BETWEEN -7200 AND -1800"
    step = f"({length})" if column == "start_t" else f"-({length})"
    return f"CASE WHEN {off} THEN CASE WHEN {twice} THEN {column} + {step} ELSE {column} END ELSE {column} END"
