"""What a site can say about its power sources; every default works on any node."""

from __future__ import annotations

from typing import Annotated, Literal, Optional

import msgspec

When = Literal["auto", "always", "never"]
Watts = Annotated[float, msgspec.Meta(ge=0, le=100_000)]
Seconds = Annotated[float, msgspec.Meta(ge=1, le=3600)]
Number = Annotated[int, msgspec.Meta(ge=0, le=100_000)]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of all sources; the agent passes them to each one's find().

    sysfs_root, proc_root, dev_root: where the node's /sys, /proc and /dev are seen
    off:            sources not to look for, by name (`rapl`, `nvml`, ...)
    gpu_map:        Slurm's number of a GPU (SLURM_JOB_GPUS) to its device minor, where they differ. Several numbers may
                    share a minor: two dies of one package with one power reading
    hwmon:          `driver:label` (or `driver:power1`, where there is no label) of a hwmon sensor to what it covers,
                    for boards whose labels are not known here; `ignore` takes one out
    ipmi:           auto: where a tool and a /dev/ipmi* are there; always: also without the device; never
    ipmi_command:   program and arguments that print a DCMI power reading; empty: ipmi-dcmi, else ipmitool
    ipmi_period_s:  how often the BMC is asked, s
    ipmi_timeout_s: after so long a command is taken for hung and killed, s
    model:          estimate the packages from utilisation. auto: only where nothing there could measure them; always:
                    also where a counter is there and may not be read; never
    idle_w, full_w: what the node's packages draw idle and with every core busy, all together, W; no estimate without
    """

    sysfs_root: str = "/sys"
    proc_root: str = "/proc"
    dev_root: str = "/dev"
    off: tuple[str, ...] = ()
    gpu_map: dict[Number, Number] = {}
    hwmon: dict[str, Literal["package", "dram", "node", "ignore"]] = {}
    ipmi: When = "auto"
    ipmi_command: tuple[str, ...] = ()
    ipmi_period_s: Seconds = 10.0
    ipmi_timeout_s: Seconds = 8.0
    model: When = "auto"
    idle_w: Optional[Watts] = None
    full_w: Optional[Watts] = None
