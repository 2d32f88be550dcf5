"""NVIDIA GPUs through NVML (pynvml of nvidia-ml-py).

The GPU's own energy counter (mJ, Volta and later; updated some ten times a second), else its power, integrated between
readings. MIG: the whole device, for its parts have no counter. Anyone who may open /dev/nvidia* may read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from slurm_energy.sources.base import GPU, Counter, Found, Refusal, Trapezoid, Unreadable
from slurm_energy.sources.options import Options

NAME = "nvml"
COVERS = "NVIDIA GPUs, from the driver (NVML)"
AGAIN_NS = 30_000_000_000
"""NVML is begun anew, to find a GPU that was lost, at most so often: it takes a while and concerns all GPUs."""


def find(options: Options, library: Any = None) -> Found:
    """One counter for each GPU. library: what to call instead of pynvml."""
    driver = Path(options.proc_root, "driver", "nvidia", "version").exists()
    if library is None:
        try:
            library = import_module("pynvml")
        except ImportError as error:
            if not driver:
                return Found([], [])
            why = f"the NVIDIA driver is loaded, but pynvml does not import: {error}"
            return Found([], [Refusal(NAME, why, "pip install nvidia-ml-py", GPU)])
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        return Found([], _not_begun(library, error, driver))
    nvml = _Library(library)
    counters: list[Counter] = []
    refused: list[Refusal] = []
    notes = [f"driver {_string(_maybe(library.nvmlSystemGetDriverVersion, library))}"]
    for index in range(_maybe(library.nvmlDeviceGetCount, library) or 0):
        try:
            counter, mig = _gpu(nvml, index)
        except library.NVMLError as error:
            refused.append(Refusal(f"{NAME}: GPU {index}", str(error), _remedy(library, error), GPU))
        else:
            counters.append(counter)
            if mig:
                notes.append(f"{counter.device} is in MIG mode: its instances share one counter")
    if not counters:
        nvml.shutdown()
    if any(counter.integrated for counter in counters):
        notes.append("power integrated between readings where a GPU has no energy counter")
    return Found(counters, refused, "; ".join(notes) if counters or refused else "")


def _not_begun(library: Any, error: Any, driver: bool) -> list[Refusal]:
    """NVML that does not begin: quiet where no NVIDIA driver is, told where one is."""
    code = error.value
    if code == library.NVML_ERROR_LIBRARY_NOT_FOUND:
        why, remedy = "the NVIDIA driver is loaded without its NVML library", "install the driver's libnvidia-ml.so.1"
    elif code == library.NVML_ERROR_DRIVER_NOT_LOADED:
        why, remedy = f"{error}", "load the NVIDIA driver: nvidia-smi says what is missing"
    else:
        return [Refusal(NAME, str(error), _remedy(library, error), GPU)]
    return [Refusal(NAME, why, remedy, GPU)] if driver else []


def _remedy(library: Any, error: Any) -> str:
    """What an admin does about it."""
    code = error.value
    if code == library.NVML_ERROR_NO_PERMISSION:
        return "let the agent open /dev/nvidia*: run it as root, with DeviceAllow=char-nvidia-* in its unit"
    if code == library.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return "the driver was updated and not loaded anew: reboot the node"
    if code in (library.NVML_ERROR_GPU_IS_LOST, library.NVML_ERROR_RESET_REQUIRED):
        return "reset the GPU (nvidia-smi --gpu-reset) or reboot the node, then restart the agent"
    if code == library.NVML_ERROR_NOT_SUPPORTED:
        return "nothing to be done: this GPU reports neither energy nor power"
    return "see what nvidia-smi says, and restart the agent when it works"


def _gpu(nvml: _Library, index: int) -> tuple[Counter, bool]:
    """The GPU's counter, and whether it is in MIG mode. Raises NVMLError."""
    library = nvml.library
    handle = library.nvmlDeviceGetHandleByIndex(index)
    uuid = _string(library.nvmlDeviceGetUUID(handle))
    minor = _maybe(lambda: library.nvmlDeviceGetMinorNumber(handle), library)
    limits = _maybe(lambda: library.nvmlDeviceGetPowerManagementLimitConstraints(handle), library) or (0, 0)
    mig = _maybe(lambda: library.nvmlDeviceGetMigMode(handle), library) or (0, 0)
    model = _string(_maybe(lambda: library.nvmlDeviceGetName(handle), library))
    try:
        library.nvmlDeviceGetTotalEnergyConsumption(handle)
        integrated = False
    except library.NVMLError as error:
        if error.value != library.NVML_ERROR_NOT_SUPPORTED:
            raise
        library.nvmlDeviceGetPowerUsage(handle)
        integrated = True
    counter = NvmlCounter(
        nvml, handle, uuid, index if minor is None else int(minor), model, max(1000.0, 2e-3 * limits[1]), integrated
    )
    return counter, mig[0] == library.NVML_DEVICE_MIG_ENABLE


def _maybe(call: Callable[[], Any], library: Any) -> Any:
    """What the call gives, None where this GPU or driver does not have it."""
    try:
        return call()
    except library.NVMLError:
        return None


def _string(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


class _Library:
    """NVML as all GPUs of the node share it; `generation` counts how often it was begun."""

    __slots__ = ("_again_ns", "generation", "library", "users")

    def __init__(self, library: Any) -> None:
        self.library, self.generation, self.users, self._again_ns = library, 0, 0, 0

    def again(self, now_ns: int) -> None:
        """Begins NVML anew, at most every 30 s; all handles are to be fetched again then."""
        if now_ns < self._again_ns:
            return
        self._again_ns = now_ns + AGAIN_NS
        self.shutdown()
        self.generation += 1
        with contextlib.suppress(self.library.NVMLError):
            self.library.nvmlInit()

    def shutdown(self) -> None:
        """Ends NVML; it may be down already."""
        with contextlib.suppress(self.library.NVMLError):
            self.library.nvmlShutdown()


class NvmlCounter(Counter):
    """One GPU: its energy counter, or its power integrated."""

    __slots__ = ("_energy", "_generation", "_handle", "_nvml", "_why")

    def __init__(
        self, nvml: _Library, handle: Any, uuid: str, minor: int, model: str, max_w: float, integrated: bool
    ) -> None:
        super().__init__(
            GPU, f"{NAME}:{uuid}", device=uuid, minor=minor, model=model, max_w=max_w, integrated=integrated
        )
        self._nvml, self._handle, self._generation, self._why = nvml, handle, nvml.generation, ""
        self._energy = Trapezoid() if integrated else None
        nvml.users += 1

    def read(self, now_ns: int) -> int:
        """The GPU's count, uJ. Raises Unreadable; a GPU that was lost is looked for every 30 s."""
        nvml = self._nvml
        library = nvml.library
        if self._handle is None:
            nvml.again(now_ns)
        try:
            if self._generation != nvml.generation:
                self._handle, self._generation = None, nvml.generation
                self._handle = library.nvmlDeviceGetHandleByUUID(self.device)
            if self._handle is None:
                raise Unreadable(self._why)
            if self._energy is None:
                return int(library.nvmlDeviceGetTotalEnergyConsumption(self._handle)) * 1000
            power_mw = int(library.nvmlDeviceGetPowerUsage(self._handle))
        except library.NVMLError as error:
            if self._energy is not None:
                self._energy.lost()
            if error.value not in (library.NVML_ERROR_TIMEOUT, library.NVML_ERROR_IN_USE):
                self._handle = None
            self._why = f"{self.name}: {error}"
            raise Unreadable(self._why) from error
        return self._energy.add(power_mw * 1000, now_ns)

    def holders(self) -> list[int]:
        """Processes with a compute context on the GPU; none where the driver does not say."""
        library = self._nvml.library
        ask = getattr(library, "nvmlDeviceGetComputeRunningProcesses", None)
        if ask is None or self._handle is None:
            return []
        try:
            return [int(process.pid) for process in ask(self._handle)]
        except library.NVMLError:
            return []

    def close(self) -> None:
        """Ends NVML with the last GPU."""
        self._nvml.users -= 1
        if self._nvml.users == 0:
            self._nvml.shutdown()
