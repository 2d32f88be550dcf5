import pytest

from slurm_energy.sources.base import Trapezoid, Unreadable
from slurm_energy.sources.options import Options

S = 1_000_000_000


def test_a_trapezoid_is_the_mean_of_neighbours_times_their_distance():
    energy = Trapezoid()
    assert energy.add(100_000_000, 0) == 0
    assert energy.add(200_000_000, 2 * S) == 300_000_000
    assert energy.add(200_000_000, 3 * S) == 500_000_000


def test_a_steady_power_gives_power_times_time():
    energy = Trapezoid()
    counts = [energy.add(250_000_000, tick * S) for tick in range(61)]
    assert counts[-1] == 250_000_000 * 60


def test_a_silence_is_said_and_nothing_is_drawn_across_it():
    energy = Trapezoid(max_gap_s=30)
    energy.add(100_000_000, 0)
    with pytest.raises(Unreadable, match="31 s"):
        energy.add(100_000_000, 31 * S)
    assert energy.add(100_000_000, 32 * S) == 100_000_000


def test_after_a_lost_reading_the_next_one_does_not_reach_back():
    energy = Trapezoid()
    energy.add(100_000_000, 0)
    energy.lost()
    assert energy.add(100_000_000, 5 * S) == 0
    assert energy.add(100_000_000, 6 * S) == 100_000_000


def test_a_clock_that_stands_still_or_goes_back_adds_nothing():
    energy = Trapezoid()
    energy.add(100_000_000, S)
    assert energy.add(100_000_000, S) == 0
    assert energy.add(100_000_000, 0) == 0


def test_a_gpu_map_out_of_toml_has_numbers_as_keys():
    import msgspec

    plain = msgspec.toml.decode(b"[gpu_map]\n0 = 1\n1 = 1\n")
    assert msgspec.convert(plain, Options, str_keys=True).gpu_map == {0: 1, 1: 1}
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"ipmi_perod_s": 5}, Options)
