"""What the configuration file may say, as frozen structs, and the one error for a file that cannot be used."""

from __future__ import annotations

from typing import Any

import msgspec


class ConfigError(Exception):
    """The configuration cannot be used; the message names file, key, value and what was expected."""


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[site]: where and when."""

    timezone: str = ""
    cluster: str = "cluster"
    ledger: str = ""
    inbox: str = ""
    profile: str = "site"
    lookback_days: int = 3
    first_days: int = 365


class Hardware(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[power.partition.NAME]: what the nodes of a partition are."""

    gpu: str = ""
    cpu: str = ""
    cpu_core_w: float | None = None
    dram_w_per_gb: float | None = None
    exclusive: bool = False
    cpus_per_node: int = 0


class NodeHardware(Hardware, frozen=True, forbid_unknown_fields=True):
    """[[power.nodes]]: what the named nodes are."""

    names: str = ""


class Power(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[power]: hardware by partition, and by node where nodes of a partition differ (the node wins)."""

    partition: dict[str, Hardware] = {}
    nodes: list[NodeHardware] = []


class Slurm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[slurm]: which clusters to ask for, and what ConsumedEnergyRaw covers there."""

    clusters: list[str] = []
    energy_plugin: str = "auto"


class ProjectRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[[projects]]: a job that meets every condition given belongs to `project`; the first such rule wins.

    `project` may be a name, or hold {account}, {user}, {wckey} or {comment} (the NAME of `project=NAME` in the comment;
    such a rule matches only jobs whose comment has it). `account` matches the account and those below it.
    """

    project: str
    account: str = ""
    user: str = ""
    wckey: str = ""
    job_name: str = ""
    comment: str = ""


class Sweeps(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[sweeps]: what makes jobs one sweep; the first of `sources` that a job has names it."""

    sources: tuple[str, ...] = ("comment", "job_name", "array", "wckey")
    job_name: str = ""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. `factors` overrides the packaged profile `site`; `profiles` holds further named ones."""

    site: Site = Site()
    factors: dict[str, Any] = {}
    profiles: dict[str, dict[str, Any]] = {}
    power: Power = Power()
    slurm: Slurm = Slurm()
    projects: list[ProjectRule] = []
    account_parents: dict[str, str] = {}
    sweeps: Sweeps = Sweeps()
    agent: dict[str, Any] = {}


class Config(Settings, frozen=True, forbid_unknown_fields=True):
    """The settings in force, and what an error calls the file that they are from."""

    file: str = "configuration"


ENERGY_PLUGINS = ("auto", "none", "rapl", "ipmi", "xcc", "pm_counters", "gpu")
SWEEP_SOURCES = ("comment", "job_name", "array", "wckey")
