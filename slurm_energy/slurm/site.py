"""What a running Slurm says about itself: the energy plugin, the tree of accounts."""

from __future__ import annotations

import re
import secrets

from slurm_energy.slurm.sacct import ask

_PLUGIN = re.compile(rb"^AcctGatherEnergyType\s*=\s*(?:acct_gather_energy/)?(\S+)", re.MULTILINE)


def energy_plugin() -> str:
    """The plugin behind ConsumedEnergyRaw: rapl, ipmi, xcc, pm_counters, gpu, or none. Raises SourceError."""
    match = _PLUGIN.search(ask(["scontrol", "show", "config"]))
    name = match[1].decode("ascii", "replace") if match else "none"
    return "none" if name in ("(null)", "none") else name


def account_parents() -> dict[str, str]:
    """Each account's parent. Raises SourceError."""
    mark = f"\x1f{secrets.token_hex(6)}\x1f"
    text = ask(
        ["sacctmgr", "--noheader", "--parsable", f"--delimiter={mark}", "show", "assoc", "where", "user=", "format=account,parentname"]
    ).decode("utf-8", "backslashreplace")  # fmt: skip
    parents = {}
    for line in text.split("\n"):
        fields = line.split(mark)
        if len(fields) >= 2 and fields[0] and fields[1]:
            parents[fields[0]] = fields[1]
    return parents
