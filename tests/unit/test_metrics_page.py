"""docs/metrics.md says of each metric what the code says, and nothing else. `python tests/unit/test_metrics_page.py` writes
its tables anew."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import yaml
from slurm_energy_exporters.metrics import LEDGER, NODE, Metric
from slurm_energy_exporters.web_config import CLIENT_AUTH, HEADERS, TLS_KEYS, VERSIONS, read

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
TABLES = {"node": NODE, "ledger": LEDGER}


def scraped(metric: Metric) -> str:
    return metric.name + {"counter": "_total", "info": "_info"}.get(metric.kind, "")


def table(metrics: Iterable[Metric]) -> str:
    rows = ["| name | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for one in metrics:
        labels = ", ".join(f"`{label}`" for label in one.labels) or "-"
        rows.append(f"| `{scraped(one)}` | {one.kind} | {labels} | {one.help} |")
    return "\n".join(rows) + "\n"


def with_tables(page: str) -> str:
    for name, metrics in TABLES.items():
        parts = re.split(rf"(?s)(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", page)
        assert len(parts) == 2, name
        page = table(metrics).join(parts)
    return page


def test_the_tables_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    assert page == with_tables(page)


def test_every_name_in_the_text_is_a_metric() -> None:
    known = {scraped(metric) for metrics in TABLES.values() for metric in metrics}
    named = set(re.findall(r"\bslurm_energy_(?!exporters)[a-z0-9_]+", PAGE.read_text()))
    assert named <= known, named - known


def test_names_follow_prometheus_conventions() -> None:
    names = [scraped(metric) for metrics in TABLES.values() for metric in metrics]
    assert len(names) == len(set(names))
    for metrics in TABLES.values():
        for metric in metrics:
            assert re.fullmatch(r"slurm_energy_[a-z0-9_]+", metric.name)
            assert not metric.name.endswith(("_total", "_info")), "the ending is added when it is written"
            assert not re.search(r"_(kwh|kw|ms|mj|wh|kg|minutes|hours)(_|$)", metric.name), "base units"
            assert metric.help.endswith((".", ")"))
            assert "|" not in metric.help


def test_the_web_configuration_file_of_the_page_is_one(tmp_path: Path) -> None:
    page = PAGE.read_text()
    found = re.search(r"(?s)```yaml\n(tls_server_config:.*?)```", page)
    assert found
    (tmp_path / "web.yml").write_text(found[1])
    assert read(tmp_path / "web.yml").tls
    shown = yaml.safe_load(found[1])
    assert set(shown["tls_server_config"]) == set(TLS_KEYS)
    for word in (*CLIENT_AUTH, *VERSIONS, *HEADERS):
        assert word in page, word


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
