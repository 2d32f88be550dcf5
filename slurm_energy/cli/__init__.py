"""The `senergy` command: each module here is a thin shell over a documented Python call."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code.

    0 done, 1 done with rows set aside or a finding, 2 wrong usage or something in the way, 70 a fault of the program.
    """
    gc.freeze()
    gc.set_threshold(100_000)  # commands are short: what start-up allocates stays, and need not be looked through
    from slurm_energy.cli.errors import caught, fault, guarded, missing

    words = list(sys.argv[1:] if arguments is None else arguments)
    # What a compute node runs is there without the extra 'admin', and light.
    if words[:1] == ["agent"]:
        from slurm_energy.agent.command import main as agent

        return caught(lambda: agent(words[1:]))
    if words[:1] == ["ship"]:
        from slurm_energy.cli.ship import main as ship

        return caught(lambda: ship(words[1:]))
    try:
        from slurm_energy.cli.app import app
    except ModuleNotFoundError as error:
        return missing(error)
    except Exception as error:
        return fault(error)
    return guarded(app, arguments)
