import pytest
from sim.law import Constant
from sim.sysfs import SimNode

from slurm_energy.sources import cray
from slurm_energy.sources.base import Found, Unreadable
from slurm_energy.sources.options import Options

S = 1_000_000_000


def find(root):
    return cray.find(Options(sysfs_root=str(root)))


def test_the_node_its_cpus_memory_and_accelerators_are_counters_of_joules(tmp_path):
    node = SimNode(tmp_path, packages=0, cray=True, amd=2, law=Constant(500.5))
    counters = find(tmp_path).counters
    assert {(counter.name, counter.domain, counter.minor) for counter in counters} == {
        ("cray:energy", "node", -1),
        ("cray:cpu_energy", "package", -1),
        ("cray:memory_energy", "dram", -1),
        ("cray:accel0_energy", "gpu", 0),
        ("cray:accel1_energy", "gpu", 1),
    }
    node.advance_to(10)
    assert {counter.read(10 * S) for counter in counters} == {5_005_000_000}


def test_a_line_is_joules_and_the_time_of_the_reading():
    assert cray.parse(b"12345 J 1234567 us\n") == (12_345_000_000, 1_234_567)
    assert cray.parse(b"12345 J\n") == (12_345_000_000, 0)


@pytest.mark.parametrize("line", [b"", b"12345\n", b"12 W 5 us\n", b"-1 J 5 us\n", b"nan J 1 us"])
def test_any_other_line_is_no_reading(line):
    with pytest.raises(ValueError, match="expected"):
        cray.parse(line)


def test_a_counter_whose_time_stands_still_is_unreadable_until_it_moves(tmp_path):
    node = SimNode(tmp_path, packages=0, cray=True, law=Constant(500))
    counter = find(tmp_path).counters[0]
    counter.read(0)
    counter.read(9 * S)
    with pytest.raises(Unreadable, match="not updated for 11 s"):
        counter.read(11 * S)
    node.advance_to(12)
    counter.read(12 * S)


def test_no_cray_is_quiet(tmp_path):
    assert find(tmp_path) == Found([], [])
