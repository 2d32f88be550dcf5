"""The site's configuration: TOML to frozen structs, every mistake told with file, key and what was expected.

Importing this package loads nothing of `slurm_energy.factors`: compute nodes need none of it.
"""

from slurm_energy.config.load import load_config, parse_config
from slurm_energy.config.mistakes import explain
from slurm_energy.config.places import DEFAULT_PATH, SERVICE_STATE, inbox_path, ledger_path
from slurm_energy.config.profiles import profile_of
from slurm_energy.config.structs import (
    ENERGY_PLUGINS,
    SWEEP_SOURCES,
    Config,
    ConfigError,
    Hardware,
    NodeHardware,
    Power,
    ProjectRule,
    Settings,
    Site,
    Slurm,
    Sweeps,
)

__all__ = [
    "DEFAULT_PATH",
    "ENERGY_PLUGINS",
    "SERVICE_STATE",
    "SWEEP_SOURCES",
    "Config",
    "ConfigError",
    "Hardware",
    "NodeHardware",
    "Power",
    "ProjectRule",
    "Settings",
    "Site",
    "Slurm",
    "Sweeps",
    "explain",
    "inbox_path",
    "ledger_path",
    "load_config",
    "parse_config",
    "profile_of",
]
