"""RAPL through the kernel's powercap tree: Intel and AMD processors, their memory, Intel's platform domain.

Resolution: a count of 15 to 61 uJ, updated about every millisecond. `energy_uj` may be read by root only.
`core` and `uncore` are inside `package` and not counted. `intel-rapl-mmio` shows the same package through another
register: it counts only where `intel-rapl` has nothing of that name.
"""

from __future__ import annotations

import re
from pathlib import Path

from slurm_energy.sources.base import DRAM, NODE, PACKAGE, Counter, Found, Refusal
from slurm_energy.sources.files import FileCounter, listing, number, refusal, text
from slurm_energy.sources.options import Options

NAME = "rapl"
COVERS = "CPU packages, their memory and the platform, from the processor's own counters (Intel, AMD)"
REMEDY = "run the agent as root (or with CAP_DAC_READ_SEARCH): since Linux 5.10 energy_uj is for root only"
FLOOR_W = {PACKAGE: 1000.0, DRAM: 500.0, NODE: 10_000.0}

_TYPES = ("intel-rapl", "intel-rapl-mmio")
_ZONE = re.compile(r"intel-rapl(-mmio)?(:\d+)+")


def find(options: Options) -> Found:
    """All zones that count, each once."""
    zones = _zones(Path(options.sysfs_root, "class", "powercap"))
    names = {zone: text(path / "name") for zone, path in zones.items()}
    counters: list[Counter] = []
    refused: list[Refusal] = []
    taken: set[str] = set()
    # intel-rapl comes before intel-rapl-mmio: the second view yields.
    for zone in sorted(zones, key=lambda zone: ("-mmio" in zone, _numbers(zone))):
        known = _covers(names[zone], names.get(zone.rpartition(":")[0], ""))
        if known is None or known[1] in taken:
            continue
        domain, name = known
        taken.add(name)
        file = zones[zone] / "energy_uj"
        try:
            counter = FileCounter(
                file, domain, f"{NAME}:{name}", range_uj=number(zones[zone] / "max_energy_range_uj"),
                max_w=_max_w(zones[zone], domain),
            )  # fmt: skip
        except OSError as error:
            refused.append(refusal(NAME, file, error, REMEDY, domain))
        else:
            counters.append(counter)
    note = f"{len(counters)} zones: {', '.join(counter.name[5:] for counter in counters)}" if counters else ""
    return Found(counters, refused, note)


def _zones(folder: Path) -> dict[str, Path]:
    """Every zone by its name, which is unique: sysfs shows a zone beside its parent and inside it."""
    found: dict[str, Path] = {}
    level = listing(folder)
    for _ in range(4):  # the flat names first: they are the shorter paths
        inside = [entry for entry in level if _ZONE.fullmatch(entry.name) or entry.name in _TYPES]
        for entry in inside:
            if (entry / "energy_uj").exists():
                found.setdefault(entry.name, entry)
        level = [below for entry in inside for below in listing(entry)]
    return found


def _numbers(zone: str) -> list[int]:
    return [int(part) for part in zone.split(":")[1:]]


def _covers(name: str, parent: str) -> tuple[str, str] | None:
    """What a zone of this name covers, and a name for it that stays the same; None: not counted."""
    if re.fullmatch(r"package-\d+(-die-\d+)?", name):
        return PACKAGE, name
    if name == "dram":
        return DRAM, f"{parent}/dram" if parent else "dram"
    # The platform is one, also where every socket shows it.
    return (NODE, "psys") if name == "psys" else None


def _max_w(zone: Path, domain: str) -> float:
    """Twice the highest limit that the zone names (bursts go above the rating), and never less than the floor."""
    limits = (
        number(file) / 1e6
        for pattern in ("constraint_*_max_power_uw", "constraint_*_power_limit_uw")
        for file in zone.glob(pattern)
    )
    return max(FLOOR_W[domain], 2 * max(limits, default=0.0))
