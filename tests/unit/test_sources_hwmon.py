import pytest
from sim.law import Constant
from sim.sysfs import SimNode

from slurm_energy.sources import hwmon
from slurm_energy.sources.base import DRAM, NODE, PACKAGE, Found, Unreadable
from slurm_energy.sources.options import Options

S = 1_000_000_000


@pytest.fixture
def node(tmp_path):
    return SimNode(tmp_path, packages=0, law=Constant(100))


def find(node, **options):
    return hwmon.find(Options(sysfs_root=str(node.root), **options))


def covered(found):
    return {counter.name.removeprefix("hwmon:"): counter.domain for counter in found.counters}


def grace(node, *labels):
    for number, label in enumerate(labels):
        reading = {"power1_average": label}
        node.hwmon("power_meter", f"NVDA200C:{number:02x}", reading, {"power1_oem_info": label})
    node.advance_to(0)


def test_a_grace_socket_is_the_package_and_its_parts_do_not_count_beside_it(node):
    grace(node, "Module Power Socket 0", "Grace Power Socket 0", "CPU Power Socket 0", "SysIO Power Socket 0")
    found = find(node)
    assert covered(found) == {
        "power_meter:Module Power Socket 0": NODE,
        "power_meter:Grace Power Socket 0": PACKAGE,
    }
    assert "without fans" in found.note


def test_the_parts_of_a_socket_count_where_the_whole_is_not_shown(node):
    grace(node, "CPU Power Socket 0", "SysIO Power Socket 0", "Grace Power Socket 1", "CPU Power Socket 1")
    assert covered(find(node)) == {
        "power_meter:CPU Power Socket 0": PACKAGE,
        "power_meter:SysIO Power Socket 0": PACKAGE,
        "power_meter:Grace Power Socket 1": PACKAGE,
    }


def test_a_modules_power_gives_way_to_a_meter_of_the_node(node):
    grace(node, "Module Power Socket 0")
    node.hwmon("power_meter", "ACPI000D:00", {"power1_average": "wall"})
    node.advance_to(0)
    assert covered(find(node)) == {"power_meter:power1": NODE}


def test_several_meters_without_a_label_count_for_nothing_until_one_is_named(node):
    node.hwmon("power_meter", "ACPI000D:00", {"power1_average": "one"})
    node.hwmon("power_meter", "ACPI000D:01", {"power1_average": "two"})
    node.advance_to(0)
    found = find(node)
    assert found.counters == []
    assert "nothing says which is the node's" in found.note


def test_the_socket_counters_of_amd_energy_count_and_its_cores_do_not(node):
    readings = {f"energy{n}_input": name for n, name in ((1, "core0"), (2, "core1"), (3, "s0"), (4, "s1"))}
    labels = {"energy1_label": "Ecore000", "energy2_label": "Ecore001", "energy3_label": "Esocket0"}
    node.hwmon("amd_energy", "amd_energy.0", readings, {**labels, "energy4_label": "Esocket1"})
    node.advance_to(7)
    found = find(node)
    assert covered(found) == {"amd_energy:Esocket0": PACKAGE, "amd_energy:Esocket1": PACKAGE}
    assert [counter.read(0) for counter in found.counters] == [700_000_000] * 2
    assert not any(counter.integrated for counter in found.counters)


def test_a_sensor_of_unknown_meaning_is_said_and_counts_when_the_site_names_it(node):
    node.hwmon("scmi_sensors", "fw", {"energy1_input": "a", "energy2_input": "b"}, {"energy1_label": "VDD_X"})
    node.advance_to(0)
    found = find(node)
    assert found.counters == []
    assert "scmi_sensors:VDD_X, scmi_sensors:energy2" in found.note
    named = find(node, hwmon={"scmi_sensors:VDD_X": "package", "scmi_sensors:energy2": "dram"})
    assert covered(named) == {"scmi_sensors:VDD_X": PACKAGE, "scmi_sensors:energy2": DRAM}


def test_a_sensor_can_be_taken_out_by_hand(node):
    node.hwmon("power_meter", "ACPI000D:00", {"power1_average": "wall"})
    node.advance_to(0)
    assert find(node, hwmon={"power_meter:power1": "ignore"}) == Found([], [])


def test_of_energy_and_power_of_one_label_the_counter_counts(node):
    node.hwmon(
        "scmi_sensors", "fw", {"energy1_input": "soc", "power1_input": "soc"},
        {"energy1_label": "SoC", "power1_label": "SoC"},
    )  # fmt: skip
    node.advance_to(0)
    assert [counter.integrated for counter in find(node).counters] == [False]


def test_drivers_that_keep_their_files_in_the_devices_folder_are_read_too(node):
    device = node.hwmon("power_meter", "ACPI000D:00", {})
    (device / "power1_average").write_text("200000000\n")
    counter = find(node).counters[0]
    counter.read(0)
    assert counter.read(S) == 200_000_000


def test_a_meter_that_fails_is_unreadable_and_its_gap_is_not_filled(node):
    device = node.hwmon("power_meter", "ACPI000D:00", {"power1_average": "wall"})
    node.advance_to(0)
    counter = find(node).counters[0]
    counter.read(0)
    file = next(device.rglob("power1_average"))
    file.write_text("\n")
    with pytest.raises(Unreadable):
        counter.read(S)
    node.advance_to(2)
    assert counter.read(2 * S) == 0
    assert counter.read(3 * S) == 100_000_000


def test_other_sensors_of_a_board_are_quiet(node):
    node.hwmon("coretemp", "coretemp.0", {}, {"temp1_input": "41000"})
    node.hwmon("pmbus", "1-0058", {"power1_input": "psu"})
    node.advance_to(0)
    assert find(node) == Found([], [])
