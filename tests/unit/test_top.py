"""`senergy top`: what the agent shows, for people and for programs, and nothing that is none of now."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from exporter_harness import Stub, fixed, now
from typer.testing import CliRunner, Result

from slurm_energy.agent.snapshot import Snapshot
from slurm_energy.cli.app import app

NARROW = {"COLUMNS": "140", "NO_COLOR": "1", "TERM": "dumb"}


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Callable[..., Result]]:
    """Runs the command over an agent that shows this snapshot."""
    stubs: list[Stub] = []

    def run(snapshot: Snapshot, *options: str) -> Result:
        stubs.append(Stub(tmp_path / f"{len(stubs)}.sock", msgspec.json.encode(snapshot)))
        return CliRunner().invoke(app, ["top", "--socket", str(stubs[-1].path), *options], env=NARROW)

    yield run
    for stub in stubs:
        stub.close()


def rows(result: Result) -> list[list[str]]:
    return [line.split() for line in result.stdout.splitlines() if line.strip()]


def test_jobs_stand_by_their_watts_with_their_sum_and_what_nobody_uses(top: Callable[..., Result]) -> None:
    result = top(now(fixed()), "--once")
    assert result.exit_code == 0, result.stderr
    node, first, second, idle = rows(result)[2:]
    assert node == ["n1", "2", "jobs", "a", "problem", "95.5", "12.0", "301.1", "111.4", "520.0"]
    assert (first[0], first[-2:]) == ("4711", ["396.4", "0.396"])
    assert (second[0], second[-2:]) == ("sEKNKTV3WPV500*", ["42.0", "0.000"])
    assert (idle[0], idle[-2]) == ("idle", "81.6")


def test_for_programs_the_numbers_are_raw(top: Callable[..., Result]) -> None:
    (node,) = json.loads(top(now(fixed()), "--json").stdout)
    assert (node["node"], node["live"], len(node["jobs"])) == ("n1", True, 2)
    assert node["node_watts"] == pytest.approx(520.0)


def test_a_stuck_agent_has_no_watts_and_says_what_to_do(top: Callable[..., Result]) -> None:
    result = top(fixed(), "--once")  # of another day
    assert result.exit_code == 1
    assert "systemctl restart slurm-energy-agent" in result.stderr
    assert "stuck: no live watts" in result.stdout
    assert "520.0" not in result.stdout
    assert "396.4" not in result.stdout
    assert "0.396" in result.stdout  # energy that was used stays used
    (node,) = json.loads(top(fixed(), "--json").stdout)
    assert node["live"] is False


def test_where_no_agent_is_it_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["top", "--once", "--socket", str(tmp_path / "none")], env=NARROW)
    assert result.exit_code == 1
    assert str(tmp_path / "none") in result.stderr


def test_a_hostile_name_reaches_no_terminal(top: Callable[..., Result]) -> None:
    snapshot = now(fixed())
    snapshot.jobs[0].user = "\x1b]0;owned\x07[bold]emma[/bold]"
    text = top(snapshot, "--once").stdout
    assert "\x1b]0" not in text
    assert "\x07" not in text
    assert "[bold]emma" in "".join(text.split())
