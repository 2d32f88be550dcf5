import importlib

import pytest
from sim import nvml as fake
from sim.law import Steps
from sim.sysfs import SimNode

from slurm_energy.sources import nvml
from slurm_energy.sources.base import Found, Unreadable
from slurm_energy.sources.options import Options

S = 1_000_000_000


@pytest.fixture
def node(tmp_path):
    return SimNode(tmp_path, packages=0, nvidia=2, law=Steps([(0, 100), (10, 400)]))


@pytest.fixture
def library(node):
    return fake.FakeNvml(node.root / "nvml")


def options(tmp_path, driver=False):
    if driver:
        (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
        (tmp_path / "proc/driver/nvidia/version").write_text("NVRM version: 580.65.06\n")
    return Options(proc_root=str(tmp_path / "proc"))


def test_a_gpu_with_an_energy_counter_is_read_from_it(node, library, tmp_path):
    counters = nvml.find(options(tmp_path), library).counters
    assert [(counter.minor, counter.model, counter.integrated) for counter in counters] == [
        (0, "NVIDIA H100 80GB HBM3", False),
        (1, "NVIDIA H100 80GB HBM3", False),
    ]
    assert counters[1].device == "GPU-00000000-0000-0000-0000-000000000001"
    assert counters[1].name == f"nvml:{counters[1].device}"
    assert counters[0].max_w == 1400
    node.advance_to(20)
    assert counters[0].read(20 * S) == 5_000_000_000
    assert "nvmlDeviceGetPowerUsage" not in library.calls


def test_a_gpu_without_one_has_its_power_integrated(node, library, tmp_path):
    (node.root / "nvml/000/no_energy").touch()
    first, second = nvml.find(options(tmp_path), library).counters
    assert (first.integrated, second.integrated) == (True, False)
    for second_s in range(21):
        node.advance_to(second_s)
        count = first.read(second_s * S)
    # Truly 5 kJ; the trapezoid of the second in which the power stepped from 100 to 400 W has 150 J too much.
    assert count == 5_150_000_000


def test_a_lost_gpu_is_unreadable_and_the_others_go_on(node, library, tmp_path):
    first, second = nvml.find(options(tmp_path), library).counters
    library.set_state(0, "lost")
    node.advance_to(5)
    with pytest.raises(Unreadable, match="GPU is lost"):
        first.read(5 * S)
    assert second.read(5 * S) == 500_000_000
    for tick in range(6, 12):
        with pytest.raises(Unreadable, match="GPU is lost"):
            first.read(tick * S)
        assert second.read(tick * S) == 500_000_000


def test_a_lost_gpu_is_looked_for_at_most_every_30_s_and_counts_on_when_it_is_back(node, library, tmp_path):
    first, _ = nvml.find(options(tmp_path), library).counters
    library.set_state(0, "lost")
    began = library.calls["nvmlInit"]
    for tick in range(1, 65):
        with pytest.raises(Unreadable):
            first.read(tick * S)
    assert library.calls["nvmlInit"] - began == 3
    library.set_state(0, "ok")
    node.advance_to(20)
    with pytest.raises(Unreadable):
        first.read(66 * S)
    assert first.read(100 * S) == 5_000_000_000


def test_integrated_power_does_not_reach_over_the_time_a_gpu_was_lost(node, library, tmp_path):
    (node.root / "nvml/000/no_energy").touch()
    first, _ = nvml.find(options(tmp_path), library).counters
    first.read(0)
    assert first.read(S) == 100_000_000
    library.set_state(0, "lost")
    with pytest.raises(Unreadable):
        first.read(2 * S)
    library.set_state(0, "ok")
    assert first.read(3 * S) == 100_000_000
    assert first.read(4 * S) == 200_000_000


def test_a_reset_gpu_shows_a_count_that_went_back(node, library, tmp_path):
    first, _ = nvml.find(options(tmp_path), library).counters
    node.advance_to(20)
    before = first.read(20 * S)
    library.set_state(0, "reset")
    assert first.read(21 * S) < before
    assert first.range_uj == 0


def test_a_gpu_in_mig_mode_counts_once_as_a_whole(node, library, tmp_path):
    (node.root / "nvml/000/mig").touch()
    there = nvml.find(options(tmp_path), library)
    assert [counter.device[-1] for counter in there.counters] == ["0", "1"]
    assert "MIG" in there.note


def test_slurms_number_of_a_gpu_is_its_minor_and_not_nvmls_index(node, library, tmp_path):
    (node.root / "nvml/000/minor").write_text("1\n")
    (node.root / "nvml/001/minor").write_text("0\n")
    assert [counter.minor for counter in nvml.find(options(tmp_path), library).counters] == [1, 0]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (fake.NVML_ERROR_NO_PERMISSION, "root"),
        (fake.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "reboot"),
        (fake.NVML_ERROR_UNKNOWN, "nvidia-smi"),
    ],
)
def test_a_driver_that_may_not_be_used_is_refused_with_what_to_do(tmp_path, code, remedy):
    there = nvml.find(options(tmp_path), fake.FakeNvml(tmp_path, fail_init=code))
    assert there.counters == []
    assert len(there.refused) == 1
    assert remedy in there.refused[0].remedy


@pytest.mark.parametrize("code", [fake.NVML_ERROR_LIBRARY_NOT_FOUND, fake.NVML_ERROR_DRIVER_NOT_LOADED])
def test_no_driver_is_quiet_but_a_driver_without_its_library_is_said(tmp_path, code):
    library = fake.FakeNvml(tmp_path, fail_init=code)
    assert nvml.find(options(tmp_path), library) == Found([], [])
    assert len(nvml.find(options(tmp_path, driver=True), library).refused) == 1


def test_a_gpu_that_may_not_be_opened_is_refused_and_the_others_count(node, library, tmp_path):
    library.set_state(0, "denied")
    there = nvml.find(options(tmp_path), library)
    assert [counter.minor for counter in there.counters] == [1]
    assert "GPU 0" in there.refused[0].what
    assert "/dev/nvidia*" in there.refused[0].remedy


def test_without_pynvml_a_node_without_gpus_is_quiet_and_one_with_a_driver_is_not(tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(nvml, "import_module", absent)
    assert nvml.find(options(tmp_path)) == Found([], [])
    assert "pip install nvidia-ml-py" in nvml.find(options(tmp_path, driver=True)).refused[0].remedy


def test_the_fake_has_only_names_that_pynvml_has():
    real = pytest.importorskip("pynvml")
    used = [name for name in dir(fake.FakeNvml) if name.startswith("nvml")]
    used += [name for name in dir(fake) if name.startswith("NVML_")]
    assert len(used) > 20
    for name in used:
        assert hasattr(real, name), name
        if name.startswith("NVML_"):
            assert getattr(real, name) == getattr(fake, name), name


def test_a_process_can_have_simulated_gpus_by_its_environment(node, monkeypatch, tmp_path):
    import sys
    from pathlib import Path

    monkeypatch.setenv("SENERGY_SIM_NVML", str(node.root / "nvml"))
    monkeypatch.syspath_prepend(str(Path(fake.__file__).parent / "fakelib"))
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    try:
        assert len(nvml.find(options(tmp_path)).counters) == 2
    finally:
        sys.modules.pop("pynvml", None)
        importlib.invalidate_caches()
