"""A fake NVML behind pynvml's names. Its GPUs are folders of files, so that a test moves and breaks them from outside.

A GPU's folder has uuid, name, minor, energy_mj, power_mw and state: ok, lost, denied or reset (its count starts again).
`no_energy` and `mig` are files that are there or not. `fakelib` in this folder, put on PYTHONPATH, lets a whole
process import it as `pynvml`; it then reads the folder named by SENERGY_SIM_NVML.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

NVML_ERROR_UNINITIALIZED = 1
NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_NO_PERMISSION = 4
NVML_ERROR_NOT_FOUND = 6
NVML_ERROR_DRIVER_NOT_LOADED = 9
NVML_ERROR_TIMEOUT = 10
NVML_ERROR_LIBRARY_NOT_FOUND = 12
NVML_ERROR_GPU_IS_LOST = 15
NVML_ERROR_RESET_REQUIRED = 16
NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18
NVML_ERROR_IN_USE = 19
NVML_ERROR_UNKNOWN = 999
NVML_DEVICE_MIG_DISABLE, NVML_DEVICE_MIG_ENABLE = 0, 1

_SAID = {
    1: "Uninitialized", 3: "Not Supported", 4: "Insufficient Permissions", 6: "Not Found", 9: "Driver Not Loaded",
    10: "Timeout", 12: "NVML Shared Library Not Found", 15: "GPU is lost", 16: "GPU requires restart",
    18: "RM has detected an NVML/RM version mismatch.", 19: "In use", 999: "Unknown Error",
}  # fmt: skip


class NVMLError(Exception):
    """As pynvml's: `value` is the code."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return _SAID[self.value]


def write_gpu(root: Path, number: int, **facts: Any) -> Path:
    """Makes a GPU's folder; facts: uuid, minor, name. Its order is NVML's index."""
    folder = Path(root) / f"{number:03d}"
    folder.mkdir(parents=True)
    usual = {"energy_mj": 0, "power_mw": 0, "state": "ok"}
    for file, said in {**usual, **facts}.items():
        (folder / file).write_text(f"{said}\n")
    return folder


class FakeNvml:
    """What `import pynvml` gives: the functions and constants that slurm_energy uses, on the GPUs under `root`.

    fail_init: a code that nvmlInit raises, for tests. calls: how often each function ran.
    """

    NVMLError = NVMLError

    def __init__(self, root: str | Path, fail_init: int = 0) -> None:
        self.root, self.fail_init, self.up = Path(root), fail_init, 0
        self.calls: dict[str, int] = {}
        self._open: dict[tuple[Path, str], int] = {}
        self._reset_mj: dict[Path, int] = {}
        for name, value in globals().items():
            if name.startswith("NVML_"):
                setattr(self, name, value)

    def nvmlInit(self) -> None:
        self._count("nvmlInit")
        if self.fail_init:
            raise NVMLError(self.fail_init)
        self.up += 1

    def nvmlShutdown(self) -> None:
        self._begun()
        self.up -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        self._begun()
        return "580.65.06"

    def nvmlDeviceGetCount(self) -> int:
        self._begun()
        return len(self._gpus())

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Path:
        self._begun()
        return self._alive(self._gpus()[index])

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Path:
        self._begun()
        self._count("nvmlDeviceGetHandleByUUID")
        for gpu in self._gpus():
            if self._text(gpu, "uuid") == uuid:
                return self._alive(gpu)
        raise NVMLError(NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetUUID(self, gpu: Path) -> str:
        return self._text(self._alive(gpu), "uuid")

    def nvmlDeviceGetName(self, gpu: Path) -> str:
        return self._text(self._alive(gpu), "name")

    def nvmlDeviceGetMinorNumber(self, gpu: Path) -> int:
        return int(self._text(self._alive(gpu), "minor"))

    def nvmlDeviceGetPowerManagementLimitConstraints(self, gpu: Path) -> list[int]:
        self._alive(gpu)
        return [200_000, 700_000]

    def nvmlDeviceGetMigMode(self, gpu: Path) -> list[int]:
        mode = NVML_DEVICE_MIG_ENABLE if (self._alive(gpu) / "mig").exists() else NVML_DEVICE_MIG_DISABLE
        return [mode, mode]

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: Path) -> int:
        self._count("nvmlDeviceGetTotalEnergyConsumption")
        if os.path.exists(f"{self._alive(gpu)}/no_energy"):  # noqa: PTH110  quicker than a Path, for benchmarks
            raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
        return self._number(gpu, "energy_mj") - self._reset_mj.get(gpu, 0)

    def nvmlDeviceGetPowerUsage(self, gpu: Path) -> int:
        self._count("nvmlDeviceGetPowerUsage")
        return self._number(self._alive(gpu), "power_mw")

    def set_state(self, index: int, state: str) -> None:
        """ok, lost, denied; reset lets the count start from 0 now."""
        gpu = self._gpus()[index]
        if state == "reset":
            self._reset_mj[gpu] = self._number(gpu, "energy_mj")
            return
        (gpu / "state").write_text(f"{state}\n")

    def _alive(self, gpu: Path) -> Path:
        self._begun()
        state = self._line(gpu, "state")
        if state != b"ok":
            raise NVMLError(NVML_ERROR_NO_PERMISSION if state == b"denied" else NVML_ERROR_GPU_IS_LOST)
        return gpu

    def _begun(self) -> None:
        if self.up <= 0:
            raise NVMLError(NVML_ERROR_UNINITIALIZED)

    def _gpus(self) -> list[Path]:
        return sorted(self.root.iterdir()) if self.root.is_dir() else []

    def _line(self, gpu: Path, file: str) -> bytes:
        descriptor = self._open.get((gpu, file))
        if descriptor is None:
            descriptor = self._open[gpu, file] = os.open(gpu / file, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(descriptor, 128, 0).strip()

    def _number(self, gpu: Path, file: str) -> int:
        return int(self._line(gpu, file))

    def _text(self, gpu: Path, file: str) -> str:
        return self._line(gpu, file).decode()

    def _count(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
