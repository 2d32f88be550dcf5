"""The Prolog and Epilog scripts: what they drop, and that nothing makes them fail, wait or speak."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurm_energy.slurm.hookfile import parse_hook

SLURM = Path(__file__).parents[2] / "deploy" / "slurm"
HOOKS = {event: SLURM / f"{event}.d" / "50-slurm-energy" for event in ("prolog", "epilog")}
SHELLS = [shell for shell in ("dash", "bash", "busybox", "mksh") if shutil.which(shell)]
JOB = {
    "SLURM_JOB_ID": "4711", "SLURM_JOB_UID": "1001", "SLURM_JOB_USER": "emma", "SLURM_JOB_ACCOUNT": "lisa",
    "SLURM_JOB_PARTITION": "gpu", "SLURM_JOB_CPUS_PER_NODE": "2(x2),4", "SLURM_JOB_NUM_NODES": "3",
    "SLURM_NODELIST": "n[1-3]", "SLURM_JOB_GPUS": "0,2-3", "SLURM_JOB_RESTART_COUNT": "1",
    "SLURM_CLUSTER_NAME": "alpha", "SLURMD_NODENAME": "n1", "SLURM_JOB_SLUID": "s5R9M87DNTRZ00",
    "SLURM_JOB_START_TIME": "1795521600", "SLURM_JOB_EXCLUSIVE": "NODE",
}  # fmt: skip


def interpreter(shell: str) -> list[str]:
    """What goes before a script to run it by this shell; '': by its first line."""
    path = shutil.which(shell) if shell else None
    return [path, *(["sh"] if shell == "busybox" else [])] if path else []


def call(
    hook: Path, folder: Path | str, variables: dict[str, str] | dict[bytes, bytes], shell: str = "", **options: object
) -> subprocess.CompletedProcess[bytes]:
    """Runs a hook as slurmd does: nothing in its environment but these."""
    command = [*interpreter(shell), hook]
    environment = {os.fsencode(key): os.fsencode(value) for key, value in variables.items()}
    environment[b"SENERGY_HOOKS"] = os.fsencode(folder)
    return subprocess.run(command, env=environment, capture_output=True, timeout=20, check=False, **options)  # type: ignore[call-overload,no-any-return]


def quiet(done: subprocess.CompletedProcess[bytes]) -> bool:
    return (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.fixture(params=["ro", "full", "no inodes"])
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on a small filesystem on which nothing can be written."""
    options = {"ro": "ro,size=16k", "full": "size=16k", "no inodes": "size=1m,nr_inodes=2"}[request.param]
    folder = tmp_path / "hooks"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small filesystem needs root")
    try:
        if request.param == "full":
            with contextlib.suppress(OSError), (folder / "filler").open("wb", 0) as filler:
                while filler.write(bytes(512)):
                    pass
        if request.param == "no inodes":
            (folder / "filler").touch()
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("event", HOOKS)
@pytest.mark.parametrize("shell", ["", *SHELLS])
def test_a_hook_drops_one_private_file_that_says_the_job(event: str, shell: str, tmp_path: Path) -> None:
    assert quiet(call(HOOKS[event], tmp_path, JOB, shell))
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    hook = parse_hook(file.read_bytes(), 5, "elsewhere")
    assert hook == (
        event, 4711, 1, 1001, "emma", "lisa", "gpu", "alpha", "n1", "s5R9M87DNTRZ00", 1_795_521_600, 2, (0, 2, 3), True, 5
    )  # fmt: skip


def test_the_two_scripts_differ_only_in_the_event_and_the_exit_code() -> None:
    prolog, epilog = (HOOKS[event].read_text().splitlines() for event in ("prolog", "epilog"))
    only = set(prolog) ^ set(epilog)
    assert {line for line in only if not line.startswith("#")} == {
        "event=prolog order=1", "event=epilog order=2", '  "SLURM_JOB_EXIT_CODE=$SLURM_JOB_EXIT_CODE" \\',
    }  # fmt: skip
    assert all(os.access(hook, os.X_OK) for hook in HOOKS.values())


def test_the_names_of_one_run_sort_as_they_happened(tmp_path: Path) -> None:
    for restart in ("0", "1"):
        for event in ("prolog", "epilog"):
            call(HOOKS[event], tmp_path, {**JOB, "SLURM_JOB_RESTART_COUNT": restart})
    names = sorted(file.name for file in tmp_path.iterdir())
    assert [re.sub(r"\.\d+$", "", name) for name in names] == [
        "4711.0.1-prolog", "4711.0.2-epilog", "4711.1.1-prolog", "4711.1.2-epilog",
    ]  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("job_id", ["../../etc/x", "1; touch /tmp/x", "$(reboot)", "-1", "9" * 300, "4 2", "*", "\n"])
def test_a_job_id_that_is_no_number_gets_into_no_file_name(job_id: str, shell: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "hooks"
    folder.mkdir(parents=True)
    assert quiet(
        call(HOOKS["prolog"], folder, {**JOB, "SLURM_JOB_ID": job_id, "SLURM_JOB_RESTART_COUNT": job_id}, shell)
    )
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert re.fullmatch(r"x\.x\.1-prolog\.\d+", file.name)
    with pytest.raises(ValueError, match="SLURM_JOB_ID is"):
        parse_hook(file.read_bytes(), 0, "n1")


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.dictionaries(
        st.sampled_from(sorted({*JOB, "SLURM_JOB_NODELIST", "CUDA_VISIBLE_DEVICES", "SLURM_ARRAY_JOB_ID"})),
        st.one_of(
            st.binary(max_size=80).map(lambda value: value.replace(b"\0", b"")),
            st.sampled_from(
                [b"$(touch pwned)", b"`touch pwned`", b"a'b\"c\\n%s\n", b"-n", b"\x81\x82\x88", b"END=1", b"*"]
            ),
        ),
    )
)
def test_any_value_arrives_byte_for_byte_and_is_never_evaluated(
    shell: str, values: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "hooks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    given_ = {os.fsencode(key): os.fsencode(value) for key, value in {"SLURM_JOB_ID": "1", **values}.items()}
    assert quiet(call(HOOKS["epilog"], folder, given_, shell, cwd=folder))
    files = list(folder.iterdir())
    assert len(files) == bool(given_[b"SLURM_JOB_ID"])
    for file in files:
        data = file.read_bytes()
        assert data.endswith(b"\0END=1\0")
        found = dict(record.split(b"=", 1) for record in data[:-1].split(b"\0"))
        expected = {key: value for key, value in given_.items() if key not in (b"SLURM_NODELIST", b"SENERGY_HOOKS")}
        expected[b"SLURM_JOB_NODELIST"] = given_.get(b"SLURM_JOB_NODELIST") or given_.get(b"SLURM_NODELIST", b"")
        assert {key: found[key] for key in expected} == expected


def test_neither_the_comment_nor_the_job_name_is_passed_on(tmp_path: Path) -> None:
    call(HOOKS["prolog"], tmp_path, {**JOB, "SLURM_JOB_COMMENT": "hush", "SLURM_JOB_NAME": "hush", "SECRET": "hush"})
    (file,) = tmp_path.iterdir()
    assert b"hush" not in file.read_bytes()


def test_a_list_of_very_many_nodes_is_left_out_and_the_rest_arrives(tmp_path: Path) -> None:
    long = ",".join(f"node{number}" for number in range(9000))
    assert quiet(
        call(HOOKS["prolog"], tmp_path, {**JOB, "SLURM_NODELIST": long, "SLURM_JOB_CPUS_PER_NODE": "2,4," * 4000})
    )
    (file,) = tmp_path.iterdir()
    hook = parse_hook(file.read_bytes(), 0, "n1")
    assert (hook.job_id, hook.user, hook.cpus) == (4711, "emma", 0)


@pytest.mark.parametrize("shell", ["", *SHELLS])
@pytest.mark.parametrize("event", HOOKS)
def test_a_folder_that_is_missing_or_a_file_hurts_no_job(event: str, shell: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for folder in (tmp_path / "missing", file, file / "below", "/proc/self", "/dev/null"):
        assert quiet(call(HOOKS[event], folder, JOB, shell))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "mine"


@pytest.mark.parametrize("shell", ["", *SHELLS])
def test_a_folder_that_is_read_only_or_full_hurts_no_job_and_keeps_no_half_file(shell: str, broken: Path) -> None:
    before = sorted(broken.iterdir())
    assert quiet(call(HOOKS["prolog"], broken, JOB, shell))
    assert sorted(broken.iterdir()) == before


@pytest.mark.parametrize("shell", ["", *SHELLS])
def test_a_limit_on_file_size_hurts_no_job(shell: str, tmp_path: Path) -> None:
    command = f"ulimit -f 0; {shlex.join(interpreter(shell))} {HOOKS['prolog']}"
    done = subprocess.run(["/bin/sh", "-c", command], env={**JOB, "SENERGY_HOOKS": str(tmp_path)}, check=False)
    assert done.returncode == 0
    assert not list(tmp_path.iterdir())


def test_no_variables_no_file(tmp_path: Path) -> None:
    assert quiet(call(HOOKS["prolog"], tmp_path, {}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shell", ["", *SHELLS])
def test_closed_outputs_and_input_change_nothing(shell: str, tmp_path: Path) -> None:
    command = f"exec {shlex.join(interpreter(shell))} {HOOKS['epilog']} <&- >&- 2>&-"
    done = subprocess.run(["/bin/sh", "-c", command], env={**JOB, "SENERGY_HOOKS": str(tmp_path)}, check=False)
    assert done.returncode == 0
    (file,) = tmp_path.iterdir()
    assert parse_hook(file.read_bytes(), 0, "n1").event == "epilog"


def test_without_mv_on_the_node_a_hook_still_exits_0_and_leaves_nothing_visible(tmp_path: Path) -> None:
    script = tmp_path / "hook"
    script.write_text(HOOKS["prolog"].read_text().replace("PATH=/usr/bin:/bin", "PATH=/nowhere"))
    script.chmod(0o755)
    folder = tmp_path / "hooks"
    folder.mkdir()
    assert quiet(call(script, folder, JOB))
    assert all(path.name.startswith(".") for path in folder.iterdir())


def test_one_that_watches_never_sees_half_a_file(tmp_path: Path) -> None:
    started = [
        subprocess.Popen([HOOKS["prolog"]], env={**JOB, "SLURM_JOB_ID": str(job), "SENERGY_HOOKS": str(tmp_path)})
        for job in range(1, 41)
    ]
    seen: set[str] = set()
    end = time.monotonic() + 30
    while len(seen) < 40 and time.monotonic() < end:
        for file in tmp_path.glob("[!.]*"):
            parse_hook(file.read_bytes(), 0, "n1")
            seen.add(file.name)
    assert [process.wait() for process in started] == [0] * 40
    assert len(seen) == 40
    assert not list(tmp_path.glob(".*"))


def test_a_hook_starts_no_more_than_one_process(tmp_path: Path) -> None:
    text = HOOKS["prolog"].read_text()
    script = tmp_path / "hook"
    log = tmp_path / "log"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("mv", "rm"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} >>{log}\nexec /bin/{name} "$@"\n')
        (programs / name).chmod(0o755)
    script.write_text(text.replace("PATH=/usr/bin:/bin", f"PATH={programs}"))
    script.chmod(0o755)
    folder = tmp_path / "hooks"
    folder.mkdir()
    assert quiet(call(script, folder, JOB))
    assert log.read_text().split() == ["mv"]
    assert len(list(folder.glob("[!.]*"))) == 1
