"""The `senergy` command: each module here is a thin shell over a documented Python call."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code: 0 done, 1 done with rows set aside or a finding, 2 wrong usage."""
    gc.freeze()
    gc.set_threshold(100_000)  # commands are short: what start-up allocates stays, and need not be looked through
    try:
        from slurm_energy.cli.app import app
    except ModuleNotFoundError as error:
        print(
            f"senergy: the module {error.name} is not installed; on an admin or login node install the extra 'admin':  "
            "pip install 'slurm-energy[admin]'",
            file=sys.stderr,
        )
        return 2
    from slurm_energy.cli.errors import guarded

    return guarded(app, arguments)
