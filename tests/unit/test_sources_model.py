from types import SimpleNamespace

import pytest

from slurm_energy.sources import model
from slurm_energy.sources.base import PACKAGE, Found, Unreadable
from slurm_energy.sources.options import Options

S = 1_000_000_000
WATTS = {"idle_w": 100.0, "full_w": 300.0}


def proc(tmp_path, busy, idle, steal=0):
    """A /proc/stat of hundredths of seconds."""
    line = f"{busy} 0 0 {idle} 0 0 0 {steal} 0 0"
    (tmp_path / "stat").write_text(f"cpu  {line}\ncpu0 {line}\nbtime 1\nctxt 1\n")


@pytest.fixture
def counter(tmp_path, monkeypatch):
    psutil = pytest.importorskip("psutil")
    monkeypatch.setattr(psutil, "PROCFS_PATH", "/proc")
    proc(tmp_path, 0, 0)
    return model.find(Options(proc_root=str(tmp_path), **WATTS)).counters[0]


def test_a_half_busy_node_draws_half_way_between_idle_and_full(counter, tmp_path):
    assert counter.read(0) == 0
    proc(tmp_path, 500, 500)
    assert counter.read(10 * S) == 2_000_000_000
    proc(tmp_path, 500, 1500)
    assert counter.read(20 * S) == 3_000_000_000


def test_it_is_marked_as_an_estimate(counter):
    assert (counter.domain, counter.estimated, counter.integrated) == (PACKAGE, True, True)


def test_what_another_guest_stole_is_not_drawn_for_us(counter, tmp_path):
    counter.read(0)
    proc(tmp_path, 250, 250, steal=500)
    assert counter.read(10 * S) == 1_500_000_000


def test_two_readings_within_one_clock_tick_lose_no_time(counter, tmp_path):
    counter.read(0)
    counter.read(5 * S)
    proc(tmp_path, 0, 1000)
    assert counter.read(10 * S) == 1_000_000_000


def test_no_cpu_times_is_no_reading():
    def broken():
        raise OSError("no /proc")

    with pytest.raises(Unreadable, match="no /proc"):
        model.ModelCounter(100, 300, SimpleNamespace(cpu_times=broken)).read(0)


def test_without_the_sites_watts_there_is_no_estimate_and_that_is_said():
    found = model.find(Options())
    assert (found.counters, found.refused) == ([], [])  # nothing is refused: there is nothing to be allowed
    assert "idle_w" in found.note
    assert "less than" in model.find(Options(idle_w=300, full_w=100)).refused[0].why
    assert model.find(Options(model="never", **WATTS)) == Found([], [])
