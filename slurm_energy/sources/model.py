"""An estimate where nothing measures the CPU packages: utilisation (psutil) between the idle and full watts of a site.

Marked `estimated`. It takes no part where a counter is there, and none in place of one that may not be read, unless
the site says `model = "always"`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from slurm_energy.sources.base import PACKAGE, Counter, Found, Refusal, Unreadable
from slurm_energy.sources.options import Options

NAME = "model"
COVERS = "CPU packages, estimated from utilisation between idle and full watts"


def find(options: Options) -> Found:
    """The estimate, where the site has said what the packages draw idle and full."""
    if options.model == "never":
        return Found([], [])
    if options.idle_w is None or options.full_w is None:
        note = (
            "nothing measures the CPU packages here; idle_w and full_w, all packages together, would give an estimate"
        )
        return Found([], [], note)
    if options.full_w < options.idle_w:
        why = f"full_w = {options.full_w:g} is less than idle_w = {options.idle_w:g}"
        return Found([], [Refusal(NAME, why, "set full_w to at least idle_w", PACKAGE)])
    try:
        psutil: Any = import_module("psutil")
    except ImportError:
        return Found([], [Refusal(NAME, "psutil is not installed", "pip install psutil", PACKAGE)])
    if options.proc_root != "/proc":
        psutil.PROCFS_PATH = options.proc_root
    note = f"{options.idle_w:g} W idle to {options.full_w:g} W full, estimated"
    return Found([ModelCounter(options.idle_w, options.full_w, psutil)], [], note)


class ModelCounter(Counter):
    """Idle watts, and the rest by the busy share of all cores since the last reading."""

    __slots__ = ("_busy_s", "_energy_uj", "_full_w", "_idle_w", "_last_ns", "_psutil", "_total_s")

    def __init__(self, idle_w: float, full_w: float, psutil: Any) -> None:
        super().__init__(PACKAGE, "model:packages", max_w=2 * full_w + 1, integrated=True, estimated=True)
        self._idle_w, self._full_w, self._psutil = idle_w, full_w, psutil
        self._last_ns, self._energy_uj = -1, 0
        self._busy_s = self._total_s = 0.0

    def read(self, now_ns: int) -> int:
        """The estimate since the first reading, uJ. Raises Unreadable."""
        try:
            times = self._psutil.cpu_times()
        except (OSError, ValueError) as error:
            raise Unreadable(f"model: no CPU times: {error}") from error
        # user and nice hold the guests' time too; what another guest stole was not drawn for us.
        busy = times.user + times.nice + times.system + times.irq + times.softirq
        total = busy + times.idle + times.iowait + times.steal
        if self._last_ns < 0:
            self._last_ns, self._busy_s, self._total_s = now_ns, busy, total
        elif total > self._total_s:
            share = min(1.0, max(0.0, (busy - self._busy_s) / (total - self._total_s)))
            watts = self._idle_w + share * (self._full_w - self._idle_w)
            self._energy_uj += round(watts * (now_ns - self._last_ns) / 1000)
            self._last_ns, self._busy_s, self._total_s = now_ns, busy, total
        return self._energy_uj
