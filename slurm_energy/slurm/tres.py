"""GPUs in Slurm's TRES text: `gres/gpu:a100=2,gres/gpu=2`."""

from __future__ import annotations


def parse_gpus(text: str) -> dict[str, int]:
    """GPU counts by GRES type from the gres/gpu parts of a TRES string; untyped devices under ''.

    Slurm writes the typed counts and, beside them, the total: `gres/gpu:a100=2,gres/gpu=2` is two GPUs. Where the
    total is more than the typed ones, the rest is untyped. Raises ValueError on a count that is no whole number.
    """
    typed: dict[str, int] = {}
    total = 0
    for part in text.split(","):
        name, equals, count = part.partition("=")
        if not name.startswith("gres/gpu") or (name[8:9] not in ("", ":")):
            continue
        if not equals or not count.isascii() or not count.isdigit():
            raise ValueError(f"{part!r} is not a GPU count")
        kind = name[9:]
        if kind:
            typed[kind] = typed.get(kind, 0) + int(count)
        else:
            total = int(count)
    rest = total - sum(typed.values())
    counts = {kind: number for kind, number in typed.items() if number}
    if rest > 0:
        counts[""] = rest
    return counts
