import os
import time
from itertools import pairwise

import pytest
from common.waiting import until
from hypothesis import given
from hypothesis import strategies as st
from sim.law import Constant, Sine, Steps
from sim.sysfs import SimNode


@given(st.lists(st.tuples(st.floats(0.001, 100), st.floats(0, 1000)), max_size=6), st.floats(0, 500), st.floats(0, 500))
def test_a_law_in_steps_is_additive_and_never_falls(steps, first, second):
    at, law_steps = 0.0, [(0.0, 50.0)]
    for length, watts in steps:
        at += length
        law_steps.append((at, watts))
    law = Steps(law_steps)
    early, late = sorted((first, second))
    assert law.energy_uj(early) <= law.energy_uj(late)
    by_hand = sum(law.watts((a + b) / 2) * (b - a) for a, b in _pieces([s for s, _ in law_steps], late))
    assert law.energy_uj(late) / 1e6 == pytest.approx(by_hand, rel=1e-6, abs=1e-3)


def _pieces(edges, end):
    cut = [edge for edge in edges if edge < end] + [end]
    return list(pairwise(cut))


def test_a_sine_gives_its_mean_over_whole_periods():
    law = Sine(mean_w=200, swing_w=150, period_s=7)
    assert law.energy_uj(70) == pytest.approx(200 * 70 * 1e6, abs=10)
    assert law.watts(7 / 4) == pytest.approx(350)


def test_a_shorter_number_leaves_nothing_of_the_longer_one_behind(tmp_path):
    node = SimNode(tmp_path, packages=1, law=Constant(100), start_uj=262_143_328_000, range_uj=262_143_328_850)
    fd = os.open(tmp_path / "class/powercap/intel-rapl:0/energy_uj", os.O_RDONLY)
    assert int(os.pread(fd, 64, 0)) == 262_143_328_000
    node.advance_to(0.000_01)
    assert int(os.pread(fd, 64, 0)) == 150
    os.close(fd)


def test_the_counters_follow_the_clock_while_they_run(tmp_path):
    node = SimNode(tmp_path, packages=1, law=Constant(100))
    file = tmp_path / "class/powercap/intel-rapl:0/energy_uj"
    with node.running(0.005) as begin:
        until("what half a second gives", lambda: int(file.read_text()) >= 0.5 * 1e8, 10)
        count, now = int(file.read_text()), time.monotonic() - begin
    assert 0.5 <= count / 1e8 <= now
