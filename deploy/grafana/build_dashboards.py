"""Writes the dashboards' JSON: python deploy/grafana/build_dashboards.py [FOLDER]

The JSON in deploy/grafana/dashboards is made by this and not edited by hand; a test compares the two. Needs Python 3.11
and the extra `grafana`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from panels import KEEP, Column, bars, board, chosen, course, one, row, rows, shares, windows

from slurm_energy.paper.tables import printed
from slurm_energy.units import LB_G

FOLDER = Path(__file__).parent / "dashboards"

C = 'cluster=~"$cluster"'
N = f'{C},node=~"$node"'
J = f'{C},jobid="$jobid"'
DOMAINS_LEGEND = "{{domain}}"
NODE_LINK = f"/d/slurm-energy-node?{KEEP}&var-cluster=${{__data.fields.cluster}}&var-node=${{__value.raw}}"
JOB_LINK = f"/d/slurm-energy-job?{KEEP}&var-cluster=${{__data.fields.cluster}}&var-jobid=${{__value.raw}}"
GOOD_AT_ZERO = [(None, "green"), (1, "red")]
UP = {"0": "not there", "1": "up"}
J_KWH = "3.6e6"
SCRAPED = "Live figures are IT watts out of the nodes' counters, a scrape old at most."


def cluster() -> Any:
    """Where the watts of a cluster go now."""
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
              (f"count(slurm_energy_counter_up{{{C}}} == 0) or vector(0)", "counters without a reading"),
              (f"count(slurm_energy_sources_refused{{{C}}} == 1) or vector(0)", "sources that may not be read"),
              (f"count(slurm_energy_outbox_fill_ratio{{{C}}} > 0.5) or vector(0)", "outboxes more than half full"),
              (f"sum(slurm_energy_agent_problems{{{C}}}) or vector(0)", "problems that agents tell")], "short", decimals=0)
    )  # fmt: skip


def node() -> Any:
    """One node, its jobs, its counters."""
    page = board(
        "slurm-energy-node", "slurm-energy: node",
        f"What a node draws, which jobs get it, and how well it is measured. {SCRAPED}",
        [chosen("cluster", "Cluster", "slurm_energy_agent_up", "Clusters by the targets' label.", several=False),
         chosen("node", "Node", f"slurm_energy_agent_up{{{C}}}", "Nodes by the targets' label.", several=False)],
        since="now-1h", refresh="15s",
    )  # fmt: skip
    page = page.with_panel(
        one("Power", "All domains together.", f"sum(slurm_energy_node_power_watts{{{N}}})", "watt", trend=True)
    ).with_panel(
        one("Of its rating", "Power over slurm_energy:node_rated_watts of slurm-energy-site.rules.yml.",
            f"max(node:slurm_energy_power_watts:sum{{{N}}} / on (cluster, node) slurm_energy:node_rated_watts)", "percentunit",
            decimals=0, steps=[(None, "green"), (0.9, "yellow"), (1, "red")])
    ).with_panel(
        one("Share that no job gets", "Idle power over the node's.",
            f"sum(slurm_energy_idle_power_watts{{{N}}}) / sum(slurm_energy_node_power_watts{{{N}}})", "percentunit", decimals=0)
    ).with_panel(
        one("Jobs", "Jobs on the node now.", f"sum(slurm_energy_jobs{{{N}}})", "short")
    ).with_panel(
        one("Agent", "Whether the agent answers and looks at its counters.", f"min(slurm_energy_agent_up{{{N}}})", "short",
            steps=[(None, "red"), (1, "green")], shown=UP)
    ).with_panel(
        one("Its last look", "How long ago the agent looked at its counters, as of the last scrape.",
            f"max(time() - slurm_energy_agent_last_look_timestamp_seconds{{{N}}})", "s", decimals=0,
            steps=[(None, "green"), (90, "red")])
    )  # fmt: skip
    page = page.with_panel(
        course("Power by domain", "CPU packages, memory, GPUs, and what the node draws beyond them where its input is measured.",
               [(f"sum by (domain) (slurm_energy_node_power_watts{{{N}}})", DOMAINS_LEGEND)], "watt", stacked=True)
    ).with_panel(
        course("Power by job", "What each job gets; idle is what no job gets. A click on a line leads to the job.",
               [(f"sum by (cluster, jobid) (slurm_energy_job_power_watts{{{N}}})", "{{jobid}}"),
                (f"sum(slurm_energy_idle_power_watts{{{N}}})", "idle")], "watt", stacked=True,
               link=("The job", f"/d/slurm-energy-job?{KEEP}&var-cluster=${{__field.labels.cluster}}&var-jobid=${{__field.labels.jobid}}"))
    ).with_panel(
        course("GPUs", "Power of each GPU.",
               [(f"slurm_energy_gpu_power_watts{{{N}}} * on (cluster, node, gpu) group_left (model) slurm_energy_gpu_info",
                 "{{gpu}} {{model}}")], "watt")
    ).with_panel(
        course("CPUs in use by job", "CPU time of each job by second: how many cores it keeps busy here.",
               [(f"sum by (jobid) (rate(slurm_energy_job_cpu_seconds_total{{{N}}}[$__rate_interval]))", "{{jobid}}")],
               "short", stacked=True)
    )  # fmt: skip
    same = "on (cluster, node, jobid, run) group_left (user, account, partition, origin) slurm_energy_job_info"
    page = page.with_panel(
        rows("Jobs", "Who is on the node, and what each has used here since its start. origin: hook (the Prolog told of it) or "
             "discovered (found by its cgroup). A click on a job leads to it.",
             [Column("Power", f"sum by (cluster, node, jobid, run) (slurm_energy_job_power_watts{{{N}}}) * {same}", "watt"),
              Column("Energy", f"sum by (cluster, node, jobid, run) (slurm_energy_job_energy_joules_total{{{N}}}) / {J_KWH} * {same}",
                     "kwatth", 3),
              Column("CPU time", f"sum by (cluster, node, jobid, run) (slurm_energy_job_cpu_seconds_total{{{N}}}) * {same}", "s", 0)],
             ("cluster", "node", "run"), links={"jobid": ("The job", JOB_LINK.replace("__data.fields.cluster", "cluster"))},
             sort="Power", order=("jobid", "user", "account", "partition", "origin"))
    ).with_panel(
        rows("Counters", "What the node's power is read from. Estimated ones are no meters: rated power by utilisation. Gaps are "
             "readings that a counter did not give since the agent was started.",
             [Column("Reading", f"min by (counter, domain, estimated) (slurm_energy_counter_up{{{N}}})", "short", words=UP),
              Column("Gaps", f"sum by (counter, domain, estimated) (slurm_energy_counter_gaps_total{{{N}}} * on (cluster, node, "
                     f"counter) group_left (domain, estimated) slurm_energy_counter_up{{{N}}})", "short", 0)],
             order=("domain", "counter", "estimated"))
    )  # fmt: skip
    return page.with_panel(
        course("Conservation", "What jobs and idle got within 15 minutes, over what the counters moved, less 1: 0 but for "
               "rounding. No line while jobs begin or end.",
               [(f"node:slurm_energy_conservation_error:ratio15m{{{N}}}", "difference")], "percentunit", 8,
               steps=[(None, "green"), (0.01, "red")], minimum=None)
    ).with_panel(
        course("Outbox", "How full the outbox of segments is, and how many are not in it yet. Both fall to 0 every few minutes.",
               [(f"max(slurm_energy_outbox_fill_ratio{{{N}}}) * 100", "outbox, %"),
                (f"sum(slurm_energy_pending_segments{{{N}}})", "segments waiting")], "short", 8)
    ).with_panel(
        bars("Since the agent's start", "Each of them is 0 on a healthy node.",
             [(f"sum(slurm_energy_counter_gaps_total{{{N}}})", "readings that counters did not give"),
              (f"sum(slurm_energy_clock_jumps_total{{{N}}})", "jumps of the clock"),
              (f"sum(slurm_energy_hook_files_bad_total{{{N}}})", "bad hook files"),
              (f"sum(slurm_energy_files_set_aside_total{{{N}}})", "own files set aside"),
              (f"count(slurm_energy_sources_refused{{{N}}} == 1) or vector(0)", "sources that may not be read"),
              (f"sum(slurm_energy_agent_problems{{{N}}})", "problems that the agent tells")], "short", decimals=0)
    )  # fmt: skip


def job() -> Any:
    """One job, over its nodes."""
    page = board(
        "slurm-energy-job", "slurm-energy: job",
        f"What a job draws on each of its nodes, and what it has used so far. {SCRAPED} A job that ended shows the last that was "
        "scraped of it within the time range; the ledger has it to the joule.",
        [chosen("cluster", "Cluster", "slurm_energy_job_info", "Clusters by the targets' label.", several=False),
         chosen("jobid", "Job", f"slurm_energy_job_info{{{C}}}", "Slurm's job id; jobs that were there within the time range.",
                several=False)],
        since="now-3h", refresh="15s",
    )  # fmt: skip
    used = f"sum by (cluster) (max_over_time(slurm_energy_job_energy_joules_total{{{J}}}[$__range])) / {J_KWH}"
    page = page.with_panel(
        one("Power", "Over all its nodes and domains, as last scraped.",
            f"sum(last_over_time(slurm_energy_job_power_watts{{{J}}}[$__range]))", "watt")
    ).with_panel(
        one("Energy so far", "IT energy on all its nodes since its start, all its runs within the time range.",
            f"sum({used})", "kwatth", decimals=3)
    ).with_panel(
        one("Emissions so far", "Energy x the site's PUE x carbon intensity, CO2 equivalent.",
            f"sum({used} * on (cluster) slurm_energy:pue * on (cluster) slurm_energy:carbon_g_per_kwh)", "massg", decimals=1)
    ).with_panel(
        one("Electricity so far", "Energy x the site's PUE x price.",
            f"sum({used} * on (cluster) slurm_energy:pue * on (cluster) slurm_energy:electricity_usd_per_kwh)", "currencyUSD",
            decimals=3)
    ).with_panel(
        one("Nodes", "Nodes that it runs or ran on.",
            f"count(group by (node) (last_over_time(slurm_energy_job_info{{{J}}}[$__range])))", "short")
    ).with_panel(
        one("CPU time", "On all its nodes.", f"sum(max_over_time(slurm_energy_job_cpu_seconds_total{{{J}}}[$__range]))", "s",
            decimals=0)
    )  # fmt: skip
    page = page.with_panel(
        course("Power by node", "All domains. A click on a line leads to the node.",
               [(f"sum by (cluster, node) (slurm_energy_job_power_watts{{{J}}})", "{{node}}")], "watt", stacked=True,
               link=("The node", f"/d/slurm-energy-node?{KEEP}&var-cluster=${{__field.labels.cluster}}&var-node=${{__field.labels.node}}"))
    ).with_panel(
        course("Power by domain", "Over all its nodes. Of CPU and memory a job gets its part of the node's floor and of the rest.",
               [(f"sum by (domain) (slurm_energy_job_power_watts{{{J}}})", DOMAINS_LEGEND)], "watt", stacked=True)
    ).with_panel(
        course("Its GPUs", "Power of each GPU that it holds; of a GPU that several jobs share, all of it.",
               [(f"slurm_energy_gpu_power_watts{{{C}}} and on (cluster, node, gpu) slurm_energy_job_gpu_info{{{J}}}",
                 "{{node}} {{gpu}}")], "watt")
    ).with_panel(
        course("CPUs in use", "CPU time by second on each node: how many cores it keeps busy.",
               [(f"sum by (node) (rate(slurm_energy_job_cpu_seconds_total{{{J}}}[$__rate_interval]))", "{{node}}")], "short",
               stacked=True)
    )  # fmt: skip
    return page.with_panel(
        rows("Who, and where", "The job on each of its nodes. run: the first second of the run there. A click on a node leads to it.",
             [Column("Energy", f"sum by (cluster, node, jobid, run) (max_over_time(slurm_energy_job_energy_joules_total{{{J}}}"
                     f"[$__range])) / {J_KWH} * on (cluster, node, jobid, run) group_left (user, account, partition, origin) "
                     f"topk by (cluster, node, jobid, run) (1, group by (cluster, node, jobid, run, user, account, partition, origin) "
                     f"(last_over_time(slurm_energy_job_info{{{J}}}[$__range])))", "kwatth", 3)],
             ("jobid", "cluster"), 12, links={"node": ("The node", NODE_LINK.replace("__data.fields.cluster", "cluster"))},
             order=("node", "user", "account", "partition", "origin", "run"))
    ).with_panel(
        course("Its share of its nodes", "The job's power over the node's.",
               [(f"sum by (cluster, node) (slurm_energy_job_power_watts{{{J}}}) / on (cluster, node) "
                 "sum by (cluster, node) (slurm_energy_node_power_watts)", "{{node}}")], "percentunit")
    )  # fmt: skip


def projects() -> Any:
    """Projects and users, out of the ledger."""
    page = board(
        "slurm-energy-projects", "slurm-energy: projects and users",
        "What projects and users have used, emitted and cost, out of the ledger: what `senergy report` says, as of its last day.",
        [chosen("cluster", "Cluster", "slurm_energy_ledger_days", "Clusters of the ledger."), windows(),
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
            Column("CO2e", figure("co2e_grams"), "massg", 1),
            Column("GPU time", figure("gpu_seconds", " / 3600"), "h", 0),
            Column("CPU time", figure("cpu_seconds", " / 3600"), "h", 0),
            Column("Jobs", figure("jobs"), "short", 0),
            Column("Electricity", figure("electricity_usd"), "currencyUSD", 2),
            Column("Cloud, from", figure("cloud_low_usd"), "currencyUSD", 0),
            Column("Cloud, to", figure("cloud_high_usd"), "currencyUSD", 0),
        ]

    page = page.with_panel(
        rows("Projects", "The chosen projects, most energy first.", columns("project", p), span=24, sort="Facility energy",
             order=("project",))
    ).with_panel(
        rows("Users", "The chosen users, most energy first, over all their projects.", columns("user", u), span=24,
             sort="Facility energy", order=("user",))
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
        shares("Where the figures come from", "IT energy of jobs by provenance: measured on the nodes, told by Slurm's own "
               "plugin, or estimated from rated power.",
               f"sum by (provenance) (slurm_energy_ledger_provenance_energy_joules{{{w}}}) / {J_KWH}", "{{provenance}}", "kwatth")
    ).with_panel(
        bars("Clusters", "Facility energy of each cluster.",
             [(f"sort_desc(sum by (cluster) (slurm_energy_ledger_cluster_facility_energy_joules{{{w}}}) / {J_KWH})", "{{cluster}}")],
             "kwatth", decimals=1)
    ).with_panel(
        rows("The ledger", "How far it reaches, by cluster. Rows set aside and names folded into `other` are told by the exporter "
             "as a whole.",
             [Column("Days", f"max by (cluster) (slurm_energy_ledger_days{{{C}}})", "short", 0),
              Column("Up to", f"max by (cluster) (slurm_energy_ledger_last_day_timestamp_seconds{{{C}}}) * 1000", "dateTimeAsIso"),
              Column("Written", f"max by (cluster) (slurm_energy_ledger_last_write_timestamp_seconds{{{C}}}) * 1000", "dateTimeFromNow")],
             (), 8, order=("cluster",))
    )  # fmt: skip


def management() -> Any:
    """A month in figures for those who answer for it."""
    page = board(
        "slurm-energy-management", "slurm-energy: management report",
        "The current month: emissions, money, what they compare with, and how much of it is measured. As of the ledger's last day.",
        [chosen("cluster", "Cluster", "slurm_energy_ledger_days", "Clusters of the ledger.")], since="now-90d", refresh="1h",
    )  # fmt: skip

    def month(what: str, window: str = "month") -> str:
        return f'sum(slurm_energy_ledger_cluster_{what}{{{C},window="{window}"}})'

    emitted = month("co2e_grams")
    page = page.with_row(row("This month")).with_panel(
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
            f"{month('facility_energy_joules')} / {month('it_energy_joules')}", "short", decimals=2)
    ).with_panel(
        one("Emissions by kWh", "Emissions over facility energy: how clean the electricity was.",
            f"{emitted} / ({month('facility_energy_joules')} / {J_KWH})", "massg", decimals=0)
    ).with_panel(
        one("Emissions by GPU-hour", "Emissions of all jobs over all GPU-hours.",
            f"{emitted} / ({month('gpu_seconds')} / 3600)", "massg", decimals=0)
    ).with_panel(
        one("Measured", "Share of the IT energy that nodes measured; the rest is told by Slurm or estimated.",
            f'sum(slurm_energy_ledger_provenance_energy_joules{{{C},window="month",provenance="measured"}} or '
            f'slurm_energy_ledger_provenance_energy_joules{{{C},window="month"}} * 0) / {month("it_energy_joules")}', "percentunit",
            decimals=0, steps=[(None, "orange"), (0.5, "yellow"), (0.9, "green")])
    ).with_panel(
        one("Energy that no job used", "Measured idle IT energy: what nodes drew while they waited. 0 where nothing is measured.",
            f'(sum(slurm_energy_ledger_idle_energy_joules{{{C},window="month"}}) or vector(0)) / {J_KWH}', "kwatth")
    )  # fmt: skip
    compared = [
        (f"{emitted} / {float(entry['co2e_lb'] or 0) * LB_G:.0f}", str(entry["what"]))
        for entry in printed(1)
        if isinstance(entry["co2e_lb"], (int, float))
    ]
    page = page.with_panel(
        bars("This month's emissions, in other terms", "How often the month holds what each of these emits (Strubell, Ganesh and "
             "McCallum 2019, Table 1).", compared, "none", 12, decimals=2, height=10)
    ).with_panel(
        bars("Emissions by project", "The ten projects that emitted the most this month.",
             [(f'sort_desc(topk(10, sum by (project) (slurm_energy_ledger_project_co2e_grams{{{C},window="month"}})))', "{{project}}")],
             "massg", 12, height=10, decimals=1,
             link=("Projects and users", f"/d/slurm-energy-projects?{KEEP}&var-window=month&var-project=${{__field.labels.project}}"))
    )  # fmt: skip
    page = page.with_row(row("Over time")).with_panel(
        course("Emissions through the months", "Grows from 0 each month: the height at a month's end is the month.",
               [(f"sum by (cluster) (slurm_energy_ledger_cluster_co2e_grams{{{C},window=\"month\"}})", "{{cluster}}")], "massg", 12)
    ).with_panel(
        course("Electricity through the months", "Grows from 0 each month: the height at a month's end is the month.",
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


BOARDS = {"cluster": cluster, "node": node, "job": job, "projects": projects, "management": management}


def render() -> dict[str, str]:
    """The JSON of each dashboard, by file name."""
    texts = {}
    for name, make in BOARDS.items():
        plain = json.loads(json.dumps(make().build(), cls=JSONEncoder))
        for number, panel in enumerate(plain["panels"], 1):
            panel["id"] = number
        texts[f"{name}.json"] = json.dumps(plain, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    return texts


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]) if arguments else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
