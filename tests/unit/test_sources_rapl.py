import os
import shutil

import pytest
from sim.law import Steps
from sim.sysfs import SimNode

from slurm_energy.sources import base, rapl
from slurm_energy.sources.base import Unreadable
from slurm_energy.sources.options import Options


def found(root):
    return rapl.find(Options(sysfs_root=str(root)))


def names(root):
    return [counter.name for counter in found(root).counters]


def zone(root, name):
    return root / "class" / "powercap" / name


def test_each_zone_counts_once_although_it_is_shown_flat_and_nested(tmp_path):
    SimNode(tmp_path, packages=2)
    assert zone(tmp_path, "intel-rapl:0:2").is_dir()
    assert (zone(tmp_path, "intel-rapl:0") / "intel-rapl:0:2").is_dir()
    assert names(tmp_path) == ["rapl:package-0", "rapl:package-0/dram", "rapl:package-1", "rapl:package-1/dram"]


def test_a_copy_of_the_tree_without_links_counts_each_zone_once_too(tmp_path):
    SimNode(tmp_path / "real", packages=1)
    shutil.copytree(tmp_path / "real" / "class", tmp_path / "copy" / "class", symlinks=False)
    assert names(tmp_path / "copy") == ["rapl:package-0", "rapl:package-0/dram"]


def test_zones_that_are_shown_nested_only_are_found(tmp_path):
    SimNode(tmp_path, packages=1)
    for link in zone(tmp_path, ".").iterdir():
        if ":" in link.name:
            link.unlink()
    assert names(tmp_path) == ["rapl:package-0", "rapl:package-0/dram"]


def test_core_and_uncore_are_inside_the_package_and_do_not_count(tmp_path):
    SimNode(tmp_path, packages=1, cores=True, dram=False)
    assert zone(tmp_path, "intel-rapl:0:0").is_dir()
    assert names(tmp_path) == ["rapl:package-0"]


def test_dies_count_each(tmp_path):
    SimNode(tmp_path, packages=2, dies=2, dram=False)
    assert names(tmp_path) == [f"rapl:package-{package}-die-{die}" for package in (0, 1) for die in (0, 1)]


def test_ten_packages_come_in_the_order_of_their_numbers(tmp_path):
    SimNode(tmp_path, packages=11, cores=False, dram=False)
    assert names(tmp_path) == [f"rapl:package-{number}" for number in range(11)]


def test_the_mmio_view_of_a_package_does_not_count_beside_it(tmp_path):
    SimNode(tmp_path, packages=1, mmio=True)
    assert zone(tmp_path, "intel-rapl-mmio:0").is_dir()
    counters = found(tmp_path).counters
    assert [counter.name for counter in counters] == ["rapl:package-0", "rapl:package-0/dram"]
    zone(tmp_path, "intel-rapl:0").joinpath("energy_uj").write_text("777\n")
    assert counters[0].read(0) == 777


def test_the_mmio_view_counts_where_it_is_alone(tmp_path):
    SimNode(tmp_path, packages=1, mmio=True)
    for link in list(zone(tmp_path, ".").iterdir()):
        if "mmio" not in link.name:
            link.unlink()
    assert names(tmp_path) == ["rapl:package-0", "rapl:package-0/dram"]


def test_psys_is_the_node_and_one_although_each_socket_shows_it(tmp_path):
    node = SimNode(tmp_path, packages=1, psys=True)
    node._zone(tmp_path / "devices/virtual/powercap/intel-rapl/intel-rapl:2", "psys", "second")
    domains = {counter.name: counter.domain for counter in found(tmp_path).counters}
    assert domains == {"rapl:package-0": base.PACKAGE, "rapl:package-0/dram": base.DRAM, "rapl:psys": base.NODE}


def test_the_range_is_passed_on_and_the_count_wraps_there(tmp_path):
    law = Steps([(0, 100)])
    node = SimNode(tmp_path, packages=1, dram=False, law=law, range_uj=65_532_610_987, start_uj=65_532_610_987 - 1)
    counter = found(tmp_path).counters[0]
    assert counter.range_uj == 65_532_610_987
    before = counter.read(0)
    node.advance_to(10)
    after = counter.read(0)
    assert after < before
    assert after - before + counter.range_uj == node.energy_uj("rapl:package-0", 10) == 1_000_000_000


def test_a_file_kept_open_shows_every_movement(tmp_path):
    node = SimNode(tmp_path, packages=1, law=Steps([(0, 80), (60, 200)]))
    counter = found(tmp_path).counters[0]
    shown = []
    for second in (0, 30, 60, 90):
        node.advance_to(second)
        shown.append(counter.read(0))
    assert shown == [0, 2_400_000_000, 4_800_000_000, 10_800_000_000]


def test_a_zone_that_may_not_be_read_is_refused_with_what_to_do(tmp_path, monkeypatch):
    SimNode(tmp_path, packages=2, dram=False)
    real = os.open

    def denied(path, *args, **kwargs):
        if str(path).endswith("energy_uj") and "rapl:1" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", denied)
    there = found(tmp_path)
    assert [counter.name for counter in there.counters] == ["rapl:package-0"]
    assert len(there.refused) == 1
    assert there.refused[0].what.endswith("intel-rapl:1/energy_uj")
    assert there.refused[0].why == "permission denied"
    assert "root" in there.refused[0].remedy
    assert there.refused[0].domain == base.PACKAGE


def test_a_zone_that_gives_no_number_is_unreadable_and_never_0(tmp_path):
    SimNode(tmp_path, packages=1)
    counter = found(tmp_path).counters[0]
    file = zone(tmp_path, "intel-rapl:0") / "energy_uj"
    os.truncate(file, 0)
    with pytest.raises(Unreadable, match="energy_uj"):
        counter.read(0)


def test_a_file_that_fails_is_opened_anew_at_most_every_30_s(tmp_path, monkeypatch):
    node = SimNode(tmp_path, packages=1, dram=False, law=Steps([(0, 100)]))
    counter = found(tmp_path).counters[0]
    real_pread, real_open, opened = os.pread, os.open, []

    def gone(*args):
        raise OSError(19, "No such device")

    monkeypatch.setattr(os, "pread", gone)
    monkeypatch.setattr(os, "open", lambda *args: opened.append(args) or real_open(*args))
    for second in range(40):
        with pytest.raises(Unreadable, match="No such device"):
            counter.read(second * 1_000_000_000)
    assert len(opened) == 2
    monkeypatch.setattr(os, "pread", real_pread)
    node.advance_to(1)
    assert counter.read(0) == 100_000_000


def test_the_most_a_package_can_draw_follows_its_limits_but_never_less_than_a_burst(tmp_path):
    SimNode(tmp_path, packages=1)
    assert {counter.domain: counter.max_w for counter in found(tmp_path).counters} == {"package": 1000, "dram": 500}
    (zone(tmp_path, "intel-rapl:0") / "constraint_1_max_power_uw").write_text("900000000\n")
    assert found(tmp_path).counters[0].max_w == 1800


def test_no_powercap_is_nothing_found_and_nothing_said(tmp_path):
    assert found(tmp_path / "nowhere") == base.Found([], [])
