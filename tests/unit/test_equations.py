import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_energy.accounting import equations as eq

AMOUNT = st.floats(min_value=0, max_value=1e9)
PUE = st.floats(min_value=1, max_value=10)
BAD = [float("nan"), float("inf"), -1e-9, -1.0]


def test_equation_1_gives_the_papers_energy_of_the_transformer():
    assert eq.facility_energy_kwh(1515.43, 84, 1.58) == pytest.approx(201.1278696)


def test_equation_2_gives_the_papers_emissions_in_pounds_and_in_grams():
    assert eq.emissions_lb(201.1278696) == pytest.approx(191.8759875984)
    assert eq.emissions_g(201.1278696, 0.954 * 453.59237) == pytest.approx(191.8759875984 * 453.59237)


def test_costs_are_price_times_amount():
    assert eq.electricity_usd(82_252, 0.12) == pytest.approx(9870.24)
    assert eq.cloud_usd(239_942, 0.43) == pytest.approx(103_175.06)
    assert eq.rated_energy_kwh(250, 8) == 2.0


@given(AMOUNT, AMOUNT, PUE)
def test_the_facility_never_draws_less_than_its_it(power, hours, pue):
    facility = eq.facility_energy_kwh(power, hours, pue)

    assert facility >= eq.rated_energy_kwh(power, hours) * (1 - 1e-12)
    assert facility == pytest.approx(eq.facility_from_it_kwh(eq.rated_energy_kwh(power, hours), pue), rel=1e-12)


@given(AMOUNT, AMOUNT, AMOUNT, PUE)
def test_energy_of_two_spans_is_the_energy_of_both(power, first, second, pue):
    apart = eq.facility_energy_kwh(power, first, pue) + eq.facility_energy_kwh(power, second, pue)

    assert eq.facility_energy_kwh(power, first + second, pue) == pytest.approx(apart, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    "call",
    [
        lambda bad: eq.facility_energy_kwh(bad, 1, 1.5),
        lambda bad: eq.facility_energy_kwh(1, bad, 1.5),
        lambda bad: eq.facility_energy_kwh(1, 1, bad),
        lambda bad: eq.facility_from_it_kwh(bad, 1.5),
        lambda bad: eq.facility_from_it_kwh(1, bad),
        lambda bad: eq.rated_energy_kwh(bad, 1),
        lambda bad: eq.rated_energy_kwh(1, bad),
        lambda bad: eq.emissions_lb(bad),
        lambda bad: eq.emissions_lb(1, bad),
        lambda bad: eq.emissions_g(bad, 1),
        lambda bad: eq.emissions_g(1, bad),
        lambda bad: eq.electricity_usd(bad, 1),
        lambda bad: eq.electricity_usd(1, bad),
        lambda bad: eq.cloud_usd(bad, 1),
        lambda bad: eq.cloud_usd(1, bad),
        lambda bad: eq.carbon_intensity_of_mix({"coal": bad}, {"coal": 820}),
        lambda bad: eq.carbon_intensity_of_mix({"coal": 100}, {"coal": bad}),
        lambda bad: eq.carbon_intensity_of_mix({"coal": 50}, {"coal": 820}, bad),
    ],
)
def test_what_is_out_of_range_or_no_number_is_refused(call, bad):
    with pytest.raises(ValueError, match="expected a finite number of at least"):
        call(bad)


def test_a_pue_below_one_is_refused_with_its_name():
    with pytest.raises(ValueError, match=r"pue = 0\.99"):
        eq.facility_energy_kwh(1, 1, 0.99)


def test_the_unnamed_rest_of_a_mix_counts_as_the_mean_of_the_named_part():
    assert eq.carbon_intensity_of_mix({"coal": 40, "wind": 40}, {"coal": 820, "wind": 11}) == pytest.approx(415.5)


def test_the_unnamed_rest_of_a_mix_counts_at_the_figure_given_for_it():
    mix = eq.carbon_intensity_of_mix({"coal": 40, "wind": 40}, {"coal": 820, "wind": 11}, other_g=650)

    assert mix == pytest.approx(0.4 * 820 + 0.4 * 11 + 0.2 * 650)


def test_shares_a_little_over_100_are_taken_as_rounded_and_more_is_refused():
    factors = {"coal": 820.0, "wind": 11.0}

    assert eq.carbon_intensity_of_mix({"coal": 50.2, "wind": 50.2}, factors, other_g=9999) == pytest.approx(415.5)
    with pytest.raises(ValueError, match="at most 100"):
        eq.carbon_intensity_of_mix({"coal": 60, "wind": 60}, factors)


def test_a_mix_of_nothing_has_no_intensity_unless_the_rest_has_one():
    with pytest.raises(ValueError, match="more than 0"):
        eq.carbon_intensity_of_mix({}, {})
    assert eq.carbon_intensity_of_mix({}, {}, other_g=475) == 475


def test_a_source_without_a_factor_is_named():
    with pytest.raises(ValueError, match="'peat'"):
        eq.carbon_intensity_of_mix({"peat": 5}, {"coal": 820})


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.1, 12), min_size=1),
    st.lists(st.floats(0, 1000), min_size=8, max_size=8),
    st.one_of(st.none(), st.floats(0, 1000)),
)
def test_a_mix_is_never_cleaner_than_its_cleanest_nor_dirtier_than_its_dirtiest_source(shares, figures, other):
    factors = dict(zip("abcdefgh", figures, strict=True))
    used = [factors[source] for source in shares] + ([] if other is None else [other])

    mix = eq.carbon_intensity_of_mix(shares, factors, other)

    assert min(used) - 1e-6 <= mix <= max(used) + 1e-6
    assert math.isfinite(mix)
