"""`senergy sd`: Prometheus targets from sinfo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from slurm_energy.cli.options import ClustersOption

if TYPE_CHECKING:
    from collections.abc import Callable

BY = ("address", "hostname", "name")


def sd(
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", help="Write this file, whole or not at all, for file_sd.", show_default=False),
    ] = None,
    serve: Annotated[
        Optional[str],
        typer.Option("--serve", help="Answer HTTP at HOST:PORT or PORT (then on 127.0.0.1), for http_sd."),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of the node exporters.")] = 9854,
    cluster: Annotated[
        Optional[str], typer.Option("--cluster", help="The label `cluster`; Slurm's ClusterName without it.")
    ] = None,
    clusters: ClustersOption = None,
    by: Annotated[
        str, typer.Option("--by", help="Reach a node by its address (NodeAddr), hostname (NodeHostName) or name.")
    ] = "address",
    every: Annotated[float, typer.Option("--every", min=1, help="With --serve: seconds between two sinfo.")] = 60,
) -> None:
    """Print Prometheus' targets, one for each node that sinfo lists, whatever the node's state.

    The state comes along as the label __meta_slurm_state, in the words of `sinfo -o %T`: idle, mixed, drained*, idle~. It is
    there for relabelling, and Prometheus drops it afterwards. Where Slurm powers nodes down, let Prometheus drop those that
    are off (~), on the way down (%) or on the way up (#), or each of them is a target that is down:

    \b
      relabel_configs:
        - source_labels: [__meta_slurm_state]
          regex: '.*[~%#]'
          action: drop

    Ends with 1 where Slurm lists no node, with 2 where it does not answer; a file written before stays as it is then.

    \b
    Examples:
      senergy sd --output /etc/prometheus/slurm-energy/nodes.json
      senergy sd -M alpha,beta --by hostname
      senergy sd --serve 9853
    """
    from slurm_energy.cli.options import split
    from slurm_energy.sd import as_json, doubled, targets, write_whole

    if by not in BY:
        raise typer.BadParameter(f"{by!r}: expected one of {', '.join(BY)}", param_hint="'--by'")
    if serve is not None and output is not None:
        raise typer.BadParameter("--output and --serve do not go together", param_hint="'--serve'")
    asked = split(clusters)
    if cluster is not None and asked:
        raise typer.BadParameter("--cluster names one cluster, -M asks for several", param_hint="'--cluster'")
    address = _address(serve) if serve is not None else None

    def look() -> list[dict[str, Any]]:
        from slurm_energy.slurm.nodes import own_cluster, read_nodes

        nodes = read_nodes(asked)
        return targets(nodes, cluster if cluster is not None or asked else own_cluster(), port, by)

    if address is not None:
        _serve(address, look, every)
        return
    found = look()
    if not found:
        typer.echo("senergy sd: Slurm lists no node" + (f"; {output} stays as it is" if output else ""), err=True)
        raise typer.Exit(1)
    for line in doubled(found):
        typer.echo(f"senergy sd: {line}", err=True)
    text = as_json(found)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_whole(output, text)


def _address(text: str) -> tuple[str, int]:
    host, _, number = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not number.isascii() or not number.isdigit() or not 0 <= int(number) <= 65535:
        raise typer.BadParameter(f"{text!r}: expected HOST:PORT or PORT", param_hint="'--serve'")
    return host, int(number)


def _serve(address: tuple[str, int], look: Callable[[], list[dict[str, Any]]], every: float) -> None:
    """Until SIGTERM or SIGINT."""
    import signal
    import threading

    from slurm_energy.sd import Directory, server

    http = server(address, Directory(look, every, lambda problem: typer.echo(f"senergy sd: {problem}", err=True)))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=http.shutdown).start())
    host, port = http.server_address[:2]
    shown = f"[{host!s}]" if ":" in str(host) else str(host)
    typer.echo(f"senergy sd: targets at http://{shown}:{port}/targets", err=True)
    with http:
        http.serve_forever(poll_interval=0.2)
