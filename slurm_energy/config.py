"""The site's configuration: TOML to frozen structs, every mistake told with file, key and what was expected."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from slurm_energy.factors.profile import Profile

DEFAULT_PATH = Path("/etc/slurm-energy/config.toml")
SERVICE_STATE = Path("/var/lib/slurm-energy")


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
    """[power.partition.NAME] or [[power.nodes]]: what the nodes of a partition, or the named nodes, are."""

    names: str = ""
    gpu: str = ""
    cpu: str = ""
    cpu_core_w: float | None = None
    dram_w_per_gb: float | None = None
    exclusive: bool = False
    cpus_per_node: int = 0


class Power(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[power]: hardware by partition, and by node where nodes of a partition differ (the node wins)."""

    partition: dict[str, Hardware] = {}
    nodes: list[Hardware] = []


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


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
    file: str = "configuration"
    """What an error calls the file; not a setting."""


ENERGY_PLUGINS = ("auto", "none", "rapl", "ipmi", "xcc", "pm_counters", "gpu")
SWEEP_SOURCES = ("comment", "job_name", "array", "wckey")


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
    if "file" in plain:
        raise ConfigError(f"{name}, [top level] file: no such key")
    try:
        config = msgspec.structs.replace(msgspec.convert(plain, Config), file=name)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}, {_explain(str(error), plain)}") from error
    problem = _problem(config)
    if problem:
        raise ConfigError(f"{name}, {problem}")
    return config


def _explain(message: str, plain: Mapping[str, Any]) -> str:
    """`[site] lookback_days = 'x': expected an integer`, out of msgspec's words and path."""
    what, _, where = message.partition(" - at `")
    path: list[str | int] = []
    value: Any = plain
    for name, index in re.findall(r"\.([\w-]+)|\[(\d+|\.\.\.)\]", where):
        # Of a table whose keys are names msgspec says [...] for the key.
        key = name or (_culprit(path, value) if index == "..." else int(index))
        path.append(key)
        if isinstance(value, list):
            value = value[int(key)]
        elif key in value:
            value = value[key]
    place = ".".join(str(part) if isinstance(part, str) else f"#{part + 1}" for part in path)
    if match := re.match(r"Object contains unknown field `(.*)`", what):
        known = [field for field in (value if isinstance(value, dict) else {}) if field != match[1]]
        near = get_close_matches(match[1], sorted({*known, *_all_fields()}), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"[{place or 'top level'}] {match[1]}: no such key{hint}"
    section, _, key = place.rpartition(".")
    return f"[{section or 'top level'}] {key} = {value!r}: {what[:1].lower()}{what[1:]}"


def _culprit(path: Sequence[str | int], table: Mapping[str, Any]) -> str:
    """The key of a table, which stands at this path of names, whose value is wrong."""
    for name, entry in table.items():
        trial: Any = {name: entry}
        for key in reversed(path):
            trial = {key: trial}
        try:
            msgspec.convert(trial, Config)
        except msgspec.ValidationError:
            return name
    return "..."


def _all_fields() -> set[str]:
    structs: tuple[type[msgspec.Struct], ...] = (Config, Site, Hardware, Power, Slurm, ProjectRule, Sweeps)
    return {name for struct in structs for name in struct.__struct_fields__}


def _problem(config: Config) -> str:
    """What a type cannot say: ranges, names, patterns. Empty where all is well."""
    if not 0 <= config.site.lookback_days <= 3660:
        return f"[site] lookback_days = {config.site.lookback_days}: expected 0 to 3660 days"
    if config.site.first_days < 1:
        return f"[site] first_days = {config.site.first_days}: expected at least 1 day"
    if config.slurm.energy_plugin not in ENERGY_PLUGINS:
        return f"[slurm] energy_plugin = {config.slurm.energy_plugin!r}: expected one of {', '.join(ENERGY_PLUGINS)}"
    for source in config.sweeps.sources:
        if source not in SWEEP_SOURCES:
            return f"[sweeps] sources has {source!r}: expected any of {', '.join(SWEEP_SOURCES)}"
    try:
        re.compile(config.sweeps.job_name)
    except re.error as error:
        return f"[sweeps] job_name = {config.sweeps.job_name!r}: not a regular expression ({error})"
    for number, rule in enumerate(config.projects, 1):
        unknown = set(re.findall(r"\{(\w*)\}", rule.project)) - {"account", "user", "wckey", "comment"}
        if unknown or not rule.project:
            return f"[[projects]] #{number} project = {rule.project!r}: expected a name, or {{account}}, {{user}}, {{wckey}} or {{comment}}"
    for name, hardware in (*config.power.partition.items(), *((h.names, h) for h in config.power.nodes)):
        for key, watts in (("cpu_core_w", hardware.cpu_core_w), ("dram_w_per_gb", hardware.dram_w_per_gb)):
            if watts is not None and not 0 <= watts < 1e6:
                return f"[power] {name}: {key} = {watts}: expected watts, at least 0"
    for number, hardware in enumerate(config.power.nodes, 1):
        if not hardware.names:
            return f'[[power.nodes]] #{number}: expected names, such as names = "gpu[01-10]"'
    return ""


_ONE_OF = (
    frozenset({"carbon_g_per_kwh", "carbon_lb_per_kwh", "country", "egrid", "us_state"}),
    frozenset({"cpu", "cpu_core_w"}),
)
"""Keys that say the same thing in different ways."""


def profile_of(config: Config, name: str | None = None) -> Profile:
    """The named profile with the site's settings laid over it; [site] profile where no name is given.

    A name of the site's own, [profiles.NAME], is laid over its `base` (default: the site's `site`). Raises ConfigError.
    """
    from slurm_energy.factors.profile import ProfileError, load_profile, profile_names

    wanted = name or config.site.profile
    own = dict(config.profiles.get(wanted, {}))
    packaged = profile_names()
    if wanted not in packaged and wanted not in config.profiles:
        known = ", ".join(sorted({*packaged, *config.profiles}))
        where = "" if name else f"{config.file}, [site] profile: "
        raise ConfigError(f"{where}no profile {wanted!r}: there are {known}")
    base = wanted if wanted in packaged else str(own.pop("base", "site"))
    below = dict(config.factors) if base == "site" else {}
    for ways in _ONE_OF:  # what a profile says in one way takes the place of what lies below in any way
        if ways.intersection(own):
            below = {key: value for key, value in below.items() if key not in ways}
    where = f"[profiles.{wanted}]" if own else "[factors]"
    try:
        profile = load_profile(base, {**below, **own})
    except ProfileError as error:
        raise ConfigError(f"{config.file}, {where} {error}") from error
    return msgspec.structs.replace(profile, name=wanted)


def ledger_path(config: Config, given: Path | None = None) -> Path:
    """The ledger's folder: --ledger, $SENERGY_LEDGER, [site] ledger, else the person's own or the service's.

    The person's is below $XDG_STATE_HOME (~/.local/state where /var/lib/slurm-energy/ledger is not there to read).
    """
    if given is not None:
        return given
    if os.environ.get("SENERGY_LEDGER"):
        return Path(os.environ["SENERGY_LEDGER"])
    if config.site.ledger:
        return Path(config.site.ledger)
    if os.environ.get("XDG_STATE_HOME"):
        return Path(os.environ["XDG_STATE_HOME"]) / "slurm-energy" / "ledger"
    service = SERVICE_STATE / "ledger"
    if os.access(service, os.R_OK | os.X_OK):
        return service
    return Path.home() / ".local/state/slurm-energy/ledger"


def inbox_path(config: Config, ledger: Path, given: Path | None = None) -> Path:
    """The folder into which nodes ship segments: --inbox, [site] inbox, else `inbox` beside the ledger."""
    return given or (Path(config.site.inbox) if config.site.inbox else ledger.parent / "inbox")
