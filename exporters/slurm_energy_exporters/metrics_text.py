"""Families of samples from our list of metrics, and their text: what prometheus_client writes, byte for byte, only quicker.

prometheus_client makes the text of a label set for each sample anew; a node with 128 jobs has 1,500 samples and 700 label
sets. tests/unit/test_node_exporter.py holds both formats against prometheus_client's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from slurm_energy_exporters.metrics import Metric

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PREFIX = "slurm_energy_"
LONGEST = 256
UNITS = ("joules", "watts", "seconds", "ratio", "grams")
_number: Callable[[float], str] = floatToGoString
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Labels(dict[str, str]):
    """A label set with its text."""

    __slots__ = ("text",)

    def __init__(self, names: Sequence[str], values: Sequence[str]) -> None:
        super().__init__(zip(names, values, strict=True))
        self.text = label_text(self)


def label_text(labels: dict[str, str]) -> str:
    """`{a="x",b="y"}`; '' for none."""
    if not labels:
        return ""
    return "{" + ",".join([f'{name}="{value.translate(_ESCAPES)}"' for name, value in sorted(labels.items())]) + "}"


def clean(value: str) -> str:
    """A label value out of a text that somebody else chose: no control characters, nothing that is no character."""
    value = value[:LONGEST]
    if value.isprintable():
        return value
    return "".join([char if char.isprintable() else "\ufffd" for char in value])


class Families:
    """prometheus_client's families, made from a list of metrics; each keeps its place in it."""

    def __init__(self, metrics: Iterable[Metric], before: Families | None = None) -> None:
        """before: of the scrape before, whose label sets are used again."""
        self._families: dict[str, tuple[Family, str, tuple[str, ...]]] = {}
        self._labels: dict[tuple[tuple[str, ...], tuple[str, ...]], Labels] = {}
        self._known = before._labels if before else {}
        for metric in metrics:
            ending = {"counter": "_total", "info": "_info"}.get(metric.kind, "")
            last = metric.name.rsplit("_", 1)[-1]
            family = Family(metric.name, metric.help, metric.kind, last if last in UNITS else "")
            self._families[metric.name.removeprefix(PREFIX)] = (family, metric.name + ending, metric.labels)

    def add(self, name: str, values: tuple[str, ...], value: float) -> None:
        """A sample. name: without the prefix; values: of the labels, in the list's order."""
        family, sample, names = self._families[name]
        key = (names, values)
        labels = self._labels.get(key)
        if labels is None:
            labels = self._labels[key] = self._known.get(key) or Labels(names, values)
        family.samples.append(Sample(sample, labels, float(value)))

    def done(self) -> Families:
        """Nothing but the label sets, for the next scrape."""
        self._families, self._known = {}, {}
        return self

    def all(self) -> list[Family]:
        """Every family, empty ones too."""
        return [family for family, _, _ in self._families.values()]

    def filled(self) -> list[Family]:
        """Those that have samples."""
        return [family for family in self.all() if family.samples]


def render(families: Iterable[Family], *, openmetrics: bool) -> bytes:
    """The text format 0.0.4, or OpenMetrics 1.0.0, of gauges, counters and infos."""
    lines: list[str] = []
    for family in families:
        name, kind, about = family.name, family.type, family.documentation
        if openmetrics:
            lines.append(f"# HELP {name} {about.translate(_ESCAPES)}\n# TYPE {name} {kind}\n")
            if family.unit:
                lines.append(f"# UNIT {name} {family.unit}\n")
        else:
            shown = name + {"counter": "_total", "info": "_info"}.get(kind, "")
            kind = "gauge" if kind == "info" else kind
            lines.append(f"# HELP {shown} {about.translate(_HELP_ESCAPES)}\n# TYPE {shown} {kind}\n")
        for sample in family.samples:
            labels = sample.labels
            text = labels.text if type(labels) is Labels else label_text(labels)
            lines.append(f"{sample.name}{text} {_number(sample.value)}\n")
    if openmetrics:
        lines.append("# EOF\n")
    return "".join(lines).encode()
