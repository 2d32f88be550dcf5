"""Whose inbox it is: segments leave it for the site's own ledger, or where somebody says so, and are told of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import DAY, NOON, row, save
from test_segments import segment
from typer.testing import CliRunner, Result

from slurm_energy.cli.app import app


class Site:
    """A site with a ledger, an inbox and a saved log."""

    def __init__(self, root: Path, *, inbox: str = "") -> None:
        self.root, self.inbox = root, root / (inbox or "inbox")
        self.inbox.mkdir()
        self.waiting = self.inbox / "n1.jsonl"
        self.waiting.write_text(json.dumps(segment(cluster=row()["Cluster"])) + "\n")
        named = f'inbox = "{self.inbox}"\n' if inbox else ""
        (root / "site.toml").write_text(f'[site]\nledger = "{root / "ledger"}"\n{named}timezone = "UTC"\n')
        self.jobs = save(root / "jobs.txt", [row()])

    def aggregate(self, *options: str | Path, **environment: str) -> Result:
        arguments = ["aggregate", "--config", self.root / "site.toml", "--from", self.jobs, *options]
        clean = {"SENERGY_LEDGER": None, **environment}
        return CliRunner().invoke(app, [str(one) for one in arguments], env=clean)


@pytest.fixture(params=["", "elsewhere"], ids=["inbox beside the ledger", "inbox named"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return Site(tmp_path, inbox=request.param)


def test_the_site_s_own_run_takes_the_segments_in_and_says_so(site: Site) -> None:
    result = site.aggregate()
    assert result.exit_code == 0, result.output
    assert "1 segment taken in" in result.stdout
    assert not site.waiting.exists()


def test_a_trial_leaves_the_site_s_segments_where_they_are(site: Site) -> None:
    result = site.aggregate("--ledger", site.root / "trial")
    assert result.exit_code == 0, result.output
    assert f"{site.inbox} left alone" in result.stdout
    assert site.waiting.exists()
    said = json.loads(site.aggregate("--ledger", site.root / "trial", "--json").stdout)
    assert (said["segments"], said["inbox_left_alone"]) == (0, str(site.inbox))
    assert json.loads(site.aggregate("--json").stdout)["segments"] == 1


def test_whoever_names_the_inbox_gets_what_is_in_it(site: Site) -> None:
    result = site.aggregate("--ledger", site.root / "trial", "--inbox", site.inbox)
    assert "1 segment taken in" in result.stdout
    assert not site.waiting.exists()


def test_the_ledger_named_by_the_unit_s_environment_is_the_site_s_own(site: Site) -> None:
    result = site.aggregate(SENERGY_LEDGER=str(site.root / "other"))
    assert "1 segment taken in" in result.stdout


def test_the_site_s_ledger_by_another_name_is_still_its_own(site: Site) -> None:
    (site.root / "link").symlink_to(site.root / "ledger")
    (site.root / "ledger").mkdir()
    assert "1 segment taken in" in site.aggregate("--ledger", site.root / "link").stdout


def test_records_that_were_not_asked_for_are_counted(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.jobs = save(tmp_path / "jobs.txt", [row(), row(Cluster="beta"), row(JobID="8", Start=NOON - 40 * DAY)])
    text = site.aggregate("-M", "alpha", "-S", "2026-11-20").stdout
    assert text.startswith("1 allocations from")
    assert "1 records of other clusters than asked for" in text
    assert "1 records before or after the time asked for" in text
