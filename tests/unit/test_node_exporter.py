"""What the node exporter shows of a snapshot, and of an agent that is dead, stuck or of another version."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from agent_harness import DRAM, PACKAGE, RANGE, Gauge, Node
from common.agent_socket import NOON, Stub, counter, fixed, job
from common.waiting import until
from exporter_harness import Exporter, many_jobs, now, running
from golden.regenerate_scrape import HERE, scrape
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from slurm_energy_exporters.http_message import wants_gzip, wants_openmetrics
from slurm_energy_exporters.metrics import NODE
from slurm_energy_exporters.metrics_text import render
from slurm_energy_exporters.node_collector import Moved, NodeCollector

from slurm_energy.agent.snapshot import take

HOSTILE = 'a"b\\c\nd\re\x00f\u202eg{h="1"} 1 # HELP'
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def hostile() -> object:
    one = job(
        1, (1.0, 2.0, 3.0, 4.0), (1e9, 2.0, 1e-6, 1e18), user=HOSTILE, account="ü" * 1000, partition="", gpus=[HOSTILE]
    )
    twin = msgspec.structs.replace(one)
    views = [counter(HOSTILE, "gpu", 1.0, 2.0, device=HOSTILE, model=HOSTILE), counter(HOSTILE, "gpu", 1.0, 2.0)]
    return msgspec.structs.replace(fixed(), jobs=[one, twin], counters=views)


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {}
    for family in parse_text(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, "a series comes twice"
            found[key] = sample.value
    return found


def values(text: str, name: str) -> dict[str, float]:
    """Of one name: the domain, or whatever stands in its labels, and the value."""
    found = {}
    for (sample, labels), value in samples(text).items():
        if sample == f"slurm_energy_{name}":
            found[dict(labels).get("domain") or ",".join(value for _, value in labels)] = value
    return found


def test_the_golden_scrape() -> None:
    assert scrape(fixed()) == (HERE / "node_scrape.txt").read_text()


@pytest.mark.parametrize("snapshot", [fixed(), hostile(), many_jobs(50)], ids=["fixed", "hostile", "50 jobs"])
def test_the_quick_text_is_prometheus_clients_own(snapshot, tmp_path: Path) -> None:
    stub = Stub(tmp_path / "agent.sock", msgspec.json.encode(snapshot))
    collector = NodeCollector(stub.path, lambda: NOON + 1.0)
    registry = CollectorRegistry()
    registry.register(collector)
    assert stub.asked == 0, "registering asks the agent"
    assert render(collector.collect(), openmetrics=False) == generate_latest(registry)
    assert render(collector.collect(), openmetrics=True) == generate_openmetrics(registry)
    stub.close()


def test_every_sample_is_in_the_list_of_metrics_and_every_metric_comes() -> None:
    endings = {"counter": "_total", "info": "_info"}
    wanted = {metric.name + endings.get(metric.kind, ""): set(metric.labels) for metric in NODE}
    found = {name: {label for label, _ in labels} for name, labels in samples(scrape(fixed()))}
    assert found == wanted


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_accepts_it() -> None:
    for snapshot in (fixed(), hostile()):
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=scrape(snapshot).encode(), capture_output=True, check=False
        )
        assert (done.returncode, (done.stdout + done.stderr).decode()) == (0, "")


def test_both_formats_say_the_same() -> None:
    snapshot = hostile()
    text = dict(samples(scrape(snapshot)).items())
    other = {}
    for family in parse_openmetrics(scrape(snapshot, openmetrics=True)):
        other |= {(one.name, tuple(sorted(one.labels.items()))): one.value for one in family.samples}
    assert text == other


def test_hostile_labels_are_one_value_without_control_characters() -> None:
    text = scrape(hostile())
    users = [dict(labels)["user"] for name, labels in samples(text) if name == "slurm_energy_job_info"]
    assert users == ['a"b\\c\ufffdd\ufffde\ufffdf\ufffdg{h="1"} 1 # HELP'] * 2
    assert all(len(line) < 2000 for line in text.splitlines())
    assert len(values(text, "job_cpu_seconds_total")) == 2, "two jobs of one id and second are two series"


def test_a_gap_has_no_watts_and_a_domain_without_counter_no_series() -> None:
    views = [counter("rapl:package-0", "package", None, 10.0, problem="lost"), counter("rapl:dram-0", "dram", 3.0, 5.0)]
    jobs = [job(1, (0.0, 2.0, 0.0, 0.0), (4.0, 2.0, 0.0, 0.0))]
    idle = job(0, (0.0, 1.0, 0.0, 0.0), (6.0, 3.0, 0.0, 0.0))
    text = scrape(msgspec.structs.replace(fixed(), counters=views, jobs=jobs, idle=idle, attributed={}))
    assert values(text, "node_power_watts") == values(text, "job_power_watts") | {"dram": 3.0} == {"dram": 3.0}
    assert values(text, "node_energy_joules_total") == {"package": 10.0, "dram": 5.0}
    assert values(text, "job_energy_joules_total") == {"package": 4.0, "dram": 2.0}
    assert values(text, "meter_up") == {"package": 0.0, "dram": 1.0}


def test_node_watts_are_those_of_jobs_and_idle() -> None:
    text = scrape(many_jobs(100))
    found = samples(text)
    for domain in ("package", "dram", "gpu", "other"):
        parts = sum(
            value for (name, labels), value in found.items()
            if name in ("slurm_energy_job_power_watts", "slurm_energy_idle_power_watts") and ("domain", domain) in labels
        )  # fmt: skip
        assert values(text, "node_power_watts")[domain] == pytest.approx(parts, abs=0.01)


def test_ended_jobs_vanish_and_counters_do_not_step_back_a_little(tmp_path: Path) -> None:
    stub = Stub(tmp_path / "agent.sock", msgspec.json.encode(fixed()))
    collector = NodeCollector(stub.path, lambda: NOON + 1.0)

    def again(**changes: object) -> str:
        stub.answer = msgspec.json.encode(msgspec.structs.replace(fixed(), **changes))
        return render(collector.collect(), openmetrics=False).decode()

    one = [job(1, (1.0, 1.0, 1.0, 1.0), (1000.0, 1.0, 1.0, 1.0))]
    assert values(again(jobs=one), "job_energy_joules_total")["package"] == 1000.0
    less = [job(1, (1.0, 1.0, 1.0, 1.0), (990.0, 1.0, 1.0, 1.0))]
    assert values(again(jobs=less), "job_energy_joules_total")["package"] == 1000.0
    anew = [job(1, (1.0, 1.0, 1.0, 1.0), (10.0, 1.0, 1.0, 1.0))]
    assert values(again(jobs=anew), "job_energy_joules_total")["package"] == 10.0
    gone = again(jobs=[])
    assert "jobid" not in gone
    assert values(gone, "jobs") == {"": 0.0}
    assert not [key for key in collector._marks if key[0] == "job_energy_joules"], "marks of ended jobs are kept"
    stub.close()


def test_what_a_counter_moved_stays_when_the_counter_is_gone() -> None:
    moved = Moved()

    def joules(*gpus: float, boot: str = "1") -> float:
        views = [counter(f"nvml:{n}", "gpu", 1.0, one, device=f"GPU-{n}") for n, one in enumerate(gpus)]
        return moved.joules(msgspec.structs.replace(fixed(), counters=views, boot_id=boot))["gpu"]

    assert joules(100.0, 1000.0) == 1100.0
    assert joules(130.0) == 1130.0, "the second GPU fell off the bus, and the agent was started again"
    assert joules(130.0, 5.0) == 1135.0, "it is back and counts anew"
    assert joules(128.0, 5.0) == 1133.0, "the agent went on from its checkpoint"
    assert joules(1.0, boot="2") == 1.0


def everybodys(node: Node) -> dict[str, float]:
    """What the agent says that all got; and that it is what the counters moved, to the microjoule."""
    snapshot = take(node.agent)
    moved = Moved().joules(snapshot)
    assert all(snapshot.attributed[d] == pytest.approx(moved[d], abs=1e-6) for d in ("package", "dram", "gpu"))
    return snapshot.attributed


def test_what_all_got_is_what_the_counters_moved_whatever_jobs_do(tmp_path: Path) -> None:
    gauges = [Gauge(PACKAGE, "rapl:package-0", range_uj=RANGE, max_w=1000.0), Gauge(DRAM, "rapl:dram-0", max_w=500.0)]
    node = Node(tmp_path, counters=gauges, orphan_s=20.0)
    folders = {}
    for number in range(1, 6):
        node.hook("prolog", number)
        folders[number] = node.cgroups.add(number)
        node.advance(10, 100, {folders[number]: 1.5})
    assert everybodys(node)["package"] == pytest.approx(5000)
    node.hook("epilog", 1)
    node.cgroups.remove(folders[1])
    node.advance(10)
    got = everybodys(node)
    assert got["package"] == pytest.approx(6000), "a job that has ended keeps what it got"
    assert sum(job.joules["package"] for job in take(node.agent).jobs) + take(node.agent).idle.joules["package"] < 5990
    node.cgroups.remove(folders[2])  # and no Epilog: what it got since is given back to idle
    node.advance(40)
    assert node.job(2) is None
    assert everybodys(node)["package"] == pytest.approx(10_000)
    node.advance(3600, step=60.0)  # an hour ends
    assert everybodys(node)["package"] == pytest.approx(370_000)


def test_what_all_got_survives_the_agent_and_not_the_boot(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.hook("prolog", 1)
    folder = node.cgroups.add(1)
    node.advance(10, 100, {folder: 8})
    node.hook("epilog", 1)
    node.cgroups.remove(folder)
    node.advance(20)
    assert take(node.agent).jobs == []
    assert take(node.agent).idle.joules["package"] < 2500
    before = everybodys(node)["package"]
    assert before == pytest.approx(3000)
    node.move(7)
    node.start()  # as after kill -9
    assert everybodys(node)["package"] == pytest.approx(3700)
    (node.proc / "sys/kernel/random/boot_id").write_text("boot-2\n")
    node.start()
    node.advance(5)
    assert everybodys(node)["package"] == pytest.approx(500)


def test_energy_of_all_is_shown_beside_the_counters(tmp_path: Path) -> None:
    text = scrape(fixed())
    assert values(text, "attributed_energy_joules_total") == values(text, "node_energy_joules_total")
    jobs_too = msgspec.structs.replace(fixed(), attributed={"package": 4_000_000.0})
    assert values(scrape(jobs_too), "attributed_energy_joules_total") == {"package": 4_000_000.0}
    assert not values(scrape(msgspec.structs.replace(fixed(), attributed={})), "attributed_energy_joules_total")


@pytest.mark.parametrize(("age", "up"), [(0.0, 1), (7.9, 1), (8.1, 0), (3600.0, 0), (-7.9, 1), (-60.0, 0)])
def test_a_snapshot_that_is_too_old_is_no_snapshot(tmp_path: Path, age: float, up: int) -> None:
    stub = Stub(tmp_path / "agent.sock", msgspec.json.encode(fixed()))
    text = render(NodeCollector(stub.path, lambda: NOON + 0.25 + age).collect(), openmetrics=False).decode()
    assert values(text, "agent_up") == {"": up}
    assert ("watts" in text) is ("joules" in text) is ("jobid" in text) is bool(up)
    assert values(text, "agent_last_look_timestamp_seconds") == {"": NOON + 0.25}
    stub.close()


def anew(exporter: Exporter, stub: Stub) -> str:
    """The exporter's answer once it has asked the agent again; an answer of a moment ago may be given before."""
    asked = stub.asked

    def answer() -> str:
        begin = time.monotonic()
        text = exporter.get().body.decode()
        assert time.monotonic() - begin < 5
        return text if stub.asked > asked else ""

    return until("the agent to be asked", answer, 10)


def test_an_agent_that_dies_or_hangs_or_babbles_has_no_watts() -> None:
    with running() as (exporter, stub):
        assert b"slurm_energy_agent_up 1.0" in exporter.get().body
        for answer in (b"", b"{}", b"\xff" * 100, b'{"version": 1}', b"[" * 100_000, None):
            stub.answer = answer
            text = anew(exporter, stub)
            assert values(text, "agent_up") == {"": 0.0}
            assert "watts" not in text
            assert "jobid" not in text
            assert "joules" not in text
        stub.answer = msgspec.json.encode(now(fixed()))
        assert values(anew(exporter, stub), "agent_up") == {"": 1.0}, "an agent that is back is seen"
        stub.close()
        until("no agent", lambda: b"slurm_energy_agent_up 0.0" in exporter.get().body, 10)
        assert exporter.log.count("WARNING") == 2
        assert "the agent answers again" in exporter.log


def test_negotiation_and_compression() -> None:
    with running() as (exporter, _):
        text, other = exporter.get(), exporter.get(Accept=PROMETHEUS)
        packed = exporter.get(Accept=PROMETHEUS, Accept_Encoding="gzip, deflate")
        head = exporter.get(method="HEAD")
        page, health, nothing = exporter.get("/"), exporter.get("/-/healthy"), exporter.get("/nothing")
    assert text.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert other.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert other.body.endswith(b"# EOF\n")
    assert b"# EOF" not in text.body
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body).endswith(b"# EOF\n")
    assert (head.status, head.body, int(head.headers["Content-Length"])) == (200, b"", len(text.body))
    assert page.status == 200
    assert b'href="/metrics"' in page.body
    assert page.headers["Content-Type"].startswith("text/html")
    assert (health.status, nothing.status) == (200, 404)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        (PROMETHEUS, True),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=0.0.1", False),
        ("application/openmetrics-text; version=1.0.0; q=0.1, text/plain; q=0.9", False),
        ("application/openmetrics-text;q=0,*/*", False),
        ("application/openmetrics-text;q=nan,text/plain;q=inf", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        (";;;,=,q=,\x7f", False),
    ],
)
def test_what_a_client_would_rather_have(accept: str, openmetrics: bool) -> None:
    assert wants_openmetrics(accept) is openmetrics


@pytest.mark.parametrize(
    ("accept", "packed"),
    [
        ("", False),
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("identity", False),
        ("gzip;q=x", False),
    ],
)
def test_gzip_is_asked_for(accept: str, packed: bool) -> None:
    assert wants_gzip(accept) is packed


def test_it_is_light() -> None:
    with running(snapshot=many_jobs(128)) as (exporter, stub):
        until("some answers", lambda: exporter.get(Accept_Encoding="gzip") and stub.asked >= 5, 10)
        maps = Path(f"/proc/{exporter.process.pid}/maps").read_text()
        assert exporter.status("VmHWM") < 40 * 1024
        assert not re.findall(r"duckdb|pandas|numpy|pyarrow", maps)
        assert exporter.stop() == 0


def test_it_imports_nothing_heavy() -> None:
    code = "import sys, slurm_energy_exporters.node; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"duckdb", "pandas", "pyarrow", "ibis", "typer", "rich", "yaml", "bcrypt"} & set(loaded)


UNIT = Path(__file__).parents[2] / "deploy/systemd/slurm-energy-node-exporter.service"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit_and_calls_it_hardened(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/senergy-node-exporter", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if UNIT.name in line]) == (0, [])
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", UNIT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert found
    assert float(found[1]) <= 1.5
