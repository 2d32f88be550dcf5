"""The energy segment, the unit that leaves a node: written by the agent, read by the ledger, said in docs/schema.md.

The order of the fields is that of the JSON line. A later version may add fields, which readers pass over; what was added
since the first has a default here, so that lines of earlier agents are read.
"""

from __future__ import annotations

import msgspec

SCHEMA_VERSION = 1
DOMAINS = ("package", "dram", "gpu", "other")
"""CPU packages, memory, GPUs, and what the node draws beyond them where its input is measured."""
KEY = ("cluster", "node", "job_id", "restart_count", "sluid", "session_start", "hour")
"""What tells a segment from others: delivered twice, it counts once."""


class GpuUse(msgspec.Struct):
    """One device's part in a segment."""

    uuid: str
    model: str
    uj: int


class Segment(msgspec.Struct, kw_only=True):
    """What one job used on one node in one UTC hour."""

    schema: int
    cluster: str
    node: str
    job_id: int
    restart_count: int
    sluid: str | None
    session_start: int
    user: str
    uid: int
    account: str
    partition: str
    hour: str
    start: int
    end: int
    uj: dict[str, int]
    gpus: list[GpuUse]
    cpu_time_ns: int
    samples: int
    gap_s: float
    gpu_gap_s: float = 0.0
    sources: list[str]
    measured: tuple[str, ...] = ("package", "dram", "gpu")
    origin: str = "hook"
    closed: str = ""
    final: bool
