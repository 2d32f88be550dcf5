"""From counts to energy: wraps are energy, everything that cannot be known is a gap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slurm_energy.agent.meters import Meter
from slurm_energy.sources.base import PACKAGE, Counter, Unreadable

SECOND = 1_000_000_000
RANGE = 262_143_328_850


class Scripted(Counter):
    """Shows what it is told to; None: unreadable."""

    def __init__(self, *counts: int | None, range_uj: int = RANGE, max_w: float = 1000.0, integrated: bool = False):
        super().__init__(PACKAGE, "rapl:package-0", range_uj=range_uj, max_w=max_w, integrated=integrated)
        self.counts = list(counts)

    def read(self, now_ns: int) -> int:
        count = self.counts.pop(0)
        if count is None:
            raise Unreadable("rapl:package-0: permission denied")
        return count


def moved(meter: Meter, *seconds: float) -> list[int | None]:
    return [meter.advance(int(at * SECOND)) for at in seconds]


def test_the_first_reading_moves_nothing() -> None:
    meter = Meter(Scripted(987_654_321))
    assert moved(meter, 5) == [0]
    assert meter.total_uj == 0
    assert meter.gaps == 0


def test_a_count_that_wrapped_at_its_range_is_energy() -> None:
    meter = Meter(Scripted(RANGE - 30_000_000, 20_000_000))
    assert moved(meter, 0, 1) == [0, 50_000_000]
    assert meter.rate_uw == 50_000_000


def test_a_count_that_wrapped_to_exactly_nothing_is_energy() -> None:
    assert moved(Meter(Scripted(RANGE - 1, 0)), 0, 1) == [0, 1]


def test_a_count_without_a_range_that_went_back_is_a_gap_and_counts_anew_from_there() -> None:
    meter = Meter(Scripted(5_000_000, 1_000_000, 3_000_000, range_uj=0))
    assert moved(meter, 0, 1, 2) == [0, None, 2_000_000]
    assert (meter.gaps, meter.total_uj) == (1, 2_000_000)


def test_a_count_that_was_reset_is_not_taken_for_a_wrap() -> None:
    meter = Meter(Scripted(100_000_000_000, 5, 50_000_005))
    assert moved(meter, 0, 1, 2) == [0, None, 50_000_000]
    assert meter.lost


def test_a_jump_above_what_the_hardware_can_draw_is_a_gap() -> None:
    meter = Meter(Scripted(0, 100_000_000, 100_000_000 + 3_000_000_001, max_w=1000))
    assert moved(meter, 0, 1, 2) == [0, 100_000_000, None]
    assert meter.why == "it jumped"


def test_two_seconds_of_lag_of_a_counter_are_no_jump() -> None:
    assert moved(Meter(Scripted(0, 3_000_000_000, max_w=1000)), 0, 1) == [0, 3_000_000_000]


def test_a_silence_in_which_it_may_have_wrapped_twice_is_a_gap() -> None:
    meter = Meter(Scripted(0, 100_000_000, 100_000_000, 250_000_000))
    # At 100 W seen, 200 W are possible: the range lasts for 1310 s.
    assert moved(meter, 0, 1, 1400, 1401) == [0, 100_000_000, None, 150_000_000]
    assert meter.gaps == 1


def test_a_silence_that_the_power_seen_so_far_cannot_wrap_in_is_energy() -> None:
    meter = Meter(Scripted(0, 100_000_000, 100_100_000_000))
    assert moved(meter, 0, 1, 1001) == [0, 100_000_000, 100_000_000_000]


def test_an_unreadable_moment_is_a_gap_and_the_next_reading_has_what_it_hid() -> None:
    meter = Meter(Scripted(0, None, None, 300_000_000))
    assert moved(meter, 0, 1, 2, 3) == [0, None, None, 300_000_000]
    assert (meter.gaps, meter.why, meter.total_uj) == (2, "", 300_000_000)


def test_what_an_integrated_power_hid_in_a_gap_is_lost_and_that_of_a_counter_is_not() -> None:
    power, counter = Meter(Scripted(0, None, integrated=True)), Meter(Scripted(0, None))
    assert moved(power, 0, 1) == moved(counter, 0, 1) == [0, None]
    assert (power.lost, counter.lost) == (True, False)


def test_a_counter_that_cannot_be_read_at_first_begins_with_its_first_reading() -> None:
    assert moved(Meter(Scripted(None, 5_000, 6_000)), 0, 1, 2) == [None, 0, 1_000]


def test_a_burst_between_two_close_looks_does_not_set_the_peak() -> None:
    meter = Meter(Scripted(0, 900_000, 100_000_000))
    assert moved(meter, 0, 0.001, 1) == [0, 900_000, 99_100_000]
    assert meter.peak_uw < 100_000_000


def test_power_is_not_shown_over_a_moment() -> None:
    """A hook wakes the agent some ms after a look; the counter had no time to move, or moved by a whole step of its own."""
    meter = Meter(Scripted(0, 100_000_000, 100_000_000, 120_000_000, 150_000_000))
    moved(meter, 0, 1)
    assert meter.rate_uw == 100_000_000
    assert moved(meter, 1.01) == [0]
    assert meter.rate_uw == 100_000_000
    assert moved(meter, 1.02) == [20_000_000]
    assert meter.rate_uw == 100_000_000
    moved(meter, 1.5)
    assert meter.rate_uw == 100_000_000  # 50 J in half a second
    assert meter.total_uj == 150_000_000


def test_after_a_gap_power_is_shown_over_what_is_known() -> None:
    meter = Meter(Scripted(0, 100_000_000, None, 400_000_000))
    moved(meter, 0, 1, 2, 3)
    assert meter.rate_uw == 150_000_000


@given(
    st.integers(0, RANGE - 1),
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 200_000)), min_size=1, max_size=60),
)
def test_random_power_over_random_ticks_and_wraps_sums_up_to_the_law(start, steps) -> None:
    """Power up to 400 W, ticks of a millisecond to 200 s: the counter wraps, and nothing is lost."""
    truth, now_ms, counts, times = 0, 0, [start], [0.0]
    for watts, milliseconds in steps:
        truth += watts * 1000 * milliseconds
        now_ms += milliseconds
        counts.append((start + truth) % RANGE)
        times.append(now_ms / 1000)
    meter = Meter(Scripted(*counts))
    assert sum(uj for uj in moved(meter, *times) if uj is not None) == truth
    assert (meter.total_uj, meter.gaps) == (truth, 0)
