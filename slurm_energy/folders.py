"""How a cluster's name, which comes from outside, is written as the name of a folder, and read back."""

from __future__ import annotations

from urllib.parse import quote, unquote

PREFIX = "cluster="
"""As Hive, DuckDB and Spark write a column in a path."""
_NO_NAME = "%00"


def cluster_folder(name: str) -> str:
    """The folder of a cluster: no two names share one, and none leads out of where it lies."""
    return PREFIX + (quote(name, safe="") or _NO_NAME).replace(".", "%2E")


def cluster_of(folder: str) -> str:
    """The cluster whose folder it is: cluster_folder() back."""
    name = folder.removeprefix(PREFIX)
    return "" if name == _NO_NAME else unquote(name)
