"""Where the watts of a cluster go now."""

from __future__ import annotations

from typing import Any

from panels import Column, bars, board, chosen, course, one, rows

from boards.common import DOMAINS_LEGEND, GOOD_AT_ZERO, JOB_LINK, NODE_LINK, SCRAPED, C


def cluster() -> Any:
    page = board(
        "slurm-energy-cluster", "slurm-energy: cluster, live",
        f"What the cluster draws now, who draws it, and what that emits and costs. {SCRAPED} Needs the recording rules.",
        [chosen("cluster", "Cluster", "slurm_energy_agent_up", "Clusters by the targets' label.")],
        since="now-1h", refresh="30s",
    )  # fmt: skip
    page = page.with_panel(
        one("IT power", "Sum over all nodes that answer, all domains.", f"sum(cluster:slurm_energy_power_watts:sum{{{C}}})",
            "watt", trend=True)
    ).with_panel(
        one("Facility power", "IT power x the site's PUE (slurm_energy:pue in slurm-energy-site.rules.yml).",
            f"sum(cluster:slurm_energy_power_watts:sum{{{C}}} * on (cluster) slurm_energy:pue)", "watt", trend=True)
    ).with_panel(
        one("Emissions in an hour", "CO2 equivalent of an hour at this power: IT power x PUE x the site's carbon intensity.",
            f"sum(cluster:slurm_energy_co2e_grams_per_hour:sum{{{C}}})", "massg", decimals=1, trend=True)
    ).with_panel(
        one("Electricity for an hour", "Cost of an hour at this power: IT power x PUE x the site's price.",
            f"sum(cluster:slurm_energy_electricity_usd_per_hour:sum{{{C}}})", "currencyUSD", decimals=2, trend=True)
    ).with_panel(
        one("Share that no job gets", "Idle power of all nodes over their power: what runs for nobody.",
            f"sum(cluster:slurm_energy_idle_power_watts:sum{{{C}}}) / sum(cluster:slurm_energy_power_watts:sum{{{C}}})",
            "percentunit", decimals=0, steps=[(None, "green"), (0.4, "yellow"), (0.7, "orange")], trend=True)
    ).with_panel(
        one("Nodes without live watts", "Nodes whose exporter or agent does not answer, or whose agent is stuck.",
            'count((up{job="slurm-energy-node",' + C + '} == 0) or (slurm_energy_agent_up{' + C + "} == 0)) or vector(0)",
            "short", steps=GOOD_AT_ZERO)
    )  # fmt: skip
    page = page.with_panel(
        course("Power by domain", "CPU packages, memory, GPUs, and what the nodes draw beyond them where their input is measured.",
               [(f"sum by (domain) (cluster_domain:slurm_energy_power_watts:sum{{{C}}})", DOMAINS_LEGEND)], "watt", stacked=True)
    ).with_panel(
        course("Jobs and idle", "Power that jobs get, and what is left. The two add up to the nodes' power.",
               [(f"sum(job:slurm_energy_power_watts:sum{{{C}}})", "jobs"),
                (f"sum(cluster:slurm_energy_idle_power_watts:sum{{{C}}})", "idle")], "watt", stacked=True)
    ).with_panel(
        course("Accounts", "The ten accounts that draw the most.",
               [(f"topk(10, sum by (account) (account:slurm_energy_power_watts:sum{{{C}}}))", "{{account}}")], "watt")
    ).with_panel(
        course("Users", "The ten users that draw the most.",
               [(f"topk(10, sum by (user) (user:slurm_energy_power_watts:sum{{{C}}}))", "{{user}}")], "watt")
    )  # fmt: skip
    page = page.with_panel(
        rows("Nodes", "Each node's power, its share of what it is rated for (slurm_energy:node_rated_watts), and its jobs. "
             "A click on a node leads to it.",
             [Column("Power", f"node:slurm_energy_power_watts:sum{{{C}}}", "watt"),
              Column("Of its rating", f"node:slurm_energy_power_watts:sum{{{C}}} / on (cluster, node) slurm_energy:node_rated_watts",
                     "percentunit", 0, bars=True),
              Column("Jobs", f"sum by (cluster, node) (slurm_energy_jobs{{{C}}})", "short", 0)],
             links={"node": ("The node", NODE_LINK)}, sort="Power", order=("cluster", "node"))
    ).with_panel(
        rows("Jobs", "The hundred jobs that draw the most, over all their nodes, and what each has used on them so far. A click "
             "on a job leads to it.",
             [Column("Power", f"topk(100, sum by (cluster, jobid, user, account, partition) (job:slurm_energy_power_watts:sum{{{C}}}))",
                     "watt"),
              Column("Nodes", f"count by (cluster, jobid, user, account, partition) (job:slurm_energy_power_watts:sum{{{C}}}) "
                     f"and topk(100, sum by (cluster, jobid, user, account, partition) (job:slurm_energy_power_watts:sum{{{C}}}))",
                     "short", 0)],
             links={"jobid": ("The job", JOB_LINK)}, sort="Power", order=("cluster", "jobid", "user", "account", "partition"))
    )  # fmt: skip
    return page.with_panel(
        bars("Energy of the last hour, by account", "IT energy, out of the counters; jobs that ended within the hour are in.",
             [(f"sort_desc(sum by (account) (account:slurm_energy_kwh:increase1h{{{C}}}))", "{{account}}")], "kwatth", decimals=2)
    ).with_panel(
        bars("Power by partition", "Power that the jobs of each partition get.",
             [(f"sort_desc(sum by (partition) (partition:slurm_energy_power_watts:sum{{{C}}}))", "{{partition}}")], "watt")
    ).with_panel(
        bars("Health", "All of it is 0 on a healthy cluster. The alerts say what to do.",
             [('count(ALERTS{alertname=~"SlurmEnergy.*",alertstate="firing",' + C + "}) or vector(0)", "alerts that fire"),
              (f"count(slurm_energy_meter_up{{{C}}} == 0) or vector(0)", "counters without a reading"),
              (f"count(slurm_energy_sources_refused{{{C}}} == 1) or vector(0)", "sources that may not be read"),
              (f"count(slurm_energy_outbox_fill_ratio{{{C}}} > 0.5) or vector(0)", "outboxes more than half full"),
              (f"sum(slurm_energy_agent_problems{{{C}}}) or vector(0)", "problems that agents tell")], "short", decimals=0)
    )  # fmt: skip
