"""The profiles of factors that a site has: the packaged ones and its own, with its settings laid over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from slurm_energy.config.structs import Config, ConfigError

if TYPE_CHECKING:
    from slurm_energy.factors.profile import Profile


def profile_of(config: Config, name: str | None = None) -> Profile:
    """The named profile with the site's settings laid over it; [site] profile where no name is given.

    A name of the site's own, [profiles.NAME], is laid over its `base` (default: the site's `site`). Raises ConfigError.
    """
    from slurm_energy.factors.carbon import CARBON_KEYS
    from slurm_energy.factors.checks import ProfileError
    from slurm_energy.factors.cpus import CPU_KEYS
    from slurm_energy.factors.layers import load_profile, profile_names

    wanted = name or config.site.profile
    own = dict(config.profiles.get(wanted, {}))
    packaged = profile_names()
    if wanted not in packaged and wanted not in config.profiles:
        known = ", ".join(sorted({*packaged, *config.profiles}))
        where = "" if name else f"{config.file}, [site] profile: "
        raise ConfigError(f"{where}no profile {wanted!r}: there are {known}")
    base = wanted if wanted in packaged else str(own.pop("base", "site"))
    below = dict(config.factors) if base == "site" else {}
    for ways in (CARBON_KEYS, CPU_KEYS):  # what a profile says in one way takes the place of what lies below in any way
        if not own.keys().isdisjoint(ways):
            below = {key: value for key, value in below.items() if key not in ways}
    where = f"[profiles.{wanted}]" if own else "[factors]"
    try:
        profile = load_profile(base, {**below, **own})
    except ProfileError as error:
        raise ConfigError(f"{config.file}, {where} {error}") from error
    return msgspec.structs.replace(profile, name=wanted)
