"""Power sources, one file each. A module here has NAME, COVERS (a sentence) and find(options) -> Found."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

from slurm_energy.sources.base import DRAM, GPU, NODE, PACKAGE, Counter, Found, Refusal
from slurm_energy.sources.options import Options

__all__ = ["RANKS", "SOURCES", "Discovery", "Source", "Spare", "choose", "find_all"]

SOURCES = ("rapl", "nvml", "amdgpu", "hwmon", "cray", "ipmi", "model")
"""The modules, in the order in which they are asked; `model` last, for it stands in where the others have nothing."""

RANKS: dict[str, tuple[tuple[str, ...], ...]] = {
    PACKAGE: (("rapl",), ("cray",), ("hwmon",), ("model",)),
    DRAM: (("rapl",), ("cray",), ("hwmon",)),
    GPU: (("nvml", "amdgpu"), ("cray",)),
    NODE: (("cray",), ("ipmi",), ("hwmon",), ("rapl",)),
}
"""Of each domain, which sources count: the first that has any, so that nothing counts twice."""


class Spare(NamedTuple):
    """A counter that can be read and does not count, and why."""

    counter: Counter
    why: str


class Source(NamedTuple):
    """One source as it was found, or why it was not looked for: for people."""

    name: str
    covers: str
    found: Found
    skipped: str = ""


class Discovery(NamedTuple):
    """All power sources of a node.

    counters: those that count, one source per domain
    refused:  what is there and may not be read
    notes:    `source: text`, of the sources that said something
    spare:    counters that do not count (closed, unless they were asked for)
    sources:  every source with what it found
    """

    counters: list[Counter]
    refused: list[Refusal]
    notes: list[str]
    spare: list[Spare]
    sources: list[Source]


def find_all(options: Options, *, nvml: Any = None, keep_spare: bool = False) -> Discovery:
    """Looks for every source and chooses what counts.

    nvml:       called instead of pynvml
    keep_spare: leaves the counters that do not count open
    Raises ValueError where `options.off` names no source.
    """
    if unknown := sorted(set(options.off) - set(SOURCES)):
        raise ValueError(f"off has {unknown[0]!r}: expected any of {', '.join(SOURCES)}")
    sources: list[Source] = []
    for name in SOURCES:
        module = import_module(f"{__name__}.{name}")
        if name in options.off:
            sources.append(Source(name, module.COVERS, Found([], []), "switched off"))
            continue
        if name == "model" and not _model_wanted(sources, options):
            sources.append(Source(name, module.COVERS, Found([], []), "not used"))
            continue
        try:
            found = module.find(options, nvml) if name == "nvml" else module.find(options)
        except Exception as error:  # one source's mistake must not take the others down, and is not kept quiet
            why = f"looking for it failed: {error!r}"
            found = Found([], [Refusal(name, why, f'report this; until then off = ["{name}"] leaves it out')])
        sources.append(Source(name, module.COVERS, found))
    counters, spare = choose({source.name: source.found for source in sources})
    if not keep_spare:
        for left in spare:
            left.counter.close()
    refused = [refusal for source in sources for refusal in source.found.refused]
    notes = [f"{source.name}: {source.found.note}" for source in sources if source.found.note]
    return Discovery(counters, refused, notes, spare, sources)


def choose(found: Mapping[str, Found]) -> tuple[list[Counter], list[Spare]]:
    """Which counters count, by RANKS, and the others with the reason. found: by the source's name."""
    counting: list[Counter] = []
    spare: list[Spare] = []
    winners: dict[str, list[str]] = {}
    for domain, ranks in RANKS.items():
        if domain == DRAM and winners.get(PACKAGE) == ["hwmon"]:
            ranks = (("hwmon",),)  # a Grace socket's power has its memory in it
        for names in ranks:
            if domain not in winners and (having := [name for name in names if _of(found, name, domain)]):
                winners[domain] = having
        winner = winners.get(domain, [])
        for name in found:
            for counter in _of(found, name, domain):
                if name in winner:
                    counting.append(counter)
                elif winner:
                    spare.append(Spare(counter, f"{domain} is by {' and '.join(winner)}"))
                else:
                    spare.append(Spare(counter, f"the package has the {domain} in it"))
    return counting, spare


def _of(found: Mapping[str, Found], name: str, domain: str) -> list[Counter]:
    return [counter for counter in found[name].counters if counter.domain == domain] if name in found else []


def _model_wanted(sources: list[Source], options: Options) -> bool:
    """An estimate only where nothing covers the packages, nor could if it might be read, unless the site says so."""
    measured = any(counter.domain == PACKAGE for source in sources for counter in source.found.counters)
    hidden = any(refusal.domain in (PACKAGE, "") for source in sources for refusal in source.found.refused)
    return options.model != "never" and not measured and (not hidden or options.model == "always")
