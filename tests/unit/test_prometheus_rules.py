"""The rules, alerts and dashboards: accepted by promtool, over metrics that the exporters have, each alert tested."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from common.required import unavailable
from slurm_energy_exporters.metrics import LEDGER, NODE

from slurm_energy.config import Config, profile_of

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TEST_FILES = sorted((PROMETHEUS / "tests").glob("*.yml"))
BOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
ENDINGS = {"counter": "_total", "info": "_info", "gauge": ""}
SCRAPED = {metric.name + ENDINGS[metric.kind] for metric in (*NODE, *LEDGER)}

pytestmark = pytest.mark.skipif(not PROMETHEUS.is_dir(), reason="deploy/ is not installed with the package")


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if not shutil.which("promtool"):
        unavailable("promtool is not installed (Debian's prometheus)")
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, cwd=PROMETHEUS)


def groups(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(file.read_text())["groups"]
    return found


RULES = [rule for file in RULE_FILES for group in groups(file) for rule in group["rules"]]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels") or []


def queries(file: Path) -> list[str]:
    """All PromQL of a dashboard, its variables' too."""
    board = json.loads(file.read_text())
    found = [target["expr"] for panel in panels(board) for target in panel.get("targets") or []]
    asked = [variable["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    return found + [one["query"] for one in asked]


def names(expression: str) -> set[str]:
    """Names of series in PromQL: what has our prefix, after a level and a colon too."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"(?<![\w:])(?:\w+:)?slurm_energy[\w:]*", bare))


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    done = promtool("check", "rules", *RULE_FILES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_commented_for_tls_and_passwords_is_accepted(tmp_path: Path) -> None:
    text = (PROMETHEUS / "prometheus.yml").read_text()
    with_all = re.sub(r"(?m)^    # ((?:  )*(?:- )?[a-z_]+:.*)$", r"    \1", text)
    job = yaml.safe_load(with_all)["scrape_configs"][0]
    assert job["scheme"] == "https"
    assert set(job["tls_config"]) == {"ca_file", "cert_file", "key_file"}
    assert set(job["basic_auth"]) == {"username", "password_file"}
    assert job["http_sd_configs"]
    (tmp_path / "prometheus.yml").write_text(with_all)
    shutil.copytree(PROMETHEUS / "rules", tmp_path / "rules")
    for name in (*job["tls_config"].values(), job["basic_auth"]["password_file"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    done = promtool("check", "config", "--syntax-only", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.name)
def test_promtool_s_rule_tests_pass(file: Path) -> None:
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_use_only_series_that_there_are() -> None:
    known = SCRAPED | RECORDED
    unknown = {(rule.get("record") or rule["alert"], name) for rule in RULES for name in names(rule["expr"]) - known}
    assert not unknown


@pytest.mark.parametrize("file", BOARDS, ids=lambda file: file.name)
def test_dashboards_use_only_series_that_there_are(file: Path) -> None:
    assert queries(file)
    assert not {name for query in queries(file) for name in names(query)} - SCRAPED - RECORDED


def test_names_in_promql_are_found() -> None:
    assert names('sum(a:slurm_energy_x:sum{b="slurm_energy_no"}) / slurm_energy_y_total') == {
        "a:slurm_energy_x:sum", "slurm_energy_y_total",
    }  # fmt: skip


def test_every_recorded_series_is_used_or_tested() -> None:
    used = {name for rule in RULES for name in names(rule["expr"])}
    used |= {name for file in BOARDS for query in queries(file) for name in names(query)}
    used |= {name for file in TEST_FILES for name in names(file.read_text())}
    assert not RECORDED - used


@pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS.keys())
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(alert["annotations"]) == {"summary", "description"}
    assert len(alert["annotations"]["summary"]) < 120
    assert len(alert["annotations"]["description"]) > 100
    assert re.search(r"senergy|systemctl|timedatectl|/var/lib|set-aside", alert["annotations"]["description"])


def test_units_that_alerts_name_are_those_that_are_installed() -> None:
    named = set()
    for alert in ALERTS.values():
        text = alert["annotations"]["description"]
        for command in re.findall(r"(?:systemctl [a-z]+|journalctl -u)((?: slurm-energy-[\w.-]*\w)+)", text):
            named |= {name if "." in name else f"{name}.service" for name in command.split()}
    installed = {file.name for file in (ROOT / "deploy" / "systemd").glob("slurm-energy-*")}
    assert named <= installed, named - installed
    assert len(named) >= 5


def test_each_alert_is_tested_firing_and_quiet() -> None:
    firing, quiet = set(), set()
    for file in TEST_FILES:
        for test in yaml.safe_load(file.read_text())["tests"]:
            for case in test.get("alert_rule_test", ()):
                (firing if case.get("exp_alerts") else quiet).add(case["alertname"])
            for case in test.get("promql_expr_test", ()):
                for sample in case.get("exp_samples", ()):
                    firing.update(re.findall(r'^ALERTS\{alertname="(\w+)",alertstate="firing"', sample["labels"]))
    assert (firing, quiet) == (set(ALERTS), set(ALERTS))


def test_the_site_s_constants_are_the_configuration_s_defaults() -> None:
    profile = profile_of(Config())
    constants = {
        rule["record"]: float(rule["expr"].rpartition("*")[2])
        for rule in groups(PROMETHEUS / "rules/slurm-energy-site.rules.yml")[0]["rules"]
    }
    assert constants["slurm_energy:carbon_g_per_kwh"] == profile.carbon_g_per_kwh
    assert constants["slurm_energy:pue"] == profile.pue
    assert constants["slurm_energy:electricity_usd_per_kwh"] == profile.electricity_usd_per_kwh


def test_ports_are_those_of_the_exporters() -> None:
    from slurm_energy_exporters import ledger, node

    assert f'["127.0.0.1:{ledger.PORT}"]' in (PROMETHEUS / "prometheus.yml").read_text()
    import inspect

    from slurm_energy.cli.sd import sd

    assert inspect.signature(sd).parameters["port"].default == node.PORT


@pytest.mark.parametrize("file", BOARDS, ids=lambda file: file.name)
def test_a_dashboard_is_described_and_linked(file: Path) -> None:
    board = json.loads(file.read_text())
    uids = {json.loads(other.read_text())["uid"] for other in BOARDS}
    assert board["uid"] == f"slurm-energy-{file.stem}"
    assert board["description"]
    assert all(variable["description"] for variable in board["templating"]["list"])
    variables = {variable["name"] for variable in board["templating"]["list"]}
    lines: dict[int, int] = {}
    for panel in panels(board):
        lines[panel["gridPos"]["y"]] = lines.get(panel["gridPos"]["y"], 0) + panel["gridPos"]["w"]
        if panel["type"] == "row":
            continue
        assert panel["title"]
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["type"] == "piechart" or panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]
        for target in panel["targets"]:
            asked = set(re.findall(r"\$(\w+)", target["expr"])) - {"__range", "__rate_interval"}
            assert asked <= variables, panel["title"]
    assert set(lines.values()) == {24}
    assert set(re.findall(r"/d/([\w-]+)", file.read_text())) <= uids


def test_links_lead_from_cluster_to_node_to_job() -> None:
    def linked(name: str) -> set[str]:
        return set(re.findall(r"/d/slurm-energy-(\w+)", (GRAFANA / "dashboards" / name).read_text()))

    assert linked("cluster.json") == {"node", "job"}
    assert linked("node.json") == {"job"}
    assert linked("job.json") == {"node"}
    assert linked("management.json") == {"projects"}


def test_the_committed_dashboards_are_what_the_code_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.version_info < (3, 11) or importlib.util.find_spec("grafana_foundation_sdk") is None:
        pytest.skip("grafana-foundation-sdk is not installed (Python 3.11, the extra grafana)")
    monkeypatch.syspath_prepend(str(GRAFANA))
    import build_dashboards  # type: ignore[import-not-found]

    made = build_dashboards.render()
    assert set(made) == {file.name for file in BOARDS}
    for file in BOARDS:
        assert file.read_text() == made[file.name], f"python deploy/grafana/build_dashboards.py ({file.name})"


def test_provisioning_names_what_there_is() -> None:
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/slurm-energy.yml").read_text())["datasources"][0]
    interval = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert (source["type"], source["jsonData"]["timeInterval"]) == ("prometheus", interval)
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/slurm-energy.yml").read_text())["providers"][0]
    assert provider["options"]["path"] in (GRAFANA / "README.md").read_text()
