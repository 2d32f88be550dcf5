"""`senergy web`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from slurm_energy.cli.options import ConfigOption, LedgerOption, site_zone
from slurm_energy.cli.top import DEFAULT

if TYPE_CHECKING:
    from slurm_energy.web.app import App
    from slurm_energy.web.server import BoundedServer

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def web(
    listen: Annotated[str, typer.Option("--listen", help="Address and port; port 0: any free one.")] = "127.0.0.1:8085",
    sockets: Annotated[
        Optional[list[Path]], typer.Option("--socket", help="An agent's socket (repeatable).", show_default=False)
    ] = None,
    ledger: LedgerOption = None,
    allow_host: Annotated[
        Optional[list[str]],
        typer.Option("--allow-host", help="A further name under which it is reached (repeatable).", show_default=False),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Give the data to everybody who can connect, without the token.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Show live watts and the ledger in a browser, until Ctrl-C.

    It shows what you yourself may read: agents' sockets on this node, and the ledger. On a login node others can
    connect to 127.0.0.1, too; so only who has the printed address, with its token, gets data.

    \b
    Examples:
      senergy web
      senergy web --listen 127.0.0.1:0 --ledger /var/lib/slurm-energy/ledger
    """
    import contextlib
    import secrets

    from slurm_energy.config import ledger_path, load_config
    from slurm_energy.ledger.store import Ledger
    from slurm_energy.web.app import App
    from slurm_energy.web.history import History
    from slurm_energy.web.live import Live

    settings, _ = load_config(config)
    token = "" if no_token else secrets.token_urlsafe(24)
    app = App(Live(sockets or [DEFAULT]), History(Ledger(ledger_path(settings, ledger)), site_zone(settings)), token)
    host, port = _address(listen)
    with _server(host, port, app, allow_host or []) as server:
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"http://{shown}:{server.server_port}/{f'#token={token}' if token else ''}")
        if host not in LOOPBACK:
            typer.echo(
                "senergy: without TLS, everybody on the way can read this; better: ssh -L 8085:localhost:8085", err=True
            )
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _address(listen: str) -> tuple[str, int]:
    """HOST:PORT, [HOST]:PORT or :PORT."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise typer.BadParameter(
            f"{listen!r}: expected an address and a port, as 127.0.0.1:8085", param_hint="--listen"
        )
    return host.strip("[]") or "127.0.0.1", int(port)


def _server(host: str, port: int, app: App, names: list[str]) -> BoundedServer:
    import socket

    from slurm_energy.web.server import BoundedServer

    own = [] if host in LOOPBACK else [socket.gethostname(), socket.getfqdn()]
    try:
        return BoundedServer((host, port), app, [*names, *own])
    except OSError as error:
        raise typer.BadParameter(
            f"{host}:{port}: {error.strerror}; with port 0 it takes a free one", param_hint="--listen"
        ) from error
