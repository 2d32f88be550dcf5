"""The configuration file, read and checked."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from slurm_energy.config.mistakes import explain
from slurm_energy.config.places import DEFAULT_PATH
from slurm_energy.config.structs import ENERGY_PLUGINS, SWEEP_SOURCES, Config, ConfigError, Settings


def load_config(path: Path | None = None) -> tuple[Config, Path | None]:
    """The configuration and the file it came from (None: only defaults).

    Looks at `path`, else $SENERGY_CONFIG, else /etc/slurm-energy/config.toml where it is there.
    Raises ConfigError.
    """
    named = path or (Path(os.environ["SENERGY_CONFIG"]) if os.environ.get("SENERGY_CONFIG") else None)
    file = named or DEFAULT_PATH
    try:
        text = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if named is None:
            return Config(), None
        raise ConfigError(f"{file}: no such file; check --config or SENERGY_CONFIG") from error
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    return parse_config(text, str(file)), file


def parse_config(text: bytes, name: str) -> Config:
    """The configuration in `text`; `name` is what an error calls the file. Raises ConfigError."""
    try:
        plain = msgspec.toml.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: not TOML: {error}") from error
    try:
        settings = msgspec.convert(plain, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(error, Settings, name, plain)) from error
    problem = _problem(settings)
    if problem:
        raise ConfigError(f"{name}, {problem}")
    return Config(**msgspec.structs.asdict(settings), file=name)


def _problem(settings: Settings) -> str:
    """What a type cannot say: ranges, names, patterns. Empty where all is well."""
    site, slurm, sweeps, power = settings.site, settings.slurm, settings.sweeps, settings.power
    if not 0 <= site.lookback_days <= 3660:
        return f"[site] lookback_days = {site.lookback_days}: expected 0 to 3660 days"
    if site.first_days < 1:
        return f"[site] first_days = {site.first_days}: expected at least 1 day"
    if slurm.energy_plugin not in ENERGY_PLUGINS:
        return f"[slurm] energy_plugin = {slurm.energy_plugin!r}: expected one of {', '.join(ENERGY_PLUGINS)}"
    for source in sweeps.sources:
        if source not in SWEEP_SOURCES:
            return f"[sweeps] sources has {source!r}: expected any of {', '.join(SWEEP_SOURCES)}"
    try:
        re.compile(sweeps.job_name)
    except re.error as error:
        return f"[sweeps] job_name = {sweeps.job_name!r}: not a regular expression ({error})"
    for number, rule in enumerate(settings.projects, 1):
        unknown = set(re.findall(r"\{(\w*)\}", rule.project)) - {"account", "user", "wckey", "comment"}
        if unknown or not rule.project:
            return f"[[projects]] #{number} project = {rule.project!r}: expected a name, or {{account}}, {{user}}, {{wckey}} or {{comment}}"
    for name, hardware in (*power.partition.items(), *((nodes.names, nodes) for nodes in power.nodes)):
        for key, watts in (("cpu_core_w", hardware.cpu_core_w), ("dram_w_per_gb", hardware.dram_w_per_gb)):
            if watts is not None and not 0 <= watts < 1e6:
                return f"[power] {name}: {key} = {watts}: expected watts, at least 0"
    for number, nodes in enumerate(power.nodes, 1):
        if not nodes.names:
            return f'[[power.nodes]] #{number}: expected names, such as names = "gpu[01-10]"'
    return ""
