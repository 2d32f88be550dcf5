"""Writes the golden scrape of the node exporter anew:  python tests/golden/regenerate_scrape.py

Names and labels in it are what dashboards, rules and alerts of sites hang on: look at the difference before it goes in.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import msgspec
from slurm_energy_exporters.metrics_text import render
from slurm_energy_exporters.node_collector import NodeCollector

from slurm_energy.agent.snapshot import Snapshot
from slurm_energy.version import __version__

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest has it

from common.agent_socket import Stub, fixed

HERE = Path(__file__).parent


def scrape(snapshot: Snapshot, *, openmetrics: bool = False) -> str:
    """What the exporter shows of a snapshot, a second after it was made."""
    with tempfile.TemporaryDirectory() as folder:
        stub = Stub(Path(folder) / "agent.sock", msgspec.json.encode(snapshot))
        text = render(
            NodeCollector(stub.path, lambda: snapshot.wall_ns / 1e9 + 1).collect(), openmetrics=openmetrics
        ).decode()
        stub.close()
    return text.replace(f'version="{__version__}"', 'version="0.1.0"')


def main() -> None:
    (HERE / "node_scrape.txt").write_text(scrape(fixed()), encoding="utf-8")
    print("node_scrape.txt")


if __name__ == "__main__":
    main()
