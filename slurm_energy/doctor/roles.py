"""Looks at a machine and judges what was seen, by role."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from slurm_energy.doctor import admin as admin_checks
from slurm_energy.doctor import compute as compute_checks
from slurm_energy.doctor import login as login_checks
from slurm_energy.doctor.common import USER, Finding, port, unit
from slurm_energy.doctor.machine import Machine

if TYPE_CHECKING:
    from slurm_energy.agent.options import AgentOptions
    from slurm_energy.config import Config

NODE_PORT, LEDGER_PORT = 9854, 9855


def compute(machine: Machine, options: AgentOptions, config: Config) -> list[Finding]:
    """What a compute node needs."""
    from slurm_energy.version import __version__

    shipper = machine.person(USER)
    seen = machine.agent(options.socket)
    found = compute_checks.agent(seen, options.socket, __version__)
    waiting, _, oldest, _ = machine.files(options.hooks)
    found.append(compute_checks.hook_folder(machine.place(options.hooks), waiting, oldest))
    conf = machine.slurm_conf()
    found += [compute_checks.hooks(name, machine.hooks(name, conf)) for name in ("Prolog", "Epilog")]
    found.append(compute_checks.prolog_flags(None if conf is None else ",".join(conf.get("PrologFlags", ()))))
    for name in ("slurm-energy-agent.service", "slurm-energy-ship.service"):
        if name != "slurm-energy-ship.service" or not options.ship_to:
            found.append(unit("compute", machine.unit(name), name))
    files, size, oldest, _ = machine.files(options.outbox, ".jsonl")
    fill = seen.outbox_fill if not seen.error else size / options.outbox_limit_bytes
    where, state = machine.place(options.outbox), machine.place(options.state_dir)
    found.append(compute_checks.outbox(where, state, fill, files, oldest, options.outbox_limit_mb, shipper))
    inbox = machine.inbox_of_node(options, config)
    found.append(compute_checks.inbox_of_node(machine.place(inbox) if inbox else None, shipper))
    found += _exporter(machine, "compute", "slurm-energy-node-exporter.service", NODE_PORT)
    return found


def admin(machine: Machine, config: Config, ledger: Path) -> list[Finding]:
    """What the admin node needs."""
    from slurm_energy.config import inbox_path
    from slurm_energy.ledger.store import Ledger, LedgerError

    service = machine.person(USER)
    found = [admin_checks.sacct(machine.jobs(service))]
    until: dict[str, int] | str
    try:
        until = Ledger(machine.at(ledger)).read_state()
    except LedgerError as error:
        until = str(error)
    place = machine.place(ledger)
    found.append(admin_checks.ledger(place, machine.place(ledger.parent), until, time.time(), service))
    inbox = inbox_path(config, ledger)
    nodes, youngest = 0, None
    with contextlib.suppress(OSError):
        for node in machine.at(inbox).glob("*/*/"):
            nodes += 1
            age = machine.files(inbox / node.relative_to(machine.at(inbox)))[3]
            youngest = age if youngest is None else youngest if age is None else min(age, youngest)
    found.append(admin_checks.inbox_of_admin(machine.place(inbox), nodes, youngest, service))
    name = "slurm-energy-aggregate"
    found.append(admin_checks.timer(machine.unit(f"{name}.timer"), machine.unit(f"{name}.service"), machine.cron()))
    found.append(admin_checks.set_aside(*machine.set_aside(ledger), str(ledger / "set-aside")))
    found.append(admin_checks.factors(config.site.profile, list(config.factors)))
    found += _exporter(machine, "admin", "slurm-energy-ledger-exporter.service", LEDGER_PORT)
    return found


def login(machine: Machine, ledger: Path) -> list[Finding]:
    """What a login node needs, for who runs this."""
    from importlib.util import find_spec

    from slurm_energy.ledger.store import Ledger

    missing = [name for name in ("duckdb", "pandas", "pyarrow") if find_spec(name) is None]
    place, days, error = machine.place(ledger), [], ""
    folder = machine.at(ledger) / "days"
    try:
        if place.there:
            list(os.scandir(folder))  # says what a glob would keep to itself
            days = sorted({one.day.isoformat() for one in Ledger(machine.at(ledger)).days()})
            for one in Ledger(machine.at(ledger)).days()[-1:]:
                one.path.open("rb").close()
    except FileNotFoundError:
        pass
    except OSError as problem:
        error = f"{ledger}: {(problem.strerror or '').lower()}"
    who = os.environ.get("USER", "") or str(os.geteuid())
    return [login_checks.readable_ledger(place, days, error, who), login_checks.modules(missing)]


def _exporter(machine: Machine, role: str, name: str, number: int) -> list[Finding]:
    needed = machine.installed(name)
    what = name.removesuffix(".service").removeprefix("slurm-energy-").replace("-", " ")
    found = [unit(role, machine.unit(name), name)] if needed else []
    at = machine.listen_address(name, number)
    return [*found, port(role, what, at, machine.listens(at), name, needed)]
