"""Rated power of processors by name, for sites that write a CPU name instead of watts."""

from __future__ import annotations

import functools
import re

import msgspec

from slurm_energy.factors.checks import wrong
from slurm_energy.factors.tables import read_table

CPU_KEYS = ("cpu_core_w", "cpu")
"""Keys that give the rated power of a core, each in another way."""
EXPECTED = "a processor's name as in /proc/cpuinfo"

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


def core_watts(name: str) -> tuple[float, str]:
    """Rated power by physical core of a processor, W, and where it is from.

    name: as find_cpu takes it. Raises ProfileError where it is not known, or not by core.
    """
    cpu = find_cpu(name)
    if cpu is None:
        raise wrong("cpu", name, f"{EXPECTED}; this one is not in the packaged table, give cpu_core_w in W instead")
    if cpu.w_per_core is None or cpu.per != "core":
        raise wrong("cpu", name, "one whose W per core is known; give cpu_core_w in W instead")
    return cpu.w_per_core, cpu.source
