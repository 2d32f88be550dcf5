"""The agent's life on a simulated node: hooks, cgroups, restarts, clocks, full disks. No joule lost, none twice."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from agent_harness import DRAM, GPU, NODE, NOON, NS, PACKAGE, SLUID, Gauge, Node, add_up, hook_bytes, key_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurm_energy.agent.agent import SCAN_NS
from slurm_energy.ledger.segments import SCHEMA, _row
from slurm_energy.slurm.cgroup import Tree

HOUR = 3600
DESIGNED = {
    "schema", "cluster", "node", "job_id", "restart_count", "sluid", "session_start", "user", "uid", "account",
    "partition", "hour", "start", "end", "uj", "gpus", "cpu_time_ns", "samples", "gap_s", "sources", "final",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch) -> None:
    monkeypatch.setattr("slurm_energy.agent.store.os.fdatasync", lambda file: None)


@pytest.fixture(params=[1, 2], ids=["cgroup1", "cgroup2"])
def node(request, tmp_path: Path) -> Node:
    return Node(tmp_path, request.param)


@pytest.fixture
def one(tmp_path: Path) -> Node:
    """A node of cgroup v2, where the version makes no difference."""
    return Node(tmp_path, 2)


def balanced(node: Node) -> None:
    """What was dealt out is what the counter moved."""
    assert node.total()["package"] == node.counters[0].uj


def begin(node: Node, job_id: int = 7, **fields: Any) -> Path:
    """Prolog, agent woken, folder made, as slurmd does it."""
    node.hook("prolog", job_id, **fields)
    node.agent.tick()
    return node.cgroups.add(job_id, sluid=fields.get("SLURM_JOB_SLUID"))


@pytest.mark.parametrize(("version", "fields"), [(1, {}), (2, {}), (2, {"SLURM_JOB_SLUID": SLUID})])
def test_a_folder_made_while_the_agent_looks_is_that_of_its_job_and_of_no_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, fields: dict[str, Any]
) -> None:
    node = Node(tmp_path, version)
    node.hook("prolog", 7, **fields)
    node.agent.tick()
    made: list[Path] = []
    listed = Tree.folders

    def late(tree: Tree, known: Any = ()) -> Any:
        if not made:  # after the agent has asked for the job's folder, before it lists all there are
            made.append(node.cgroups.add(7, sluid=fields.get("SLURM_JOB_SLUID")))
        return listed(tree, known)

    monkeypatch.setattr(Tree, "folders", late)
    node.advance(2 * SCAN_NS / NS, 100)
    assert made
    assert [(one.session.job_id, one.session.origin) for one in node.agent.engine.lives] == [(7, "hook")]
    node.advance(10, 100, {made[0]: 1})
    assert node.job(7).cpu_time_ns == 10 * NS
    assert not any("discovered" in text for text in node.agent.problems)


def end(node: Node, folder: Path, job_id: int = 7, **fields: Any) -> None:
    """Folder away, then the Epilog, agent woken."""
    node.cgroups.remove(folder)
    node.hook("epilog", job_id, **fields)
    node.agent.tick()


def closed(node: Node, job_id: int = 7) -> list[str]:
    return [one["closed"] for one in node.segments(job_id) if one["final"]]


# Sessions by hooks


def test_prolog_and_epilog_begin_and_end_a_session_and_the_job_gets_what_it_used(node: Node) -> None:
    node.advance(60, 50)
    folder = begin(node)
    node.advance(100, 150, {folder: 2})
    end(node, folder)
    node.advance(20, 50)
    # 50 W idle floor, a quarter of it for 2 of 8 CPUs; the 100 W above it are the job's.
    assert node.joules(7) == pytest.approx(100 * (100 + 12.5), rel=0.01)
    assert closed(node) == ["epilog"]
    assert node.job(7) is None
    assert not list(node.hooks.iterdir())
    balanced(node)


def test_two_jobs_on_a_node_share_it_by_cpu_time(node: Node) -> None:
    first, second = begin(node, 1), begin(node, 2)
    node.advance(300, 200, {first: 3, second: 1})
    end(node, first, 1)
    end(node, second, 2)
    assert node.joules(1) == pytest.approx(45_000, rel=0.01)
    assert node.joules(2) == pytest.approx(15_000, rel=0.01)
    balanced(node)


def test_an_epilog_takes_a_last_reading_at_its_own_moment(node: Node) -> None:
    folder = begin(node, SLURM_JOB_EXCLUSIVE="NODE")
    node.advance(10, 100, {folder: 8})
    node.move(0.4, 100, {folder: 8})
    node.hook("epilog", 7)
    node.move(0.4, 100)
    node.agent.tick()
    assert node.joules(7) == pytest.approx(10.4 * 100)
    balanced(node)


def test_the_last_seen_rate_of_cpu_time_counts_once_the_folder_is_gone(node: Node) -> None:
    mine, other = begin(node, 7), begin(node, 8)
    node.advance(10, 100, {mine: 3, other: 1})
    before = node.joules(7)
    node.cgroups.remove(mine)
    node.advance(3, 100, {other: 1})
    assert node.joules(7) - before == pytest.approx(225, rel=0.01)
    node.hook("epilog", 7)
    node.agent.tick()
    assert closed(node) == ["epilog"]


def test_a_hook_that_wakes_the_agent_at_once_does_not_spoil_the_rate_of_the_others(node: Node) -> None:
    mine, other = begin(node, 7), begin(node, 8)
    node.advance(10, 100, {mine: 3, other: 1})
    node.move(0.001, 100)  # a look in which the kernel has not counted on
    node.agent.tick()
    assert node.job(7).cpu_rate == pytest.approx(3)


def test_a_job_whose_folder_was_found_late_has_the_rate_of_its_whole_time(one: Node) -> None:
    folder = begin(one)
    one.move(1, 100, {folder: 2})
    one.agent.tick()
    one.advance(2, 100, {folder: 2})
    assert one.job(7).cpu_rate == pytest.approx(2, rel=0.01)


def test_an_exclusive_job_gets_all_that_its_node_draws(node: Node) -> None:
    folder = begin(node, SLURM_JOB_OVERSUBSCRIBE="NO")
    node.advance(100, 130, {folder: 0})
    end(node, folder)
    assert node.joules(7) == pytest.approx(13_000)


def test_a_requeue_on_the_same_node_is_a_session_of_its_own(node: Node) -> None:
    folder = begin(node)
    node.advance(60, 100, {folder: 2})
    end(node, folder)
    folder = begin(node, SLURM_JOB_RESTART_COUNT=1)
    node.advance(60, 100, {folder: 2})
    end(node, folder, SLURM_JOB_RESTART_COUNT=1)
    finals = {one["restart_count"]: one for one in node.segments(7) if one["final"]}
    assert sorted(finals) == [0, 1]
    assert len({key_of(one) for one in finals.values()}) == 2
    assert closed(node) == ["epilog", "epilog"]
    balanced(node)


def test_a_job_that_begins_again_without_an_epilog_closes_its_earlier_run(node: Node) -> None:
    folder = begin(node)
    node.advance(10, 100, {folder: 2})
    node.cgroups.remove(folder)
    begin(node, SLURM_JOB_RESTART_COUNT=1)
    node.advance(5)
    assert closed(node) == ["orphan"]
    assert node.job(7).restart_count == 1
    assert any("without an Epilog" in text for text in node.agent.problems)


def test_a_job_whose_folder_is_gone_and_whose_epilog_never_comes_is_closed_as_an_orphan(node: Node) -> None:
    folder = begin(node)
    node.advance(10, 100, {folder: 2})
    node.cgroups.remove(folder)
    node.advance(55)
    assert node.job(7) is not None
    node.advance(15)
    assert closed(node) == ["orphan"]
    assert any("gone without an Epilog" in text for text in node.agent.problems)
    balanced(node)


def test_an_epilog_of_a_job_that_nobody_knows_does_nothing(one: Node) -> None:
    one.hook("epilog", 99)
    one.advance(3)
    assert not one.segments(99)
    balanced(one)


def test_hooks_that_come_together_happen_in_the_order_of_their_time(one: Node) -> None:
    one.move(10, 100)
    one.hook("epilog", 7, one.wall - 2 * NS)
    one.hook("prolog", 7, one.wall - 8 * NS, SLURM_JOB_OVERSUBSCRIBE="NO")
    one.agent.tick()
    assert one.joules(7) == pytest.approx(600)
    assert closed(one) == ["epilog"]


def test_sessions_hold_the_gpus_that_slurm_numbers_and_the_segment_names_them(tmp_path: Path) -> None:
    gpus = [Gauge(GPU, f"nvml:{n}", device=f"GPU-{n}", minor=n, model="H100") for n in range(2)]
    node = Node(tmp_path, 2, [Gauge(PACKAGE, "package"), *gpus])
    folder = begin(node, SLURM_JOB_GPUS="1")
    node.advance(10, {"package": 100, "nvml:0": 60, "nvml:1": 300})
    end(node, folder)
    (last,) = [one for one in node.segments(7) if one["final"]]
    assert last["gpus"] == [{"uuid": "GPU-1", "model": "H100", "uj": 3_000_000_000}]
    assert node.joules(7, "gpu") == 3000
    assert node.joules(0, "gpu") == 600


# Jobs without a hook


def test_a_job_without_a_hook_is_discovered_and_sampled_from_then_on(node: Node) -> None:
    said = {"SLURM_JOB_ID": "7", "SLURM_JOB_USER": "emma", "SLURM_JOB_ACCOUNT": "lisa", "SLURM_CPUS_ON_NODE": "2"}
    folder = node.cgroups.add(7, environment=said, proc=node.proc)
    node.cgroups.use(folder, 5000)
    node.advance(6, 100, {folder: 2})
    job = node.job(7)
    assert (job.origin, job.user, job.account, job.cpus) == ("discovered", "emma", "lisa", 2)
    node.advance(60, 100, {folder: 2})
    assert job.cpu_time_ns < 68 * 2 * NS  # what it used before it was seen is not of this time
    end(node, folder)
    assert closed(node) == ["epilog"]
    assert [one["origin"] for one in node.segments(7)] == ["discovered"]
    balanced(node)


def test_a_hook_that_comes_after_the_discovery_goes_on_with_the_same_session(node: Node) -> None:
    folder = node.cgroups.add(7)
    node.advance(10, 100, {folder: 2})
    assert node.job(7).origin == "discovered"
    node.hook("prolog", 7, SLURM_JOB_RESTART_COUNT=1)
    node.advance(10, 100, {folder: 2})
    job = node.job(7)
    assert (job.origin, job.user, job.restart_count) == ("hook", "emma", 1)
    end(node, folder, SLURM_JOB_RESTART_COUNT=1)
    assert len(node.segments(7)) == 1
    assert node.joules(7) >= 1400
    balanced(node)


def test_a_discovered_job_that_is_gone_is_not_taken_for_its_next_run(node: Node) -> None:
    folder = node.cgroups.add(7)
    node.advance(10, 100, {folder: 2})
    node.cgroups.remove(folder)
    node.advance(3)
    begin(node)
    assert closed(node) == ["orphan"]
    assert node.job(7).origin == "hook"


def test_a_job_of_slurm_26_is_found_by_its_sluid(tmp_path: Path) -> None:
    node = Node(tmp_path, 2)
    folder = begin(node, SLURM_JOB_SLUID=SLUID)
    assert folder.name == SLUID
    node.advance(30, 100, {folder: 2})
    job = node.job(7)
    assert (job.sluid, job.seen) == (SLUID, True)
    assert job.cpu_time_ns == pytest.approx(60 * NS, rel=0.1)
    end(node, folder, SLURM_JOB_SLUID=SLUID)
    assert {one["sluid"] for one in node.segments(7)} == {SLUID}
    balanced(node)


def test_a_sluid_folder_without_hook_or_environment_is_a_job_known_by_its_sluid_alone(tmp_path: Path) -> None:
    node = Node(tmp_path, 2)
    folder = node.cgroups.add(0, sluid=SLUID)
    node.advance(10, 100, {folder: 2})
    assert node.job(-1).sluid == SLUID
    node.hook("epilog", 7, SLURM_JOB_SLUID=SLUID)
    node.cgroups.remove(folder)
    node.agent.tick()
    (last,) = [one for one in node.segments() if one["final"]]
    assert (last["job_id"], last["sluid"], last["user"], last["origin"]) == (7, SLUID, "emma", "discovered")


def test_folders_that_are_no_jobs_are_no_jobs(node: Node) -> None:
    for name in ("job_x", "job_", "system", "sTOOSHORT", "job_7_extra"):
        (node.cgroups.base / name).mkdir()
    node.advance(5)
    assert node.agent.engine.lives == []


def test_a_folder_that_outlives_its_job_is_never_taken_for_a_new_one(node: Node) -> None:
    folder = begin(node)
    node.advance(5, 100, {folder: 2})
    node.hook("epilog", 7)
    node.advance(70)
    node.start()
    node.advance(70)
    assert node.job(7) is None
    assert len(closed(node)) == 1


# Restarts


def test_after_kill_and_restart_the_job_gets_what_moved_meanwhile(node: Node) -> None:
    folder = begin(node, SLURM_JOB_OVERSUBSCRIBE="NO")
    node.advance(30, 100, {folder: 8})
    node.move(100, 200, {folder: 8})  # the agent is dead
    node.start()
    node.advance(10, 100, {folder: 8})
    end(node, folder)
    assert node.joules(7) == pytest.approx(24_000)
    assert closed(node) == ["epilog"]
    balanced(node)


def test_jobs_that_ended_and_began_while_the_agent_was_dead_get_their_parts(one: Node) -> None:
    folder = begin(one, SLURM_JOB_OVERSUBSCRIBE="NO")
    one.advance(30, 100, {folder: 8})
    one.move(100, 100, {folder: 8})
    one.hook("epilog", 7)
    one.cgroups.remove(folder)
    one.move(50, 100)
    one.hook("prolog", 8, SLURM_JOB_OVERSUBSCRIBE="NO")
    folder = one.cgroups.add(8)
    one.move(150, 100, {folder: 8})
    one.start()
    assert one.joules(7) == pytest.approx(13_000, rel=0.001)
    assert one.joules(8) == pytest.approx(15_000, rel=0.001)
    balanced(one)


def test_a_restart_across_hours_labels_each_hour_with_its_part(tmp_path: Path) -> None:
    one = Node(tmp_path, 2, [Gauge(PACKAGE, "without-a-range")])
    one.advance(60, 100)
    one.move(2 * HOUR, 100)
    one.start()
    one.advance(HOUR, 100, step=60)
    by_hour = {segment["hour"]: segment["uj"]["package"] / 1e6 for segment in one.segments(0)}
    assert by_hour["2026-11-24T12"] == pytest.approx(360_000)
    assert by_hour["2026-11-24T13"] == pytest.approx(360_000)
    balanced(one)


def test_a_reboot_closes_the_jobs_and_makes_up_nothing(node: Node) -> None:
    folder = begin(node)
    node.advance(60, 100, {folder: 2})
    seen = node.total()["package"]
    node.cgroups.remove(folder)
    (node.proc / "sys/kernel/random/boot_id").write_text("boot-2\n")
    node.mono, node.wall = 5 * NS, node.wall + 300 * NS
    node.counters[0].uj = 77_000_000  # counts from zero again
    node.tell()
    node.start()
    assert node.job(7) is None
    assert closed(node) == ["reboot"]
    node.advance(10, 100)
    assert seen - 11_000_000 * 100 <= node.total()["package"] - 1_000_000_000 <= seen
    assert any("earlier boot" in text for text in node.agent.problems)


def test_an_agent_that_is_taken_out_leaves_nothing_open_and_the_next_one_begins_anew(node: Node) -> None:
    folder = begin(node)
    node.advance(60, 100, {folder: 2})
    node.agent.stop()
    node.move(5, 100, {folder: 2})
    node.start().finish()
    assert node.total() == add_up(node.shipped())
    assert closed(node) == ["taken out"]
    assert node.counters[0].uj == node.total()["package"]
    node.agent.finish()
    taken_out = node.total()["package"]
    node.move(3600, 100, {folder: 2})  # nobody measures
    node.start()
    node.advance(10, 100, {folder: 2})
    assert node.total()["package"] - taken_out == 1_000_000_000
    assert list(node.agent.problems) == []


def test_a_restart_without_anything_new_cuts_nothing_and_counts_nothing_twice(node: Node) -> None:
    folder = begin(node)
    node.advance(60, 100, {folder: 2})
    for _ in range(20):
        node.start()
    assert node.segments() == []
    assert len(node.agent.engine.lives) == 1
    balanced(node)


def test_an_agent_that_was_stopped_in_order_goes_on_with_the_same_session(one: Node) -> None:
    folder = begin(one)
    one.advance(60, 100, {folder: 2})
    one.agent.stop()
    one.move(30, 100, {folder: 2})
    one.start()
    one.advance(10, 100, {folder: 2})
    end(one, folder)
    assert len(one.segments(7)) == 1
    balanced(one)


def test_power_that_this_process_integrates_is_a_gap_while_it_did_not_run(tmp_path: Path) -> None:
    gpu = Gauge(GPU, "amdgpu:0", device="a", integrated=True)
    node = Node(tmp_path, 2, [Gauge(PACKAGE, "package"), gpu])
    folder = begin(node)
    node.advance(30, 100, {folder: 2})
    node.move(100, 100, {folder: 2})
    gpu.uj = 0
    node.start()
    assert node.job(7).gap_ns == pytest.approx(100 * NS, abs=11 * NS)
    balanced(node)


def test_a_hook_file_that_is_read_twice_begins_nothing_anew(one: Node, monkeypatch) -> None:
    """Killed after the checkpoint and before the files were removed."""
    monkeypatch.setattr(
        "slurm_energy.agent.hooks.os.unlink", lambda path: (_ for _ in ()).throw(OSError(errno.EIO, ""))
    )
    one.hook("prolog", 7)
    one.move(1)
    one.agent.tick()
    one.move(30)
    one.hook("epilog", 7, one.wall - NS)
    one.hook("prolog", 7, SLURM_JOB_RESTART_COUNT=1)
    one.agent.tick()
    assert len(list(one.hooks.iterdir())) == 3
    monkeypatch.undo()
    one.start()
    one.advance(15)
    assert [run["closed"] for run in one.segments(7)] == ["epilog"]
    assert one.job(7).restart_count == 1
    assert not list(one.hooks.iterdir())
    balanced(one)


def test_a_hook_file_stays_until_a_checkpoint_has_its_effect(one: Node, monkeypatch) -> None:
    write = os.write
    full = [True]

    def refuse(file: int, data: bytes) -> int:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    one.hook("prolog", 7)
    monkeypatch.setattr("slurm_energy.agent.store.os.write", refuse)
    one.move(1)
    one.agent.tick()
    assert one.job(7) is not None
    one.start()  # killed: the checkpoint does not know of the job, the file does
    assert one.job(7) is not None
    full[0] = False
    one.advance(12)
    assert not list(one.hooks.iterdir())


def test_the_clusters_name_that_a_hook_said_survives_a_restart(tmp_path: Path) -> None:
    node = Node(tmp_path, 2, cluster="")
    begin(node)
    node.advance(15)
    node.start()
    assert node.agent.names.cluster == "alpha"


def test_a_cluster_that_the_site_names_cluster_is_called_so_whatever_the_hooks_say(tmp_path: Path) -> None:
    node = Node(tmp_path, 2, cluster="cluster")
    end(node, begin(node))
    assert {one["cluster"] for one in node.segments()} == {"cluster"}


def test_segments_say_cluster_until_a_hook_has_said_the_name(tmp_path: Path) -> None:
    node = Node(tmp_path, 2, cluster="")
    node.advance(HOUR, 100, step=60)
    assert node.agent.names.cluster == ""
    node.start()
    node.advance(60)
    end(node, begin(node))
    assert [(one["job_id"], one["cluster"]) for one in node.segments()] == [(0, "cluster"), (7, "alpha")]


def test_a_cluster_that_was_renamed_is_called_as_the_hooks_say_now(tmp_path: Path) -> None:
    node = Node(tmp_path, 2, cluster="")
    end(node, begin(node))
    node.start()
    end(node, begin(node, 8, SLURM_CLUSTER_NAME="beta"), 8, SLURM_CLUSTER_NAME="beta")
    assert {one["job_id"]: one["cluster"] for one in node.segments()} == {7: "alpha", 8: "beta"}


def test_a_node_that_the_site_does_not_name_is_called_as_the_hooks_say_and_its_tree_is_found(tmp_path: Path) -> None:
    node = Node(tmp_path, 2, node="")
    own = tmp_path / "cgroup/system.slice/n1_slurmstepd.scope"
    node.cgroups.base.rename(own)
    node.cgroups.base = own
    folder = begin(node)
    node.advance(5, 100, {folder: 2})
    assert node.job(7).seen
    node.start()
    node.advance(5, 100, {folder: 2})
    end(node, folder)
    assert {one["node"] for one in node.segments(7)} == {"n1"}


def test_hooks_of_another_node_of_the_host_are_left_to_its_agent(one: Node) -> None:
    path = one.hook("prolog", 7, SLURMD_NODENAME="n2")
    one.advance(15)
    assert one.job(7) is None
    assert path.exists()


# What lies in its folders


@pytest.mark.parametrize("damage", ["torn", "foreign", "empty", "other version"])
def test_a_checkpoint_that_cannot_be_read_is_set_aside_and_the_agent_begins_anew(one: Node, damage: str) -> None:
    folder = begin(one)
    one.advance(30, 100, {folder: 2})
    path = one.root / "state/checkpoint"
    data = path.read_bytes()
    path.write_bytes(
        {"torn": data[: len(data) // 2], "foreign": b"\x93abc", "empty": b"", "other version": _other(data)}[damage]
    )
    one.start()
    assert one.agent.store.set_aside == 1
    assert len(list((one.root / "state").glob("checkpoint.unreadable-*"))) == 1
    one.advance(10, 100, {folder: 2})
    assert one.job(7).origin == "discovered"


def _other(data: bytes) -> bytes:
    return msgspec.msgpack.encode({**msgspec.msgpack.decode(data), "version": 99})


def test_files_of_before_a_lost_checkpoint_are_not_overwritten(one: Node) -> None:
    for _ in range(2):
        folder = begin(one)
        one.advance(10, 100, {folder: 2})
        end(one, folder)
        one.advance(301, 100)
        one.move(1)
        (one.root / "state/checkpoint").write_bytes(b"torn")
        one.start()
    assert len([run for run in one.shipped() if run["final"]]) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", b"EVENT=prolog\0", hook_bytes("prolog", 7)[:-4], hook_bytes("lunch", 7), hook_bytes("prolog", 0),
        hook_bytes("prolog", 7, SLURM_JOB_UID="root"), b"A" * 70_000, bytes(range(256)),
        hook_bytes("prolog", 7, SLURM_JOB_GPUS="0-99999"),
    ],
)  # fmt: skip
def test_a_bad_hook_file_is_set_aside_and_counted_and_hurts_nothing(one: Node, data: bytes) -> None:
    one.drop("7.0.1-prolog.1", data)
    begin(one, 8)
    one.advance(3)
    assert one.agent.hooks.bad == 1
    assert [file.read_bytes() for file in (one.root / "state/bad-hooks").iterdir()] == [data]
    assert one.job(7) is None
    assert one.job(8) is not None
    assert any("set aside" in text for text in one.agent.problems)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200) | st.builds(lambda b: b + b"\0END=1\0", st.binary(max_size=200)), max_size=4))
def test_no_bytes_in_the_hook_folder_stop_the_agent(one: Node, files: list[bytes]) -> None:
    before = one.agent.hooks.bad
    for number, data in enumerate(files):
        one.drop(f"x{number}", data)
    one.advance(1)
    assert one.agent.hooks.bad == before + len(files)
    assert not list(one.hooks.iterdir())
    balanced(one)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same file system", "another file system"])
def test_folders_links_and_pipes_in_the_hook_folder_make_nobody_wait(one: Node, monkeypatch, elsewhere: bool) -> None:
    if elsewhere:
        rename = os.rename

        def refuse(source: str, target: str) -> None:
            if "bad-hooks" in str(target):
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            rename(source, target)

        monkeypatch.setattr("slurm_energy.agent.hooks.os.rename", refuse)
    secret = one.root / "secret"
    secret.write_text("secret")
    (one.hooks / "folder").mkdir()
    (one.hooks / "link").symlink_to(secret)
    os.mkfifo(one.hooks / "pipe")
    one.advance(5)
    assert one.agent.hooks.bad == 3
    assert secret.read_text() == "secret"
    kept = list((one.root / "state/bad-hooks").iterdir())
    assert all(file.is_symlink() or not file.is_file() or b"secret" not in file.read_bytes() for file in kept)


def test_a_bad_hook_file_on_a_full_disk_does_not_stop_the_agent(one: Node, monkeypatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("slurm_energy.agent.hooks.Path.mkdir", refuse)
    one.drop("bad", b"rubbish")
    one.advance(2)
    assert one.agent.hooks.bad == 1
    assert not list(one.hooks.iterdir())


def test_dot_files_of_hooks_at_work_are_left_alone(one: Node) -> None:
    (one.hooks / ".7.0.1-prolog.1").write_bytes(b"EVENT=pro")
    one.advance(3)
    assert (one.agent.hooks.bad, len(list(one.hooks.iterdir()))) == (0, 1)


def test_of_more_files_than_one_look_takes_each_epilog_still_finds_its_prolog(one: Node, monkeypatch) -> None:
    monkeypatch.setattr("slurm_energy.agent.hooks.MAX_FILES", 7)
    for job_id in range(10, 40):
        one.hook("prolog", job_id)
        one.hook("epilog", job_id)
    one.advance(12)
    assert one.agent.engine.lives == []
    assert {segment["job_id"] for segment in one.segments() if segment["final"]} == set(range(10, 40))


# A full disk


def test_a_full_disk_costs_nothing_but_is_said(one: Node, monkeypatch) -> None:
    folder = begin(one, SLURM_JOB_OVERSUBSCRIBE="NO")
    one.advance(5, 100, {folder: 8})
    write = os.write
    full = [True]

    def refuse(file: int, data: bytes) -> int:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr("slurm_energy.agent.store.os.write", refuse)
    one.advance(HOUR + 20, 100, {folder: 8}, step=60)
    assert "No space left" in one.agent.store.problem
    assert one.shipped() == []
    balanced(one)
    full[0] = False
    one.advance(400, 100, {folder: 8}, step=60)
    assert one.agent.store.problem == ""
    assert {segment["job_id"] for segment in one.shipped()} == {0, 7}
    end(one, folder)
    one.start()
    balanced(one)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_state_folder_that_is_really_full_is_outlived(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], check=False).returncode:
        pytest.skip("no right to mount")
    try:
        node = Node(tmp_path / "node", 2, state_dir=str(disk / "state"), outbox=str(disk / "outbox"))
        node.outbox = disk / "outbox"
        filler = disk / "filler"
        node.advance(15, 100)
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(b"x" * (1 << 20))
        node.advance(HOUR + 30, 100, step=60)
        assert "No space left" in node.agent.store.problem
        filler.unlink()
        node.advance(400, 100, step=60)
        assert node.agent.store.problem == ""
        assert [one["hour"] for one in node.shipped()] == ["2026-11-24T12"]
        node.start()
        balanced(node)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_outbox_keeps_segments_in_memory_and_warns_before(one: Node) -> None:
    one.options = msgspec.structs.replace(one.options, outbox_limit_mb=1)
    one.start()
    filler = one.outbox / "filler"
    filler.write_bytes(b"x" * (700 << 10))
    one.advance(HOUR + 10, 100, step=60)
    assert any("outbox" in text for text in one.agent.problems)
    before = len(one.shipped())
    filler.write_bytes(b"x" * (2 << 20))
    one.advance(2 * HOUR, 100, step=60)
    assert len(one.shipped()) == before
    filler.unlink()
    one.advance(10, 100)
    assert len(one.shipped()) == before + 2
    balanced(one)


# Clocks and hours


def test_each_hour_has_its_own_segment_and_the_last_one_is_final(node: Node) -> None:
    folder = begin(node, SLURM_JOB_OVERSUBSCRIBE="NO")
    node.advance(2 * HOUR + 600, 100, {folder: 8}, step=30)
    end(node, folder)
    found = sorted(node.segments(7), key=lambda one: one["hour"])
    assert [one["hour"] for one in found] == ["2026-11-24T12", "2026-11-24T13", "2026-11-24T14"]
    assert [one["final"] for one in found] == [False, False, True]
    assert [one["uj"]["package"] / 1e6 for one in found] == pytest.approx([360_000, 360_000, 60_000], rel=0.001)
    assert [one["end"] for one in found[:2]] == [one["start"] for one in found[1:]]
    assert found[1]["start"] == (NOON + HOUR) * NS
    balanced(node)


@pytest.mark.parametrize("jump_s", [-3 * HOUR, -90, 90, 3 * HOUR])
def test_a_clock_that_jumps_moves_no_energy_and_no_label_goes_back(node: Node, jump_s: int) -> None:
    folder = begin(node, SLURM_JOB_OVERSUBSCRIBE="NO")
    node.advance(1800, 100, {folder: 8}, step=60)
    node.wall += jump_s * NS
    node.tell()
    node.advance(2 * HOUR, 100, {folder: 8}, step=60)
    node.start()
    node.advance(60, 100, {folder: 8}, step=60)
    end(node, folder)
    assert node.joules(7) == pytest.approx((1800 + 2 * HOUR + 60) * 100)
    labels = [one["hour"] for one in node.segments(7)]
    assert labels == sorted(set(labels))
    assert all(one["end"] >= one["start"] for one in node.segments())
    assert all(_row(_json(one)) for one in node.segments())
    assert node.agent.engine.jumps >= (abs(jump_s) > 2) - 1
    balanced(node)


def _json(segment: dict[str, Any]) -> bytes:
    return msgspec.json.encode(segment)


def test_a_segment_s_line_is_what_it_ever_was(one: Node) -> None:
    """To the byte: what is in outboxes and inboxes while a cluster is upgraded node by node."""
    folder = begin(one, SLURM_JOB_OVERSUBSCRIBE="NO")
    one.advance(10, 100, {folder: 2})
    end(one, folder)
    one.advance(301, 100)
    assert next(one.outbox.glob("*.jsonl")).read_text() == (
        '{"schema":1,"cluster":"alpha","node":"n1","job_id":7,"restart_count":0,"sluid":null,"session_start":1795521600,'
        '"user":"emma","uid":1000,"account":"lisa","partition":"gpu","hour":"2026-11-24T12","start":1795521600000000000,'
        '"end":1795521610000000000,"uj":{"package":1000000000,"dram":0,"gpu":0,"other":0},"gpus":[],'
        '"cpu_time_ns":20000000000,"samples":12,"gap_s":0.0,"gpu_gap_s":0.0,"sources":["rapl/0.1"],"measured":["package"],'
        '"origin":"hook","closed":"epilog","final":true}\n'
    )


def test_segments_are_as_designed_and_the_ledger_takes_them(tmp_path: Path) -> None:
    gauges = [
        Gauge(PACKAGE, "package"),
        Gauge(DRAM, "dram"),
        Gauge(GPU, "g", device="GPU-0", minor=0),
        Gauge(NODE, "w"),
    ]
    node = Node(tmp_path, 1, gauges)
    folder = begin(node, SLURM_JOB_GPUS="0", SLURM_JOB_RESTART_COUNT=2)
    node.advance(10, {"package": 100, "dram": 10, "g": 200, "w": 400}, {folder: 2})
    end(node, folder, SLURM_JOB_RESTART_COUNT=2)
    (last,) = node.segments(7)
    assert set(last) >= DESIGNED
    assert last["schema"] == 1
    assert (last["cluster"], last["node"], last["user"], last["uid"]) == ("alpha", "n1", "emma", 1000)
    assert (last["account"], last["partition"], last["restart_count"], last["sluid"]) == ("lisa", "gpu", 2, None)
    assert set(last["uj"]) == {"package", "dram", "gpu", "other"}
    assert all(type(uj) is int for uj in last["uj"].values())
    assert last["measured"] == ["dram", "gpu", "node", "package"]
    assert last["session_start"] == NOON
    assert last["start"] >= NOON * NS
    assert dict(zip(SCHEMA.names, _row(_json(last)), strict=True))["gpu_uj"] == 2_000_000_000
    sums = add_up(node.segments())
    assert sum(sums.values()) <= 4_000_000_000


def test_every_domain_adds_up_over_jobs_restarts_and_hours(tmp_path: Path) -> None:
    gauges = [Gauge(PACKAGE, "p"), Gauge(DRAM, "d"), Gauge(GPU, "g", device="GPU-0", minor=0), Gauge(NODE, "w")]
    node = Node(tmp_path, 2, gauges)
    watts = {"p": 97.3, "d": 11.1, "g": 203.7, "w": 402.9}
    folders = {}
    for step in range(120):
        if step % 7 == 0:
            folders[step] = begin(node, 100 + step, SLURM_JOB_GPUS="0" if step % 2 else "")
        if step % 7 == 5 and len(folders) > 2:
            first = min(folders)
            end(node, folders.pop(first), 100 + first)
        node.move(97, watts, dict.fromkeys(folders.values(), 0.3 * (1 + step % 3)))
        if step % 11 == 3:
            node.start()
        node.agent.tick()
    sums = node.total()
    p, d, g, w = (gauge.uj for gauge in gauges)
    assert (sums["package"], sums["dram"], sums["gpu"]) == (p, d, g)
    assert sums["other"] == w - p - d - g - node.agent.engine.carry_uj


def test_what_a_killed_hook_left_an_hour_ago_is_swept_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    from slurm_energy.agent.hooks import HookFolder
    from slurm_energy.agent.node import Names

    old, new, whole = tmp_path / ".7.0.1-prolog.9", tmp_path / ".8.0.1-prolog.9", tmp_path / "9.0.1-prolog.9"
    for path in (old, new, whole):
        path.write_bytes(b"x")
    os.utime(old, (1000, 1000))
    os.utime(whole, (1000, 1000))
    HookFolder(tmp_path, tmp_path / "aside", Names("n1", ""), print).sweep(2000 * 1_000_000_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, whole.name]


class Asked(Gauge):
    """A GPU whose driver says which processes use it."""

    __slots__ = ("pids",)

    def holders(self) -> list[int]:
        return self.pids


def with_gpus(tmp_path: Path, version: int) -> tuple[Node, list[Asked]]:
    gpus = [Asked(GPU, f"nvml:{number}", device=f"GPU-{number}", minor=number) for number in range(2)]
    for gpu in gpus:
        gpu.pids = []
    return Node(tmp_path, version, [Gauge(PACKAGE, "p"), *gpus]), gpus


@pytest.mark.parametrize("version", [1, 2])
def test_a_discovered_job_gets_the_gpu_on_which_the_driver_sees_its_processes(tmp_path: Path, version: int) -> None:
    node, gpus = with_gpus(tmp_path, version)
    gpus[1].pids = [4711]
    folder = node.cgroups.add(7, pid=4711)
    node.advance(12, 100, {folder: 1})
    assert node.job(7).gpus == ["GPU-1"]
    before = node.job(7).gpu
    node.advance(10, 100, {folder: 1})
    assert node.job(7).gpu - before == 1_000_000_000
    end(node, folder)
    assert node.segments(7)[-1]["measured"] == ["gpu", "package"]


def test_gpus_of_a_discovered_job_that_nobody_knows_of_are_not_called_measured(tmp_path: Path) -> None:
    node, _ = with_gpus(tmp_path, 2)
    folder = node.cgroups.add(7)
    node.advance(12, 100, {folder: 1})
    assert any("not known" in text for text in node.agent.problems)
    end(node, folder)
    assert node.segments(7)[-1]["measured"] == ["package"]
    assert node.segments(7)[-1]["uj"]["gpu"] == 0


def test_gpus_that_slurm_gave_and_no_counter_knows_are_a_gap_in_their_part(tmp_path: Path) -> None:
    node, gpus = with_gpus(tmp_path, 2)
    half, none, whole = begin(node, 7, SLURM_JOB_GPUS="1,6"), begin(node, 8, SLURM_JOB_GPUS="4,5"), begin(node, 9)
    busy = {half: 1, none: 1, whole: 1}
    node.advance(10, 100, busy)
    assert [node.job(job).gpu_gap_ns for job in (7, 8, 9)] == [5 * NS, 10 * NS, 0]
    gpus[1].broken = "fell off the bus"
    node.advance(10, 100, busy)
    assert [node.job(job).gpu_gap_ns for job in (7, 8, 9)] == [15 * NS, 20 * NS, 0]
    assert [node.job(job).gap_ns for job in (7, 8, 9)] == [0, 0, 0]


def test_one_gpu_of_two_that_is_lost_is_half_a_gap(tmp_path: Path) -> None:
    node, gpus = with_gpus(tmp_path, 2)
    folder = begin(node, 7, SLURM_JOB_GPUS="0,1")
    gpus[0].broken = "fell off the bus"
    node.advance(20, 100, {folder: 1})
    assert (node.job(7).gpu_gap_ns, node.job(7).gap_ns) == (10 * NS, 0)


def test_a_gpu_that_is_lost_is_a_gap_of_its_holder_alone(tmp_path: Path) -> None:
    node, gpus = with_gpus(tmp_path, 2)
    holder, other = begin(node, 7, SLURM_JOB_GPUS="1"), begin(node, 8)
    node.advance(5, 100, {holder: 1, other: 1})
    gpus[1].broken = "fell off the bus"
    node.advance(20, 100, {holder: 1, other: 1})
    assert (node.job(7).gpu_gap_ns, node.job(7).gap_ns) == (20 * NS, 0)
    assert (node.job(8).gpu_gap_ns, node.job(8).gap_ns) == (0, 0)
