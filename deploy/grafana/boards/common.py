"""What several dashboards have in common: selectors, links, words."""

from __future__ import annotations

from panels import KEEP

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
