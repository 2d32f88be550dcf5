"""Rated power of processors by name, for sites that write a CPU name instead of watts."""

from __future__ import annotations

import functools
import re

import msgspec

from slurm_energy.factors.tables import read_table

_MARKS = re.compile(r"\((?:r|tm)\)|[®™]|\b(?:amd|intel|cpu|processor)\b|\b\d+-core\b|@.*$")


class Cpu(msgspec.Struct, frozen=True):
    """One processor model.

    key:        name in the form of the table (`xeon gold 6140`, `generic:median-epyc-9xx4-9xx5`)
    w_per_core: rated socket power by physical core, W; None where the number of cores is not known
    per:        what w_per_core is for: `core`, or `thread` in a few generic rows
    source:     with date
    """

    key: str
    w_per_core: float | None
    per: str
    source: str


def normalise_cpu(name: str) -> str:
    """CPU name in the form of the table: `Intel(R) Xeon(R) Gold 6140 CPU @ 2.30GHz` is `xeon gold 6140`.

    Lower case, without maker, trademarks, core count and clock. Raises nothing.
    """
    text = name.lower()
    if text.startswith("generic:"):
        return text
    return " ".join(_MARKS.sub(" ", text).split())


@functools.cache
def _by_key() -> dict[str, dict[str, str]]:
    return {row["key"]: row for row in read_table("cpus")}


def find_cpu(name: str) -> Cpu | None:
    """The processor that a name from /proc/cpuinfo, or a key of the packaged table, means; None where not known."""
    row = _by_key().get(normalise_cpu(name))
    if row is None:
        return None
    return Cpu(
        key=row["key"],
        w_per_core=float(row["w_per_core"]) if row["w_per_core"] else None,
        per=row["per"],
        source=f"{row['key']}: {row['source']}, {row['source_date']}",
    )
