"""Every metric: its name, kind, labels and meaning. The exporters, docs/metrics.md, rules and dashboards follow this.

Names follow Prometheus' conventions: prefix, base units (joules, watts, seconds, grams; US dollars for money), `_total`
for counters. Labels of a node's series are few: who a job is stands in `slurm_energy_job_info`, to be joined on
(jobid, run). The target's own labels `cluster` and `node` come from service discovery (`senergy sd`), not from here.
What a user typed (job name, comment) is in no label.
"""

from __future__ import annotations

from typing import NamedTuple

from slurm_energy import segment


class Metric(NamedTuple):
    """One metric family. kind: gauge, counter or info (a gauge that is always 1); counters are named without _total."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


JOB = ("jobid", "run")
"""What tells a job on a node: Slurm's job id (its SLUID where only that is known) and the first second of its run."""
DOMAINS = segment.DOMAINS
"""CPU packages, memory, GPUs, and what the node draws beyond them where its input is measured."""

NODE = (
    Metric("slurm_energy_agent_up", "gauge", (), "1 if the agent answered and has looked at its counters lately, else 0."),
    Metric("slurm_energy_agent_last_look_timestamp_seconds", "gauge", (), "When the agent looked at its counters last."),
    Metric("slurm_energy_agent_start_time_seconds", "gauge", (), "When the agent was started."),
    Metric("slurm_energy_agent_ticks", "counter", (), "Looks at the counters since the agent was started."),
    Metric("slurm_energy_build", "info", ("version", "agent_version"), "Versions of the exporter and the agent."),
    Metric("slurm_energy_node_power_watts", "gauge", ("domain",), "Power of the node, by domain."),
    Metric("slurm_energy_node_energy_joules", "counter", ("domain",),
           "What the counters of the node moved since the agent's first start of this boot, by domain."),
    Metric("slurm_energy_attributed_energy_joules", "counter", ("domain",),
           "Energy that jobs got, those that have ended too, and idle, since the agent's first start of this boot, by domain."),
    Metric("slurm_energy_idle_power_watts", "gauge", ("domain",), "Power that no job gets, by domain."),
    Metric("slurm_energy_idle_energy_joules", "counter", ("domain",), "Energy that no job got, by domain."),
    Metric("slurm_energy_gpu_power_watts", "gauge", ("gpu",), "Power of a GPU, by UUID."),
    Metric("slurm_energy_gpu_energy_joules", "counter", ("gpu",), "Energy of a GPU, by UUID."),
    Metric("slurm_energy_gpu", "info", ("gpu", "model"), "Model of a GPU."),
    Metric("slurm_energy_jobs", "gauge", (), "Jobs on the node."),
    Metric("slurm_energy_job_power_watts", "gauge", (*JOB, "domain"), "Power of a job on this node, by domain."),
    Metric("slurm_energy_job_energy_joules", "counter", (*JOB, "domain"), "Energy of a job on this node since its start, by domain."),
    Metric("slurm_energy_job_cpu_seconds", "counter", JOB, "CPU time of a job on this node."),
    Metric("slurm_energy_job", "info", (*JOB, "sluid", "user", "account", "partition", "origin"),
           "Who a job is; origin: hook or discovered."),
    Metric("slurm_energy_job_gpu", "info", (*JOB, "gpu"), "Which GPUs a job holds."),
    Metric("slurm_energy_meter_up", "gauge", ("counter", "domain", "estimated"), "1 if the counter gave its last reading, 0 in a gap."),
    Metric("slurm_energy_meter_gaps", "counter", ("counter",), "Readings that a counter did not give."),
    Metric("slurm_energy_sources_refused", "gauge", ("what",), "1 for each source that is there and may not be read."),
    Metric("slurm_energy_outbox_fill_ratio", "gauge", (), "How full the outbox of segments is, 0 to 1."),
    Metric("slurm_energy_pending_segments", "gauge", (), "Segments that are not in the outbox yet."),
    Metric("slurm_energy_hook_files_bad", "counter", (), "Hook files that could not be read and were set aside."),
    Metric("slurm_energy_files_set_aside", "counter", (), "Files of the agent's own folder that could not be read."),
    Metric("slurm_energy_clock_jumps", "counter", (), "Jumps of the wall clock by two seconds or more."),
    Metric("slurm_energy_agent_problems", "gauge", (), "Problems that the agent has to say (senergy top shows them)."),
)  # fmt: skip

_QUANTITIES = (
    ("jobs", "Jobs that ran."),
    ("gpu_seconds", "GPU time."),
    ("cpu_seconds", "CPU time."),
    ("it_energy_joules", "IT energy."),
    ("facility_energy_joules", "Facility energy (IT energy x PUE)."),
    ("co2e_grams", "Emissions, CO2 equivalent."),
    ("electricity_usd", "Cost of the electricity, US dollars."),
    ("cloud_low_usd", "Cloud-equivalent cost at the low price, US dollars."),
    ("cloud_high_usd", "Cloud-equivalent cost at the high price, US dollars."),
)
WINDOWS = ("all", "month", "last_month")
"""The whole ledger, the current month and the one before it in the site's time zone. Gauges: a ledger may be written anew."""
PROVENANCES = ("measured", "slurm", "estimated")
_BY_PROVENANCE = "IT energy of jobs, by where the figure comes from: measured, slurm, estimated."

LEDGER = (
    Metric("slurm_energy_ledger_up", "gauge", (), "1 if the ledger could be read, else 0."),
    Metric("slurm_energy_ledger_last_run_timestamp_seconds", "gauge", ("clusters",),
           "When an aggregation of new jobs ended well last, by the clusters that it asked for (local: the admin node's own)."),
    Metric("slurm_energy_ledger_last_day_timestamp_seconds", "gauge", ("cluster",), "Midnight at the end of the last day in the ledger."),
    Metric("slurm_energy_ledger_last_write_timestamp_seconds", "gauge", ("cluster",), "When a day of the ledger was written last."),
    Metric("slurm_energy_ledger_day_files", "gauge", ("cluster",), "Days in the ledger."),
    Metric("slurm_energy_ledger_set_aside_rows", "gauge", (), "Rows of the input that could not be read, of all runs."),
    Metric("slurm_energy_ledger_groups_folded", "gauge", ("level",), "Projects or users that are in `other` because there are too many."),
    Metric("slurm_energy_ledger_idle_energy_joules", "gauge", ("cluster", "window"), "Measured IT energy that no job used."),
    Metric("slurm_energy_ledger_provenance_energy_joules", "gauge", ("cluster", "window", "provenance"), _BY_PROVENANCE),
    *(Metric(f"slurm_energy_ledger_cluster_{name}", "gauge", ("cluster", "window"), f"{what} By cluster.") for name, what in _QUANTITIES),
    *(Metric(f"slurm_energy_ledger_project_{name}", "gauge", ("cluster", "project", "window"), f"{what} By project.")
      for name, what in _QUANTITIES),
    Metric("slurm_energy_ledger_project_provenance_energy_joules", "gauge", ("cluster", "project", "window", "provenance"),
           f"{_BY_PROVENANCE} By project."),
    *(Metric(f"slurm_energy_ledger_user_{name}", "gauge", ("cluster", "user", "window"), f"{what} By user.") for name, what in _QUANTITIES),
    Metric("slurm_energy_ledger_user_provenance_energy_joules", "gauge", ("cluster", "user", "window", "provenance"),
           f"{_BY_PROVENANCE} By user."),
)  # fmt: skip
