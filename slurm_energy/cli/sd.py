"""`senergy sd`: Prometheus targets from sinfo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from slurm_energy.cli.options import ClustersOption
from slurm_energy.cli.sd_http import Directory, as_json, server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from slurm_energy.slurm.nodes import Node

BY = ("address", "hostname", "name")
STATE = "__meta_slurm_state"
"""The label of a node's state. Prometheus drops labels that begin with __ once it has relabelled."""


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


def targets(nodes: Sequence[Node], cluster: str | None, port: int, by: str = "address") -> list[dict[str, Any]]:
    """Groups as Prometheus' file and HTTP service discovery take them: one for each node, with its labels.

    cluster: the label of nodes that name none of their own.
    """
    field = {"address": "address", "hostname": "hostname", "name": "name"}[by]
    found = []
    for node in nodes:
        host: str = getattr(node, field)
        if ":" in host and not host.startswith("["):  # IPv6
            host = f"[{host}]"
        labels = {"cluster": node.cluster or cluster or "", "node": node.name}
        if node.state:
            labels[STATE] = node.state
        found.append({"targets": [f"{host}:{port}"], "labels": labels})
    return found


def doubled(groups: Sequence[dict[str, Any]]) -> list[str]:
    """Addresses that several nodes share, as text: Prometheus would book one exporter on each of them."""
    nodes: dict[str, list[str]] = {}
    for group in groups:
        nodes.setdefault(group["targets"][0], []).append(group["labels"]["node"])
    return [
        f"{', '.join(names[:4])}{' and more' if len(names) > 4 else ''} are all at {target}: try --by hostname or --by name"
        for target, names in nodes.items()
        if len(names) > 1
    ]


def write_whole(path: Path, text: str) -> None:
    """Replaces the file in one step, readable by all (Prometheus is another user). One that says the same stays."""
    import contextlib
    import os
    import tempfile

    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == text:
            return
    # Not .json, for Prometheus may watch *.json here.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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

    http = server(address, Directory(look, every))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=http.shutdown).start())
    host, port = http.server_address[:2]
    shown = f"[{host!s}]" if ":" in str(host) else str(host)
    typer.echo(f"senergy sd: targets at http://{shown}:{port}/targets", err=True)
    with http:
        http.serve_forever(poll_interval=0.2)
