"""What a site can say to the agent: command line first, then [agent] of the configuration, then the defaults."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from slurm_energy.sources.options import Options as SourceOptions


class AgentOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[agent]. Seconds, watts, bytes. node and cluster: as Slurm names them."""

    node: str = ""
    cluster: str = "cluster"
    period_s: float = 1.0
    checkpoint_s: float = 30.0
    flush_s: float = 300.0
    orphan_s: float = 60.0
    hooks: str = "/run/slurm-energy/hooks"
    socket: str = "/run/slurm-energy/agent.sock"
    state_dir: str = "/var/lib/slurm-energy/agent"
    outbox: str = "/var/lib/slurm-energy/outbox"
    outbox_limit_mb: int = 256
    group: str = "slurm-energy"
    cgroup_root: str = "/sys/fs/cgroup"
    cpus: int = 0
    mem_bytes: int = 0
    package_idle_w: float | None = None
    dram_idle_w: float | None = None
    clock: str = ""
    ship_to: str = ""
    sources: SourceOptions = SourceOptions()
    node_given: bool = False
    """Whether the site named the node: then hooks of other nodes of this host are left to their agents."""

    def shape(self) -> tuple[int, int]:
        """CPUs and bytes of memory of the node: configured, else this machine's."""
        page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        return self.cpus or os.cpu_count() or 1, self.mem_bytes or page * pages


def parse(arguments: Sequence[str]) -> tuple[AgentOptions, bool]:
    """Options out of the command line and the configuration file, and whether to finish instead of to sample.

    Ends the program with code 2 on a mistake.
    """
    parser = argparse.ArgumentParser(
        prog="senergy agent",
        description="Samples the power counters of this node and splits them between its jobs. One per node, as root, no network.",
        epilog="example: senergy agent --node n1 --cluster alpha",
    )
    parser.add_argument(
        "--config", type=Path, help="configuration file ([agent]; default /etc/slurm-energy/config.toml)"
    )
    parser.add_argument("--node", help="Slurm's name of this node (default: the host name up to the first dot)")
    parser.add_argument("--cluster", help="Slurm's name of the cluster (hooks say it, too)")
    parser.add_argument(
        "--period", type=float, dest="period_s", metavar="S", help="seconds between two looks (default 1)"
    )
    parser.add_argument("--hooks", metavar="DIR", help="where the hooks drop their files")
    parser.add_argument("--socket", metavar="PATH", help="where the snapshot is served")
    parser.add_argument("--state-dir", metavar="DIR", help="checkpoint (same file system as the outbox)")
    parser.add_argument("--outbox", metavar="DIR", help="where segments wait for senergy ship")
    parser.add_argument("--cgroup-root", metavar="DIR", help="root of the cgroup tree")
    parser.add_argument("--sysfs-root", metavar="DIR", help="root of sysfs")
    parser.add_argument("--clock", metavar="FILE", help="take the time from a file (tests)")
    parser.add_argument(
        "--finish", action="store_true",
        help="before the agent is taken out, once it is stopped: write what its checkpoint holds as segments, and end",
    )  # fmt: skip
    given = {key: value for key, value in vars(parser.parse_args(arguments)).items() if value is not None}
    from slurm_energy.config import ConfigError

    finish = bool(given.pop("finish"))
    try:
        options = _configured(given.pop("config", None), given.pop("sysfs_root", None), given)
    except ConfigError as error:
        parser.error(str(error))
    if options.period_s <= 0 or options.checkpoint_s <= 0:
        parser.error("periods are more than 0 seconds")
    given_name = bool(options.node)
    node = options.node or socket.gethostname().split(".")[0]
    return msgspec.structs.replace(options, node=node, node_given=given_name), finish


def agent_options(config: Path | None, sysfs_root: str | None) -> AgentOptions:
    """The options of the agent by the configuration alone. Raises ConfigError."""
    return _configured(config, sysfs_root, {})


def _configured(path: Path | None, sysfs_root: str | None, given: dict[str, Any]) -> AgentOptions:
    """[agent] of the configuration with what was given laid over it. Raises ConfigError."""
    from slurm_energy.config import ConfigError, load_config

    config, file = load_config(path)
    table: dict[str, Any] = dict(config.agent)
    if sysfs_root is not None:
        table["sources"] = {**table.get("sources", {}), "sysfs_root": sysfs_root}
    try:
        return msgspec.convert({**table, **given}, AgentOptions, str_keys=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file or 'command line'}, [agent]: {error}") from error
