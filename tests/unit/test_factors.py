import csv
import datetime
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_energy import factors
from slurm_energy.factors.carbon import country_intensity, egrid_intensity, us_state_intensity
from slurm_energy.factors.checks import ProfileError
from slurm_energy.factors.cpus import core_watts, find_cpu
from slurm_energy.factors.devices import find_device, normalise_device, squeeze
from slurm_energy.factors.layers import load_profile, profile_names
from slurm_energy.factors.profile import CloudPrice, Period, Profile

DATA = Path(factors.__file__).parent / "data"


def rows(name):
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# Names of devices


@pytest.mark.parametrize(
    ("name", "device", "watts", "fraction"),
    [
        ("a100", "A100-40GB", 400, 1),
        ("A100-80GB", "A100-80GB", 400, 1),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB", 250, 1),
        ("nvidia_a100_80gb_pcie", "A100-80GB", 300, 1),
        ("nvidia_a100_80gb_pcie_3g.40gb", "A100-80GB", 300, 3 / 7),
        ("a100_1g.5gb", "A100-40GB", 400, 1 / 7),
        ("a100_3g.40gb", "A100-80GB", 400, 3 / 7),
        ("h100_4g.40gb", "H100-80GB", 700, 4 / 7),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "A100-80GB", 400, 1 / 7),
        ("nvidia_h100_80gb_hbm3_1g.10gb+me", "H100-80GB", 700, 1 / 7),
        ("a30_2g.12gb", "A30", 165, 2 / 4),
        ("v100", "V100-16GB", 300, 1),
        ("Tesla V100-PCIE-32GB", "V100-32GB", 250, 1),
        ("titan_x_(pascal)", "TITANX", 250, 1),
        ("GeForce GTX TITAN X", "TITANX-Maxwell", 250, 1),
        ("rtx_2080_ti", "RTX2080Ti", 250, 1),
        ("quadrortx6000", "RTX6000-24GB", 260, 1),
        ("NVIDIA RTX 6000 Ada Generation", "RTX6000Ada", 300, 1),
        ("mi250", "MI250X", 250, 1),
        ("Intel(R) Data Center GPU Max 1100", "Max-1100", 300, 1),
        ("teslak80", "K80", 150, 1),
    ],
)
def test_a_gres_type_or_product_name_finds_its_device_and_exact_watts(name, device, watts, fraction):
    found = find_device(name)

    assert (found.name, found.rated_w) == (device, watts)
    assert found.fraction == pytest.approx(fraction)


@pytest.mark.parametrize("name", ["", "gpu", "nvidia", "banana", "h100_9g.80gb", "h100_0g.5gb", "banana_1g.5gb"])
def test_what_is_no_known_device_is_none_and_not_a_guess(name):
    assert find_device(name) is None


@given(st.text(max_size=40))
def test_any_text_can_be_looked_up(name):
    found = find_device(name)

    assert found is None or 0 < found.fraction <= 1
    assert normalise_device(normalise_device(name)) == normalise_device(name)


def test_a_tpu_has_a_price_but_no_rated_power():
    assert find_device("TPUv3").rated_w is None


def test_boards_with_several_devices_are_rated_by_device():
    assert {name: find_device(name).rated_w for name in ("K80", "M60", "M10", "A16", "MI250X", "K10")} == {
        "K80": 150, "M60": 150, "M10": 56.25, "A16": 62.5, "MI250X": 250, "K10": 112.5,
    }  # fmt: skip


def test_one_power_budget_for_cpu_and_gpu_is_marked():
    assert find_device("gh200").includes_cpu
    assert find_device("mi300a").includes_cpu
    assert not find_device("h100").includes_cpu


# The packaged tables


def test_no_two_names_in_the_tables_mean_different_devices():
    meant = {}
    for name, device in [
        *((row["device"], row["device"]) for row in rows("gpus")),
        *((row["alias"], row["device"]) for row in rows("gpu_aliases")),
    ]:
        assert meant.setdefault(squeeze(name), device) == device, name


def test_every_alias_is_written_as_names_are_compared_and_means_a_device_that_is_there():
    devices = {row["device"] for row in [*rows("gpus"), *rows("cloud_prices")]}
    for row in rows("gpu_aliases"):
        assert row["alias"] == normalise_device(row["alias"])
        assert row["device"] in devices


def test_every_priced_equivalent_and_canonical_device_is_there():
    prices = {row["device"] for row in rows("cloud_prices")}
    devices = {row["device"] for row in rows("gpus")}
    assert all(row["priced_as"] in prices for row in rows("gpu_equivalents"))
    assert all(row["device"] in devices for row in rows("gpu_equivalents"))
    assert all(not row["canonical"] or row["canonical"] in devices for row in rows("gpus"))


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("gpus", ("source", "source_date", "confidence")),
        ("cloud_prices", ("low_source", "high_source", "date")),
        ("gpu_equivalents", ("reason", "confidence")),
        ("cpus", ("source", "source_date")),
        ("carbon_countries", ("source", "source_date", "basis", "year")),
        ("carbon_us", ("source", "source_date", "basis", "year")),
        ("energy_sources", ("source", "source_date", "basis")),
        ("pue", ("source", "source_date", "confidence")),
    ],
)
def test_every_row_says_where_it_is_from(table, columns):
    for row in rows(table):
        assert all(row[column].strip() for column in columns), row


def test_numbers_of_the_tables_are_in_range():
    assert all(0 < float(row["rated_w"]) <= 1500 for row in rows("gpus"))
    assert all(0 < float(row["low_usd_per_h"]) <= float(row["high_usd_per_h"]) for row in rows("cloud_prices"))
    assert all(0 <= float(row["g_co2e_per_kwh"]) <= 1500 for row in [*rows("carbon_countries"), *rows("carbon_us")])
    assert all(1 <= float(row["pue"]) <= 3 for row in rows("pue"))
    assert all(not row["w_per_core"] or 0 < float(row["w_per_core"]) < 160 for row in rows("cpus"))
    assert not any(row["confidence"] == "suspect" for row in rows("gpus"))


def test_carbon_intensities_are_found_by_code_and_by_name():
    assert country_intensity("de") == country_intensity("DEU") == country_intensity("Germany")
    assert country_intensity("DE").g_co2e_per_kwh == 344.14
    assert country_intensity("World").g_co2e_per_kwh == 472.94
    assert (egrid_intensity("camx").g_co2e_per_kwh, egrid_intensity("CAMX").year) == (183.7, 2024)
    assert us_state_intensity("California") == us_state_intensity("ca")
    assert us_state_intensity("XX") is None
    assert "life-cycle" in country_intensity("FR").source
    assert "direct" in egrid_intensity("ERCT").source


def test_energy_sources_are_the_ipcc_medians():
    known = {row["energy_source"]: float(row["g_co2e_per_kwh"]) for row in rows("energy_sources")}

    assert (known["coal (pulverised)"], known["gas (combined cycle)"], known["nuclear"]) == (820, 490, 12)


@pytest.mark.parametrize(
    ("name", "watts"),
    [
        ("AMD EPYC 7763 64-Core Processor", 4.38),
        ("Intel(R) Xeon(R) Gold 6140 CPU @ 2.30GHz", 7.78),
        ("xeon e5-2697 v4", 8.06),
        ("generic:median-xeon-e5", 11.5),
    ],
)
def test_a_processor_is_found_by_its_name_in_proc_cpuinfo(name, watts):
    assert find_cpu(name).w_per_core == watts
    assert core_watts(name) == (watts, find_cpu(name).source)


@pytest.mark.parametrize("name", ["Abacus 3000", "generic:codecarbon-thread"])
def test_a_processor_without_watts_by_core_is_refused(name):
    with pytest.raises(ProfileError, match=rf'cpu = "{name}": expected .*give cpu_core_w in W instead'):
        core_watts(name)


def test_importing_reads_no_file_and_nothing_heavy():
    code = (
        "import sys, slurm_energy.factors.layers, slurm_energy.factors.tables as t;"
        "assert t.read_table.cache_info().currsize == 0;"
        "print([m for m in ('pandas', 'duckdb', 'typer', 'rich', 'pyarrow', 'ibis') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "[]"


# The profile of the paper


def test_the_papers_profile_has_the_papers_figures():
    paper = load_profile("strubell2019")

    assert (paper.pue, paper.electricity_usd_per_kwh) == (1.58, 0.12)
    assert paper.carbon_g_per_kwh == 0.954 * 453.59237
    assert (paper.any_gpu_w, paper.cpu_core_w, paper.dram_w_per_gb) == (216.961, 0, 0)
    assert paper.own_gpu_usd == 20_000 / 8
    assert (paper.cpu_core_low_usd_per_h, paper.cpu_core_high_usd_per_h) == (0, 0)


@pytest.mark.parametrize(
    ("gres_type", "model", "low", "high", "priced_as"),
    [
        ("titanx", "TITANX", 0.43, 1.46, "P100"),
        ("m40", "M40", 0.43, 1.46, "P100"),
        ("gtx1080ti", "GTX1080Ti", 0.43, 1.46, "P100"),
        ("a100", "A100-40GB", 0.43, 1.46, "P100"),
        ("banana", "banana", 0.43, 1.46, "P100"),
        (None, "unknown", 0.43, 1.46, "P100"),
        ("", "unknown", 0.43, 1.46, "P100"),
        ("v100", "V100-16GB", 0.74, 2.48, "V100"),
        ("V100-32GB", "V100-32GB", 0.74, 2.48, "V100"),
        ("tesla_v100-sxm2-32gb", "V100-32GB", 0.74, 2.48, "V100"),
        ("TPUv2", "TPUv2", 1.35, 4.50, "TPUv2"),
        ("TPUv3", "TPUv3", 2.40, 8.00, "TPUv3"),
    ],
)
def test_the_papers_profile_prices_every_gpu_and_rates_them_all_alike(gres_type, model, low, high, priced_as):
    gpu = load_profile("strubell2019").gpu(gres_type)

    assert (gpu.model, gpu.low_usd_per_h, gpu.high_usd_per_h, gpu.priced_as) == (model, low, high, priced_as)
    assert (gpu.rated_w, gpu.fraction) == (216.961, 1)


# The profile of a site


def test_every_number_of_every_packaged_profile_has_a_source():
    for name in profile_names():
        profile = load_profile(name)
        for field in Profile.__struct_fields__:
            value = getattr(profile, field)
            if isinstance(value, float):
                source = profile.sources[field]
                assert source, (name, field)
                assert "set by the site" not in source
        assert all(price.source for price in profile.cloud.values())


def test_the_sites_figures_are_those_of_the_packaged_tables():
    site = load_profile("site")
    watts = [float(row["rated_w"]) for row in rows("gpus") if row["confidence"] in ("high", "medium")]
    newest = max((row for row in rows("pue") if row["kind"] == "global"), key=lambda row: row["year"])

    assert site.carbon_g_per_kwh == country_intensity("World").g_co2e_per_kwh
    assert site.unknown_gpu_w == statistics.median(watts)
    assert site.pue == float(newest["pue"])
    assert site.cpu_core_w == find_cpu("generic:median-all-of-xeon-e5-silver-gold-platinum-and-epyc").w_per_core


def test_a_device_that_nobody_rents_has_its_equivalents_price_or_none():
    site = load_profile("site")

    assert site.gpu("rtx3090").priced_as == "A10G"
    assert site.gpu("rtx3090").high_usd_per_h == site.gpu("a10g").high_usd_per_h
    assert (site.gpu("k20m").low_usd_per_h, site.gpu("k20m").priced_as) == (None, None)
    assert (site.gpu("banana").rated_w, site.gpu("banana").low_usd_per_h) == (300, None)


def test_equivalents_follow_a_price_that_the_site_sets():
    site = load_profile("site", {"cloud": {"p100": {"low_usd_per_h": 0.1}}})

    assert site.gpu("titanx").low_usd_per_h == 0.1
    assert site.gpu("titanx").high_usd_per_h == load_profile("site").gpu("p100").high_usd_per_h
    assert "P100" not in {price.source for price in site.cloud.values()}
    assert site.cloud["P100"].source == "set by the site"
    assert "set by the site: p100" in site.sources["cloud"]


def test_a_sites_watts_hold_for_the_type_then_the_board_then_the_device():
    site = load_profile("site", {"gpu_w": {"A100-40GB": 350, "A100-PCIE-40GB": 240, "a100": 333, "banana": 99}})

    assert site.gpu("a100").rated_w == 333
    assert site.gpu("NVIDIA A100-PCIE-40GB").rated_w == 240
    assert site.gpu("nvidia_a100-sxm4-40gb").rated_w == 350
    assert site.gpu("banana").rated_w == 99
    assert site.gpu("h100").rated_w == 700


def test_a_slice_has_its_share_of_the_device_that_the_site_rates():
    gpu = load_profile("site", {"gpu_w": {"A100-40GB": 350}}).gpu("a100_1g.5gb")

    assert (gpu.rated_w, gpu.fraction) == (350, pytest.approx(1 / 7))


def test_a_device_of_the_sites_own_gets_a_price_and_becomes_a_price_class():
    site = load_profile(
        "site",
        {
            "cloud": {"abacus": {"low_usd_per_h": 1, "high_usd_per_h": 2, "devices": ["K20"], "source": "us, 2026"}},
            "unknown_gpu_priced_as": "abacus",
        },
    )

    assert site.gpu("abacus").low_usd_per_h == 1
    assert site.gpu("k20m").priced_as == "abacus"
    assert site.gpu(None).high_usd_per_h == 2
    assert site.cloud["abacus"].source == "us, 2026"


@pytest.mark.parametrize(
    ("overrides", "grams", "source"),
    [
        ({"country": "FR"}, 44.18, "France 2024"),
        ({"egrid": "CAMX"}, 183.7, "CAMX"),
        ({"us_state": "CA"}, 179.1, "California"),
        ({"carbon_lb_per_kwh": 0.5}, 0.5 * 453.59237, "0.5 lb/kWh"),
        ({"carbon_g_per_kwh": 12}, 12, "set by the site"),
        ({"carbon_g_per_kwh": 12, "sources": {"carbon_g_per_kwh": "our contract, 2026"}}, 12, "our contract, 2026"),
    ],
)
def test_the_carbon_intensity_can_be_given_in_five_ways_and_says_which(overrides, grams, source):
    site = load_profile("site", overrides)

    assert site.carbon_g_per_kwh == grams
    assert source in site.sources["carbon_g_per_kwh"]
    assert "World 2024" not in site.sources["carbon_g_per_kwh"]


def test_a_cpu_name_stands_for_its_watts_by_core():
    site = load_profile("site", {"cpu": "AMD EPYC 7763 64-Core Processor"})

    assert site.cpu_core_w == 4.38
    assert "epyc 7763" in site.sources["cpu_core_w"]


def test_periods_hold_from_their_start_and_leave_what_they_do_not_name():
    site = load_profile(
        "site",
        {
            "pue": 1.4,
            "period": [
                {"start": "2026-01-01", "country": "FR"},
                {"start": datetime.date(2025, 1, 1), "pue": 1.2, "electricity_usd_per_kwh": 0.3},
            ],
        },
    )

    assert site.on(datetime.date(2024, 12, 31)) == (1.4, 472.94, 0.12)
    assert site.on(datetime.date(2025, 1, 1)) == (1.2, 472.94, 0.3)
    assert site.on(datetime.date(2026, 6, 1)) == (1.2, 44.18, 0.3)
    assert "from 2026-01-01: France" in site.sources["period"]


def test_overrides_leave_the_packaged_profile_as_it_was():
    load_profile("strubell2019", {"pue": 2, "cloud": {"P100": {"low_usd_per_h": 0}}, "gpu_w": {"x": 1}})
    paper = load_profile("strubell2019")

    assert (paper.pue, paper.cloud["P100"].low_usd_per_h, paper.gpu_w) == (1.58, 0.43, {})


def test_none_unsets_what_a_profile_has():
    paper = load_profile("strubell2019", {"any_gpu_w": "none", "unknown_gpu_priced_as": "none"})

    assert paper.gpu("a100").rated_w == 400
    assert paper.gpu("a100").low_usd_per_h is None
    assert paper.gpu(None).rated_w is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"pue": 0.8}, "pue = 0.8: expected a number of at least 1 (facility / IT energy)"),
        ({"pue": True}, "pue = true: expected a number"),
        ({"pue": "1.5"}, 'pue = "1.5": expected a number'),
        ({"pue": float("nan")}, "pue = nan: expected a number"),
        ({"carbon_g_per_kwh": -1}, "carbon_g_per_kwh = -1: expected a number of at least 0 (g CO2e/kWh)"),
        ({"peu": 1.2}, "peu: unknown key; did you mean pue?"),
        ({"banana": 1}, "banana: unknown key; known are pue, "),
        ({"country": "Germny"}, "did you mean germany?"),
        ({"country": 49}, "country = 49: expected a country's ISO code"),
        ({"egrid": "CAMY"}, 'egrid = "CAMY": expected an EPA eGRID subregion'),
        ({"us_state": "Texass"}, "did you mean texas?"),
        ({"country": "DE", "carbon_g_per_kwh": 1}, "carbon_g_per_kwh and country: expected only one of"),
        ({"cpu": "Abacus 3000"}, 'cpu = "Abacus 3000": expected a processor\'s name'),
        ({"cpu": "generic:codecarbon-thread"}, "give cpu_core_w in W instead"),
        ({"cpu": "epyc 7763", "cpu_core_w": 3}, "cpu and cpu_core_w: expected only one"),
        ({"gpu_w": {"a100": -3}}, "gpu_w.a100 = -3: expected a number of at least 0 (W)"),
        ({"gpu_w": {"a100_1g.5gb": 50}}, "the watts of the whole device, A100-40GB"),
        ({"gpu_w": 300}, "gpu_w = 300: expected a table"),
        ({"cloud": {"abacus": {"low_usd_per_h": 1}}}, "cloud.abacus.high_usd_per_h is missing"),
        (
            {"cloud": {"T4": {"low_usd_per_h": 9}}},
            "cloud.T4.high_usd_per_h = 0.995: expected at least the low price, 9",
        ),
        ({"cloud": {"T4": {"price": 9}}}, "cloud.T4.price: unknown key"),
        ({"cloud": {"T4": {"devices": "K20"}}}, "expected a list of device names"),
        ({"unknown_gpu_priced_as": "P10"}, "expected a device that has a price; did you mean P100?"),
        ({"packaged_cloud_prices": 1}, "packaged_cloud_prices = 1: expected true or false"),
        ({"cpu_core_low_usd_per_h": 1}, "cpu_core_high_usd_per_h = 0.0: expected at least the low price"),
        ({"sources": {"peu": "x"}}, "sources.peu: unknown key; did you mean pue?"),
        ({"period": {"start": "2025-01-01"}}, "expected a list of tables"),
        ({"period": [{"pue": 1.1}]}, "period 1: start is missing"),
        ({"period": [{"start": "yesterday", "pue": 1.1}]}, 'period 1: start = "yesterday": expected a day'),
        ({"period": [{"start": "2025-01-01"}]}, "period 1: expected at least one of pue"),
        ({"period": [{"start": "2025-01-01", "pue": 0.1}]}, "period 1: pue = 0.1: expected a number of at least 1"),
        ({"period": [{"start": "2025-01-01", "pue": 1.1}] * 2}, "start = 2025-01-01 is there twice"),
        ({"period": [{"start": "2025-01-01", "peu": 1.1}]}, "period 1: peu: unknown key; did you mean pue?"),
    ],
)
def test_a_wrong_setting_is_refused_with_key_value_and_what_was_expected(overrides, message):
    with pytest.raises(ProfileError) as caught:
        load_profile("site", overrides)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_is_refused_with_the_near_name():
    with pytest.raises(ProfileError, match=r"strubel.*expected one of site, strubell2019; did you mean strubell2019\?"):
        load_profile("strubel")
    with pytest.raises(ProfileError):
        load_profile("../profiles/site")


def make(**changes):
    fields = {
        "name": "x", "pue": 1.2, "carbon_g_per_kwh": 100.0, "electricity_usd_per_kwh": 0.1, "cpu_core_w": 5.0,
        "dram_w_per_gb": 0.1, "gpu_w": {}, "any_gpu_w": None, "unknown_gpu_w": None, "cloud": {},
        "unknown_gpu_priced_as": None, "cpu_core_low_usd_per_h": 0.0, "cpu_core_high_usd_per_h": 0.0,
        "own_gpu_usd": 1.0, "sources": {}, "periods": (),
    }  # fmt: skip
    return Profile(**{**fields, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"pue": 0.9},
        {"carbon_g_per_kwh": float("inf")},
        {"any_gpu_w": -1.0},
        {"gpu_w": {"a": float("nan")}},
        {"cloud": {"a": CloudPrice(2.0, 1.0, "a", "")}},
        {"unknown_gpu_priced_as": "a"},
        {"periods": (Period(datetime.date(2025, 1, 1), pue=0.5),)},
        {"periods": (Period(datetime.date(2025, 1, 1)), Period(datetime.date(2024, 1, 1)))},
    ],
)
def test_a_profile_made_by_hand_is_checked_too(changes):
    make()
    with pytest.raises(ValueError):
        make(**changes)
