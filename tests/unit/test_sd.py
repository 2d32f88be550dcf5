"""`senergy sd`: targets from sinfo, to a file that Prometheus watches and over HTTP."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import shutil
import socket
import subprocess
import textwrap
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from common.waiting import until
from typer.testing import CliRunner

from slurm_energy import sd
from slurm_energy.cli import sd as command
from slurm_energy.slurm.errors import SourceError
from slurm_energy.slurm.nodes import Node, parse_sinfo
from slurm_energy.web import server as server_module

app = typer.Typer()
app.command()(command.sd)

SINFO = """\
n2|10.0.0.2|n2.example.org|idle~
n1|10.0.0.1|n1.example.org|mixed
n1|10.0.0.1|n1.example.org|mixed
v6|fd00::3|v6|drained*
"""
STATES = {
    "idle": True, "mixed": True, "allocated": True, "allocated+": True, "completing": True, "drained*": True, "down*": True,
    "down": True, "maint": True, "idle$": True, "mixed-": True, "planned": True, "draining@": True, "idle^": True,
    "mixed!": True, "inval": True, "unknown*": True, "future": True, "idle~": False, "down~": False, "drained~": False,
    "mixed#": False, "allocated#": False, "idle%": False, "draining%": False,
}  # fmt: skip
"""States as Slurm writes them, and whether an exporter may be expected to answer there or the site has to look."""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose sinfo prints the file `sinfo.out`, or fails where there is none; ClusterName is alpha."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "sinfo": f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\ncat {tmp_path}/sinfo.out\n',
        "scontrol": "#!/bin/sh\necho 'ClusterName             = alpha'\n",
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    (tmp_path / "sinfo.out").write_text(SINFO)
    return tmp_path


def group(target: str, cluster: str, node: str, state: str) -> dict[str, Any]:
    return {"targets": [target], "labels": {"cluster": cluster, "node": node, "__meta_slurm_state": state}}


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_a_node_of_two_partitions_is_one_target() -> None:
    assert [node.name for node in parse_sinfo(SINFO)] == ["n1", "n2", "v6"]


def test_nodes_of_several_clusters_carry_their_cluster() -> None:
    nodes = parse_sinfo("CLUSTER: beta\nn1|10.1.0.1|n1|idle\n\nCLUSTER: alpha\nn1|10.0.0.1|n1|down*\n")
    assert nodes == [Node("n1", "10.0.0.1", "n1", "alpha", "down*"), Node("n1", "10.1.0.1", "n1", "beta", "idle")]


def test_an_empty_address_is_the_node_s_name() -> None:
    assert parse_sinfo("n1|||\n") == [Node("n1", "n1", "n1")]


@pytest.mark.parametrize("state", STATES)
def test_a_node_s_state_is_sinfo_s(state: str) -> None:
    assert [node.state for node in parse_sinfo(f"n1|n1|n1|{state}\n")] == [state]


@pytest.mark.parametrize("line", ["n1", "n1|a|n1", "|a|b|idle", "a|b|c|d|e"])
def test_another_form_than_sinfo_s_is_said(line: str) -> None:
    with pytest.raises(SourceError, match="expected node"):
        parse_sinfo(line)


def test_targets_are_printed_with_cluster_and_node(slurm: Path) -> None:
    done = run()
    assert done.exit_code == 0
    assert json.loads(done.stdout) == [
        group("10.0.0.1:9854", "alpha", "n1", "mixed"),
        group("10.0.0.2:9854", "alpha", "n2", "idle~"),
        group("[fd00::3]:9854", "alpha", "v6", "drained*"),
    ]
    assert "-t" not in (slurm / "asked").read_text().split()  # nodes in all states


def test_nodes_may_be_reached_by_their_host_names(slurm: Path) -> None:
    done = run("--by", "hostname", "--port", "9000", "--cluster", "c")
    assert json.loads(done.stdout)[0] == group("n1.example.org:9000", "c", "n1", "mixed")


def test_a_state_that_sinfo_does_not_say_is_no_label() -> None:
    assert sd.targets([Node("n1", "h1", "h1")], "c", 1)[0]["labels"] == {"cluster": "c", "node": "n1"}


def relabelling() -> str:
    """The relabel rule that the help shows."""
    found = re.search(r"( *)relabel_configs:\n(?:\1 .*\n)+", inspect.getdoc(command.sd) or "")
    assert found
    return textwrap.dedent(found[0])


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@pytest.mark.parametrize("source", ["file", "http"])
def test_prometheus_drops_what_is_powered_down_by_the_rule_of_the_help_and_keeps_no_state(
    tmp_path: Path, source: str
) -> None:
    nodes = [Node(f"n{number}", f"h{number}", "", "", state) for number, state in enumerate(STATES)]
    groups = sd.targets(nodes, "alpha", 9854)
    sd.write_whole(tmp_path / "nodes.json", sd.as_json(groups))
    with served(sd.Directory(lambda: groups, 60)) as url:
        found = {
            "file": "file_sd_configs: [{files: [nodes.json]}]",
            "http": f"http_sd_configs: [{{url: {url}/targets}}]",
        }
        rule = "\n".join(f"    {line}" for line in relabelling().splitlines())
        (tmp_path / "p.yml").write_text(f"scrape_configs:\n  - job_name: x\n    {found[source]}\n{rule}\n")
        done = subprocess.run(
            ["promtool", "check", "service-discovery", "--timeout=3s", "p.yml", "x"], cwd=tmp_path, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
    results = json.loads(done.stdout)
    kept = {one["discoveredLabels"][sd.STATE]: one.get("labels") or {} for one in results}
    assert {state: bool(labels) for state, labels in kept.items()} == STATES
    for labels in kept.values():
        assert {name for name in labels if not name.startswith("__")} <= {"cluster", "node", "instance", "job"}
        assert sd.STATE not in labels


def test_several_clusters_are_asked_for_by_name(slurm: Path) -> None:
    (slurm / "sinfo.out").write_text("CLUSTER: a\nn1|h1|h1|idle\nCLUSTER: b\nn1|h2|h2|idle\n")
    done = run("-M", "a,b")
    assert [group["labels"]["cluster"] for group in json.loads(done.stdout)] == ["a", "b"]
    assert "-M a,b" in (slurm / "asked").read_text()


def test_nodes_that_share_an_address_are_told_of(slurm: Path) -> None:
    (slurm / "sinfo.out").write_text("n1|127.0.0.1|n1|idle\nn2|127.0.0.1|n2|idle\n")
    assert "n1, n2 are all at 127.0.0.1:9854" in run().output
    assert "are all at" not in run("--by", "name").output


def test_the_file_is_replaced_whole_and_readable_and_kept_where_nothing_changed(slurm: Path) -> None:
    file = slurm / "nodes.json"
    file.write_text("[]\n")
    with file.open() as held:  # what a reader has open does not change under it
        assert run("-o", str(file)).exit_code == 0
        assert held.read() == "[]\n"
    assert len(json.loads(file.read_text())) == 3
    assert file.stat().st_mode & 0o777 == 0o644
    before = file.stat()
    assert run("-o", str(file)).exit_code == 0
    assert file.stat().st_ino == before.st_ino
    assert not list(slurm.glob(".nodes*"))


def test_a_slurm_that_does_not_answer_leaves_the_file_as_it_is(slurm: Path) -> None:
    file = slurm / "nodes.json"
    run("-o", str(file))
    text = file.read_text()
    (slurm / "sinfo.out").write_text("")
    done = run("-o", str(file))
    assert (done.exit_code, file.read_text()) == (1, text)
    (slurm / "sinfo.out").unlink()
    done = run("-o", str(file))
    assert isinstance(done.exception, SourceError)  # exit code 2, by what runs every command
    assert file.read_text() == text


@pytest.mark.parametrize(
    "arguments", [("--by", "x"), ("--serve", "x"), ("--serve", "1", "-o", "f"), ("--cluster", "a", "-M", "b")]
)
def test_wrong_usage_ends_with_2(slurm: Path, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


@contextmanager
def served(directory: sd.Directory) -> Iterator[str]:
    server = sd.server(("127.0.0.1", 0), directory)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def get(url: str) -> tuple[int, bytes, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers["Content-Type"]


GROUPS = [{"targets": ["h:1"], "labels": {"cluster": "c", "node": "n"}}]


def test_http_serves_what_the_file_would_hold() -> None:
    with served(sd.Directory(lambda: GROUPS, 60)) as url:
        code, body, kind = get(f"{url}/targets")
        assert (code, json.loads(body), kind) == (200, GROUPS, "application/json")
        assert get(f"{url}/else")[0] == 404


def test_http_keeps_the_last_list_while_slurm_is_down() -> None:
    answers: list[Any] = [SourceError("down"), GROUPS, SourceError("down"), []]

    def look() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    directory = sd.Directory(look, 0)
    assert directory.body() is None
    first = directory.body()
    assert first is not None
    assert [directory.body(), directory.body()] == [first, first]
    assert not answers


def test_http_says_503_where_slurm_never_answered() -> None:
    def look() -> Any:
        raise SourceError("down")

    with served(sd.Directory(look, 60)) as url:
        assert get(f"{url}/targets")[0] == 503


def test_clients_that_say_nothing_hold_no_more_than_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "WHOLE_S", 0.3)
    with served(sd.Directory(lambda: GROUPS, 60)) as url:
        before = threading.active_count()

        def answered() -> bool:
            assert threading.active_count() <= before + server_module.MAX_REQUESTS
            with contextlib.suppress(OSError):
                return get(f"{url}/targets")[0] == 200
            return False

        port = int(url.rpartition(":")[2])
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        try:
            until("an answer all the same", answered, 10)
        finally:
            for one in silent:
                one.close()
