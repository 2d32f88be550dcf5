import json
import os

import pytest
import typer
from sim.sysfs import SimNode
from typer.testing import CliRunner

from slurm_energy.cli.doctor import doctor


@pytest.fixture
def run(monkeypatch):
    """The command on a tree alone: no GPU, BMC or /proc of this machine."""
    from slurm_energy.sources import ipmi, nvml
    from slurm_energy.sources.base import Found

    monkeypatch.setattr(nvml, "find", lambda options, library=None: Found([], []))
    monkeypatch.setattr(ipmi, "find", lambda options: Found([], []))
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(doctor)
    return lambda root, *arguments: CliRunner().invoke(app, ["--sysfs-root", str(root), *arguments])


def test_it_shows_the_watts_of_every_counter_and_which_counts(run, tmp_path):
    node = SimNode(tmp_path, packages=1, psys=True, meter=True, law=lambda name: _law(name))
    with node.running(0.005):
        result = run(tmp_path, "--seconds", "0.6", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    counters = {counter["name"]: counter for counter in report["counters"]}
    assert counters["rapl:package-0"]["watts"] == pytest.approx(150, rel=0.25)
    assert counters["rapl:package-0"]["counts"]
    assert not counters["rapl:psys"]["counts"]
    assert counters["rapl:psys"]["why_not"] == "node is by hwmon"
    assert {source["name"]: source["state"] for source in report["sources"]} == {
        "rapl": "found", "nvml": "not here", "amdgpu": "not here", "hwmon": "found", "cray": "not here",
        "ipmi": "not here", "model": "not used",
    }  # fmt: skip


def _law(name):
    from sim.law import Constant

    return Constant(150 if "package" in name else 40)


def test_a_counter_that_wraps_while_it_is_watched_shows_its_true_watts(run, tmp_path):
    node = SimNode(
        tmp_path, packages=1, dram=False, law=lambda name: _law(name), start_uj=199_970_000, range_uj=200_000_000
    )
    with node.running(0.005):
        report = json.loads(run(tmp_path, "--seconds", "0.6", "--json").stdout)
    assert report["counters"][0]["watts"] == pytest.approx(150, rel=0.25)


def test_what_may_not_be_read_is_shown_with_its_remedy_and_ends_with_1(run, tmp_path, monkeypatch):
    SimNode(tmp_path, packages=1)
    real = os.open

    def denied(path, *args, **kwargs):
        if str(path).endswith("energy_uj"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", denied)
    result = run(tmp_path, "--seconds", "0")
    assert result.exit_code == 1
    assert "permission denied" in result.output
    assert "run the agent as root" in result.output
    assert json.loads(run(tmp_path, "--seconds", "0", "--json").stdout)["refused"][0]["domain"] == "package"


def test_a_table_says_what_was_found(run, tmp_path):
    SimNode(tmp_path, packages=2)
    result = run(tmp_path, "--seconds", "0")
    assert result.exit_code == 0
    for text in ("rapl", "found", "package-1/dram", "counts", "Cray's pm_counters"):
        assert text in result.output
