"""Where things lie: the configuration file, the ledger, the inbox."""

from __future__ import annotations

import os
from pathlib import Path

from slurm_energy.config.structs import Config

DEFAULT_PATH = Path("/etc/slurm-energy/config.toml")
SERVICE_STATE = Path("/var/lib/slurm-energy")


def ledger_path(config: Config, given: Path | None = None) -> Path:
    """The ledger's folder: --ledger, $SENERGY_LEDGER, [site] ledger, else the person's own or the service's.

    The person's is below $XDG_STATE_HOME (~/.local/state where /var/lib/slurm-energy/ledger is not there to read).
    """
    if given is not None:
        return given
    if os.environ.get("SENERGY_LEDGER"):
        return Path(os.environ["SENERGY_LEDGER"])
    if config.site.ledger:
        return Path(config.site.ledger)
    if os.environ.get("XDG_STATE_HOME"):
        return Path(os.environ["XDG_STATE_HOME"]) / "slurm-energy" / "ledger"
    service = SERVICE_STATE / "ledger"
    if os.access(service, os.R_OK | os.X_OK):
        return service
    return Path.home() / ".local/state/slurm-energy/ledger"


def inbox_path(config: Config, ledger: Path, given: Path | None = None) -> Path:
    """The folder into which nodes ship segments: --inbox, [site] inbox, else `inbox` beside the ledger."""
    return given or (Path(config.site.inbox) if config.site.inbox else ledger.parent / "inbox")
