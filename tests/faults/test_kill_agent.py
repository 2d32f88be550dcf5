"""A day of a node on a fast clock while its agent is killed two hundred times: nothing lost, nothing twice.

The driver owns time: it moves counters, cgroups and the clock together, wakes the agent as a hook's file does, and waits
on its socket until it has looked at that moment. A move is many writes, and no look must see some of them only: the
driver waits until the agent sleeps before it moves. Kills come at random real moments: in a look, in a checkpoint, in a
start, right after a hook's file was dropped, when an hour ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter as Tally
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sim.law import Law
from sim.sysfs import SimNode

from slurm_energy.agent.store import Checkpoint

SENERGY = Path(sys.executable).with_name("senergy")
NS = 1_000_000_000
MIDNIGHT = 1_795_478_400
"""2026-11-24 00:00 UTC."""
DAY, STEP = 86_400, 120
KILLS = 200
CPUS, CORE_W = 32, 4.0
FLOOR_W = {"package": 60.0, "dram": 8.0}
BOARD_W = 55.0
DOMAINS = ("package", "dram", "other")
SEED = 20_261_124
POLL = "7" if os.uname().machine == "x86_64" else "73"
"""The number of the call in which an agent sleeps: poll(2), ppoll(2) where the C library has no other."""


class Driven(Law):
    """Power that the driver sets; the energy since the start is exact."""

    def __init__(self) -> None:
        self.uw, self.uj_ns, self.now_ns = 0, 0, 0

    def set(self, watts: float) -> None:
        self.uw = round(watts * 1e6)

    def watts(self, t_s: float) -> float:
        return self.uw / 1e6

    def energy_uj(self, t_s: float) -> int:
        now = round(t_s * 1e9)
        if now > self.now_ns:
            self.uj_ns += self.uw * (now - self.now_ns)
            self.now_ns = now
        return self.uj_ns // NS


class Job:
    """A job, what it does, and what it should get by the law (J)."""

    def __init__(self, job_id: int, restart: int, cpus: int, load: float, begin_s: int, length_s: int) -> None:
        self.job_id, self.restart, self.cpus, self.cores = job_id, restart, cpus, cpus * load
        self.begin_s, self.length_s = begin_s, length_s
        self.cpu_us, self.memory = 0.0, cpus << 30
        self.due = Tally[str]()


class Simulation:
    """The node, its jobs, its agent and the one who kills it."""

    def __init__(self, root: Path) -> None:
        self.root, self.random = root, random.Random(SEED)
        self.hooks, self.state, self.outbox, self.inbox = (root / n for n in ("hooks", "state", "outbox", "inbox"))
        for folder in (self.hooks, self.inbox):
            folder.mkdir()
        self.scope = root / "cgroup/system.slice/slurmstepd.scope"
        self.scope.mkdir(parents=True)
        self.laws = {name: Driven() for name in ("p0", "p1", "d0", "d1", "psys")}
        named = dict(
            zip(("package-0", "package-1", "package-0/dram", "package-1/dram", "psys"), self.laws, strict=True)
        )
        self.sysfs = SimNode(
            root / "sys", packages=2, psys=True, cores=False, start_uj=262_000_000_000,
            law=lambda name: self.laws[named[name.removeprefix("rapl:")]],
        )  # fmt: skip
        self.clock = os.open(root / "clock", os.O_RDWR | os.O_CREAT, 0o644)
        self.mono0 = 4_000 * NS
        self.now_s = 0
        config = f"""
        [agent]
        node = "n1"
        cluster = "alpha"
        cpus = {CPUS}
        mem_bytes = {64 << 30}
        package_idle_w = {FLOOR_W["package"]}
        dram_idle_w = {FLOOR_W["dram"]}
        period_s = 3600
        checkpoint_s = 200
        flush_s = 600
        outbox = "{self.outbox}"
        group = ""
        [agent.sources]
        off = ["nvml", "amdgpu", "hwmon", "cray", "ipmi", "model"]
        """
        (root / "config.toml").write_text(config)
        self.command = [
            str(SENERGY), "agent", "--config", str(root / "config.toml"), "--clock", str(root / "clock"),
            "--sysfs-root", str(root / "sys"), "--cgroup-root", str(root / "cgroup"), "--hooks", str(self.hooks),
            "--state-dir", str(self.state), "--socket", str(root / "agent.sock"),
        ]  # fmt: skip
        self.running: list[Job] = []
        self.ended: list[Job] = []
        self.kills = self.number = 0
        self.log = (root / "agent.log").open("wb")
        self.agent: subprocess.Popen[bytes] | None = None
        self.shipper: subprocess.Popen[bytes] | None = None
        self.tell()
        self.start_agent()
        self.settle()
        for seconds in (1, STEP - 1):  # the meters learn what the node draws, and from that when a wrap is certain
            self.move(seconds)
            self.settle()

    # The agent

    def start_agent(self) -> None:
        self.agent = subprocess.Popen(self.command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)

    def kill(self, within_s: float = 0.0, restart: bool = True) -> None:
        """kill -9 at some moment of the next `within_s`, and a new one."""
        assert self.agent is not None
        if within_s:
            time.sleep(self.random.uniform(0, within_s))
        assert self.agent.poll() is None, (self.root / "agent.log").read_text()[-4000:]
        os.kill(self.agent.pid, signal.SIGKILL)
        self.agent.wait()
        self.agent = None
        self.kills += 1
        if restart:
            self.start_agent()

    def snapshot(self) -> dict[str, Any] | None:
        """What the agent shows, None while there is none."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            try:
                client.settimeout(10)
                client.connect(str(self.root / "agent.sock"))
                parts = []
                while data := client.recv(1 << 16):
                    parts.append(data)
                return json.loads(b"".join(parts))
            except (OSError, ValueError):
                return None

    def settle(self, done=lambda seen: True) -> None:
        """Waits until the agent has looked at this moment, and `done` holds of what it shows."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            seen = self.snapshot()
            if seen and seen["wall_ns"] == (MIDNIGHT + self.now_s) * NS and done(seen):
                return
            assert self.agent is not None
            assert self.agent.poll() is None, (self.root / "agent.log").read_text()[-4000:]
            time.sleep(0.002)
        raise AssertionError(f"the agent did not get to {self.now_s}: {seen}")

    def wait_for_sleep(self) -> None:
        """Waits until the agent, if there is one, has done all that it was woken for and is blocked in its poll(2).

        Its answer on the socket does not say so: a hook makes two events (the hidden file, its new name), the first look
        may find both, and the second one comes after the answer. Nothing but a hook's file or a client ends this sleep.
        """
        deadline = time.monotonic() + 20
        while self.agent is not None:
            assert self.agent.poll() is None, (self.root / "agent.log").read_text()[-4000:]
            call = Path(f"/proc/{self.agent.pid}/syscall").read_text()
            if call.split()[:1] == [POLL]:
                return
            assert time.monotonic() < deadline, f"the agent does not come to rest: {call}"
            time.sleep(0.0005)

    # The node

    def tell(self) -> None:
        os.pwrite(self.clock, struct.pack("<qq", self.mono0 + self.now_s * NS, (MIDNIGHT + self.now_s) * NS), 0)

    def power(self) -> dict[str, float]:
        """The law: a floor, so much for each busy core, memory by use, the board."""
        busy = sum(job.cores for job in self.running)
        package = FLOOR_W["package"] + CORE_W * busy
        dram = FLOOR_W["dram"] + 0.25 * sum(job.memory >> 30 for job in self.running)
        return {"package": package, "dram": dram, "other": BOARD_W}

    def move(self, seconds: int) -> None:
        """Time passes; what is due to whom is written down. All of it at once for the agent, which sleeps meanwhile."""
        self.wait_for_sleep()
        power = self.power()
        for job in self.running:
            package = FLOOR_W["package"] * job.cpus / CPUS + CORE_W * job.cores
            dram = FLOOR_W["dram"] * job.cpus / CPUS + 0.25 * (job.memory >> 30)
            due = {"package": package, "dram": dram}
            due["other"] = BOARD_W * (package + dram) / (power["package"] + power["dram"])
            for domain, watts in due.items():
                job.due[domain] += watts * seconds  # type: ignore[assignment]
            job.cpu_us += job.cores * seconds * 1e6
        for name, part in (("p", "package"), ("d", "dram")):
            self.laws[f"{name}0"].set(power[part] * 0.6)
            self.laws[f"{name}1"].set(power[part] * 0.4)
        self.laws["psys"].set(sum(power.values()))
        self.now_s += seconds
        for job in self.running:
            self.show(job)
        self.sysfs.advance_to(self.now_s)
        self.tell()
        (self.hooks / ".wake").write_bytes(b"")

    def folder(self, job: Job) -> Path:
        return self.scope / f"job_{job.job_id}"

    def show(self, job: Job) -> None:
        for name, text in (("cpu.stat", f"usage_usec {round(job.cpu_us)}\n"), ("memory.current", f"{job.memory}\n")):
            file = os.open(self.folder(job) / name, os.O_WRONLY | os.O_CREAT, 0o644)
            os.pwrite(file, text.encode().ljust(40, b"\n"), 0)
            os.close(file)

    def hook(self, event: str, job: Job) -> None:
        self.number += 1
        fields = {
            "EVENT": event, "SLURM_JOB_ID": job.job_id, "SLURM_JOB_RESTART_COUNT": job.restart, "SLURM_JOB_UID": 1000,
            "SLURM_JOB_USER": "emma", "SLURM_JOB_ACCOUNT": "lisa", "SLURM_JOB_PARTITION": "cpu",
            "SLURM_CLUSTER_NAME": "alpha", "SLURMD_NODENAME": "n1", "SLURM_JOB_CPUS_PER_NODE": job.cpus, "END": 1,
        }  # fmt: skip
        name = f"{job.job_id}.{job.restart}.{1 if event == 'prolog' else 2}-{event}.{self.number}"
        hidden = self.hooks / f".{name}"
        hidden.write_bytes(b"".join(f"{key}={value}".encode() + b"\0" for key, value in fields.items()))
        moment = (MIDNIGHT + self.now_s) * NS
        os.utime(hidden, ns=(moment, moment))
        hidden.rename(self.hooks / name)

    def begin(self, job: Job, kill: bool) -> None:
        self.folder(job).mkdir()
        self.show(job)
        self.hook("prolog", job)
        self.running.append(job)
        if kill:
            self.kill(0.012)
        self.settle(
            lambda seen: any((j["job_id"], j["restart_count"]) == (job.job_id, job.restart) for j in seen["jobs"])
        )

    def end(self, job: Job, kill: bool) -> None:
        for file in self.folder(job).iterdir():
            os.truncate(file, 0)  # an open file of a cgroup that is gone reads no more
        shutil.rmtree(self.folder(job))
        self.hook("epilog", job)
        self.running.remove(job)
        self.ended.append(job)
        if kill:
            self.kill(0.012)
        self.settle(lambda seen: not any(j["job_id"] == job.job_id for j in seen["jobs"]))

    # Shipping, killed as well

    def ship(self, kill_within_s: float = 0.0) -> None:
        """`senergy ship --once`, killed at some moment if asked for."""
        self.reap_shipper()
        self.shipper = subprocess.Popen(
            [str(SENERGY), "ship", "--once", "--outbox", str(self.outbox), "--inbox", str(self.inbox), "--cluster", "alpha",
             "--node", "n1"], stdout=self.log, stderr=self.log,
        )  # fmt: skip
        if kill_within_s:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.shipper.wait(self.random.uniform(0.02, kill_within_s))
            self.reap_shipper()

    def reap_shipper(self) -> None:
        if self.shipper is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.shipper.pid, signal.SIGKILL)
            self.shipper.wait()
            self.shipper = None

    def stop(self) -> None:
        self.reap_shipper()
        if self.agent is not None and self.agent.poll() is None:
            self.agent.terminate()
            self.agent.wait(20)
        self.log.close()
        self.sysfs.close()
        os.close(self.clock)

    # What came of it

    def segments(self) -> list[tuple[str, dict[str, Any]]]:
        """Every line that has left the agent, with its file."""
        files = sorted(self.outbox.glob("*.jsonl")) + sorted(self.inbox.rglob("*.jsonl"))
        return [(file.name, json.loads(line)) for file in files for line in file.read_text().splitlines()]

    def checkpoint(self) -> Checkpoint:
        return msgspec.msgpack.decode((self.state / "checkpoint").read_bytes(), type=Checkpoint)


def a_day(simulation: Simulation) -> None:
    """720 steps of two minutes; jobs come and go, some are requeued; the agent dies at random moments."""
    chance = simulation.random
    kinds = ["before", "in", "after", "twice", "hook"]
    steps = DAY // STEP
    at = set(chance.sample([n for n in range(5, steps - 2) if (n * STEP) % 3600], 150)) | set(range(29, steps, 30))
    next_id = 100
    for step in range(1, steps):
        kind = chance.choice(kinds) if step in at and simulation.kills < KILLS - 2 else ""
        for job in [job for job in simulation.running if simulation.now_s >= job.begin_s + job.length_s]:
            simulation.end(job, kill=kind == "hook")
            if chance.random() < 0.15:
                again = Job(
                    job.job_id, job.restart + 1, job.cpus, 0.7, simulation.now_s, chance.randrange(600, 7200, STEP)
                )
                simulation.begin(again, kill=False)
        free = CPUS - sum(job.cpus for job in simulation.running)
        if chance.random() < 0.12 and free >= 1 and step < steps - 10:
            next_id += 1
            cpus, load = chance.randint(1, free), chance.choice([0.2, 0.8, 1.0])
            length = chance.choice([120, 600, 1800, 7200, 14_400])
            simulation.begin(Job(next_id, 0, cpus, load, simulation.now_s, length), kill=kind == "hook")
        if kind == "before":
            simulation.kill(restart=False)
        simulation.move(STEP)
        if kind == "before":
            simulation.start_agent()
        elif kind == "in":
            simulation.kill(0.015)
        elif kind == "twice":
            simulation.kill(0.01)
            simulation.kill(0.12)
        simulation.settle()
        if kind == "after":
            simulation.kill(0.03)
        if step % 60 == 50:
            simulation.ship()
    while simulation.kills < KILLS:
        simulation.kill(0.12)
        simulation.settle()
    simulation.settle()


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """The day, lived through, and the agent stopped in order."""
    simulation = Simulation(tmp_path_factory.mktemp("node"))
    try:
        a_day(simulation)
        assert simulation.agent is not None
        simulation.agent.terminate()
        assert simulation.agent.wait(20) == 0
        yield simulation
    finally:
        simulation.stop()


KEY = ("cluster", "node", "job_id", "restart_count", "sluid", "session_start", "hour")


def test_two_hundred_kills_lose_no_microjoule_and_count_none_twice(day: Simulation) -> None:
    assert day.kills >= KILLS
    by_key: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, one in day.segments():
        key = tuple(one[part] for part in KEY)
        assert by_key.setdefault(key, one) == one, f"{name}: a second, different segment of {key}"
    state = day.checkpoint()
    assert state.pending == []
    assert state.outgoing == []
    assert state.sessions == [] or len(state.sessions) == len(day.running)
    sums: Tally[str] = Tally()
    for one in by_key.values():
        assert one["gap_s"] == 0
        for domain in DOMAINS:
            sums[domain] += one["uj"][domain]
    for session in (*state.sessions, state.idle):
        for domain in DOMAINS:
            sums[domain] += getattr(session, domain)
    moved = {name: law.energy_uj(day.now_s) for name, law in day.laws.items()}
    assert sums["package"] == moved["p0"] + moved["p1"]
    assert sums["dram"] == moved["d0"] + moved["d1"]
    assert sum(sums.values()) == moved["psys"] - state.carry_uj
    assert moved["p0"] > 5 * day.sysfs.range_uj  # the counters did wrap


def test_two_hundred_kills_leave_each_job_its_energy_by_the_law(day: Simulation) -> None:
    got: dict[tuple[int, int], Tally[str]] = {}
    finals: Tally[tuple[int, int]] = Tally()
    seen = set()
    for _, one in day.segments():
        key = tuple(one[part] for part in KEY)
        if key in seen:
            continue
        seen.add(key)
        run = one["job_id"], one["restart_count"]
        finals[run] += one["final"]
        got.setdefault(run, Tally()).update(one["uj"])
    long = [job for job in day.ended if job.length_s >= 600]
    assert len(long) > 30
    for job in day.ended:
        run = job.job_id, job.restart
        assert finals[run] == 1, run
        if job.length_s >= 600:
            for domain in DOMAINS:
                assert got[run][domain] / 1e6 == pytest.approx(job.due[domain], rel=0.01), (run, domain)
    assert {run for run in got if run[0]} <= {(job.job_id, job.restart) for job in (*day.ended, *day.running)}


def test_a_shipper_killed_thirty_times_delivers_everything_once(day: Simulation, tmp_path: Path) -> None:
    """Runs last: it empties the outbox."""
    from unit.helpers import config, row, save

    from slurm_energy.config import profile_of
    from slurm_energy.ledger.aggregate import aggregate
    from slurm_energy.ledger.run import Run
    from slurm_energy.ledger.segments import booked, take_in
    from slurm_energy.ledger.store import Ledger
    from slurm_energy.ledger.verify import verify
    from slurm_energy.slurm.sacctfile import scan
    from slurm_energy.slurm.zone import zone

    distinct = {json.dumps(one, sort_keys=True) for _, one in day.segments()}
    waiting = sorted(day.outbox.glob("*.jsonl"))
    extra = [line for file in waiting for line in file.read_text().splitlines()]
    for number, line in enumerate(extra):  # many small files, so that kills hit the work and not only the start
        (day.outbox / f"again.{number:05d}.jsonl").write_text(line + "\n")
    for _ in range(30):
        day.ship(kill_within_s=0.3)
    assert list(day.inbox.rglob("*.jsonl"))
    day.ship()
    assert day.shipper is not None
    assert day.shipper.wait(30) == 0
    assert list(day.outbox.glob("*.jsonl")) == []
    assert {json.dumps(one, sort_keys=True) for _, one in day.segments()} == distinct

    rows = [
        row(
            JobID=job.job_id, Start=MIDNIGHT + job.begin_s, ElapsedRaw=job.length_s, NCPUS=job.cpus, NodeList="n1",
            AllocTRES=f"billing={job.cpus},cpu={job.cpus},mem={job.cpus}G,node=1", Partition="cpu",
        )
        for job in day.ended
    ]  # fmt: skip
    ledger, settings = Ledger(tmp_path / "ledger"), config()
    path = save(tmp_path / "jobs.txt", rows)
    with ledger.writer():
        taken = take_in(ledger, day.inbox)
        work = tmp_path / "work"
        work.mkdir()
        aggregate(
            ledger,
            Run(
                sources=[scan(path, work)],
                config=settings,
                profile=profile_of(settings),
                site=zone("UTC"),
                measured_days=taken.days,
            ),
            work,
        )
        booked(ledger)
    assert taken.set_aside == ()
    (one_day,) = verify(ledger, zone("UTC"))
    assert one_day.holds
    assert one_day.segments_uj == sum(
        sum(one["uj"].values()) for one in {tuple(o[k] for k in KEY): o for o in map(json.loads, distinct)}.values()
    )
    assert one_day.without_record_kwh <= 1e-6 + sum(job.due.total() for job in day.running) / 3.6e6
