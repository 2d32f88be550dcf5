"""The node that an agent is on: what it and its cluster are called, which boot it is, and who may read what is written."""

from __future__ import annotations

import grp
import os
import socket
from pathlib import Path

UNNAMED = "cluster"
"""What segments say of a cluster that neither the site nor a hook has named; the ledger's default, too."""


class Names:
    """What the node and its cluster are called: what the site says holds, else what the hooks said last."""

    def __init__(self, node: str, cluster: str) -> None:
        """node, cluster: as the site names them; '' where it does not."""
        self.node_given, self.cluster_given = bool(node), bool(cluster)
        self.node = node or socket.gethostname().split(".")[0]
        self.cluster = cluster

    def learn(self, node: str, cluster: str) -> bool:
        """Takes names from a hook or an earlier run ('' for those not said); whether the node has another one now."""
        if cluster and not self.cluster_given:
            self.cluster = cluster
        if self.node_given or node in ("", self.node):
            return False
        self.node = node
        return True

    def is_ours(self, node: str) -> bool:
        """Whether a hook of this node's is for us: hooks of other nodes of this host are left to their agents."""
        return not self.node_given or node == self.node

    @property
    def stamped(self) -> str:
        """The cluster as segments say it: they always have one."""
        return self.cluster or UNNAMED


def boot_id(proc_root: str) -> str:
    """What tells this boot from others; `unknown` where the kernel does not say."""
    try:
        return Path(f"{proc_root}/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def group_id(name: str) -> int:
    """The group that may read segments and the socket; -1 (root's own) where it does not exist or we may not give it."""
    if os.geteuid() != 0:
        return -1
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return -1
