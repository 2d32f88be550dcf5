"""`senergy paper`: the published tables, recomputed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from slurm_energy.paper.tables import CellCheck, Row

_WIDTH = 100


def paper(
    table: Annotated[int | None, typer.Option("--table", metavar="1-4", help="Only this table.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Unrounded figures as JSON.")] = False,
    parsable2: Annotated[
        bool, typer.Option("--parsable2", "-P", help="Unrounded figures, fields separated by |, as sacct -P.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Compare each cell with the printed one; exit code 1 if one is off.")
    ] = False,
) -> None:
    """Recompute Tables 1 to 4 of Strubell et al. 2019 from the equations that price every job."""
    from slurm_energy.paper import tables

    if table is not None and table not in tables.TABLES:
        raise typer.BadParameter(f"{table}: expected 1, 2, 3 or 4, the paper's tables", param_hint="--table")
    if json_ and parsable2:
        raise typer.BadParameter("--json and --parsable2 exclude each other", param_hint="--json")
    wanted = [table] if table is not None else sorted(tables.TABLES)
    cells = [cell for one in wanted for cell in tables.check(one)]
    if json_:
        _print_json(table, wanted, cells if check else None)
    elif parsable2:
        _print_parsable(wanted, cells if check else None)
    elif check:
        _print_check(cells)
    else:
        _print_tables(wanted)
    if check and not all(cell.rounds for cell in cells):
        raise typer.Exit(1)


def _print_json(table: int | None, wanted: Sequence[int], cells: Sequence[CellCheck] | None) -> None:
    import json

    from slurm_energy.paper.tables import recompute

    if cells is not None:
        shown: object = [cell._asdict() for cell in cells]
    elif table is not None:
        shown = recompute(table)
    else:
        shown = {str(one): recompute(one) for one in wanted}
    typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))


def _print_parsable(wanted: Sequence[int], cells: Sequence[CellCheck] | None) -> None:
    from slurm_energy.paper.tables import recompute

    blocks = [recompute(one) for one in wanted] if cells is None else [[cell._asdict() for cell in cells]]
    for number, rows in enumerate(blocks):
        if number:
            typer.echo()
        if rows:
            typer.echo("|".join(rows[0]))
        for row in rows:
            typer.echo("|".join("" if value is None else str(value) for value in row.values()))


def _print_check(cells: Sequence[CellCheck]) -> None:
    off = [cell for cell in cells if not cell.rounds]
    console = _console()
    for table in sorted({cell.table for cell in cells}):
        here = [cell for cell in cells if cell.table == table]
        right = sum(cell.rounds for cell in here)
        console.print(f"Table {table}: {right} of {len(here)} recomputed cells round to the printed ones.")
    if not cells:
        console.print("Table 2 has no results to check: its shares are the paper's inputs.")
    if off:
        rows = [
            (str(cell.table), cell.row, cell.column, f"{cell.printed:,}", f"{cell.recomputed:,.2f}") for cell in off
        ]  # fmt: skip
        console.print()
        _show("Cells that do not come out as printed", ("table", "row", "column"), ("printed", "recomputed"), rows)
    _print_read_differently(console)


def _print_tables(wanted: Sequence[int]) -> None:
    from slurm_energy.paper import tables

    for table in wanted:
        title = f"Table {table}. {tables.TITLES[table]}"
        before, after = tables.printed(table), tables.recompute(table)
        if table == 1:
            _print_pairs(title, table, before, after, {"what": "what"}, {"co2e_lb": "lb CO2e"})
        elif table == 2:
            _print_mixes(title, after)
        elif table == 3:
            left = {"model": "model", "hardware": "hardware", "devices": "devices", "hours_exact": "hours"}
            energy = {"kwh_pue": "kWh", "co2e_lb": "lb CO2e"}
            costs = {"cloud_low_usd": "low", "cloud_high_usd": "high"}
            _print_pairs(
                f"{title}: energy with PUE, and CO2e", table, before, after, {**left, "power_w": "W"}, energy
            )  # fmt: skip
            _print_pairs(f"{title}: cloud cost, USD", table, before, after, left, costs)
        else:
            results = {
                "cloud_low_usd": "cloud low",
                "cloud_high_usd": "cloud high",
                "electricity_usd": "electricity",
            }
            _print_pairs(f"{title}, USD", table, before, after, {"models": "models", "gpu_hours": "GPU-h"}, results)
    _print_read_differently(_console())


def _print_pairs(
    title: str,
    table: int,
    before: Sequence[Row],
    after: Sequence[Row],
    left: dict[str, str],
    results: dict[str, str],
) -> None:
    """A table with each recomputed result to the right of the printed one."""
    from slurm_energy.paper import tables

    texts = [name for key, name in left.items() if key in ("what", "model", "hardware")]
    numbers = [name for name in left.values() if name not in texts]
    pairs = [name for result in results.values() for name in (f"{result}\nprinted", "\ncomputed")]
    rows = []
    printed_column = tables.result_columns(table)
    for was, now in zip(before, after, strict=True):
        cells = [_shown(was[key]) for key in left]
        for key in results:
            cells.append(_shown(was[printed_column[key]]))
            cells.append(_shown(now[key], 2) if tables.is_result(table, was) else "")
        rows.append(tuple(cells))
    _show(title, texts, [*numbers, *pairs], rows)


def _print_mixes(title: str, rows: Sequence[Row]) -> None:
    from slurm_energy.paper.tables import ESTIMATED_INTENSITY

    names = {"renewables_pct": "renewables %", "gas_pct": "gas %", "coal_pct": "coal %", "nuclear_pct": "nuclear %"}
    cells = [
        (str(row["consumer"]), *(_shown(row[key]) for key in names), _shown(row[ESTIMATED_INTENSITY], 0)) for row in rows
    ]  # fmt: skip
    note = "The estimate is not in the paper: IPCC AR5 life-cycle medians, renewables as hydro."
    _show(title, ["consumer"], [*names.values(), "g CO2e/kWh,\nestimated"], cells, note)


def _print_read_differently(console: Console) -> None:
    from rich.padding import Padding

    from slurm_energy.paper.tables import READ_DIFFERENTLY

    console.print("Inputs that had to be read differently from print:")
    for item in READ_DIFFERENTLY:
        console.print(Padding(f"{item.where}: printed {item.printed}; used {item.used}", (0, 0, 0, 2)))
        console.print(Padding(item.reason, (0, 0, 0, 4)), style="dim")


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal or console.width > _WIDTH:
        console = Console(highlight=False, width=_WIDTH)
    return console


def _show(
    title: str, left: Sequence[str], right: Sequence[str], rows: Sequence[tuple[str, ...]], note: str = ""
) -> None:  # fmt: skip
    from slurm_energy.report.sections import Section
    from slurm_energy.report.terminal import show

    show([Section(title, (*left, *right), rows, note, len(left))], at_most=_WIDTH)


def _shown(value: str | float | None, decimals: int | None = None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:,}" if decimals is None else f"{value:,.{decimals}f}"
