import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_energy import units

FINITE = st.floats(min_value=-1e15, max_value=1e15)


def test_a_kilowatt_hour_is_three_point_six_megajoules():
    assert units.J_PER_KWH == 3_600_000
    assert units.UJ_PER_KWH == 3_600_000_000_000


@pytest.mark.parametrize(
    ("kwh", "text"),
    [
        (0, "0 kWh"),
        (0.0342, "0.0342 kWh"),
        (0.05, "0.05 kWh"),
        (1, "1.00 kWh"),
        (118.47, "118 kWh"),
        (999.4, "999 kWh"),
        (999.6, "1.00 MWh"),
        (82_252, "82.3 MWh"),
        (656_347, "656 MWh"),
        (1_200_000, "1.20 GWh"),
        (1_234_567_890, "1,235 GWh"),
        (-82_252, "-82.3 MWh"),
    ],
)
def test_energy_is_written_with_three_digits_in_its_natural_unit(kwh, text):
    assert units.format_kwh(kwh) == text


@pytest.mark.parametrize(
    ("grams", "text"),
    [
        (0, "0 g"),
        (4.31, "4.31 g"),
        (999.7, "1.00 kg"),
        (17_690, "17.7 kg"),
        (35_592_486, "35.6 t"),
        (1.23e10, "12,300 t"),
    ],
)
def test_emissions_are_written_in_grams_kilograms_or_tonnes(grams, text):
    assert units.format_co2e(grams) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0, "0.00 USD"),
        (-0.0, "0.00 USD"),
        (0.0042, "0.0042 USD"),
        (5.136, "5.14 USD"),
        (99.99, "99.99 USD"),
        (99.996, "100 USD"),
        (9870.2, "9,870 USD"),
        (350_315.32, "350,315 USD"),
    ],
)
def test_money_has_cents_only_where_they_matter(usd, text):
    assert units.format_usd(usd) == text


@pytest.mark.parametrize(
    ("hours", "text"), [(0.05, "0.05 h"), (1.5, "1.50 h"), (79.2, "79.2 h"), (239_942, "239,942 h"), (9.999, "10.0 h")]
)
def test_hours_have_thousands_separators(hours, text):
    assert units.format_hours(hours) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (45, "45 s"),
        (59.6, "1 min"),
        (180, "3 min"),
        (3599, "1.0 h"),
        (52 * 3600, "52.0 h"),
        (9 * 86400, "9.0 d"),
        (9998 * 86400, "9,998 d"),
    ],
)
def test_a_duration_is_written_in_its_natural_unit(seconds, text):
    assert units.format_duration(seconds) == text


@pytest.mark.parametrize(
    "write", [units.format_kwh, units.format_co2e, units.format_usd, units.format_hours, units.format_duration]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_finite_number_is_never_written_as_one(write, value):
    with pytest.raises(ValueError, match="finite"):
        write(value)


@given(FINITE)
def test_a_written_energy_is_within_half_a_percent_of_the_number(kwh):
    size = {"kWh": 1.0, "MWh": 1e3, "GWh": 1e6}
    number, unit = units.format_kwh(kwh).split()

    assert float(number.replace(",", "")) * size[unit] == pytest.approx(kwh, rel=0.0051)
