import time
from pathlib import Path

import pytest
from common.waiting import until

from slurm_energy.sources import ipmi
from slurm_energy.sources.base import Found, Unreadable
from slurm_energy.sources.options import Options

S = 1_000_000_000

FREEIPMI = """\
Current Power                        : 332 Watts
Minimum Power over sampling duration : 68 watts
Maximum Power over sampling duration : 504 watts
Average Power over sampling duration : 348 watts
Time Stamp                           : 11/03/2025 - 08:36:29
Statistics reporting time period     : 2685198000 milliseconds
Power Measurement                    : Active
"""
IPMITOOL = """
    Instantaneous power reading:                   214 Watts
    Minimum during sampling period:                  2 Watts
    Maximum during sampling period:                468 Watts
    Average power reading over sample period:      184 Watts
    IPMI timestamp:                           Tue Nov 24 12:00:00 2026
    Sampling period:                          00000001 Seconds.
    Power reading state is:                   activated


"""
IPMITOOL_RUN_TOGETHER = """
    Instantaneous power reading:                   195 Watts
    Average power reading over sample period:      194 Watts
    IPMI timestamp:                           11/24/26 12:00:06 UTC    Sampling period:                          00000005 Seconds.
    Power reading state is:                   activated
"""


@pytest.fixture
def bmc(tmp_path):
    """A device, and a program that says what a file says."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/ipmi0").touch()
    (tmp_path / "says").write_text(IPMITOOL)
    program = tmp_path / "tool"
    program.write_text(
        f"#!/bin/sh\necho asked >>{tmp_path}/asked\n[ -e {tmp_path}/first ] && . {tmp_path}/first\ncat {tmp_path}/says\n"
    )
    program.chmod(0o755)
    return tmp_path


def options(bmc, **more):
    usual = {"dev_root": str(bmc / "dev"), "ipmi_command": (str(bmc / "tool"),), "ipmi_period_s": 1.0}
    return Options(**{**usual, **more})


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("said", "watts"), [(FREEIPMI, 332), (IPMITOOL, 214), (IPMITOOL_RUN_TOGETHER, 195), (FREEIPMI.lower(), 332)]
)
def test_the_power_at_this_moment_is_read_from_both_tools(said, watts):
    assert ipmi.parse_watts(said) == watts


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (FREEIPMI.replace(": Active", ": Not Available"), "not available"),
        (IPMITOOL.replace("activated", "deactivated"), "deactivated"),
        (IPMITOOL.replace("214 Watts", "0 Watts"), "no meter"),
        ("", "nothing"),
        ("DCMI request failed because: Invalid command (c1)", "Invalid command"),
    ],
)
def test_what_is_no_measurement_is_no_reading_and_never_0(said, why):
    with pytest.raises(Unreadable, match=why):
        ipmi.parse_watts(said)


def test_the_nodes_power_is_integrated_by_the_agents_ticks(bmc):
    found = ipmi.find(options(bmc))
    assert found.refused == []
    counter = found.counters[0]
    now = time.monotonic_ns()
    assert [counter.read(now + second * S // 10) for second in range(4)] == [0, 21_400_000, 42_800_000, 64_200_000]
    assert counter.integrated
    counter.close()


def test_the_thread_asks_again_and_its_answer_is_taken(bmc):
    counter = ipmi.find(options(bmc)).counters[0]
    (bmc / "says").write_text(FREEIPMI)
    until("the new power", lambda: counter._latest[0] == 332_000_000, 10)
    counter.close()


def test_a_hung_command_is_killed_with_its_children_and_reading_never_waits(bmc):
    counter = ipmi.find(options(bmc, ipmi_timeout_s=1.0)).counters[0]
    (bmc / "first").write_text(f"sleep 300 & echo $! >{bmc}/child; wait\n")
    until("the end of its patience", lambda: "no answer in 1 s" in counter._why, 10)
    child = int((bmc / "child").read_text())
    until("the child to be gone", lambda: not alive(child), 10)
    begin = time.perf_counter()
    counter.read(time.monotonic_ns())
    assert time.perf_counter() - begin < 0.05
    assert "killed" in counter._why
    counter.close()


class Polled:
    """A process that counts how often it was asked whether it has ended."""

    def __init__(self, process):
        self.process, self.times = process, 0

    def poll(self):
        self.times += 1
        return self.process.poll()


def test_no_second_command_is_begun_beside_one_that_cannot_be_killed(bmc, monkeypatch):
    counter = ipmi.find(options(bmc, ipmi_timeout_s=1.0, ipmi_period_s=0.1)).counters[0]
    (bmc / "first").write_text("exec sleep 300\n")
    monkeypatch.setattr(ipmi.os, "killpg", lambda *args: None)
    until("a command that hangs", lambda: counter._hung, 10)
    assert "does not end" in counter._why
    monkeypatch.undo()
    asked = (bmc / "asked").read_text()
    counter._hung = hung = Polled(counter._hung)
    until("some periods", lambda: hung.times > 3, 10)
    assert (bmc / "asked").read_text() == asked
    (bmc / "first").unlink()
    hung.process.kill()
    until("the next command", lambda: (bmc / "asked").read_text() != asked, 10)
    counter.close()


def test_a_command_that_hangs_at_the_start_is_refused_in_time(bmc):
    (bmc / "first").write_text("sleep 300\n")
    begin = time.perf_counter()
    found = ipmi.find(options(bmc, ipmi_timeout_s=1.0))
    assert 0.9 < time.perf_counter() - begin < 3
    assert "no answer in 1 s" in found.refused[0].why


def test_an_answer_older_than_three_periods_is_no_reading(bmc):
    counter = ipmi.IpmiCounter(["false"], period_s=10, timeout_s=1, watts=200, clock=lambda: 0)
    assert counter.read(1 * S) == 0
    assert counter.read(30 * S) == 200_000_000 * 29
    with pytest.raises(Unreadable):
        counter.read(31 * S)
    counter.close()


def test_a_command_that_fails_says_its_last_words(bmc):
    (bmc / "first").write_text("echo 'Could not open device at /dev/ipmi0' >&2; exit 1\n")
    refusal = ipmi.find(options(bmc)).refused[0]
    assert refusal.why.endswith("exit code 1: Could not open device at /dev/ipmi0")
    assert refusal.domain == "node"


def test_a_command_is_a_list_and_no_shell_sees_it(bmc):
    (bmc / "tool").write_text('#!/bin/sh\nprintf "%s" "$1" >"$(dirname "$0")/got"\ncat "$(dirname "$0")/says"\n')
    ipmi.ask([str(bmc / "tool"), "; touch /tmp/never $(id)"], 5)
    assert (bmc / "got").read_text() == "; touch /tmp/never $(id)"


def test_no_device_is_quiet_and_asks_nothing_unless_forced(bmc):
    (bmc / "dev/ipmi0").unlink()
    assert ipmi.find(options(bmc)) == Found([], [])
    assert ipmi.find(options(bmc, ipmi="never")) == Found([], [])
    assert not (bmc / "asked").exists()
    counter = ipmi.find(options(bmc, ipmi="always")).counters[0]
    assert (bmc / "asked").exists()
    counter.close()


def test_a_device_without_a_tool_is_said_with_what_to_install(bmc, monkeypatch):
    monkeypatch.setattr(ipmi, "_path", lambda: str(bmc / "dev"))
    refusal = ipmi.find(options(bmc, ipmi_command=())).refused[0]
    assert "neither ipmi-dcmi nor ipmitool" in refusal.why
    assert "freeipmi" in refusal.remedy
