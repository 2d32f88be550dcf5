"""Projects and users, out of the ledger."""

from __future__ import annotations

from typing import Any

from panels import Column, bars, board, chosen, course, one, rows, shares, windows

from boards.common import J_KWH, C


def projects() -> Any:
    page = board(
        "slurm-energy-projects", "slurm-energy: projects and users",
        "What projects and users have used, emitted and cost, out of the ledger: what `senergy report` says, as of its last day.",
        [chosen("cluster", "Cluster", "slurm_energy_ledger_day_files", "Clusters of the ledger."), windows(),
         chosen("project", "Project", f"slurm_energy_ledger_project_jobs{{{C}}}", "Projects; `other`: beyond the exporter's limit."),
         chosen("user", "User", f"slurm_energy_ledger_user_jobs{{{C}}}", "Users, where the exporter shows them.")],
        since="now-30d", refresh="5m",
    )  # fmt: skip
    w = f'{C},window="$window"'
    p = f'{w},project=~"$project"'
    u = f'{w},user=~"$user"'

    def total(what: str, by: str = "") -> str:
        return f"sum{by}(slurm_energy_ledger_project_{what}{{{p}}})"

    page = page.with_panel(
        one("Facility energy", "IT energy x PUE of the chosen projects.", f"{total('facility_energy_joules')} / {J_KWH}", "kwatth")
    ).with_panel(
        one("Emissions", "CO2 equivalent of the chosen projects.", total("co2e_grams"), "massg")
    ).with_panel(
        one("Electricity", "Cost of the electricity.", total("electricity_usd"), "currencyUSD")
    ).with_panel(
        one("The same in a cloud, from", "Cloud-equivalent cost at the low price (spot).", total("cloud_low_usd"), "currencyUSD")
    ).with_panel(
        one("The same in a cloud, to", "Cloud-equivalent cost at the high price (on demand).", total("cloud_high_usd"), "currencyUSD")
    ).with_panel(
        one("GPU-hours", "Hours of all their GPUs.", f"{total('gpu_seconds')} / 3600", "h")
    )  # fmt: skip

    def columns(level: str, chosen_: str) -> list[Column]:
        def figure(what: str, per: str = "") -> str:
            return f"sum by ({level}) (slurm_energy_ledger_{level}_{what}{{{chosen_}}}){per}"

        return [
            Column("Facility energy", figure("facility_energy_joules", f" / {J_KWH}"), "kwatth", 1, bars=True),
            Column("IT energy", figure("it_energy_joules", f" / {J_KWH}"), "kwatth", 1),
            Column(
                "Measured",
                f"sum by ({level}) (slurm_energy_ledger_{level}_provenance_energy_joules{{{chosen_},"
                f'provenance="measured"}}) / ({figure("it_energy_joules")} > 0)',
                "percentunit",
                0,
            ),
            Column("CO2e", figure("co2e_grams"), "massg", 1),
            Column("GPU time", figure("gpu_seconds", " / 3600"), "h", 0),
            Column("CPU time", figure("cpu_seconds", " / 3600"), "h", 0),
            Column("Jobs", figure("jobs"), "short", 0),
            Column("Electricity", figure("electricity_usd"), "currencyUSD", 2),
            Column("Cloud, from", figure("cloud_low_usd"), "currencyUSD", 0),
            Column("Cloud, to", figure("cloud_high_usd"), "currencyUSD", 0),
        ]

    page = page.with_panel(
        rows("Projects", "The chosen projects, most energy first. Measured: share of the IT energy that nodes measured.",
             columns("project", p), span=24, sort="Facility energy", order=("project",))
    ).with_panel(
        rows("Users", "The chosen users, most energy first, over all their projects. Measured: as above.",
             columns("user", u), span=24, sort="Facility energy", order=("user",))
    )  # fmt: skip
    page = page.with_panel(
        course("Emissions as the ledger grows", "The ten projects that emitted the most. This month begins at 0 on its first day.",
               [(f"topk(10, sum by (project) (slurm_energy_ledger_project_co2e_grams{{{p}}}))", "{{project}}")], "massg", 12)
    ).with_panel(
        course("Live watts of the accounts of these names", "What runs now; the ledger has it tomorrow. For projects that are "
               "Slurm accounts.",
               [(f'topk(10, sum by (account) (account:slurm_energy_power_watts:sum{{{C},account=~"$project"}}))', "{{account}}")],
               "watt", 12)
    )  # fmt: skip
    return page.with_panel(
        shares("Where the figures come from", "IT energy of the chosen projects by provenance: measured on the nodes, told by "
               "Slurm's own plugin, or estimated from rated power.",
               f"sum by (provenance) (slurm_energy_ledger_project_provenance_energy_joules{{{p}}}) / {J_KWH}", "{{provenance}}", "kwatth")
    ).with_panel(
        bars("Clusters", "Facility energy of each cluster.",
             [(f"sort_desc(sum by (cluster) (slurm_energy_ledger_cluster_facility_energy_joules{{{w}}}) / {J_KWH})", "{{cluster}}")],
             "kwatth", decimals=1)
    ).with_panel(
        rows("The ledger", "How far it reaches, by cluster. Rows set aside and names folded into `other` are told by the exporter "
             "as a whole.",
             [Column("Days", f"max by (cluster) (slurm_energy_ledger_day_files{{{C}}})", "short", 0),
              Column("Up to", f"max by (cluster) (slurm_energy_ledger_last_day_timestamp_seconds{{{C}}}) * 1000", "dateTimeAsIso"),
              Column("Written", f"max by (cluster) (slurm_energy_ledger_last_write_timestamp_seconds{{{C}}}) * 1000", "dateTimeFromNow")],
             (), 8, order=("cluster",))
    )  # fmt: skip
