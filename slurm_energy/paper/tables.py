"""Tables 1 to 4 of Strubell, Ganesh and McCallum, Energy and Policy Considerations for Deep Learning in NLP (ACL 2019,
arXiv:1906.02243), from the paper's inputs and the equations.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import NamedTuple, TypeAlias

from slurm_energy.accounting.equations import (
    carbon_intensity_of_mix,
    cloud_usd,
    electricity_usd,
    emissions_lb,
    facility_energy_kwh,
)

Row: TypeAlias = dict[str, "str | int | float | None"]

TABLES = {1: "table1_comparisons", 2: "table2_energy_mix", 3: "table3_models", 4: "table4_rnd"}
TITLES = {
    1: "Estimated CO2e of training, beside familiar consumption",
    2: "Share of energy sources, and what the mix would emit",
    3: "Training a model",
    4: "Cost of the R&D case study",
}

PUE = 1.58
LB_PER_KWH = 0.954
USD_PER_KWH = 0.12

GPU_W = 216.961
"""Power of one GPU of the case study with its share of CPU and DRAM, W: 78,468 lb / 0.954 / 1.58 / 239,942 h."""

P100_LOW_USD_PER_H = 0.43
P100_HIGH_USD_PER_H = 1.46

# W and hours of the four rows of Table 1 that are results.
_TABLE1_RUNS = {
    "NLP pipeline (parsing, SRL), training one model": (GPU_W, 120),
    "NLP pipeline, with tuning and experimentation": (GPU_W, 239_942),
    "Transformer (big), training one model": (1515.43, 84),
    "Transformer (big), with neural architecture search": (1515.43, 274_120),
}

MIX_FACTORS_G = {"renewables_pct": 24.0, "gas_pct": 490.0, "coal_pct": 820.0, "nuclear_pct": 12.0}
"""g CO2e/kWh, life-cycle medians of IPCC AR5 WG III annex III, table A.III.2 (2014). The paper has no split of the
renewables: hydro's 24 stands for them, the middle one of onshore wind (11), hydro (24) and utility solar (48).
"""

ESTIMATED_INTENSITY = "g_co2e_per_kwh_estimated"
"""The one column that the paper has not: Table 2's mixes as an intensity, the unnamed rest as their mean."""


class ReadDifferently(NamedTuple):
    """A printed input that cannot be the one the paper computed with."""

    where: str
    printed: str
    used: str
    reason: str


READ_DIFFERENTLY = (
    ReadDifferently(
        "Table 3, BERT base on V100, hours",
        "79",
        "79.2",
        "section 2.1 gives 79.2 h; with it 1507 kWh, 1438 lb and 3751 to 12,571 USD come out",
    ),
    ReadDifferently(
        "Footnote 7, low price of TPU v2 and v3",
        "1.46 to 2.40 USD/h",
        "1.35 for v2, 2.40 for v3",
        "Table 3's 2074 USD for 16 TPU v2 over 96 h are 1.35 USD/h",
    ),
    ReadDifferently(
        "Table 3, NAS on TPUv2, hours",
        "32,623",
        "32,633",
        "44,055 and 146,848 USD are 32,633 h at 1.35 and 4.50 USD/h: two digits were swapped",
    ),
    ReadDifferently(
        "Section 4.2, GPU time",
        "9998 days (239,952 h)",
        "239,942 h",
        "Table 4 has 239,942 h, and its costs follow from it",
    ),
    ReadDifferently(
        "Section 4.2, mean job length",
        "52 h",
        "239,942 h in all",
        "4789 jobs of 52 h are 249,028 h; 239,942 h over 4789 jobs are 50.1 h each",
    ),
    ReadDifferently(
        "Table 2, shares",
        "sums of 92 to 98 %",
        "as printed",
        "the rest is sources that the table does not name; the estimate takes them as the mean of the named ones",
    ),
)


class CellCheck(NamedTuple):
    """One printed cell beside the recomputed one; `rounds` says whether they are the same number as printed."""

    table: int
    row: str
    column: str
    printed: int
    recomputed: float
    rounds: bool


def printed(table: int) -> list[Row]:
    """A table of the paper as printed, numbers as numbers, None where it has no figure.

    table: 1 to 4. Raises ValueError for any other number.
    """
    return [dict(row) for row in _printed(_checked(table))]


def recompute(table: int) -> list[Row]:
    """A table of the paper with its results computed from its inputs, unrounded; None where it has no figure.

    The keys are the headings of the packaged CSV file; inputs are as printed, or as READ_DIFFERENTLY says. Rows of
    Table 2 have one key more, `g_co2e_per_kwh_estimated`.

    table: 1 to 4. Raises ValueError for any other number.
    """
    return [_RECOMPUTE[table](dict(row)) for row in _printed(_checked(table))]


def check(table: int | None = None) -> list[CellCheck]:
    """Every printed result beside the recomputed one, of one table or of all.

    A cell is right where the recomputed number rounds to it, half to even: the one cell that tells the difference (NAS
    on TPUv2, 146,848.50 USD) is printed 146,848. Table 2 has inputs only. Raises ValueError for an unknown table.
    """
    return [cell for one in ([_checked(table)] if table is not None else sorted(TABLES)) for cell in _check(one)]


def row_name(row: Row) -> str:
    """What a row of any of the tables is about, for people."""
    if "models" in row:
        return f"{row['models']} model{'' if row['models'] == 1 else 's'}"
    if "model" in row:
        return f"{row['model']} on {row['hardware']}"
    return str(row.get("what", row.get("consumer")))


_RESULTS = {
    1: {"co2e_lb": "co2e_lb"},
    2: {},
    3: {column: column for column in ("kwh_pue", "co2e_lb", "cloud_low_usd", "cloud_high_usd")},
    4: {
        "cloud_low_usd": "cloud_low_usd",
        "cloud_high_usd": "cloud_high_usd",
        "electricity_usd": "electricity_usd_printed",
    },
}


def result_columns(table: int) -> dict[str, str]:
    """Columns of a table that are results, with the column that has the printed figure; ValueError if not 1 to 4."""
    return dict(_RESULTS[_checked(table)])


def is_result(table: int, row: Row) -> bool:
    """Whether a row of a table has results of the paper, or only figures that it quotes."""
    return table in (3, 4) or (table == 1 and row["what"] in _TABLE1_RUNS)


def _check(table: int) -> Iterator[CellCheck]:
    for before, after in zip(_printed(table), recompute(table), strict=True):
        if not is_result(table, before):
            continue
        for column, printed_column in _RESULTS[table].items():
            expected, value = before[printed_column], after[column]
            if isinstance(expected, int) and isinstance(value, int | float):
                rounded = int(Decimal(repr(value)).quantize(Decimal(1), ROUND_HALF_EVEN))
                yield CellCheck(table, row_name(before), column, expected, float(value), rounded == expected)


def _checked(table: int) -> int:
    if table not in TABLES:
        raise ValueError(f"table = {table}: the paper has tables 1, 2, 3 and 4")
    return table


@functools.cache
def _printed(table: int) -> tuple[Row, ...]:
    path = Path(__file__).parent / "data" / f"{TABLES[table]}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return tuple({key: _value(key, text) for key, text in row.items()} for row in csv.DictReader(file))


def _value(column: str, text: str) -> str | int | float | None:
    if column in ("what", "consumer", "model", "hardware"):
        return text
    if not text:
        return None
    return int(text) if text.isdigit() else float(text)


def _table1(row: Row) -> Row:
    if (run := _TABLE1_RUNS.get(str(row["what"]))) is not None:
        row["co2e_lb"] = emissions_lb(facility_energy_kwh(*run, PUE), LB_PER_KWH)
    return row


def _table2(row: Row) -> Row:
    shares = {source: _float(row, source) for source in MIX_FACTORS_G}
    row[ESTIMATED_INTENSITY] = carbon_intensity_of_mix(shares, MIX_FACTORS_G)
    return row


def _table3(row: Row) -> Row:
    hours = _float(row, "hours_exact")
    device_hours = _float(row, "devices") * hours
    if row["power_w"] is not None:
        kwh = facility_energy_kwh(_float(row, "power_w"), hours, PUE)
        row["kwh_pue"] = kwh
        row["co2e_lb"] = emissions_lb(kwh, LB_PER_KWH)
    row["cloud_low_usd"] = cloud_usd(device_hours, _float(row, "price_low_usd_per_device_h"))
    row["cloud_high_usd"] = cloud_usd(device_hours, _float(row, "price_high_usd_per_device_h"))
    return row


def _table4(row: Row) -> Row:
    hours = _float(row, "gpu_hours")
    row["cloud_low_usd"] = cloud_usd(hours, P100_LOW_USD_PER_H)
    row["cloud_high_usd"] = cloud_usd(hours, P100_HIGH_USD_PER_H)
    row["electricity_usd"] = electricity_usd(facility_energy_kwh(GPU_W, hours, PUE), USD_PER_KWH)
    return row


def _float(row: Row, column: str) -> float:
    value = row[column]
    if not isinstance(value, int | float):
        raise TypeError(f"{column} = {value!r}: expected a number")
    return float(value)


_RECOMPUTE: dict[int, Callable[[Row], Row]] = {1: _table1, 2: _table2, 3: _table3, 4: _table4}
