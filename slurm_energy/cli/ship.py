"""`senergy ship`: segment files from a node's outbox to the inbox. Plain argparse, for compute nodes have no Typer."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread

from slurm_energy.config import SERVICE_STATE, ConfigError, load_config
from slurm_energy.ship import ShipError, Shipped, folder_name, ship_forever, ship_once


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; 0: all is shipped, 1: something stayed behind, 2: wrong usage or nothing to ship from."""
    parser = _parser()
    try:
        asked = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        cluster = asked.cluster or load_config()[0].site.cluster
        node = asked.node or os.environ.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]
        if not asked.inbox:
            raise ShipError("no inbox given; say --inbox FOLDER or set SENERGY_INBOX")
        for name in (cluster, node):
            folder_name(name)  # says what is wrong with it now, not in the first round
        outbox, inbox = Path(asked.outbox), Path(asked.inbox)
        if not asked.once:
            _until_told(outbox, inbox, asked.every, cluster, node)
            return 0
        return _report(ship_once(outbox, inbox, cluster=cluster, node=node))
    except (ConfigError, ShipError) as error:
        _say(str(error))
        return 2


def _parser() -> argparse.ArgumentParser:
    environment = os.environ.get
    parser = argparse.ArgumentParser(
        prog="senergy ship",
        description="Moves finished segment files from a node's outbox to INBOX/<cluster>/<node>/ on a shared filesystem.",
        epilog="Exit codes: 0 all is shipped, 1 something stayed behind, 2 wrong usage.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--outbox", metavar="FOLDER", default=environment("SENERGY_OUTBOX") or str(SERVICE_STATE / "outbox"),
        help="where the agent puts them [SENERGY_OUTBOX; %(default)s]",
    )  # fmt: skip
    parser.add_argument(
        "--inbox", metavar="FOLDER", default=environment("SENERGY_INBOX"),
        help="a folder that the admin node reads too; it has to be there [SENERGY_INBOX]",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="ship what is there and end; without it, until SIGTERM")
    parser.add_argument(
        "--every", metavar="SECONDS", type=_seconds, default=60.0, help="how often [%(default)g]; slower while it fails"
    )
    parser.add_argument(
        "--cluster", metavar="NAME", default=environment("SENERGY_CLUSTER"),
        help="the cluster's name [SENERGY_CLUSTER; else the configuration's]",
    )  # fmt: skip
    parser.add_argument(
        "--node", metavar="NAME", default=environment("SENERGY_NODE"),
        help="the node's name in Slurm [SENERGY_NODE; else the host name]",
    )  # fmt: skip
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds from 0.1 to 86400")
    return seconds


def _until_told(outbox: Path, inbox: Path, period_s: float, cluster: str, node: str) -> None:
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not in the handler itself: it may have interrupted a wait on the very same event.
        signal.signal(number, lambda *_: Thread(target=stop.set).start())
    ship_forever(outbox, inbox, period_s, stop, cluster=cluster, node=node, say=_say)


def _report(done: Shipped) -> int:
    for problem in done.problems:
        _say(problem)
    print(f"shipped {done.files} files, {done.bytes} bytes; {done.failed} stayed behind, {done.foreign} left alone")
    return 1 if done.problems else 0


def _say(line: str) -> None:
    print(f"senergy ship: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
