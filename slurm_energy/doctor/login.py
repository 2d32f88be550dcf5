"""A login node's findings out of its facts. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from slurm_energy.doctor.common import USER, Finding, Place, look_of


def readable_ledger(place: Place, days: Sequence[str], error: str, reader: str) -> Finding:
    """Whether people can read the ledger here."""
    if error or not place.there:
        return Finding(
            "login", "ledger", False, error or look_of(place),
            "mount or copy it here ([site] ledger names it); who may read it is in its group: "
            f"usermod -aG {USER} PERSON",
        )  # fmt: skip
    if not days:
        return Finding("login", "ledger", False, f"{place.path}: no days in it", "senergy aggregate, on the admin node")
    return Finding("login", "ledger", True, f"{place.path}: {len(days)} days up to {days[-1]}, as {reader} sees it")


def modules(missing: Sequence[str]) -> Finding:
    """Whether what reports need is installed."""
    if missing:
        return Finding(
            "login", "reports", False, f"not installed: {', '.join(missing)}", "pip install 'slurm-energy[admin]'"
        )
    return Finding("login", "reports", True, "what they need is installed")
