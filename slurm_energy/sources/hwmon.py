"""Energy and power sensors of server boards through hwmon: Grace and other Arm boards, AMD's amd_energy, ACPI meters.

Only sensors whose meaning is known count by themselves:

driver        label                   covers
power_meter   (one meter, no label)   the node, as the board's firmware measures it
power_meter   Grace Power Socket N    package: a Grace chip with its regulators and its memory; so no `dram` there
power_meter   CPU, SysIO Power ...    package: parts of the former, where the whole is not shown
power_meter   Module Power Socket N   node: CPU, memory and GPUs of a module without fans, network and disks; only
                                      where no meter shows the node itself
amd_energy    EsocketN                package (root only)
apm_xgene     CPU power, IO power     package (X-Gene, eMAG, Altra)
ibmpowernv    Chip N; System          package; node
scmi_sensors  SoC, socket; DRAM, ...  by the whole label; firmware names them freely

Others can be named by hand (`hwmon` in the options). Power is integrated between readings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from slurm_energy.sources.base import DRAM, NODE, PACKAGE, Counter, Found, Refusal
from slurm_energy.sources.files import FileCounter, PowerFile, listing, refusal, text
from slurm_energy.sources.options import Options

NAME = "hwmon"
COVERS = "CPU packages, memory or the node, from sensors of the board (Grace, Arm, amd_energy, ACPI power meters)"
REMEDY = "run the agent as root"
MAX_W = {PACKAGE: 2000.0, DRAM: 1000.0, NODE: 20_000.0}
MODULE = "module"
PART = "part"

_RULES = (
    ("power_meter", r"", NODE),
    ("power_meter", r"Grace Power Socket \d+", PACKAGE),
    ("power_meter", r"(CPU|SysIO) Power Socket \d+", PART),
    ("power_meter", r"Module Power Socket \d+", MODULE),
    ("amd_energy", r"Esocket\d+", PACKAGE),
    ("apm_xgene", r"(CPU|IO) power", PACKAGE),
    ("ibmpowernv", r"Chip \d+", PACKAGE),
    ("ibmpowernv", r"System", NODE),
    ("scmi_sensors", r"(?i)(soc|socket|package)[ _-]?\d*([ _-]?(energy|power))?", PACKAGE),
    ("scmi_sensors", r"(?i)(dram|ddr|memory)[ _-]?\d*([ _-]?(energy|power))?", DRAM),
    ("scmi_sensors", r"(?i)(board|system|sys|node)([ _-]?(energy|power))?", NODE),
)


class _Sensor(NamedTuple):
    driver: str
    label: str
    channel: str
    board: str
    file: Path

    @property
    def key(self) -> str:
        return f"{self.driver}:{self.label or self.channel}"

    @property
    def socket(self) -> str:
        return self.label.rpartition(" ")[2]


def find(options: Options) -> Found:
    """The sensors that count, and a note about those with energy or power that are not known."""
    known: list[tuple[_Sensor, str]] = []
    unknown: list[str] = []
    for sensor in _sensors(Path(options.sysfs_root, "class", "hwmon")):
        covers = options.hwmon.get(sensor.key) or _by_rule(sensor)
        if covers is None:
            if sensor.driver == "power_meter" or sensor.channel.startswith("energy"):
                unknown.append(sensor.key)
        elif covers != "ignore":
            known.append((sensor, covers))
    known, notes = _once(known, options)
    if unknown:
        shown = ", ".join(unknown[:4]) + (f" and {len(unknown) - 4} more" if len(unknown) > 4 else "")
        notes.append(f"seen and not counted, for nothing says what they cover: {shown} (name them under `hwmon`)")
    counters: list[Counter] = []
    refused: list[Refusal] = []
    names: set[str] = set()
    for sensor, domain in known:
        name = f"{NAME}:{sensor.key}"
        name = f"{name}@{sensor.board}" if name in names else name
        names.add(name)
        kind = FileCounter if sensor.channel.startswith("energy") else PowerFile
        try:
            counters.append(kind(sensor.file, domain, name, max_w=MAX_W[domain]))
        except OSError as error:
            refused.append(refusal(NAME, sensor.file, error, REMEDY, domain))
    return Found(counters, refused, "; ".join(notes))


def _sensors(folder: Path) -> Iterable[_Sensor]:
    """Every energy and power reading; of one label the energy counter rather than the power."""
    for hwmon in listing(folder):
        driver = text(hwmon / "name")
        if driver == "amdgpu":  # has its own source
            continue
        board = (hwmon / "device").resolve().name
        seen: set[str] = set()
        # Drivers of the older kind keep their files in the device's folder.
        files = [*listing(hwmon), *listing(hwmon / "device")]
        for pattern in (r"(energy\d+)_input", r"(power\d+)_average", r"(power\d+)_input"):
            for file in files:
                if match := re.fullmatch(pattern, file.name):
                    channel = match.group(1)
                    label = text(file.parent / f"{channel}_label") or text(file.parent / f"{channel}_oem_info")
                    if (label or channel) not in seen:
                        seen.update((label, channel) if label else (channel,))
                        yield _Sensor(driver, label, channel, board, file)


def _by_rule(sensor: _Sensor) -> str | None:
    for driver, label, covers in _RULES:
        if sensor.driver == driver and re.fullmatch(label, sensor.label):
            return covers
    return None


def _once(known: list[tuple[_Sensor, str]], options: Options) -> tuple[list[tuple[_Sensor, str]], list[str]]:
    """Without what another sensor covers already."""
    notes: list[str] = []
    whole = {sensor.socket for sensor, covers in known if covers == PACKAGE and sensor.driver == "power_meter"}
    meters = [sensor for sensor, covers in known if covers == NODE]
    by_hand = [sensor for sensor in meters if sensor.key in options.hwmon]
    if len(meters) > 1 and not by_hand:
        named = ", ".join(f"{sensor.key}@{sensor.board}" for sensor in meters)
        notes.append(f"several meters and nothing says which is the node's, so none counts: {named}")
        meters = []
    elif by_hand:
        meters = by_hand
    kept: list[tuple[_Sensor, str]] = []
    for sensor, covers in known:
        if covers == PART:
            if sensor.socket not in whole:
                kept.append((sensor, PACKAGE))
        elif covers == MODULE:
            if not meters:
                kept.append((sensor, NODE))
        elif covers != NODE or sensor in meters:
            kept.append((sensor, covers))
    if not meters and any(covers == MODULE for _, covers in known):
        notes.append("module power stands for the node: without fans, network and disks")
    return kept, notes
