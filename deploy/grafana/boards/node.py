"""One node, its jobs, its counters."""

from __future__ import annotations

from typing import Any

from panels import KEEP, Column, bars, board, chosen, course, one, rows

from boards.common import DOMAINS_LEGEND, J_KWH, JOB_LINK, SCRAPED, UP, C, N


def node() -> Any:
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
             [Column("Reading", f"min by (counter, domain, estimated) (slurm_energy_meter_up{{{N}}})", "short", words=UP),
              Column("Gaps", f"sum by (counter, domain, estimated) (slurm_energy_meter_gaps_total{{{N}}} * on (cluster, node, "
                     f"counter) group_left (domain, estimated) slurm_energy_meter_up{{{N}}})", "short", 0)],
             order=("domain", "counter", "estimated"))
    )  # fmt: skip
    return page.with_panel(
        course("Conservation", "What jobs and idle got within 15 minutes, over what the counters moved, less 1: 0 but for "
               "rounding, whatever jobs begin or end.",
               [(f"node:slurm_energy_conservation_error:ratio15m{{{N}}}", "difference")], "percentunit", 8,
               steps=[(None, "green"), (0.01, "red")], minimum=None)
    ).with_panel(
        course("Outbox", "How full the outbox of segments is, and how many are not in it yet. Both fall to 0 every few minutes.",
               [(f"max(slurm_energy_outbox_fill_ratio{{{N}}}) * 100", "outbox, %"),
                (f"sum(slurm_energy_pending_segments{{{N}}})", "segments waiting")], "short", 8)
    ).with_panel(
        bars("Since the agent's start", "Each of them is 0 on a healthy node.",
             [(f"sum(slurm_energy_meter_gaps_total{{{N}}})", "readings that counters did not give"),
              (f"sum(slurm_energy_clock_jumps_total{{{N}}})", "jumps of the clock"),
              (f"sum(slurm_energy_hook_files_bad_total{{{N}}})", "bad hook files"),
              (f"sum(slurm_energy_files_set_aside_total{{{N}}})", "own files set aside"),
              (f"count(slurm_energy_sources_refused{{{N}}} == 1) or vector(0)", "sources that may not be read"),
              (f"sum(slurm_energy_agent_problems{{{N}}})", "problems that the agent tells")], "short", decimals=0)
    )  # fmt: skip
