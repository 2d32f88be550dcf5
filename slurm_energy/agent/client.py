"""Reads an agent's snapshot from its socket."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import msgspec

from slurm_energy.agent.snapshot import Snapshot

MAX_BYTES = 64 << 20


class AgentError(Exception):
    """No snapshot could be had; the message says why and what to look at."""


def read_snapshot(path: Path, timeout_s: float = 3.0) -> Snapshot:
    """The agent's snapshot. Raises AgentError where it is not there, does not answer in time, or answers rubbish."""
    deadline = time.monotonic() + timeout_s
    parts: list[bytes] = []
    size = 0
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout_s)
            _connect(client, path, deadline)
            while data := client.recv(1 << 18):
                parts.append(data)
                size += len(data)
                client.settimeout(max(deadline - time.monotonic(), 0.001))
                if size > MAX_BYTES:
                    raise AgentError(f"{path}: an answer of more than {MAX_BYTES >> 20} MB")
    except FileNotFoundError as error:
        raise AgentError(f"{path}: no agent here; is slurm-energy-agent running on this node?") from error
    except PermissionError as error:
        raise AgentError(f"{path}: permission denied; it is for root and the group slurm-energy") from error
    except ConnectionRefusedError as error:
        raise AgentError(f"{path}: the agent has ended; systemctl status slurm-energy-agent") from error
    except (TimeoutError, OSError) as error:
        raise AgentError(f"{path}: no answer ({error}); the agent may be stuck") from error
    try:
        return msgspec.json.decode(b"".join(parts), type=Snapshot)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise AgentError(f"{path}: not a snapshot ({error}); is the agent of another version?") from error


def _connect(client: socket.socket, path: Path, deadline: float) -> None:
    """Connects; where too many wait at the agent's door already, tries again until the deadline."""
    while True:
        try:
            client.connect(str(path))
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
