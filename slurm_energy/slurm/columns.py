"""The columns that a job record is made of, by the names that sacct gives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

RAW_COLUMNS = (
    "JobID", "JobIDRaw", "Cluster", "User", "Account", "Partition", "QOS", "WCKey", "JobName", "State",
    "Submit", "Start", "End", "ElapsedRaw", "Suspended", "NNodes", "NCPUS", "AllocTRES", "NodeList",
    "ConsumedEnergyRaw", "Comment", "Restarts", "SLUID",
)  # fmt: skip
"""What every job source delivers, as text, in sacct's words."""

SYNONYMS = {"AllocCPUS": "NCPUS", "AllocNodes": "NNodes", "Elapsed": "ElapsedRaw"}
"""Other sacct fields that say the same; `Elapsed` is read in its [D-]HH:MM:SS form."""

FREE_TEXT = ("JobName", "Comment", "AdminComment", "SystemComment", "SubmitLine", "WorkDir")
"""Columns in which a user may have typed the delimiter or a newline."""

NECESSARY = (
    ("JobID", "JobIDRaw"),
    ("Account",),
    ("State",),
    ("Start",),
    ("ElapsedRaw", "Elapsed", "End"),
    ("AllocTRES",),
)
"""Of each group one must be there: without it a job cannot be told apart, dated, sized or booked."""


def canonical(names: Iterable[str]) -> list[str]:
    """sacct's spelling of each column name of a header, whatever its case; unknown names stay as they are."""
    known = {name.lower(): name for name in (*RAW_COLUMNS, *SYNONYMS, *FREE_TEXT)}
    return [known.get(name.strip().lower(), name.strip()) for name in names]


def recognised(names: Sequence[str]) -> int:
    """How many of the names are columns of sacct that we use."""
    return sum(name in RAW_COLUMNS or name in SYNONYMS for name in canonical(names))


def missing_necessary(names: Sequence[str]) -> list[str]:
    """The necessary columns that a header lacks, each as a person would ask sacct for it."""
    have = set(canonical(names))
    return [" or ".join(group) for group in NECESSARY if not have.intersection(group)]
