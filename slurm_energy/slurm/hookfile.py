"""What the Prolog and Epilog drop for the agent: one file of NUL-ended `KEY=VALUE` records, typed and bounded here."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_BYTES = 65_536
"""A longer file is not one of ours."""
MAX_TEXT = 256
_MAX_RECORDS = 64
_MAX_NODES = 131_072
_MAX_GPUS = 4_096
_U32, _U63 = 2**32 - 1, 2**63 - 1
_KEY = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_SLUID = re.compile(r"[A-Za-z0-9]{1,32}")
_CPUS = re.compile(r"([0-9]{1,7})(?:\(x([0-9]{1,7})\))?")
_GPUS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_NODES = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])+")
_RANGE = re.compile(r"[\[,]([0-9]+)-([0-9]+)(?=[\],])")


class Hook(NamedTuple):
    """A job's start or end on one node, as slurmd told it.

    event:         'prolog' or 'epilog'
    restart_count: how often the job was started before
    user, account, partition, cluster: at most 256 characters, printable; '' where Slurm gave none
    node:          Slurm's name of the node
    sluid:         from Slurm 26.05 on, else None
    start_time:    of this run, s since the epoch; None where Slurm does not say
    cpus:          the job's CPUs on this node; 0: not said
    gpus:          the job's GPUs on this node by Slurm's numbers, ascending
    exclusive:     whether Slurm says that the job has the node for itself
    mtime_ns:      when the file was written, ns since the epoch
    """

    event: str
    job_id: int
    restart_count: int
    uid: int
    user: str
    account: str
    partition: str
    cluster: str
    node: str
    sluid: str | None
    start_time: int | None
    cpus: int
    gpus: tuple[int, ...]
    exclusive: bool
    mtime_ns: int


def parse_hook(data: bytes, mtime_ns: int, node: str) -> Hook:
    """The hook in a file's bytes; `node` is this node's name in Slurm, for files that do not say it.

    Raises ValueError, whose message says what is wrong, for anything that the hook scripts do not write.
    """
    values = _records(data)
    event = values.get("EVENT", "")
    if event not in ("prolog", "epilog"):
        raise ValueError(f"EVENT is {event[:40]!r}, expected prolog or epilog")
    sluid = values.get("SLURM_JOB_SLUID", "")
    if sluid and not _SLUID.fullmatch(sluid):
        raise ValueError(f"SLURM_JOB_SLUID is {sluid[:40]!r}, expected at most 32 letters and digits")
    name = _text(values, "SLURMD_NODENAME") or node
    start = _number(values, "SLURM_JOB_START_TIME", _U63, 0)
    return Hook(
        event=event,
        job_id=_job_id(values),
        restart_count=_number(values, "SLURM_JOB_RESTART_COUNT", _U32, 0),
        uid=_number(values, "SLURM_JOB_UID", _U32, None),
        user=_text(values, "SLURM_JOB_USER"),
        account=_text(values, "SLURM_JOB_ACCOUNT"),
        partition=_text(values, "SLURM_JOB_PARTITION"),
        cluster=_text(values, "SLURM_CLUSTER_NAME"),
        node=name,
        sluid=sluid or None,
        start_time=start or None,
        cpus=_cpus_here(values.get("SLURM_JOB_CPUS_PER_NODE", ""), values.get("SLURM_JOB_NODELIST", ""), name),
        gpus=_gpus(values.get("SLURM_JOB_GPUS", "")),
        exclusive=_exclusive(values),
        mtime_ns=mtime_ns,
    )


def _records(data: bytes) -> dict[str, str]:
    """The records by key, complete to the last one. Keys that we do not know are a newer script's."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES} bytes")
    if not data.endswith(b"\0END=1\0"):
        raise ValueError("torn: it does not end with the record END=1")
    try:
        records = data[:-1].decode().split("\0")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    if len(records) > _MAX_RECORDS:
        raise ValueError(f"{len(records)} records, expected at most {_MAX_RECORDS}")
    values: dict[str, str] = {}
    for record in records:
        key, equals, value = record.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise ValueError(f"{record[:40]!r} is not KEY=VALUE")
        if key in values:
            raise ValueError(f"{key} is there twice")
        values[key] = "" if value == "(null)" else value
    return values


def _number(values: dict[str, str], key: str, most: int, default: int | None) -> int:
    text = values.get(key, "")
    if not text and default is not None:
        return default
    if not (len(text) <= 20 and text.isascii() and text.isdigit()) or int(text) > most:
        raise ValueError(f"{key} is {text[:40]!r}, expected a whole number from 0 to {most}")
    return int(text)


def _job_id(values: dict[str, str]) -> int:
    job_id = _number(values, "SLURM_JOB_ID", _U32, None)
    if not job_id:
        raise ValueError("SLURM_JOB_ID is 0, which is no job")
    return job_id


def _text(values: dict[str, str], key: str) -> str:
    text = values.get(key, "")
    if not text.isprintable():
        text = "".join(letter for letter in text if letter.isprintable())
    return text[:MAX_TEXT]


def _exclusive(values: dict[str, str]) -> bool:
    """SLURM_JOB_EXCLUSIVE says it outright (26.05: NO, NODE, USER, MCS, TOPO); before, OverSubscribe=NO meant it."""
    said = values.get("SLURM_JOB_EXCLUSIVE", "").upper()
    if said:
        return said in ("NODE", "TOPO")
    return values.get("SLURM_JOB_OVERSUBSCRIBE", "").upper() in ("NO", "TOPO")


def _gpus(text: str) -> tuple[int, ...]:
    """Slurm's device numbers: '0,2-3' is (0, 2, 3)."""
    numbers: set[int] = set()
    for part in text.split(",") if text else ():
        match = _GPUS.fullmatch(part)
        first = int(match[1]) if match else 0
        last = int(match[2] or match[1]) if match else -1
        if not 0 <= last - first < _MAX_GPUS:
            raise ValueError(f"SLURM_JOB_GPUS is {text[:40]!r}, expected numbers and ranges such as 0,2-3")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def _cpus_here(text: str, nodelist: str, node: str) -> int:
    """This node's part of a list such as '2(x2),4': two nodes with 2 CPUs each, then one with 4."""
    groups: list[tuple[int, int]] = []
    for part in text.split(",") if text else ():
        match = _CPUS.fullmatch(part)
        if not match or (match[2] and not int(match[2])):
            raise ValueError(f"SLURM_JOB_CPUS_PER_NODE is {text[:40]!r}, expected counts such as 2(x2),4")
        groups.append((int(match[1]), int(match[2] or 1)))
    if not groups:
        return 0
    if all(cpus == groups[0][0] for cpus, _ in groups):
        return groups[0][0]
    nodes = sum(count for _, count in groups)
    if nodes > _MAX_NODES:
        raise ValueError(f"SLURM_JOB_CPUS_PER_NODE speaks of {nodes} nodes, expected at most {_MAX_NODES}")
    place = _place(nodelist, node, nodes)
    for cpus, count in groups:
        if place < count:
            return cpus
        place -= count
    return groups[0][0]


def _place(nodelist: str, node: str, nodes: int) -> int:
    """Where a node stands in a job's node list, from 0; 0 too where that cannot be told.

    python-hostlist comes with the node and the admin extra; where it is missing, the first node's count is taken. Parts
    are expanded one by one, and no further than the job has nodes, so that no list can take much time or memory.
    """
    try:
        import hostlist
    except ImportError:
        return 0
    if re.search(r"[0-9]{20}", nodelist):
        raise ValueError("SLURM_JOB_NODELIST has a number of 20 digits")
    if sum(max(0, int(last) - int(first)) for first, last in _RANGE.findall(nodelist)) > _MAX_NODES:
        raise ValueError(f"SLURM_JOB_NODELIST has ranges of more than {_MAX_NODES} nodes")
    before = 0
    for part in _NODES.finditer(nodelist):
        if before >= nodes:
            break
        try:
            names = hostlist.expand_hostlist(part[0], allow_duplicates=True)
        except (hostlist.BadHostlist, RecursionError):
            raise ValueError(f"SLURM_JOB_NODELIST is {nodelist[:40]!r}, which is no node list") from None
        if node in names:
            return before + int(names.index(node))
        before += len(names)
    return 0
