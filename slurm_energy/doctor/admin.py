"""The admin node's findings out of its facts. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from slurm_energy.doctor.common import USER, Finding, Person, Place, Unit, look_of, may, unit
from slurm_energy.factors.carbon import CARBON_KEYS

STALE_LEDGER_S = 36 * 3600.0
"""Since the last good run, whether or not there were jobs for it."""
RECENT_S = 7 * 86400.0


class Jobs(NamedTuple):
    """What `sacct -a` showed of the last days. error: its words where it failed."""

    asked_as: str
    users: tuple[str, ...] = ()
    users_of_root: tuple[str, ...] | None = None
    error: str = ""


def sacct(seen: Jobs) -> Finding:
    """Whether sacct answers, and shows other people's jobs to who aggregates."""
    if seen.error:
        return Finding("admin", "sacct", False, seen.error, "install Slurm's client commands; is slurmdbd running?")
    others = [user for user in seen.users if user not in ("", seen.asked_as)]
    if others:
        return Finding("admin", "sacct", True, f"{seen.asked_as} sees jobs of {len(others)} other users (last 7 days)")
    hidden = [user for user in seen.users_of_root or () if user not in ("", seen.asked_as)]
    if hidden:
        return Finding(
            "admin", "sacct", False, f"{seen.asked_as} sees none of the jobs of {len(hidden)} users that root sees",
            f"sacctmgr -i add user {seen.asked_as} account=root adminlevel=operator  (PrivateData=jobs is set)",
        )  # fmt: skip
    return Finding(
        "admin", "sacct", None, f"answers; {seen.asked_as} sees no other user's job of the last 7 days",
        "where there were jobs: sacctmgr show user slurm-energy format=user,adminlevel should say Operator",
    )  # fmt: skip


def ledger(place: Place, parent: Place, until: Mapping[str, int] | str, now_s: float, writer: Person) -> Finding:
    """Whether the ledger can be written and was lately.

    until: when the last good run asked Slurm, by cluster, jobs or none; or why it cannot be read.
    """
    if writer.uid >= 0 and not may(writer, place if place.there else parent, 3):
        where = place if place.there else parent
        return Finding(
            "admin", "ledger", False, f"{look_of(where)}: {writer.name} may not write there",
            f"install -d -m 0750 -o {writer.name} -g {USER} {place.path}",
        )  # fmt: skip
    first = f"runuser -u {USER} -- senergy aggregate -S 2026-01-01"
    if isinstance(until, str):
        return Finding("admin", "ledger", False, until, "run this as root or a member of the group slurm-energy")
    if not until:
        return Finding("admin", "ledger", False, f"{place.path}: nothing was aggregated yet", first)
    late = {name: (now_s - moment) / 3600 for name, moment in until.items() if now_s - moment > STALE_LEDGER_S}
    if late:
        said = ", ".join(f"{name} {hours:,.0f} h" for name, hours in sorted(late.items()))
        return Finding(
            "admin", "ledger", False, f"{place.path} is behind, the last good run was before: {said}",
            "systemctl status slurm-energy-aggregate; journalctl -u slurm-energy-aggregate says why; any run catches up",
        )  # fmt: skip
    youngest = min((now_s - moment) / 3600 for moment in until.values())
    opened = ", readable by everybody" if place.mode & 0o004 else ""
    return Finding("admin", "ledger", True, f"{look_of(place)}: last good run {max(youngest, 0):.0f} h ago{opened}")


def inbox_of_admin(place: Place, nodes: int, youngest_s: float | None, reader: Person) -> Finding:
    """Whether what nodes shipped can be read, and taken away afterwards."""
    if not place.there or not place.folder:
        return Finding(
            "admin", "inbox", None, f"{look_of(place)}: no node ships here, jobs are estimated",
            f"install -d -m 2750 -o {USER} -g {USER} {place.path}  and [site] inbox, once nodes have agents",
        )  # fmt: skip
    if reader.uid >= 0 and not may(reader, place, 7):
        return Finding(
            "admin", "inbox", False, f"{look_of(place)}: {reader.name} may not read it and take from it",
            f"chown {USER}:{USER} {place.path} && chmod 2750 {place.path}",
        )  # fmt: skip
    said = (
        "nothing came yet or all is booked"
        if youngest_s is None
        else f"the youngest file came {youngest_s / 60:.0f} min ago"
    )
    return Finding("admin", "inbox", True, f"{look_of(place)}: {nodes} nodes, {said}")


def went_well(run: Unit) -> bool:
    """Whether the last run ended with 0, or with 1: rows were set aside, which have a line of their own.

    Whatever systemd was told to take for success. A status that a signal or a step before left behind says nothing.
    """
    if run.result in ("", "success"):
        return run.status in (0, 1)
    return run.result == "exit-code" and run.status == 1


def timer(seen: Unit | None, run: Unit | None, cron: Collection[str]) -> Finding:
    """Whether something aggregates each night, and the last run went well."""
    name = "slurm-energy-aggregate.timer"
    if seen is not None and seen.load == "loaded":
        found = unit("admin", seen, name)
        if found.ok and run is not None and not went_well(run):
            return Finding(
                "admin", name, False, f"the last run ended with {run.result} ({run.status})",
                "journalctl -u slurm-energy-aggregate says why; then systemctl start slurm-energy-aggregate",
            )  # fmt: skip
        return found
    if cron:
        return Finding("admin", name, True, f"cron runs it: {', '.join(cron)}")
    if seen is None:
        return Finding("admin", name, None, "neither systemd nor a cron file runs it here", "see docs/install.md")
    return unit("admin", seen, name)


def factors(profile: str, given: Collection[str]) -> Finding:
    """Whether the figures that energy is priced with are the site's own. given: keys of [factors]."""
    kinds = {"PUE": ("pue",), "carbon intensity": CARBON_KEYS, "electricity price": ("electricity_usd_per_kwh",)}
    packaged = [kind for kind, keys in kinds.items() if not set(keys) & set(given)]
    if profile != "site" or not packaged:
        return Finding("admin", "factors", True, f"profile {profile}")
    return Finding(
        "admin", "factors", None, f"{', '.join(packaged)}: a packaged default, which is no figure of this site",
        "set them in [factors] of config.toml (docs/configuration.md), then aggregate again",
    )  # fmt: skip


def set_aside(rows: int, recent: int, folder: str) -> Finding:
    """Rows of the input that could not be read; recent: those of the last seven days."""
    if recent:
        return Finding(
            "admin", "rows set aside", False, f"{recent} in the last 7 days, {rows} in all",
            f"each stands with its reason in {folder}/*.jsonl; remove a file there once it is dealt with",
        )  # fmt: skip
    return Finding("admin", "rows set aside", True, f"none in the last 7 days, {rows} in all")
