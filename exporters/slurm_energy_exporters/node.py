"""`senergy-node-exporter`: the live watts and joules of a node, from the agent's socket, for Prometheus.

It needs no root: the group `slurm-energy` may read the socket.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from slurm_energy_exporters.node_collector import NodeCollector
from slurm_energy_exporters.web import parser_of, run

PORT = 9854
ABOUT = "Live power and energy of this node, its GPUs and its jobs, as the slurm-energy agent measures them."


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    parser = parser_of("senergy-node-exporter", ABOUT, PORT)
    parser.add_argument(
        "--socket", type=Path, default=Path("/run/slurm-energy/agent.sock"), metavar="PATH",
        help="the agent's socket (default: %(default)s)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    return run(NodeCollector(options.socket), options, "slurm-energy node exporter", ABOUT)


if __name__ == "__main__":
    sys.exit(main())
