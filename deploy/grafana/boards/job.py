"""One job, over its nodes."""

from __future__ import annotations

from typing import Any

from panels import KEEP, Column, board, chosen, course, one, rows

from boards.common import DOMAINS_LEGEND, J_KWH, NODE_LINK, SCRAPED, C, J


def job() -> Any:
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
