"""A simulated /sys of a node, in the kernel's real layout, whose energy counters move by a law.

>>> node = SimNode(root, packages=2, law={"rapl:package-0": Steps([(0, 80), (60, 200)])})
>>> node.advance_to(90.0)  # writes every counter as it is 90 s after the start
>>> node.energy_uj("rapl:package-0", 90.0)  # what it has truly used: 80 * 60 + 200 * 30 J

Names are those of the counters that slurm_energy finds. Files are written in place, so that whoever holds one open
sees it move, and with a fixed length, so that no reader sees half an old number.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .law import Law, Laws, law_of
from .nvml import write_gpu

RANGE_UJ = 262_143_328_850
"""What many Xeons say: 2^32 - 1 counts of 61 uJ."""
WIDTH = 24


class _Moving:
    """A counter's file: count = start + what the law gives, modulo the range."""

    def __init__(self, file: Path, law: Law, start_uj: int, range_uj: int, form: str) -> None:
        self.file, self.law, self.start_uj, self.range_uj, self.form = file, law, start_uj, range_uj, form
        self._fd = -1

    def write(self, t_s: float) -> None:
        count = self.start_uj + self.law.energy_uj(t_s)
        if self.range_uj:
            count %= self.range_uj
        if self.form == "uj":
            said = str(count)
        elif self.form == "mj":
            said = str(count // 1000)
        elif self.form == "uw":
            said = str(round(self.law.watts(t_s) * 1e6))
        elif self.form == "mw":
            said = str(round(self.law.watts(t_s) * 1e3))
        else:  # Cray
            said = f"{count // 1_000_000} J {round(t_s * 1e6) + 1} us"
        if self._fd < 0:
            self._fd = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.pwrite(self._fd, said.encode().ljust(48 if self.form == "cray" else WIDTH, b"\n"), 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class SimNode:
    """A node's /sys under `root`, and the files of a fake NVML under `root`/nvml.

    packages, dies:  sockets, and dies of each (named package-0-die-1 where there are several)
    cores, dram:     zones inside each package: core and uncore (not to be counted), dram
    psys, mmio:      the platform zone; a second view of the packages through intel-rapl-mmio
    nvidia, amd:     GPUs: behind the fake NVML; as hwmon of amdgpu
    cray:            pm_counters, with so many accelerators as there are `nvidia` and `amd` GPUs together
    meter:           an ACPI power meter that shows the node
    law:             one Law for all counters, a mapping or a function from a counter's name to its Law
    start_uj:        where every counter stands at t = 0; near range_uj, so that it wraps soon
    """

    def __init__(
        self, root: str | Path, packages: int = 2, *, dies: int = 1, cores: bool = True, dram: bool = True,
        psys: bool = False, mmio: bool = False, nvidia: int = 0, amd: int = 0, cray: bool = False, meter: bool = False,
        law: Laws = None, start_uj: int = 0, range_uj: int = RANGE_UJ, gpu_model: str = "NVIDIA H100 80GB HBM3",
    ) -> None:  # fmt: skip
        self.root = Path(root)
        self._laws, self.start_uj, self.range_uj = law, start_uj, range_uj
        self._files: dict[str, list[_Moving]] = {}
        self.laws: dict[str, Law] = {}
        self._hwmons, self.now_s = 0, 0.0
        (self.root / "class" / "powercap").mkdir(parents=True, exist_ok=True)
        (self.root / "class" / "hwmon").mkdir(parents=True, exist_ok=True)
        names = [f"package-{p}" + (f"-die-{d}" if dies > 1 else "") for p in range(packages) for d in range(dies)]
        self._powercap("intel-rapl", names, cores, dram, psys)
        if mmio:
            self._powercap("intel-rapl-mmio", names, False, dram, False)
        for number in range(nvidia):
            self._nvidia(number, gpu_model)
        for number in range(amd):
            self._amd(number)
        if cray:
            self._cray(nvidia + amd)
        if meter:
            self.hwmon("power_meter", "ACPI000D:00", {"power1_average": "hwmon:power_meter:power1"})

    @property
    def names(self) -> list[str]:
        """Every counter that there is, by the name that it has in slurm_energy."""
        return list(self.laws)

    def energy_uj(self, name: str, t_s: float) -> int:
        """What the counter's part of the node used from the start until t_s, uJ: the truth, without any wrap."""
        return self.laws[name].energy_uj(t_s)

    def advance_to(self, t_s: float) -> None:
        """Shows every counter as it is t_s after the start."""
        for files in self._files.values():
            for file in files:
                file.write(t_s)
        self.now_s = t_s

    @contextlib.contextmanager
    def running(self, step_s: float = 0.02) -> Iterator[float]:
        """Lets the counters follow the monotonic clock in a thread; gives the monotonic second that is t = 0."""
        begin, stop = time.monotonic() - self.now_s, threading.Event()

        def follow() -> None:
            while not stop.wait(step_s):
                self.advance_to(time.monotonic() - begin)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield begin
        finally:
            stop.set()
            thread.join()

    def close(self) -> None:
        """Closes the files."""
        for files in self._files.values():
            for file in files:
                file.close()

    def moving(self, name: str, file: Path, form: str = "uj", range_uj: int = 0) -> None:
        """A file that follows the law of the counter `name`. form: uj, mj, uw, mw or cray."""
        law = self.laws.setdefault(name, law_of(self._laws, name))
        moving = _Moving(file, law, self.start_uj, range_uj, form)
        self._files.setdefault(name, []).append(moving)
        moving.write(self.now_s)

    def hwmon(self, driver: str, board: str, readings: dict[str, str], still: dict[str, str] | None = None) -> Path:
        """A hwmon device; readings: file name to the counter's name, still: files that do not move."""
        device = self.root / "devices" / driver / board
        folder = device / "hwmon" / f"hwmon{self._hwmons}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{driver}\n")
        (folder / "device").symlink_to("../..")
        (self.root / "class" / "hwmon" / f"hwmon{self._hwmons}").symlink_to(
            os.path.relpath(folder, self.root / "class" / "hwmon")
        )
        self._hwmons += 1
        for file, said in (still or {}).items():
            (folder / file).write_text(f"{said}\n")
        for file, name in readings.items():
            self.moving(name, folder / file, "uj" if file.startswith("energy") else "uw")
        return device

    def _powercap(self, kind: str, names: list[str], cores: bool, dram: bool, psys: bool) -> None:
        control = self.root / "devices" / "virtual" / "powercap" / kind
        control.mkdir(parents=True)
        (control / "enabled").write_text("1\n")
        self._link(control)
        for index, name in enumerate(names):
            zone = self._zone(control / f"{kind}:{index}", name, f"rapl:{name}")
            inside = (["core", "uncore"] if cores else []) + (["dram"] if dram else [])
            for number, part in enumerate(inside):
                counter = f"rapl:{name}/{part}"
                self._zone(zone / f"{zone.name}:{number}", part, counter)
        if psys:
            self._zone(control / f"{kind}:{len(names)}", "psys", "rapl:psys")

    def _zone(self, zone: Path, name: str, counter: str) -> Path:
        zone.mkdir(parents=True)
        (zone / "name").write_text(f"{name}\n")
        (zone / "max_energy_range_uj").write_text(f"{self.range_uj}\n")
        (zone / "enabled").write_text("1\n")
        if not name.startswith(("core", "uncore", "dram", "psys")):
            (zone / "constraint_0_name").write_text("long_term\n")
            (zone / "constraint_0_max_power_uw").write_text("350000000\n")
            (zone / "constraint_0_power_limit_uw").write_text("350000000\n")
        self._link(zone)
        self.moving(counter, zone / "energy_uj", "uj", self.range_uj)
        return zone

    def _link(self, target: Path) -> None:
        folder = self.root / "class" / "powercap"
        (folder / target.name).symlink_to(os.path.relpath(target, folder))

    def _nvidia(self, number: int, model: str) -> None:
        uuid = f"GPU-00000000-0000-0000-0000-{number:012x}"
        folder = write_gpu(self.root / "nvml", number, uuid=uuid, minor=number, name=model)
        self.moving(f"nvml:{uuid}", folder / "energy_mj", "mj")
        self.moving(f"nvml:{uuid}", folder / "power_mw", "mw")

    def _amd(self, number: int) -> None:
        address = f"0000:{0xC1 + number:02x}:00.0"
        device = self.hwmon("amdgpu", address, {"power1_average": f"amdgpu:{address}"}, {"power1_cap_max": "560000000"})
        (device / "product_name").write_text("AMD Instinct MI210\n")
        (device / "drm" / f"card{number + 1}").mkdir(parents=True)
        (device / "drm" / f"renderD{128 + number}").mkdir()
        (device / "gpu_metrics").write_bytes(struct.pack("<HBB", 120, 1, 3).ljust(120, b"\0"))

    def _cray(self, accelerators: int) -> None:
        folder = self.root / "cray" / "pm_counters"
        folder.mkdir(parents=True)
        for file, said in (("freshness", "1"), ("generation", "1"), ("startup", "1796"), ("version", "2")):
            (folder / file).write_text(f"{said}\n")
        (folder / "raw_scan_hz").write_text("10\n")
        for name in ("energy", "cpu_energy", "memory_energy", *(f"accel{n}_energy" for n in range(accelerators))):
            self.moving(f"cray:{name}", folder / name, "cray")
