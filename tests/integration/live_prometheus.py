"""A real Prometheus with the shipped configuration and rules, and the queries of the shipped dashboards.

For test_dashboards.py and tests/cluster/test_prometheus_on_slurm.py. Only times differ from what is shipped: scrapes each
second, and windows of the rules in seconds.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from common.processes import Daemons, free_port
from common.waiting import until

from slurm_energy.sd import Directory, as_json, server, write_whole

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
BOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))


class Prometheus:
    """The shipped configuration, at this machine's ports and in seconds. groups: of a node each, as `senergy sd` has them.

    guarded: what each job says of TLS and passwords: "" for the shipped ones, a name for one more that scrapes a node.
    """

    def __init__(
        self, folder: Path, groups: Sequence[dict[str, Any]], ledger_port: int, daemons: Daemons,
        guarded: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        self.url = f"http://127.0.0.1:{free_port()}"
        config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"}
        node, ledger_job = config["scrape_configs"]
        for job in (node, ledger_job):
            job.update(scrape_interval="1s", scrape_timeout="1s", **(guarded or {}).get("", {}))
        ledger_job["static_configs"] = [{"targets": [f"127.0.0.1:{ledger_port}"]}]
        # The first node comes out of a file, the others over HTTP, as `senergy sd` gives both.
        write_whole(folder / "nodes.json", as_json(groups[:1]))
        self.directory = server(("127.0.0.1", 0), Directory(lambda: list(groups[1:]), 60))
        threading.Thread(target=self.directory.serve_forever, args=(0.1,), daemon=True).start()
        url = f"http://127.0.0.1:{self.directory.server_address[1]}/targets"
        node["http_sd_configs"] = [{"url": url, "refresh_interval": "1s"}]
        for name, said in (guarded or {}).items():
            if name:
                one = {"targets": groups[0]["targets"]}
                config["scrape_configs"].append({"job_name": name, "static_configs": [one], **said})
        (folder / "rules").mkdir()
        for file in (PROMETHEUS / "rules").glob("*.yml"):
            text = (
                re.sub(r"\b15m(?=\]|$|\)|\s)", "10s", file.read_text())
                if "alerts" not in file.name
                else file.read_text()
            )
            if "alerts" not in file.name:
                text = text.replace("[1h]", "[20s]").replace("interval: 1m", "interval: 1s")
            (folder / "rules" / file.name).write_text(text)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        daemons.start(
            "prometheus", "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=warn",
        )  # fmt: skip
        until("Prometheus to be ready", self.ready)

    def end(self) -> None:
        """Ends the directory of nodes; Prometheus itself is one of the daemons."""
        self.directory.shutdown()
        self.directory.server_close()

    def ready(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def wait_for_all(self, series: int, seconds: float) -> None:
        """Waits until two nodes and a ledger are scraped, jobs have so many series of watts, and each rule has a value."""
        until("all targets to be up", lambda: self.value("sum(up)") == 3, seconds)
        until("the ledger", lambda: self.value("slurm_energy_ledger_up") == 1)
        until("jobs to have watts", lambda: self.value("count(job:slurm_energy_power_watts:sum)") == series)
        # The last of the rules to have a value: it looks back farthest.
        until("conservation", lambda: len(self.instant("node:slurm_energy_conservation_error:ratio15m")) == 2)

    def get(self, path: str, **arguments: str) -> Any:
        """An answer's data. A query that is wrong fails the test."""
        try:
            with urllib.request.urlopen(
                f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(arguments)}", timeout=10
            ) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{arguments}: {error.read().decode()}")

    def instant(self, query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("query", query=query)["result"]
        return found

    def value(self, query: str) -> float:
        """Of one series; NaN where there is none."""
        found = self.instant(query)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else math.nan

    def has_data(self, query: str, instant: bool) -> bool:
        """Whether the query gives any number."""
        if instant:
            values = [one["value"] for one in self.instant(query)]
        else:
            now = time.time()
            arguments = {"start": f"{now - 15:.0f}", "end": f"{now:.0f}", "step": "1"}
            values = [
                pair for one in self.get("query_range", query=query, **arguments)["result"] for pair in one["values"]
            ]
        return any(not math.isnan(float(value)) for _, value in values)


def rules() -> list[str]:
    files = (PROMETHEUS / "rules").glob("*.yml")
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule["record"] for group in groups for rule in group["rules"] if "record" in rule]


def filled(board: dict[str, Any], prometheus: Prometheus, chosen: Mapping[str, str]) -> list[dict[str, str]]:
    """Values of a dashboard's variables: as it opens, and as a person picks them; out of what Prometheus has."""
    opens: dict[str, str] = {}
    picked: dict[str, str] = {}
    for variable in board["templating"]["list"]:
        name = variable["name"]
        if variable["type"] == "datasource":
            continue
        if variable["type"] == "custom":
            offered = [option["value"] for option in variable["options"]]
        else:
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            selector = fill(metric, picked)
            offered = prometheus.get(f"label/{label}/values", **{"match[]": selector})
        assert chosen[name] in offered, f"{name}: {offered}"
        picked[name] = chosen[name]
        opens[name] = variable["allValue"] if variable["includeAll"] else chosen[name]
    found = [opens, picked]
    for variable in board["templating"]["list"]:
        if variable["name"] == "window":
            offered = {option["value"] for option in variable["options"]} - {opens["window"]}
            found += [{**opens, "window": one} for one in sorted(offered) if ran_in(prometheus, one)]
    return found


def ran_in(prometheus: Prometheus, window: str) -> bool:
    """Whether jobs ran in this part of the ledger."""
    return prometheus.value(f'sum(slurm_energy_ledger_cluster_jobs{{window="{window}"}})') > 0


def fill(text: str, values: Mapping[str, str]) -> str:
    for name, value in {"__rate_interval": "4s", "__range": "60s", **values}.items():
        text = re.sub(rf"\$\{{{name}\}}|\${name}\b", lambda _, value=value: value, text)  # type: ignore[misc]
    return text


PANELS = [
    pytest.param(file, panel, id=f"{file.stem}-{panel['id']}-{panel['title']}")
    for file in BOARDS
    for panel in json.loads(file.read_text())["panels"]
    if panel.get("targets")
]
