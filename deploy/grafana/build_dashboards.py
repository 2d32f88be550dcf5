"""Writes the dashboards' JSON: python deploy/grafana/build_dashboards.py [FOLDER]

The JSON in deploy/grafana/dashboards is made by this and not edited by hand; a test compares the two. Needs Python 3.11
and the extra `grafana`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from boards.cluster import cluster
from boards.job import job
from boards.management import management
from boards.node import node
from boards.projects import projects
from grafana_foundation_sdk.cog.encoder import JSONEncoder

FOLDER = Path(__file__).parent / "dashboards"

BOARDS = {"cluster": cluster, "node": node, "job": job, "projects": projects, "management": management}


def render() -> dict[str, str]:
    """The JSON of each dashboard, by file name."""
    texts = {}
    for name, make in BOARDS.items():
        plain = json.loads(json.dumps(make().build(), cls=JSONEncoder))
        for number, panel in enumerate(plain["panels"], 1):
            panel["id"] = number
        texts[f"{name}.json"] = json.dumps(plain, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    return texts


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]) if arguments else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
