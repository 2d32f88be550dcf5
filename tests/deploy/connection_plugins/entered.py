"""Ansible's way into a root or a host of the tests: a command that enters it, and the task's command behind that.

Beside ansible-core, for its chroot connection is in a collection of its own.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: entered
short_description: Runs tasks behind a command that enters a root or a namespace
description: [The command is put before each task's own, as chroot(1) and nsenter(1) take it.]
author: slurm-energy
options:
  enter:
    description: The command and its arguments.
    type: list
    elements: str
    vars: [{name: entered_by}]
"""


class Connection(ConnectionBase):
    """One root or host."""

    transport = "entered"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        given: dict[str, Any] = {"input": in_data} if in_data is not None else {"stdin": subprocess.DEVNULL}
        command = [*self.get_option("enter"), "/bin/sh", "-c", cmd]
        done = subprocess.run(command, capture_output=True, check=False, **given)
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        super().put_file(in_path, out_path)
        self.exec_command(f"cat > {shlex.quote(out_path)}", in_data=Path(in_path).read_bytes())

    def fetch_file(self, in_path: str, out_path: str) -> None:
        super().fetch_file(in_path, out_path)
        Path(out_path).write_bytes(self.exec_command(f"cat {shlex.quote(in_path)}")[1])

    def close(self) -> None:
        self._connected = False
