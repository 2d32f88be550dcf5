"""A month in figures for those who answer for it."""

from __future__ import annotations

from typing import Any

from panels import KEEP, WINDOWS, Column, bars, board, chosen, course, one, row, rows, windows

from boards.common import J_KWH, C
from slurm_energy.paper.tables import printed
from slurm_energy.units import LB_G


def management() -> Any:
    page = board(
        "slurm-energy-management", "slurm-energy: management report",
        "A month: emissions, money, what they compare with, and how much of it is measured; this month as of the ledger's last "
        "day, or the whole last one. Earlier months: `senergy report`, for the ledger keeps them all.",
        [chosen("cluster", "Cluster", "slurm_energy_ledger_day_files", "Clusters of the ledger."), windows(whole=False)],
        since="now-90d", refresh="1h",
    )  # fmt: skip

    def month(what: str, window: str = "$window") -> str:
        return f'sum(slurm_energy_ledger_cluster_{what}{{{C},window="{window}"}})'

    emitted = month("co2e_grams")
    page = page.with_row(row("${window:text}")).with_panel(
        one("Emissions", "CO2 equivalent of the jobs: IT energy x PUE x carbon intensity of the hour or the year.", emitted, "massg")
    ).with_panel(
        one("Facility energy", "IT energy x PUE.", f"{month('facility_energy_joules')} / {J_KWH}", "kwatth")
    ).with_panel(
        one("Electricity", "Facility energy x price.", month("electricity_usd"), "currencyUSD", decimals=0)
    ).with_panel(
        one("The same in a cloud, from", "At the low price of the clouds (spot).", month("cloud_low_usd"), "currencyUSD", decimals=0)
    ).with_panel(
        one("The same in a cloud, to", "At the high price of the clouds (on demand).", month("cloud_high_usd"), "currencyUSD", decimals=0)
    ).with_panel(
        one("GPU-hours", "Hours of all GPUs that jobs had.", f"{month('gpu_seconds')} / 3600", "h")
    ).with_panel(
        one("Jobs", "Jobs that ran.", month("jobs"), "short")
    ).with_panel(
        one("PUE", "Facility energy over IT energy: what cooling and losses add.",
            f"{month('facility_energy_joules')} / ({month('it_energy_joules')} > 0)", "short", decimals=2)
    ).with_panel(
        one("Emissions by kWh", "Emissions over facility energy: how clean the electricity was.",
            f"{emitted} / ({month('facility_energy_joules')} / {J_KWH} > 0)", "massg", decimals=0)
    ).with_panel(
        one("Emissions by GPU-hour", "Emissions of all jobs over all GPU-hours.",
            f"{emitted} / ({month('gpu_seconds')} / 3600 > 0)", "massg", decimals=0)
    ).with_panel(
        one("Measured", "Share of the IT energy that nodes measured; the rest is told by Slurm or estimated.",
            f'sum(slurm_energy_ledger_provenance_energy_joules{{{C},window="$window",provenance="measured"}}) / '
            f'({month("it_energy_joules")} > 0)', "percentunit", decimals=0, steps=[(None, "orange"), (0.5, "yellow"), (0.9, "green")])
    ).with_panel(
        one("Energy that no job used", "Measured idle IT energy: what nodes drew while they waited. 0 where nothing is measured.",
            f'(sum(slurm_energy_ledger_idle_energy_joules{{{C},window="$window"}}) or vector(0)) / {J_KWH}', "kwatth")
    )  # fmt: skip
    compared = [
        (f"{emitted} / {float(entry['co2e_lb'] or 0) * LB_G:.0f}", str(entry["what"]))
        for entry in printed(1)
        if isinstance(entry["co2e_lb"], (int, float))
    ]
    page = page.with_panel(
        bars("The month's emissions, in other terms", "How often the month holds what each of these emits (Strubell, Ganesh and "
             "McCallum 2019, Table 1).", compared, "none", 12, decimals=2, height=10)
    ).with_panel(
        bars("Emissions by project", "The ten projects that emitted the most in the month.",
             [(f'sort_desc(topk(10, sum by (project) (slurm_energy_ledger_project_co2e_grams{{{C},window="$window"}})))', "{{project}}")],
             "massg", 12, height=10, decimals=1,
             link=("Projects and users", f"/d/slurm-energy-projects?{KEEP}&${{window:queryparam}}&var-project=${{__field.labels.project}}"))
    )  # fmt: skip

    def side(what: str, per: str = "") -> str:
        return f'sum by (window) (slurm_energy_ledger_cluster_{what}{{{C},window!="all"}}){per}'

    def projects_in(window: str) -> str:
        return f'sum by (project) (slurm_energy_ledger_project_co2e_grams{{{C},window="{window}"}})'

    page = page.with_row(row("This month and last month")).with_panel(
        rows("Side by side", "This month goes on, as of the ledger's last day; last month is whole.",
             [Column("Emissions", side("co2e_grams"), "massg", 1, bars=True),
              Column("Facility energy", side("facility_energy_joules", f" / {J_KWH}"), "kwatth", 0),
              Column("Electricity", side("electricity_usd"), "currencyUSD", 0),
              Column("GPU time", side("gpu_seconds", " / 3600"), "h", 0),
              Column("Jobs", side("jobs"), "short", 0),
              Column("Measured", f'sum by (window) (slurm_energy_ledger_provenance_energy_joules{{{C},window!="all",'
                     f'provenance="measured"}}) / ({side("it_energy_joules")} > 0)', "percentunit", 0)],
             span=14, order=("window",), said={"window": WINDOWS})
    ).with_panel(
        rows("Emissions by project, side by side", "This month as of the ledger's last day; last month is whole.",
             [Column("This month", projects_in("month"), "massg", 1, bars=True),
              Column("Last month", projects_in("last_month"), "massg", 1, bars=True)],
             span=10, sort="Last month", order=("project",))
    )  # fmt: skip
    page = page.with_row(row("Over time")).with_panel(
        course("Emissions through the months", "Grows from 0 each month: the height at a month's end is the month. As far back as "
               "Prometheus keeps.",
               [(f"sum by (cluster) (slurm_energy_ledger_cluster_co2e_grams{{{C},window=\"month\"}})", "{{cluster}}")], "massg", 12)
    ).with_panel(
        course("Electricity through the months", "Grows from 0 each month: the height at a month's end is the month. As far back "
               "as Prometheus keeps.",
               [(f"sum by (cluster) (slurm_energy_ledger_cluster_electricity_usd{{{C},window=\"month\"}})", "{{cluster}}")],
               "currencyUSD", 12)
    )  # fmt: skip
    return page.with_row(row("All that the ledger holds")).with_panel(
        one("Emissions", "CO2 equivalent since the ledger's first day.", month("co2e_grams", "all"), "massg")
    ).with_panel(
        one("Facility energy", "Since the ledger's first day.", f"{month('facility_energy_joules', 'all')} / {J_KWH}", "kwatth")
    ).with_panel(
        one("Electricity", "Since the ledger's first day.", month("electricity_usd", "all"), "currencyUSD", decimals=0)
    ).with_panel(
        one("GPU-hours", "Since the ledger's first day.", f"{month('gpu_seconds', 'all')} / 3600", "h")
    ).with_panel(
        one("Up to", "The end of the ledger's last day; of several clusters, of the one that is farthest behind.",
            f"min(slurm_energy_ledger_last_day_timestamp_seconds{{{C}}}) * 1000", "dateTimeAsIso")
    ).with_panel(
        one("Rows set aside", "Rows of the input that could not be read and are not in these figures.",
            "sum(slurm_energy_ledger_set_aside_rows)", "short", steps=[(None, "green"), (1, "yellow")])
    )  # fmt: skip
