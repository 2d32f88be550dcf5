"""What the counters moved goes to the sessions that ran meanwhile: exactly, whatever happens inside an interval."""

from __future__ import annotations

import pytest
from agent_harness import DRAM, GPU, NODE, NOON, NS, PACKAGE, Gauge
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_energy.accounting.attribution import NodeShape
from slurm_energy.agent.engine import Edge, Engine, hours_between
from slurm_energy.agent.meters import Meter
from slurm_energy.agent.session import Live, Session

HOUR = 3600
START = NOON * NS


class Machine:
    """An engine with counters that a test moves."""

    def __init__(self, *counters: Gauge, floor_w: int = 0) -> None:
        self.counters = counters or (Gauge(PACKAGE, "package"),)
        self.idle = Session(job_id=0, session_start=NOON)
        self.engine = Engine(
            [Meter(counter) for counter in self.counters], NodeShape(8, 64 << 30, floor_w * 1_000_000, 0), self.idle
        )
        self.mono, self.wall = 50 * NS, START
        self.engine.last_ns, self.engine.last_wall_ns = self.mono, self.wall
        for meter in self.engine.meters:
            meter.advance(self.mono)

    def look(self, seconds: float, joules: float | dict[str, float] = 0, edges=(), jump_s: float = 0) -> None:
        """edges: (seconds after the last look, what to do)."""
        begin = self.wall
        self.mono += round(seconds * NS)
        self.wall += round((seconds + jump_s) * NS)
        for counter in self.counters:
            counter.uj += round(1e6 * (joules if isinstance(joules, (int, float)) else joules.get(counter.name, 0)))
        self.engine.advance(
            self.mono, self.wall, [Edge(begin + round(at * NS), lambda _, do=do: do()) for at, do in edges]
        )

    def begin(self, job_id: int = 7, cpus: int = 2, seen: bool = False, rate: float = 0.0, **facts) -> Session:
        session = Session(job_id=job_id, session_start=NOON, cpus=cpus, seen=seen, cpu_rate=rate, **facts)
        self.engine.lives.append(Live(session, self.mono))
        return session

    def end(self, session: Session) -> None:
        (live,) = [live for live in self.engine.lives if live.session is session]
        self.engine.lives.remove(live)


def test_without_a_job_all_is_idle() -> None:
    machine = Machine()
    machine.look(1, 100)
    assert machine.idle.package == 100_000_000


def test_a_job_that_began_in_the_middle_gets_what_moved_after_it() -> None:
    machine = Machine()
    jobs = []
    machine.look(10, 100, [(4, lambda: jobs.append(machine.begin(alone=True)))])
    assert (machine.idle.package, jobs[0].package) == (40_000_000, 60_000_000)


def test_a_job_that_ended_in_the_middle_gets_what_moved_before_it() -> None:
    machine = Machine()
    job = machine.begin(alone=True)
    machine.look(10, 100, [(4, lambda: machine.end(job))])
    assert (job.package, machine.idle.package) == (40_000_000, 60_000_000)


def test_a_job_that_began_and_ended_between_two_looks_gets_its_part() -> None:
    machine = Machine()
    jobs = []
    machine.look(
        10, 100, [(2, lambda: jobs.append(machine.begin(alone=True))), (5, lambda: machine.end(jobs[0]))]
    )  # fmt: skip
    assert (jobs[0].package, machine.idle.package) == (30_000_000, 70_000_000)


def test_edges_that_come_unsorted_happen_in_the_order_of_their_time() -> None:
    machine, order = Machine(), []
    machine.look(10, 100, [(7, lambda: order.append("late")), (3, lambda: order.append("early"))])
    assert order == ["early", "late"]


def test_an_edge_of_before_the_interval_counts_at_its_beginning_and_one_of_after_at_its_end() -> None:
    machine = Machine()
    early, late = [], []
    machine.look(10, 100, [(-50, lambda: early.append(machine.begin(alone=True)))])
    assert early[0].package == 100_000_000
    machine.end(early[0])
    machine.look(10, 100, [(50, lambda: late.append(machine.begin(alone=True)))])
    assert late[0].package == 0
    assert machine.idle.package == 100_000_000


def test_a_long_silence_is_dealt_out_over_its_hours_by_their_length() -> None:
    machine = Machine()
    cuts = []
    edges = [(at, lambda: cuts.append(machine.idle.package)) for at in (HOUR, 2 * HOUR)]
    machine.look(2.5 * HOUR, 250, edges)
    assert cuts == [100_000_000, 200_000_000]
    assert machine.idle.package == 250_000_000


def test_in_a_long_silence_a_job_that_was_never_seen_is_taken_to_have_used_its_cpus() -> None:
    machine = Machine(floor_w=0)
    known = machine.begin(1, cpus=2, seen=True, rate=1.0)
    new = []
    machine.look(600, 900, [(300, lambda: new.append(machine.begin(2, cpus=2)))])
    assert known.package == pytest.approx(450e6 + 150e6)
    assert new[0].package == pytest.approx(300e6)


def test_in_a_short_interval_a_job_that_was_never_seen_gets_the_floor_of_its_cpus() -> None:
    machine = Machine(floor_w=80)
    job = machine.begin(cpus=2)
    machine.look(1, 100)
    assert job.package == 20_000_000


def test_the_last_seen_rate_counts_for_a_job_whose_folder_is_gone() -> None:
    machine = Machine()
    gone, other = machine.begin(1, seen=True, rate=3.0), machine.begin(2, seen=True, rate=1.0)
    machine.look(1, 100)
    assert (gone.package, other.package) == (75_000_000, 25_000_000)


@pytest.mark.parametrize("jump_s", [7200, -7200])
def test_a_jump_of_the_wall_clock_moves_no_energy(jump_s: int) -> None:
    machine = Machine()
    job = machine.begin(alone=True)
    machine.look(1, 100, jump_s=jump_s)
    assert job.package == 100_000_000
    assert machine.engine.jumps == 1


def test_a_slow_sensor_of_the_node_gives_the_rest_once_it_has_caught_up() -> None:
    machine = Machine(Gauge(PACKAGE, "package"), Gauge(NODE, "node"))
    for _ in range(3):
        machine.look(1, {"package": 100})
        assert machine.idle.other == 0
    machine.look(1, {"package": 100, "node": 600})
    assert machine.idle.other == 200_000_000
    assert machine.engine.carry_uj == 0


def test_a_node_sensor_that_did_not_answer_for_a_while_has_the_energy_in_its_next_reading() -> None:
    node = Gauge(NODE, "node")
    machine = Machine(Gauge(PACKAGE, "package"), node)
    node.broken = "timed out"
    machine.look(1, {"package": 100, "node": 150})
    node.broken = ""
    machine.look(1, {"package": 100, "node": 150})
    assert machine.idle.other == 100_000_000
    assert machine.idle.gap_ns == NS


def test_a_node_sensor_whose_energy_is_lost_for_good_does_not_take_it_off_later() -> None:
    node = Gauge(NODE, "node", integrated=True)
    machine = Machine(Gauge(PACKAGE, "package"), node)
    node.broken = "timed out"
    for _ in range(60):
        machine.look(1, {"package": 100})
    node.broken = ""
    machine.look(1, {"package": 100, "node": 150})
    assert machine.idle.other == 50_000_000


def test_gpus_that_one_device_shows_in_two_counters_add_up() -> None:
    machine = Machine(Gauge(GPU, "a1", device="GPU-a"), Gauge(GPU, "a2", device="GPU-a"))
    job = machine.begin(gpus=["GPU-a"])
    machine.look(1, {"a1": 5, "a2": 7})
    assert job.by_gpu == {"GPU-a": 12_000_000}


def test_a_gap_of_one_counter_is_said_by_everybody_and_its_domain_gets_no_made_up_energy() -> None:
    package = Gauge(PACKAGE, "package")
    machine = Machine(package, Gauge(DRAM, "dram"))
    job = machine.begin(alone=True)
    package.broken = "permission denied"
    machine.look(2, {"package": 100, "dram": 10})
    assert (job.package, job.dram, job.gap_ns) == (0, 10_000_000, 2 * NS)


def test_the_idle_floor_is_the_least_mean_of_any_half_minute_without_a_job() -> None:
    machine = Machine()
    for watts in (90, 50, 70):
        for _ in range(30):
            machine.look(1, watts)
    assert machine.engine.learned_uw == {"package": 50_000_000, "dram": 0}


def test_a_gap_teaches_no_idle_floor() -> None:
    package = Gauge(PACKAGE, "package")
    machine = Machine(package)
    package.broken = "gone"
    for _ in range(40):
        machine.look(1, 0)
    assert machine.engine.learned_uw == {}


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (0.5, 0.7, []),
        (0.5, 1.0, [1]),
        (1.0, 1.5, []),
        (0.5, 3.5, [1, 2, 3]),
        (1.0, 2.0, [2]),
        (2.5, 1.5, []),
        (0.5, 100.5, [100]),
    ],
)
def test_the_hours_that_begin_in_an_interval_are_each_met_once(first, last, expected) -> None:
    moments = hours_between(START + round(first * HOUR * NS), START + round(last * HOUR * NS))
    assert [(moment - START) / HOUR / NS for moment in moments] == expected


scripts = st.lists(
    st.tuples(
        st.floats(0, 8000, allow_nan=False),
        st.dictionaries(st.sampled_from(["package", "dram", "gpu", "node"]), st.integers(0, 10**6)),
        st.lists(
            st.tuples(st.floats(-0.2, 1.2), st.sampled_from(["begin", "end", "alone", "hour", "break"])), max_size=4
        ),
        st.sampled_from([0, 0, 0, 3600, -3600]),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(scripts)
def test_no_script_of_events_loses_a_microjoule_or_makes_one(script) -> None:
    gauges = [Gauge(PACKAGE, "package"), Gauge(DRAM, "dram"), Gauge(GPU, "gpu", device="a"), Gauge(NODE, "node")]
    machine = Machine(*gauges, floor_w=60)
    running: list[Session] = []
    cut = dict.fromkeys(("package", "dram", "gpu", "other"), 0)

    def take(session: Session) -> None:
        for domain in cut:
            assert getattr(session, domain) >= 0
            cut[domain] += getattr(session, domain)
        session.package = session.dram = session.gpu = session.other = 0
        session.by_gpu = {}

    def act(kind: str) -> None:
        if kind in ("begin", "alone"):
            number = len(running) + 1
            running.append(
                machine.begin(
                    number, alone=kind == "alone", seen=bool(number % 2), rate=number, gpus=["a"] * (number % 2)
                )
            )
        elif kind == "end" and machine.engine.lives:
            machine.end(machine.engine.lives[0].session)
        elif kind == "hour":
            for session in (machine.idle, *running):
                take(session)
        elif kind == "break":
            gauges[1].broken = "" if gauges[1].broken else "unreadable"

    for seconds, joules, events, jump in script:
        machine.look(seconds, joules, [(at * seconds, lambda kind=kind: act(kind)) for at, kind in events], jump)
    by_gpu = sum(session.by_gpu.get("a", 0) for session in (machine.idle, *running))
    assert by_gpu == sum(session.gpu for session in (machine.idle, *running))
    for session in (machine.idle, *running):
        take(session)
    moved = {meter.counter.name: meter.total_uj for meter in machine.engine.meters}
    assert (cut["package"], cut["dram"], cut["gpu"]) == (moved["package"], moved["dram"], moved["gpu"])
    if not any(meter.gaps for meter in machine.engine.meters[3:]):
        assert sum(cut.values()) == moved["node"] - machine.engine.carry_uj
