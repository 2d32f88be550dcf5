"""A compute node's findings out of its facts. Pure functions."""

from __future__ import annotations

from typing import NamedTuple

from slurm_energy.agent.freshness import too_old
from slurm_energy.doctor.common import HOOK, USER, Finding, Person, Place, look_of, may

WAITING_HOOK_S = 120.0
UNSHIPPED_S = 1800.0


class Agent(NamedTuple):
    """What the agent's socket answered; error where it did not."""

    error: str = ""
    version: str = ""
    age_s: float = 0.0
    period_s: float = 1.0
    watts: float = 0.0
    jobs: int = 0
    counters: int = 0
    outbox_fill: float = 0.0
    problems: tuple[str, ...] = ()


class Hooks(NamedTuple):
    """slurm.conf's Prolog or Epilog. here: which of the files of that name on this node call our hook."""

    patterns: tuple[str, ...]
    here: tuple[str, ...]
    not_executable: tuple[str, ...] = ()


def agent(seen: Agent, socket: str, version: str) -> list[Finding]:
    """Whether the agent answers, has looked at its counters lately, is of the version installed, and has no problem."""
    role, unit = "compute", "slurm-energy-agent"
    if seen.error:
        remedy = (
            "run this as root or as a member of the group slurm-energy" if "permission" in seen.error
            else f"systemctl enable --now {unit}; journalctl -u {unit} says why it does not run"
        )  # fmt: skip
        return [Finding(role, "agent", False, seen.error, remedy)]
    found = []
    if too_old(seen.age_s, seen.period_s):
        detail = f"{socket}: it looked at its counters {seen.age_s:.0f} s ago, or a clock was set"
        found.append(Finding(role, "agent", False, detail, f"systemctl restart {unit}; no energy is lost by that"))
    else:
        detail = f"answers on {socket}: {seen.jobs} jobs, {seen.watts:,.0f} W, {seen.counters} counters"
        found.append(Finding(role, "agent", True, detail))
    if seen.version != version:
        detail = f"version {seen.version} runs, {version} is installed"
        found.append(
            Finding(role, "agent version", False, detail, f"systemctl restart {unit}; no energy is lost by that")
        )
    if not seen.counters:
        detail = "the agent has no counter: jobs get estimates only"
        remedy = "what is refused above says how to allow it; [agent.sources] model is the last resort"
        found.append(Finding(role, "counters", None, detail, remedy))
    found += [
        Finding(role, "agent problem", False, text, f"journalctl -u {unit} has more") for text in seen.problems
    ]  # fmt: skip
    return found


def hook_folder(place: Place, waiting: int, oldest_s: float) -> Finding:
    """Whether hooks can drop their files, and someone takes them."""
    what = "hook folder"
    if not place.there or not place.folder:
        return Finding(
            "compute", what, False, look_of(place) if not place.there else f"{place.path}: not a folder",
            "the agent's unit makes it: systemctl restart slurm-energy-agent",
        )  # fmt: skip
    if place.uid != 0 or place.mode & 0o077:
        return Finding(
            "compute", what, False, f"{look_of(place)}: others than root may look or write there",
            f"chown root:root {place.path} && chmod 700 {place.path}",
        )  # fmt: skip
    if waiting and oldest_s > WAITING_HOOK_S:
        return Finding(
            "compute", what, False, f"{waiting} files wait, the oldest for {oldest_s:.0f} s: nobody takes them",
            "systemctl restart slurm-energy-agent; [agent] hooks has to name this folder",
        )  # fmt: skip
    return Finding("compute", what, True, f"{look_of(place)}, {waiting} files wait")


def hooks(name: str, seen: Hooks | None) -> Finding:
    """Whether slurmd runs our hook. name: Prolog or Epilog; seen: None where Slurm does not say."""
    folder = f"/etc/slurm/{name.lower()}.d"
    if seen is None:
        return Finding("compute", name, None, "scontrol show config does not answer here", "scontrol ping")
    copy = f"install -D -m 0755 deploy/slurm/{name.lower()}.d/{HOOK} {folder}/{HOOK} on every compute node"
    if not seen.patterns:
        return Finding(
            "compute", name, False, f"slurm.conf has no {name}: jobs are found late, by their cgroup",
            f"{copy}, then {name}={folder}/* in slurm.conf and scontrol reconfigure",
        )  # fmt: skip
    said = ", ".join(seen.patterns)
    if seen.not_executable:
        files = " ".join(seen.not_executable)
        return Finding("compute", name, False, f"{files}: not executable, slurmd drains the node", f"chmod 755 {files}")
    if not seen.here:
        return Finding("compute", name, False, f"{said}: none of these calls {HOOK}", f"{copy}, or call it from there")
    return Finding("compute", name, True, f"{', '.join(seen.here)} (slurm.conf: {said})")


def prolog_flags(flags: str | None) -> Finding:
    """Whether the Prolog runs when the allocation is made, not at the first step."""
    if flags is None:
        return Finding("compute", "PrologFlags", None, "scontrol show config does not answer here", "scontrol ping")
    have = {flag.strip().lower() for flag in flags.split(",")}
    if have & {"alloc", "contain", "x11"}:  # the latter two imply the first
        return Finding("compute", "PrologFlags", True, flags)
    return Finding(
        "compute", "PrologFlags", False, f"{flags or '(none)'}: the Prolog waits for a job's first step",
        "PrologFlags=Alloc,Contain in slurm.conf, then scontrol reconfigure",
    )  # fmt: skip


def outbox(
    place: Place, state: Place, fill: float, files: int, oldest_s: float, limit_mb: int, shipper: Person
) -> Finding:  # fmt: skip
    """Whether segments can go through the outbox, and do."""
    if not place.there or not place.folder:
        made = "the agent's unit makes it: systemctl restart slurm-energy-agent"
        return Finding("compute", "outbox", False, look_of(place), made)
    if state.there and state.device != place.device:
        return Finding(
            "compute", "outbox", False, f"{place.path} and {state.path} are on two file systems: the agent cannot rename",
            "put [agent] state_dir and outbox on one",
        )  # fmt: skip
    if shipper.uid >= 0 and not may(shipper, place, 7):
        remedy = f"chown root:slurm-energy {place.path} && chmod 770 {place.path}"
        return Finding("compute", "outbox", False, f"{look_of(place)}: {shipper.name} may not take files away", remedy)
    said = f"{look_of(place)}: {files} files, {100 * fill:.0f} % of {limit_mb} MiB"
    if oldest_s > UNSHIPPED_S or fill > 0.5:
        return Finding(
            "compute", "outbox", False, f"{said}, the oldest waits for {oldest_s / 60:.0f} min: nothing ships them",
            "systemctl status slurm-energy-ship; its journal names what is in the way",
        )  # fmt: skip
    return Finding("compute", "outbox", True, said)


def inbox_of_node(place: Place | None, shipper: Person) -> Finding:
    """Whether this node's shipper can reach the inbox. place: None where no inbox is configured."""
    if place is None:
        return Finding(
            "compute", "inbox", False, "no inbox is named: segments stay in the outbox",
            "systemctl edit slurm-energy-ship: Environment=SENERGY_INBOX=FOLDER and ReadWritePaths=FOLDER",
        )  # fmt: skip
    if not place.there or not place.folder:
        return Finding(
            "compute", "inbox", False, look_of(place),
            f"mount what it is on; made once, on the admin node: install -d -m 2750 -o {USER} -g {USER} {place.path}",
        )  # fmt: skip
    if shipper.uid < 0:
        remedy = f"useradd --system --user-group {USER}, with the same number as on the admin node"
        return Finding("compute", "inbox", False, f"no user {shipper.name} here", remedy)
    if not may(shipper, place, 3):
        return Finding(
            "compute", "inbox", False, f"{look_of(place)}: {shipper.name} ({shipper.uid}) may not write there",
            f"chown {USER}:{USER} {place.path} && chmod 2750 {place.path}; numbers of the user have to be alike on all nodes",
        )  # fmt: skip
    return Finding("compute", "inbox", True, look_of(place))
