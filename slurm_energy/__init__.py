"""Energy, emissions and cloud-equivalent cost of Slurm jobs, per job, user and project.

The public interface:

- `open_ledger(path)`: the days of attributed, priced job energy, as pandas, Arrow or DuckDB.
- `load_profile(name)`: a named set of factors (PUE, carbon intensity, prices, rated powers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slurm_energy.version import __version__

if TYPE_CHECKING:
    from slurm_energy.factors.layers import load_profile
    from slurm_energy.ledger.store import open_ledger

__all__ = ["__version__", "load_profile", "open_ledger"]


def __getattr__(name: str) -> object:
    """Imports on first use, for a command that needs neither must not wait for them."""
    if name == "open_ledger":
        from slurm_energy.ledger.store import open_ledger

        return open_ledger
    if name == "load_profile":
        from slurm_energy.factors.layers import load_profile

        return load_profile
    raise AttributeError(f"module 'slurm_energy' has no attribute {name!r}")
