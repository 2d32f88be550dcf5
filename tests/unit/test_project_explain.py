"""`senergy project explain` beyond the rules: which cluster, what the ledger has, what could not be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import row, save
from typer.testing import CliRunner, Result

from slurm_energy.cli.app import app


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two clusters have a job 7, and the ledger has both."""
    rows = [row(), row(Cluster="beta", Account="nlp"), row(JobID="8", ElapsedRaw="x", Elapsed="x", End="x")]
    save(tmp_path / "jobs.txt", rows)
    (tmp_path / "site.toml").write_text('[site]\ntimezone = "UTC"\n')
    result = senergy(tmp_path, "aggregate", "--from", tmp_path / "jobs.txt")
    assert result.exit_code == 1, result.output  # one row was set aside
    return tmp_path


def senergy(home: Path, *arguments: str | Path) -> Result:
    options = ["--config", home / "site.toml", "--ledger", home / "ledger"]
    return CliRunner().invoke(app, [str(one) for one in (*arguments, *options)], env={"COLUMNS": "200"})


def explain(home: Path, job: str, *options: str) -> Result:
    return senergy(home, "project", "explain", job, "--from", home / "jobs.txt", *options)


def test_of_two_clusters_with_that_job_the_one_that_was_asked_for(home: Path) -> None:
    both = explain(home, "7").stdout
    assert "on alpha: project lisa" in both
    assert "on beta: project nlp" in both
    assert "on alpha" not in explain(home, "7", "-M", "beta").stdout
    (home / "site.toml").write_text('[site]\ntimezone = "UTC"\n[slurm]\nclusters = ["beta"]\n')
    assert "on alpha" not in explain(home, "7").stdout


def test_it_says_where_the_ledger_has_the_job_by_earlier_rules(home: Path) -> None:
    assert "the ledger" not in explain(home, "7").stdout
    with (home / "site.toml").open("a") as file:
        file.write('[[projects]]\naccount = "nlp"\nproject = "aurora"\n')
    text = explain(home, "7", "-M", "beta").stdout
    assert "project aurora" in text
    assert "the ledger has it under nlp, by earlier rules" in text
    senergy(home, "aggregate", "--from", home / "jobs.txt")
    assert "the ledger" not in explain(home, "7", "-M", "beta").stdout


def test_a_row_that_could_not_be_read_is_why_there_is_no_record(home: Path) -> None:
    result = explain(home, "8")
    assert result.exit_code == 1
    assert "jobs.txt, line 4" in result.stderr
    assert "no record of job 8" in result.stderr


@pytest.mark.parametrize("job", ["foo", "10.batch", "14_[3-4]", "", "7;8", "-1", "7_", "1" * 30])
def test_what_is_no_id_of_a_job_is_wrong_usage(home: Path, job: str) -> None:
    result = CliRunner().invoke(
        app, ["project", "explain", "--from", str(home / "jobs.txt"), "--", job], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 2
    assert "1234_5" in result.stderr
