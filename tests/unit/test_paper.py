import json

import pytest
import typer
from typer.testing import CliRunner

from slurm_energy.cli.paper import paper
from slurm_energy.factors.layers import load_profile
from slurm_energy.factors.tables import read_table
from slurm_energy.paper import tables

app = typer.Typer()
app.command()(paper)
runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, arguments)


def test_every_printed_result_of_the_paper_comes_out():
    cells = tables.check()

    assert [cell for cell in cells if not cell.rounds] == []
    assert {table: sum(cell.table == table for cell in cells) for table in tables.TABLES} == {1: 4, 2: 0, 3: 26, 4: 9}


def test_rows_have_the_headings_of_the_csv_file_and_nothing_else():
    for table, name in tables.TABLES.items():
        extra = [tables.ESTIMATED_INTENSITY] if table == 2 else []
        path = tables.Path(tables.__file__).parent / "data" / f"{name}.csv"
        headings = path.read_text(encoding="utf-8").splitlines()[0].split(",")
        for row in tables.recompute(table):
            assert list(row) == headings + extra


def test_results_are_unrounded_and_missing_figures_are_none():
    rows = {(row["model"], row["hardware"]): row for row in tables.recompute(3)}

    assert rows["NAS", "TPUv2"]["cloud_high_usd"] == 146_848.5
    assert rows["NAS", "TPUv2"]["kwh_pue"] is None
    assert rows["BERT base", "V100"]["kwh_pue"] == pytest.approx(1506.82639536)
    assert rows["BERT base", "V100"]["hours_printed"] == 79


def test_half_a_dollar_rounds_to_the_even_one():
    cell = next(cell for cell in tables.check(3) if cell.recomputed == 146_848.5)

    assert (cell.printed, cell.rounds) == (146_848, True)


def test_a_power_that_is_not_the_papers_shows_up_in_the_check(monkeypatch):
    monkeypatch.setattr(tables, "GPU_W", 220.0)

    assert {(cell.row, cell.column) for cell in tables.check() if not cell.rounds} == {
        ("24 models", "electricity_usd"),
        ("4789 models", "electricity_usd"),
    }
    result = run("--check")
    assert result.exit_code == 1
    assert "Table 4: 7 of 9" in result.stdout
    assert "9,870" in result.stdout


def test_the_printed_inputs_do_not_give_the_table_where_they_are_read_differently():
    bert = next(row for row in tables.printed(3) if row["hours_printed"] == 79)

    assert round(1.58 * bert["hours_printed"] * bert["power_w"] / 1000) != bert["kwh_pue"]
    assert round(32_623 * 1.35) != 44_055
    assert {item.used for item in tables.READ_DIFFERENTLY} >= {"79.2", "32,633", "1.35 for v2, 2.40 for v3"}


def test_the_mixes_of_table_2_are_estimated_with_the_ipcc_medians():
    known = {row["energy_source"]: float(row["g_co2e_per_kwh"]) for row in read_table("energy_sources")}

    assert {
        "renewables_pct": known["hydro"],
        "gas_pct": known["gas (combined cycle)"],
        "coal_pct": known["coal (pulverised)"],
        "nuclear_pct": known["nuclear"],
    } == tables.MIX_FACTORS_G
    china = tables.recompute(2)[0]
    expected = (22 * 24 + 3 * 490 + 65 * 820 + 4 * 12) / 94
    assert china[tables.ESTIMATED_INTENSITY] == pytest.approx(expected)


def test_the_papers_profile_and_the_papers_tables_use_the_same_figures():
    profile = load_profile("strubell2019")

    assert (profile.pue, profile.electricity_usd_per_kwh, profile.any_gpu_w) == (
        tables.PUE,
        tables.USD_PER_KWH,
        tables.GPU_W,
    )
    assert profile.carbon_g_per_kwh == tables.LB_PER_KWH * 453.59237
    p100 = profile.gpu("p100")
    assert (p100.low_usd_per_h, p100.high_usd_per_h) == (tables.P100_LOW_USD_PER_H, tables.P100_HIGH_USD_PER_H)
    for row in tables.printed(3):
        gpu = profile.gpu(row["hardware"])
        assert (gpu.low_usd_per_h, gpu.high_usd_per_h) == (
            row["price_low_usd_per_device_h"],
            row["price_high_usd_per_device_h"],
        )


@pytest.mark.parametrize("call", [tables.recompute, tables.printed, tables.check, tables.result_columns])
def test_a_table_that_the_paper_has_not_is_refused(call):
    with pytest.raises(ValueError, match="table = 5"):
        call(5)


def test_changing_a_row_does_not_change_the_next_readers_rows():
    tables.recompute(4)[0]["models"] = -1
    tables.printed(4)[0]["models"] = -1

    assert tables.recompute(4)[0]["models"] == 1


# The command


def test_the_command_prints_all_four_tables_with_printed_and_computed_cells_in_100_columns():
    result = run()

    assert result.exit_code == 0
    assert all(f"Table {table}. " in result.stdout for table in (1, 2, 3, 4))
    for text in ("656,347", "656,347.28", "146,848.50", "78,468.15", "9,870.21", "32,633", "12,041.51"):
        assert text in result.stdout
    assert "printed 79; used 79.2" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert "…" not in result.stdout


def test_json_of_one_table_is_a_list_of_rows_and_of_all_an_object_by_table():
    assert json.loads(run("--table", "3", "--json").stdout) == tables.recompute(3)
    everything = json.loads(run("--json").stdout)
    assert everything == {str(table): tables.recompute(table) for table in tables.TABLES}


def test_parsable_output_has_a_heading_and_no_trailing_bar():
    lines = run("--table", "4", "-P").stdout.splitlines()

    assert lines[0] == "models|gpu_hours|cloud_low_usd|cloud_high_usd|electricity_usd|electricity_usd_printed"
    assert lines[1].startswith("1|120|51.6|175.2|4.93")
    assert len(lines) == 4
    bert_on_tpu = run("--table", "3", "--parsable2").stdout.splitlines()[5]
    assert bert_on_tpu == "BERT base|TPUv2|16||96|96|||2073.6000000000004|6912.0|1.35|4.5"


def test_check_exits_with_zero_and_says_what_was_checked():
    result = run("--check")

    assert result.exit_code == 0
    assert "Table 3: 26 of 26" in result.stdout
    assert "printed 32,623; used 32,633" in result.stdout
    cells = json.loads(run("--check", "--json").stdout)
    assert len(cells) == 39
    assert all(cell["rounds"] for cell in cells)


def test_a_wrong_table_number_is_exit_code_2_and_says_what_there_is():
    result = run("--table", "5")

    assert result.exit_code == 2
    assert "5: expected 1, 2, 3 or 4" in result.output


def test_two_output_forms_at_once_are_refused():
    assert run("--json", "--parsable2").exit_code == 2
