"""The nodes of a running Slurm, by sinfo: their names, where they are reached, and their state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from slurm_energy.slurm.errors import SourceError
from slurm_energy.slurm.sacct import ask

FORMAT = "%N|%o|%n|%T"
"""NodeName, NodeAddr, NodeHostName, state; none of them can hold a `|`."""


class Node(NamedTuple):
    """A node: its name in Slurm, the address that Slurm reaches it at, and its host name. cluster: '' for Slurm's own.

    state: as `sinfo -o %T` writes it, `idle`, with the one mark that says most of it behind: `idle~` is powered down, `%`
    on the way down, `#` on the way up, `!` to be powered down once its jobs have ended, `*` does not respond, `$` in
    maintenance, `@` and `^` about to reboot and rebooting, `-` planned for a job.
    """

    name: str
    address: str
    hostname: str
    cluster: str = ""
    state: str = ""


def parse_sinfo(text: str) -> list[Node]:
    """The nodes in what `sinfo -N -h -o FORMAT` prints, each once (sinfo has a line for each partition), by name.

    With -M, sinfo heads the nodes of a cluster with `CLUSTER: name`. Raises SourceError on a line of another form.
    """
    nodes: dict[tuple[str, str], Node] = {}
    cluster = ""
    for line in text.splitlines():
        if line.startswith("CLUSTER: "):
            cluster = line.partition(": ")[2].strip()
            continue
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("|")]
        if len(fields) != 4 or not fields[0]:
            raise SourceError(f"sinfo: {line!r}: expected node|address|host name|state; is this Slurm's own sinfo?")
        name, address, hostname, state = fields
        nodes.setdefault((cluster, name), Node(name, address or name, hostname or name, cluster, state.lower()))
    return [nodes[key] for key in sorted(nodes)]


def read_nodes(clusters: Sequence[str] = ()) -> list[Node]:
    """All nodes, whatever their state, those of hidden partitions too. clusters: as for sinfo -M.

    Raises SourceError where sinfo is missing or fails.
    """
    options = ["-M", ",".join(clusters)] if clusters else []
    return parse_sinfo(ask(["sinfo", "-N", "-h", "-a", *options, "-o", FORMAT]).decode("utf-8", "backslashreplace"))


def own_cluster() -> str:
    """ClusterName of slurm.conf. Raises SourceError where scontrol is missing, fails or does not say it."""
    for line in ask(["scontrol", "show", "config"]).decode("utf-8", "backslashreplace").splitlines():
        key, found, value = line.partition("=")
        if found and key.strip() == "ClusterName":
            return value.strip()
    raise SourceError("scontrol show config names no ClusterName; give it with --cluster NAME")
