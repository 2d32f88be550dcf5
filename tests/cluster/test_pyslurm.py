"""Job records through pyslurm on a real Slurm 26.05: the same ledger as through sacct."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pandas as pd
import pytest

if TYPE_CHECKING:
    from conftest import Cluster

pytestmark = pytest.mark.cluster

DIFFERS = {
    # In the earlier part of a resized job Slurm 26.05 has the new size in AllocTRES and the old one in NNodes. pyslurm
    # takes the number of nodes from AllocTRES.
    "nodes": "RESIZING",
}
"""Columns in which rows of this state may differ."""


def rows(ledger: Path) -> pd.DataFrame:
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    files = f"'{ledger}/days/*/*.parquet', hive_partitioning=false"
    return con.sql(f"SELECT * FROM read_parquet({files}) ORDER BY job_id, start, date").df()


@pytest.fixture(scope="module")
def both(cluster26: Cluster, jobs26: dict[str, str]) -> dict[str, pd.DataFrame]:
    """The ledger's rows by source of the job records."""
    found = {}
    for source in ("sacct", "pyslurm"):
        ledger = cluster26.files / f"by-{source}"
        options = ("-S", "now-1days", "--profile", "site", "--ledger", ledger, "--json")
        done = cluster26.senergy("aggregate", "--from", source, *options)
        assert json.loads(done.stdout)["set_aside"] == 0
        found[source] = rows(cluster26.outside(ledger))
    return found


def test_pyslurm_and_sacct_give_the_same_rows(both: dict[str, pd.DataFrame], jobs26: dict[str, str]) -> None:
    by_sacct, by_pyslurm = both["sacct"], both["pyslurm"]
    assert {int(jobs26["requeued"]), int(jobs26["resized"]), int(jobs26["newline"])} <= set(by_sacct["job_id"])
    columns = [name for name in by_sacct.columns if name not in DIFFERS]
    pd.testing.assert_frame_equal(by_pyslurm[columns], by_sacct[columns])


@pytest.mark.parametrize(("column", "state"), DIFFERS.items())
def test_they_differ_only_where_slurm_itself_says_two_things(
    both: dict[str, pd.DataFrame], column: str, state: str
) -> None:
    kept = [frame.loc[frame["state"] != state, ["job_id", column]].reset_index(drop=True) for frame in both.values()]
    pd.testing.assert_frame_equal(*kept)


def test_pyslurm_that_cannot_be_used_is_one_line_that_says_what_to_do(cluster22: Cluster) -> None:
    done = cluster22.senergy("aggregate", "--from", "pyslurm", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("senergy: pyslurm cannot be used")
    assert "sacct" in done.stderr
    assert done.stderr.count("\n") == 1
