"""Processes that a test starts: their ports, their environment, their end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
from pathlib import Path

import pytest

AWAY = ("SLURM", "SACCT_", "SBATCH_", "SQUEUE_", "SENERGY_", "CUDA", "XDG_", "PYTHON")
"""Settings of the person who runs the tests that would change what Slurm's commands or ours do."""


def environment(*away: str) -> dict[str, str]:
    """The environment without such settings. away: beginnings of more names to leave out."""
    return {name: value for name, value in os.environ.items() if not name.startswith((*AWAY, *away))}


def free_port() -> int:
    """Below those that the kernel gives to whoever asks for any, so that nobody is given it before it is used."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
    pytest.fail("no free port")


class Daemons:
    """Processes that end with the test, what they say in files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *command: str | Path, **more: str) -> subprocess.Popen[bytes]:
        """Starts one. more: of its environment."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**environment(), **more}
            )
        self.running.append(process)
        return process

    def end(self) -> None:
        """Ends them, the last one first."""
        for process in reversed(self.running):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(10)

    def logs(self) -> str:
        """The last words of each."""
        return "\n".join(f"{file.name}:\n{file.read_text()[-1500:]}" for file in sorted(self.folder.glob("*.log")))
