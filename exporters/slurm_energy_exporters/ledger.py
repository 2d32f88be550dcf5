"""`senergy-ledger-exporter`: the ledger's totals by cluster, project and user, for Prometheus.

It reads the ledger's folder and writes nothing; the group that may read the ledger is enough.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from slurm_energy.config import ConfigError, ledger_path, load_config
from slurm_energy.ledger.store import Ledger
from slurm_energy.slurm.zone import zone
from slurm_energy_exporters.ledger_collector import LedgerCollector
from slurm_energy_exporters.web import parser_of, run

PORT = 9855
ABOUT = "Energy, emissions and cost of the cluster's projects and users, from the slurm-energy ledger."


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    parser = parser_of("senergy-ledger-exporter", ABOUT, PORT)
    parser.add_argument("--ledger", type=Path, metavar="FOLDER", help="the ledger (default: as senergy report)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file (default: as senergy)")
    parser.add_argument(
        "--top", type=_at_least_one, default=100, metavar="N",
        help="projects, and users, that have series of their own; the rest is `other` (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--no-users", action="store_true", help="no figures of single users")
    options = parser.parse_args(arguments)
    try:
        config, _ = load_config(options.config)
        ledger = Ledger(ledger_path(config, options.ledger))
        collector = LedgerCollector(ledger, zone(config.site.timezone), top=options.top, users=not options.no_users)
    except (ConfigError, ValueError) as error:
        print(f"senergy-ledger-exporter: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    list(collector.collect())  # the first reading may take longer than a scrape does
    return run(collector, options, "slurm-energy ledger exporter", ABOUT)


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: expected at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
