"""The node's power as its BMC measures it: a DCMI power reading through freeipmi or ipmitool.

Slow (tenths of a second to seconds) and coarse (1 W, often the mean of some seconds), so a thread of its own asks every
`ipmi_period_s`; read() takes the latest answer and never waits. Needs root, for /dev/ipmi* is root's.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from slurm_energy.sources.base import NODE, Counter, Found, Refusal, Trapezoid, Unreadable
from slurm_energy.sources.options import Options

NAME = "ipmi"
COVERS = "the node at its power supplies, from the BMC (IPMI DCMI)"
TOOLS = (("ipmi-dcmi", "--get-system-power-statistics"), ("ipmitool", "dcmi", "power", "reading"))
DEVICES = ("ipmi0", "ipmi/0", "ipmidev/0")

_POWER = re.compile(r"^\s*(?:Current Power|Instantaneous power reading)\s*:\s*(\d+)\s*watts", re.I | re.M)
_STATE = re.compile(r"^\s*(?:Power Measurement|Power reading state is)\s*:\s*(.+?)\s*$", re.I | re.M)


class Hung(Unreadable):
    """A command that did not end although it was killed: it waits in the kernel, for its driver."""

    def __init__(self, message: str, process: subprocess.Popen[bytes]) -> None:
        super().__init__(message)
        self.process = process


def find(options: Options) -> Found:
    """The node's meter, where the BMC answers with a power. Asks it once, which may take `ipmi_timeout_s`."""
    if options.ipmi == "never":
        return Found([], [])
    device = next((path for name in DEVICES if (path := Path(options.dev_root, name)).exists()), None)
    if device is None and options.ipmi != "always":
        return Found([], [])
    command = options.ipmi_command or _tool()
    off = 'or say ipmi = "never"'
    if not command or not shutil.which(command[0], path=_path()):
        missing = f"{command[0]}: no such program" if command else "neither ipmi-dcmi nor ipmitool is installed"
        what = f"{NAME}: {device}" if device else NAME
        return Found([], [Refusal(what, missing, f"install freeipmi-tools or ipmitool, {off}", NODE)])
    if device is not None and not os.access(device, os.R_OK | os.W_OK):
        return Found([], [Refusal(f"{NAME}: {device}", "permission denied", f"run the agent as root, {off}", NODE)])
    try:
        watts = parse_watts(ask(command, options.ipmi_timeout_s))
    except Unreadable as error:
        remedy = f"see what `{' '.join(command)}` says and restart the agent, {off}"
        return Found([], [Refusal(f"{NAME}: {command[0]}", str(error), remedy, NODE)])
    counter = IpmiCounter(command, options.ipmi_period_s, options.ipmi_timeout_s, watts)
    return Found([counter], [], f"{command[0]}, asked every {options.ipmi_period_s:g} s")


def _path() -> str:
    """Where programs are looked for: the tools are in sbin, which not every PATH has."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def _tool() -> tuple[str, ...]:
    return next((tool for tool in TOOLS if shutil.which(tool[0], path=_path())), ())


def parse_watts(said: str) -> int:
    """The power at this moment, W, out of what ipmi-dcmi or ipmitool printed. Raises Unreadable.

    Not their average: freeipmi's is that since the BMC started. 0 W is what a BMC without a meter says.
    """
    state = _STATE.search(said)
    if state and not re.fullmatch(r"active|activated", state.group(1), re.I):
        raise Unreadable(f"the BMC's power measurement is {state.group(1).lower()}")
    power = _POWER.search(said)
    if not power:
        line = next((line.strip() for line in said.splitlines() if line.strip()), "nothing")
        raise Unreadable(f"no power reading in what it printed: {line[:80]}")
    if int(power.group(1)) == 0:
        raise Unreadable("the BMC says 0 W: it has no meter")
    return int(power.group(1))


def ask(command: Sequence[str], timeout_s: float) -> str:
    """What the command prints. One that hangs is killed with all that it started. Raises Unreadable."""
    program = shutil.which(command[0], path=_path()) or command[0]
    try:
        process = subprocess.Popen(
            [program, *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={"PATH": _path(), "LC_ALL": "C"}, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise Unreadable(f"{command[0]}: {error.strerror}") from error
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
        said = f"{command[0]}: no answer in {timeout_s:g} s, killed"
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            raise Hung(f"{said}, and it does not end", process) from error
        raise Unreadable(said) from error
    if process.returncode:
        lines = (err or out).decode("utf-8", "replace").strip().splitlines()
        raise Unreadable(f"{command[0]}: exit code {process.returncode}: {lines[-1][:120] if lines else 'no message'}")
    return out.decode("utf-8", "replace")


class IpmiCounter(Counter):
    """The node's latest power, integrated by the agent's ticks; no reading once it is three periods old."""

    __slots__ = (
        "_ask", "_clock", "_energy", "_hung", "_latest", "_max_age_ns", "_period_s", "_stop", "_thread", "_why",
    )  # fmt: skip

    def __init__(
        self, command: Sequence[str], period_s: float, timeout_s: float, watts: int,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:  # fmt: skip
        super().__init__(NODE, f"{NAME}:dcmi", max_w=20_000.0, integrated=True)
        self._period_s, self._clock = period_s, clock
        self._max_age_ns = int(3 * period_s * 1e9)
        self._ask: Callable[[], int] = lambda: parse_watts(ask(command, timeout_s))
        self._energy = Trapezoid(max(30.0, 3 * period_s))
        self._latest = (watts * 1_000_000, clock())
        self._why = "the BMC has not answered"
        self._hung: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ipmi", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        """Asks the BMC again and again; the answer replaces the last one whole."""
        while not self._stop.wait(self._period_s):
            if self._hung is not None and self._hung.poll() is None:
                continue  # no second one beside a command that cannot be ended
            self._hung = None
            try:
                self._latest = (self._ask() * 1_000_000, self._clock())
            except Unreadable as error:
                self._why = str(error)
                self._hung = error.process if isinstance(error, Hung) else None

    def read(self, now_ns: int) -> int:
        """The energy so far, uJ; returns at once. Raises Unreadable."""
        power_uw, asked_ns = self._latest
        if now_ns - asked_ns > self._max_age_ns:
            self._energy.lost()
            raise Unreadable(f"{self.name}: {self._why}")
        return self._energy.add(power_uw, now_ns)

    def close(self) -> None:
        """Tells the thread to end; it is not waited for, for its command may hang."""
        self._stop.set()
