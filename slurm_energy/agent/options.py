"""What a site can say to the agent: command line first, then [agent] of the configuration, then the defaults."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Optional

import msgspec

from slurm_energy.sources.options import Options as SourceOptions
from slurm_energy.sources.options import Watts

Period = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Delay = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Megabytes = Annotated[int, msgspec.Meta(ge=1, le=1 << 30)]


class AgentOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[agent]. Seconds, watts, bytes. node and cluster: as Slurm names them; empty: as the hooks say."""

    node: str = ""
    cluster: str = ""
    period_s: Period = 1.0
    checkpoint_s: Period = 30.0
    flush_s: Period = 300.0
    orphan_s: Delay = 60.0
    hooks: str = "/run/slurm-energy/hooks"
    socket: str = "/run/slurm-energy/agent.sock"
    state_dir: str = "/var/lib/slurm-energy/agent"
    outbox: str = "/var/lib/slurm-energy/outbox"
    outbox_limit_mb: Megabytes = 256
    group: str = "slurm-energy"
    cgroup_root: str = "/sys/fs/cgroup"
    cpus: Count = 0
    mem_bytes: Count = 0
    package_idle_w: Optional[Watts] = None
    dram_idle_w: Optional[Watts] = None
    ship_to: str = ""
    sources: SourceOptions = SourceOptions()

    def shape(self) -> tuple[int, int]:
        """CPUs and bytes of memory of the node: configured, else this machine's."""
        page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        return self.cpus or os.cpu_count() or 1, self.mem_bytes or page * pages

    @property
    def outbox_limit_bytes(self) -> int:
        """What the outbox may hold: a megabyte here is 2^20 bytes, for the agent and for who looks at it."""
        return self.outbox_limit_mb << 20

    @property
    def floors_uw(self) -> dict[str, int]:
        """The idle floors that the site gives, by domain, microwatts."""
        given = (("package", self.package_idle_w), ("dram", self.dram_idle_w))
        return {name: int(watts * 1e6) for name, watts in given if watts is not None}


class Started(NamedTuple):
    """What one start of the agent was told: the site's options, and what no file can say.

    clock:  a file to take the time from (tests); '' for the machine's clocks
    finish: write what the checkpoint holds as segments, and end
    """

    options: AgentOptions
    clock: str = ""
    finish: bool = False


def parse(arguments: Sequence[str]) -> Started:
    """What the command line and the configuration file say.

    Raises ConfigError; ends the program with code 2 where a word of the command line is none.
    """
    given = {key: value for key, value in vars(command_line().parse_args(arguments)).items() if value is not None}
    finish, clock = bool(given.pop("finish")), given.pop("clock", "")
    return Started(_configured(given.pop("config", None), given.pop("sysfs_root", None), given), clock, finish)


def command_line() -> argparse.ArgumentParser:
    """The words of `senergy agent`."""
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
    return parser


def agent_options(config: Path | None, sysfs_root: str | None) -> AgentOptions:
    """The options of the agent by the configuration alone. Raises ConfigError."""
    return _configured(config, sysfs_root, {})


def _configured(path: Path | None, sysfs_root: str | None, given: dict[str, Any]) -> AgentOptions:
    """[agent] of the configuration with what was given laid over it. Raises ConfigError."""
    from slurm_energy.config import load_config

    config, file = load_config(path)
    options = _checked(config.agent, str(file))
    if sysfs_root is not None:
        sources = msgspec.structs.replace(options.sources, sysfs_root=sysfs_root)
        options = msgspec.structs.replace(options, sources=sources)
    _checked(given, "command line")
    return msgspec.structs.replace(options, **given)


def _checked(table: dict[str, Any], where: str) -> AgentOptions:
    """The options in a table [agent]. where: what an error says that it stands in. Raises ConfigError."""
    from slurm_energy.config import ConfigError, explain

    try:
        return msgspec.convert(table, AgentOptions, str_keys=True)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(error, AgentOptions, where, table, "agent")) from error
