import struct

import pytest
from sim.law import Steps
from sim.sysfs import SimNode

from slurm_energy.sources import amdgpu
from slurm_energy.sources.base import GPU, Found, Unreadable
from slurm_energy.sources.options import Options

S = 1_000_000_000


def find(root):
    return amdgpu.find(Options(sysfs_root=str(root)))


def test_a_gpu_has_its_address_model_and_the_number_of_its_render_node(tmp_path):
    SimNode(tmp_path, packages=0, amd=2)
    counters = find(tmp_path).counters
    assert [(counter.device, counter.minor, counter.model) for counter in counters] == [
        ("0000:c1:00.0", 0, "AMD Instinct MI210"),
        ("0000:c2:00.0", 1, "AMD Instinct MI210"),
    ]
    assert {counter.domain for counter in counters} == {GPU}


def test_power_is_integrated_where_there_is_no_energy_counter(tmp_path):
    node = SimNode(tmp_path, packages=0, amd=1, law=Steps([(0, 250)]))
    counter = find(tmp_path).counters[0]
    assert counter.integrated
    for second in range(11):
        node.advance_to(second)
        count = counter.read(second * S)
    assert count == 2_500_000_000


def test_an_energy_counter_goes_before_power(tmp_path):
    node = SimNode(tmp_path, packages=0)
    node.hwmon("amdgpu", "0000:c1:00.0", {"energy1_input": "a", "power1_average": "a"})
    node.advance_to(10)
    counter = find(tmp_path).counters[0]
    assert not counter.integrated
    assert counter.read(0) == node.energy_uj("a", 10)


def test_power_at_this_moment_does_where_there_is_no_average(tmp_path):
    node = SimNode(tmp_path, packages=0)
    node.hwmon("amdgpu", "0000:c1:00.0", {"power1_input": "a"})
    assert len(find(tmp_path).counters) == 1


def test_a_gpu_inside_a_cpu_package_does_not_count_a_second_time(tmp_path):
    node = SimNode(tmp_path, packages=1)
    device = node.hwmon("amdgpu", "0000:04:00.0", {"power1_average": "apu"})
    (device / "gpu_metrics").write_bytes(struct.pack("<HBB", 120, 2, 1).ljust(120, b"\0"))
    there = find(tmp_path)
    assert there.counters == []
    assert "inside a CPU package" in there.note


def test_a_gpu_that_shows_nothing_is_refused_and_a_reading_that_fails_is_no_0(tmp_path):
    node = SimNode(tmp_path, packages=0, amd=1)
    node.hwmon("amdgpu", "0000:e1:00.0", {})
    there = find(tmp_path)
    assert "0000:e1:00.0" in there.refused[0].what
    (tmp_path / "class/hwmon/hwmon0/power1_average").write_text("\n")
    with pytest.raises(Unreadable):
        there.counters[0].read(0)


def test_no_amd_gpu_is_quiet(tmp_path):
    SimNode(tmp_path, packages=1, meter=True)
    assert find(tmp_path) == Found([], [])
