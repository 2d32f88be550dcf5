"""What a running Slurm says about itself: the energy plugin, the tree of accounts."""

from __future__ import annotations

import re

from slurm_energy.slurm.sacct import ask

_PLUGIN = re.compile(rb"^AcctGatherEnergyType\s*=\s*(?:acct_gather_energy/)?(\S+)", re.MULTILINE)


def energy_plugin() -> str:
    """The plugin behind ConsumedEnergyRaw: rapl, ipmi, xcc, pm_counters, gpu, or none. Raises SourceError."""
    match = _PLUGIN.search(ask(["scontrol", "show", "config"]))
    name = match[1].decode("ascii", "replace") if match else "none"
    return "none" if name in ("(null)", "none") else name


def account_parents() -> dict[str, str]:
    """Each account's parent. Raises SourceError."""
    # sacctmgr takes no delimiter of one's own; names that hold its | cannot be read and are left out.
    command = ["sacctmgr", "--noheader", "--parsable2", "show", "assoc", "where", "user=", "format=account,parentname"]
    parents = {}
    for line in ask(command).decode("utf-8", "backslashreplace").split("\n"):
        account, *rest = line.split("|")
        if account and len(rest) == 1 and rest[0]:
            parents[account] = rest[0]
    return parents
