"""Which device a GRES type or a product name means, and what it is rated."""

from __future__ import annotations

import functools
import re
from fractions import Fraction

import msgspec

from slurm_energy.factors.tables import read_table

_SEPARATORS = re.compile(r"[\s_()-]+")
_TRADEMARKS = re.compile(r"\((?:r|tm)\)|[®™]")
_VENDORS = re.compile(r"(?:nvidia|tesla|geforce|quadro|amd|radeon-instinct|instinct|intel)-?(?=.)")
_MIG = re.compile(r"(?P<base>.+?)-?(?:mig-)?(?P<slices>\d+)g(?:\.\d+gb)?(?:\+[a-z.+]+)?")
_MIG_SLICES_OF_A30 = 4
_MIG_SLICES = 7


class Device(msgspec.Struct, frozen=True):
    """One accelerator as NVML, ROCm or Slurm counts it, or a slice of one.

    name:         canonical name, the one that prices go by (`A100-40GB`)
    rated_w:      rated power of the whole device, W; None where no figure is packaged
    fraction:     share of the device that one unit stands for: 1, or less for a MIG slice
    source:       where the rated power comes from, with date and confidence
    variant:      the exact board where the name said it (`A100-PCIE-40GB`), else the canonical name
    includes_cpu: the rated power covers CPU and memory too (GH200, MI300A); do not add them
    """

    name: str
    rated_w: float | None
    fraction: float
    source: str
    variant: str = ""
    includes_cpu: bool = False


@functools.lru_cache(maxsize=4096)
def normalise_device(name: str) -> str:
    """Device name in the form in which names are compared: `NVIDIA A100-SXM4-80GB` is `a100-sxm4-80gb`.

    Lower case; spaces, underscores, parentheses and dashes become one dash; maker and brand in front (NVIDIA, Tesla,
    GeForce, Quadro, AMD, Instinct, Intel) are dropped. Dots stay, for MIG profiles (`1g.10gb`) have them. Raises
    nothing; an empty name stays empty.
    """
    text = _SEPARATORS.sub("-", _TRADEMARKS.sub("", name.lower())).strip("-")
    while match := _VENDORS.match(text):
        text = text[match.end() :]
    return text


def squeeze(name: str) -> str:
    """Normalised and without dashes, for look-ups: sites write rtx2080ti, rtx_2080_ti and RTX 2080 Ti."""
    return normalise_device(name).replace("-", "")


class _Rating(msgspec.Struct, frozen=True):
    canonical: str
    rated_w: float | None
    source: str
    includes_cpu: bool


@functools.cache
def _ratings() -> dict[str, _Rating]:
    """Every device by name; what only has a price (TPUs) is a device without rated power."""
    known = {
        row["device"]: _Rating(
            canonical=row["canonical"] or row["device"],
            rated_w=float(row["rated_w"]),
            source=f"{row['source']}, {row['source_date']} (confidence {row['confidence']})",
            includes_cpu=row["includes_cpu"] == "yes",
        )
        for row in read_table("gpus")
    }
    for row in read_table("cloud_prices"):
        if row["device"] != "cpu-core":
            known.setdefault(row["device"], _Rating(row["device"], None, "no rated power packaged", False))
    return known


@functools.cache
def _names() -> dict[str, tuple[str, float]]:
    """Device and fraction by squeezed name. A device's own name wins over an alias."""
    names = {
        squeeze(row["alias"]): (row["device"], float(Fraction(row["fraction"] or 1)))
        for row in read_table("gpu_aliases")
    }
    names.update((squeeze(device), (device, 1.0)) for device in _ratings())
    return names


def find_device(name: str) -> Device | None:
    """The device that a GRES type (`a100`), an NVML name (`Tesla V100-SXM2-16GB`) or a canonical name means.

    A MIG slice of a known device that has no row of its own (`h100_4g.40gb`) counts as its compute slices over seven
    (A30: over four), by the profile names of NVIDIA's MIG user guide. None where the name is not known; raises
    nothing.
    """
    found = _names().get(squeeze(name))
    if found is None:
        match = _MIG.fullmatch(normalise_device(name))
        whole = _names().get(match["base"].replace("-", "")) if match else None
        if match is None or whole is None or whole[1] != 1.0:
            return None
        slices = _MIG_SLICES_OF_A30 if _ratings()[whole[0]].canonical == "A30" else _MIG_SLICES
        found = (whole[0], int(match["slices"]) / slices)
        if not 0 < found[1] <= 1:
            return None
    variant, fraction = found
    rating = _ratings()[variant]
    return Device(
        name=rating.canonical,
        rated_w=rating.rated_w,
        fraction=fraction,
        source=rating.source,
        variant=variant,
        includes_cpu=rating.includes_cpu,
    )
