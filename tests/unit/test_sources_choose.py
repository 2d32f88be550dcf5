import os
import subprocess
import sys

import pytest
from sim.nvml import FakeNvml
from sim.sysfs import SimNode

from slurm_energy import sources
from slurm_energy.sources import base, choose, find_all
from slurm_energy.sources.base import Counter, Found, Unreadable
from slurm_energy.sources.options import Options

WATTS = {"idle_w": 100.0, "full_w": 300.0}


class Fixed(Counter):
    def read(self, now_ns):
        return 0


def found(**domains):
    """Found by source: rapl=["package"] ..."""
    return {
        name: Found([Fixed(domain, f"{name}:{number}") for number, domain in enumerate(kinds)], [])
        for name, kinds in domains.items()
    }


def chosen(**domains):
    return {(counter.name.partition(":")[0], counter.domain) for counter in choose(found(**domains))[0]}


def bare(tmp_path, **options):
    """Options whose roots hold nothing but what a test puts there."""
    return Options(sysfs_root=str(tmp_path), dev_root=str(tmp_path), **options)


def nothing(tmp_path):
    return FakeNvml(tmp_path / "nvml", fail_init=12)


EVERYTHING = {
    "rapl": ["package", "package", "dram", "node"], "nvml": ["gpu"], "amdgpu": ["gpu"],
    "hwmon": ["package", "dram", "node"], "cray": ["package", "dram", "gpu", "node"], "ipmi": ["node"],
    "model": ["package"],
}  # fmt: skip


def test_with_everything_there_each_domain_is_by_one_source():
    assert chosen(**EVERYTHING) == {
        ("rapl", "package"), ("rapl", "dram"), ("nvml", "gpu"), ("amdgpu", "gpu"), ("cray", "node"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("without", "domain", "who"),
    [
        (["rapl"], "package", "cray"),
        (["rapl", "cray"], "package", "hwmon"),
        (["rapl", "cray", "hwmon"], "package", "model"),
        (["rapl"], "dram", "cray"),
        (["rapl", "cray"], "dram", "hwmon"),
        (["nvml"], "gpu", "amdgpu"),
        (["nvml", "amdgpu"], "gpu", "cray"),
        (["cray"], "node", "ipmi"),
        (["cray", "ipmi"], "node", "hwmon"),
        (["cray", "ipmi", "hwmon"], "node", "rapl"),
    ],
)
def test_where_the_first_has_nothing_the_next_counts(without, domain, who):
    rest = {name: kinds for name, kinds in EVERYTHING.items() if name not in without}
    assert {name for name, of in chosen(**rest) if of == domain} == {who}


def test_what_does_not_count_is_kept_with_the_reason():
    counting, spare = choose(found(**EVERYTHING))
    assert len(counting) + len(spare) == sum(len(kinds) for kinds in EVERYTHING.values())
    assert ("cray:0", "package is by rapl") in {(left.counter.name, left.why) for left in spare}


def test_memory_is_not_counted_beside_a_package_that_has_it_inside():
    assert chosen(hwmon=["package"], cray=["dram"]) == {("hwmon", "package")}
    assert chosen(rapl=["package"], cray=["dram"]) == {("rapl", "package"), ("cray", "dram")}


def test_nothing_counts_twice_on_a_node_that_has_all(tmp_path):
    SimNode(tmp_path, psys=True, mmio=True, nvidia=2, amd=1, cray=True, meter=True)
    discovery = find_all(bare(tmp_path), nvml=FakeNvml(tmp_path / "nvml"))
    names = [counter.name for counter in discovery.counters]
    assert len(names) == len(set(names))
    assert [counter.domain for counter in discovery.counters] == ["package"] * 2 + ["dram"] * 2 + ["gpu"] * 3 + ["node"]
    assert discovery.refused == []
    assert {left.counter.name for left in discovery.spare} >= {"rapl:psys", "cray:cpu_energy", "cray:accel0_energy"}
    with pytest.raises(Unreadable):
        next(left for left in discovery.spare if left.counter.name == "rapl:psys").counter.read(0)


def test_an_estimate_counts_where_nothing_measures_the_packages(tmp_path):
    pytest.importorskip("psutil")
    discovery = find_all(bare(tmp_path, **WATTS), nvml=nothing(tmp_path))
    assert [(counter.name, counter.estimated) for counter in discovery.counters] == [("model:packages", True)]


def refuse_rapl(monkeypatch):
    real = os.open

    def denied(path, *args, **kwargs):
        if str(path).endswith("energy_uj"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", denied)


def test_a_counter_that_may_not_be_read_is_never_quietly_replaced_by_an_estimate(tmp_path, monkeypatch):
    pytest.importorskip("psutil")
    SimNode(tmp_path)
    refuse_rapl(monkeypatch)
    discovery = find_all(bare(tmp_path, **WATTS), nvml=nothing(tmp_path))
    assert discovery.counters == []
    assert len(discovery.refused) == 4
    said = find_all(bare(tmp_path, model="always", **WATTS), nvml=nothing(tmp_path))
    assert [counter.name for counter in said.counters] == ["model:packages"]
    assert len(said.refused) == 4


def test_a_refused_gpu_or_meter_does_not_keep_the_estimate_of_the_packages_away(tmp_path):
    pytest.importorskip("psutil")
    discovery = find_all(bare(tmp_path, **WATTS), nvml=FakeNvml(tmp_path, fail_init=4))
    assert [counter.name for counter in discovery.counters] == ["model:packages"]
    assert [refusal.domain for refusal in discovery.refused] == ["gpu"]


def test_an_estimate_is_not_made_beside_a_measurement(tmp_path):
    SimNode(tmp_path)
    discovery = find_all(bare(tmp_path, model="always", **WATTS), nvml=nothing(tmp_path))
    assert not any(counter.estimated for counter in discovery.counters)


def test_a_source_can_be_switched_off_and_an_unknown_name_is_an_error(tmp_path):
    SimNode(tmp_path, meter=True)
    discovery = find_all(bare(tmp_path, off=("rapl", "model")), nvml=nothing(tmp_path))
    assert [counter.name for counter in discovery.counters] == ["hwmon:power_meter:power1"]
    with pytest.raises(ValueError, match="'raple': expected any of rapl, nvml"):
        find_all(bare(tmp_path, off=("raple",)))


def test_a_source_that_breaks_takes_no_other_down_and_is_said(tmp_path, monkeypatch):
    from slurm_energy.sources import cray

    def broken(options):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(cray, "find", broken)
    SimNode(tmp_path)
    discovery = find_all(bare(tmp_path), nvml=nothing(tmp_path))
    assert len(discovery.counters) == 4
    assert "a mistake of ours" in discovery.refused[0].why


def test_a_bare_node_is_quiet_but_for_the_estimate_that_it_lacks(tmp_path):
    discovery = find_all(bare(tmp_path), nvml=nothing(tmp_path))
    assert discovery.counters == []
    assert [note.partition(":")[0] for note in discovery.notes] == ["model"]
    assert discovery.refused == []


def test_every_source_says_what_it_is():
    import importlib

    for name in sources.SOURCES:
        module = importlib.import_module(f"slurm_energy.sources.{name}")
        assert name == module.NAME
        assert module.COVERS
    assert set(sources.RANKS) == {base.PACKAGE, base.DRAM, base.GPU, base.NODE}


def test_finding_all_sources_loads_nothing_heavy():
    code = (
        "import sys; from slurm_energy.sources import find_all; from slurm_energy.sources.options import Options\n"
        "find_all(Options(sysfs_root='/nowhere', dev_root='/nowhere'))\n"
        "print(sorted({'pandas','duckdb','ibis','pyarrow','typer','rich','click'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
