"""AMD GPUs through the amdgpu driver's hwmon files; anyone may read them.

The energy counter where the driver shows one, else the power (average over some milliseconds, else at this moment),
integrated between readings. On packages of two dies (MI250X) the first die shows the power of both: see `gpu_map`.
A GPU inside a CPU package is not counted: the package's counter has it.
"""

from __future__ import annotations

import re
from pathlib import Path

from slurm_energy.sources.base import GPU, Counter, Found, Refusal
from slurm_energy.sources.files import FileCounter, PowerFile, listing, number, refusal, text
from slurm_energy.sources.options import Options

NAME = "amdgpu"
COVERS = "AMD GPUs, from the amdgpu driver"
REMEDY = "let the agent read the files of the amdgpu driver: run it as root"
CHANNELS = ("energy1_input", "power1_average", "power1_input")


def find(options: Options) -> Found:
    """One counter for each GPU, in the order of their PCI addresses."""
    cards: list[tuple[str, Path, Path]] = []
    for hwmon in listing(Path(options.sysfs_root, "class", "hwmon")):
        if text(hwmon / "name") == "amdgpu":
            device = (hwmon / "device").resolve()
            cards.append((device.name, device, hwmon))
    counters: list[Counter] = []
    refused: list[Refusal] = []
    notes: list[str] = []
    for order, (address, device, hwmon) in enumerate(sorted(cards)):
        if _inside_package(device):
            notes.append(f"{address} is inside a CPU package, whose counter has its energy")
            continue
        file = next((hwmon / channel for channel in CHANNELS if (hwmon / channel).exists()), None)
        if file is None:
            why = "the driver shows neither energy nor power"
            refused.append(Refusal(f"{NAME}: {address}", why, "use a newer amdgpu driver", GPU))
            continue
        kind = FileCounter if file.name.startswith("energy") else PowerFile
        try:
            counter = kind(
                file, GPU, f"{NAME}:{address}", device=address, minor=_minor(device, order),
                model=text(device / "product_name"), max_w=max(1500.0, 2e-6 * number(hwmon / "power1_cap_max")),
            )  # fmt: skip
        except OSError as error:
            refused.append(refusal(NAME, file, error, REMEDY, GPU))
        else:
            counters.append(counter)
    if any(counter.integrated for counter in counters):
        notes.append("power integrated between readings, for the driver shows no energy counter")
    return Found(counters, refused, "; ".join(notes))


def _minor(device: Path, order: int) -> int:
    """The number of the render node counted from 0 (/dev/dri/renderD128), else the place in the PCI order."""
    for node in listing(device / "drm"):
        if match := re.fullmatch(r"renderD(\d+)", node.name):
            return int(match.group(1)) - 128
    return order


def _inside_package(device: Path) -> bool:
    """Whether the driver's metrics are those of an APU (format 2 or 3; boards have format 1)."""
    try:
        with (device / "gpu_metrics").open("rb") as file:
            head = file.read(4)
    except OSError:
        return False
    return len(head) == 4 and head[2] in (2, 3)
