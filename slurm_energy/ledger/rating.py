"""What a job's allocation is rated at: watts of its GPUs, cores and memory, and its price in a cloud.

Pure: from the gres/gpu text, the partition and the nodes of a job, by the profile and the site's description of its
hardware. Few combinations are distinct, so millions of jobs need few calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import hostlist

from slurm_energy.config import ConfigError, Hardware, Power
from slurm_energy.factors.checks import ProfileError
from slurm_energy.factors.cpus import core_watts
from slurm_energy.factors.profile import Profile
from slurm_energy.slurm.tres import parse_gpus


class Rating(NamedTuple):
    """Of one allocation: watts, and USD per hour (None: no price is known)."""

    gpus: int
    gpu_units: float
    gpu_model: str | None
    gpu_w: float
    cpu_core_w: float
    dram_w_per_gb: float
    cloud_low_usd_per_h: float | None
    cloud_high_usd_per_h: float | None
    cpu_low_usd_per_h: float
    cpu_high_usd_per_h: float
    exclusive: bool
    cpus_per_node: int


class Rater:
    """Rates allocations under one profile on one site's hardware."""

    def __init__(self, profile: Profile, power: Power) -> None:
        self.profile, self.power = profile, power
        self.by_node: dict[str, Hardware] = {}
        for nodes in power.nodes:
            for node in expand_nodes(nodes.names):
                self.by_node.setdefault(node, nodes)
        for hardware in (*power.partition.values(), *power.nodes):
            self._core_watts(hardware)

    @property
    def looks_at_nodes(self) -> bool:
        """Whether the names of a job's nodes matter."""
        return bool(self.by_node)

    def _core_watts(self, hardware: Hardware) -> float | None:
        """Watts per core that the site gives, or those of the CPU it names. Raises ConfigError for an unknown CPU."""
        if hardware.cpu_core_w is not None or not hardware.cpu:
            return hardware.cpu_core_w
        try:
            return core_watts(hardware.cpu)[0]
        except ProfileError as error:
            raise ConfigError(f"[power] {error}") from error

    def _hardware(self, partition: str, node_list: str) -> Sequence[Hardware]:
        """What each node of the job is: by its name, else by the partition."""
        default = self.power.partition.get(partition, Hardware())
        if not self.by_node or not node_list:
            return (default,)
        try:
            nodes = expand_nodes(node_list)
        except ConfigError:  # 'None assigned' and the like
            return (default,)
        return tuple(self.by_node.get(node, default) for node in nodes) or (default,)

    def rate(self, gpu_key: str, partition: str, node_list: str) -> Rating:
        """The rating of an allocation. gpu_key: the gres/gpu parts of AllocTRES."""
        nodes = self._hardware(partition, node_list)
        profile = self.profile

        def mean(values: Sequence[float | None], default: float) -> float:
            return sum(default if value is None else value for value in values) / len(values)

        core_w = mean([self._core_watts(hardware) for hardware in nodes], profile.cpu_core_w)
        dram_w = mean([hardware.dram_w_per_gb for hardware in nodes], profile.dram_w_per_gb)
        named = next((hardware.gpu for hardware in nodes if hardware.gpu), "")

        count, units, watts = 0, 0.0, 0.0
        low: float | None = 0.0
        high: float | None = 0.0
        models: list[str] = []
        whole_package = True
        for gres_type, number in sorted(parse_gpus(gpu_key).items()):
            gpu = profile.gpu(gres_type or named or None)
            count += number
            units += number * gpu.fraction
            watts += number * gpu.fraction * (gpu.rated_w or 0.0)
            if low is not None:
                low = None if gpu.low_usd_per_h is None else low + number * gpu.fraction * gpu.low_usd_per_h
            if high is not None:
                high = None if gpu.high_usd_per_h is None else high + number * gpu.fraction * gpu.high_usd_per_h
            whole_package = whole_package and gpu.includes_cpu
            if gpu.model not in models:
                models.append(gpu.model)
        if models and whole_package:  # one power budget: the device's watts hold CPU and memory already
            core_w = dram_w = 0.0
        return Rating(
            count, units, "+".join(sorted(models)) or None, watts, core_w, dram_w, low, high,
            profile.cpu_core_low_usd_per_h, profile.cpu_core_high_usd_per_h,
            all(hardware.exclusive for hardware in nodes), _whole_nodes_cpus(nodes),
        )  # fmt: skip


def _whole_nodes_cpus(nodes: Sequence[Hardware]) -> int:
    """Mean CPUs of the nodes, rounded up, so that times their number it is all of them; 0 where one is not known."""
    counts = [hardware.cpus_per_node for hardware in nodes]
    return -(-sum(counts) // len(counts)) if all(counts) else 0


def expand_nodes(names: str) -> list[str]:
    """Node names of Slurm's list form: `n[001-003,010],gpu5`. Raises ConfigError where it is not one."""
    try:
        return list(hostlist.expand_hostlist(names))
    except hostlist.BadHostlist as error:
        raise ConfigError(f"{names!r} is not a node list: {error}") from error
