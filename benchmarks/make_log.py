"""Writes a saved sacct log of many allocations over a year, the same each time, for the other benchmarks.

usage: python benchmarks/make_log.py ROWS FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

COLUMNS = (
    "JobID|JobIDRaw|Cluster|User|Account|Partition|QOS|WCKey|JobName|State|ExitCode|Submit|Eligible|Start|End|ElapsedRaw|"
    "Suspended|NNodes|NCPUS|AllocTRES|ReqTRES|NodeList|ConsumedEnergyRaw|Flags|Comment"
)


def make_log(rows: int, path: Path) -> None:
    """A year of jobs: a third of them array tasks, half with GPUs of five models, 2000 users in 150 accounts."""
    con = duckdb.connect()
    con.execute("SET preserve_insertion_order = true")
    con.execute(f"""
        COPY (
          WITH draw AS (
            SELECT i, hash(i) AS h, hash(i, 1) AS h1, hash(i, 2) AS h2, hash(i, 3) AS h3 FROM range({rows}) t(i)
          ), job AS (
            SELECT i, h, h1, h2, h3, 1735689600 + (i * 31536000 // {rows})::BIGINT AS submit,
              (60 + exp((h1 % 10000) / 10000.0 * 8.2) * 20 + (h2 % 3600))::BIGINT AS elapsed, (h2 % 7200)::BIGINT AS wait,
              1 << (h3 % 6)::INTEGER AS cpus, (h % 2000)::INTEGER AS user_no,
              ['', '', '', '', 'a100', 'v100', 'h100', 'titanx', 'm40', 'a100'][(h2 % 10 + 1)::INTEGER] AS gpu,
              1 << (h1 % 4)::INTEGER AS gpus
            FROM draw
          )
          SELECT
            CASE WHEN h3 % 3 = 0 THEN (1000000 + i - i % 100)::VARCHAR || '_' || (i % 100) ELSE (1000000 + i)::VARCHAR END,
            (1000000 + i), 'bench', printf('user%04d', user_no), printf('acct%03d', user_no % 150),
            CASE WHEN gpu = '' THEN 'cpu' ELSE 'gpu' END, 'normal', '', printf('job-%d-%x', user_no, h2 % 65536),
            ['COMPLETED', 'COMPLETED', 'COMPLETED', 'COMPLETED', 'COMPLETED', 'COMPLETED', 'FAILED', 'TIMEOUT',
             'CANCELLED by 1001', 'OUT_OF_MEMORY'][(h % 10 + 1)::INTEGER], '0:0',
            strftime(make_timestamp(submit * 1000000), '%Y-%m-%dT%H:%M:%S'),
            strftime(make_timestamp(submit * 1000000), '%Y-%m-%dT%H:%M:%S'),
            strftime(make_timestamp((submit + wait) * 1000000), '%Y-%m-%dT%H:%M:%S'),
            strftime(make_timestamp((submit + wait + elapsed) * 1000000), '%Y-%m-%dT%H:%M:%S'),
            elapsed, '00:00:00', 1, cpus,
            printf('billing=%d,cpu=%d,', cpus, cpus)
              || CASE WHEN gpu = '' THEN '' ELSE printf('gres/gpu:%s=%d,gres/gpu=%d,', gpu, gpus, gpus) END
              || printf('mem=%dG,node=1', cpus * 4),
            printf('billing=%d,cpu=%d,mem=%dG,node=1', cpus, cpus, cpus * 4),
            printf('n%04d', h1 % 900), '0', 'SchedMain,StartRecieved', ''
          FROM job ORDER BY i
        ) TO '{path}.rows' (HEADER false, DELIMITER '|', QUOTE '', ESCAPE '')""")
    with path.open("wb") as log, Path(f"{path}.rows").open("rb") as body:
        log.write(COLUMNS.encode() + b"\n")
        while block := body.read(1 << 22):
            log.write(block)
    Path(f"{path}.rows").unlink()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    make_log(int(sys.argv[1]), Path(sys.argv[2]))
