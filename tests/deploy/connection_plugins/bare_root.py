"""Ansible's way into a root of tests/deploy/bare_root.py: commands in the root, files copied into it.

Beside ansible-core, for its chroot connection is in a collection of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.plugins.connection import ConnectionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bare_root

DOCUMENTATION = """
name: bare_root
short_description: Runs tasks in a folder with a Debian in it
description: [Each command runs in the root, with /proc and /dev mounted for it alone.]
author: slurm-energy
options:
  remote_addr:
    description: The root's folder.
    vars: [{name: bare_root_path}]
"""


class Connection(ConnectionBase):
    """One root."""

    transport = "bare_root"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    @property
    def _root(self) -> Path:
        return Path(self.get_option("remote_addr"))

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        command = bare_root.inside(self._root, ["/bin/sh", "-c", cmd])
        given: dict[str, Any] = {"input": in_data} if in_data is not None else {"stdin": subprocess.DEVNULL}
        done = subprocess.run(command, capture_output=True, check=False, **given)
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        super().put_file(in_path, out_path)
        shutil.copyfile(in_path, self._root / out_path.lstrip("/"))

    def fetch_file(self, in_path: str, out_path: str) -> None:
        super().fetch_file(in_path, out_path)
        shutil.copyfile(self._root / in_path.lstrip("/"), out_path)

    def close(self) -> None:
        self._connected = False
