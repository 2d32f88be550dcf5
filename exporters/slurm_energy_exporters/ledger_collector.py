"""The ledger as Prometheus metrics: totals, the current and the last month by cluster, project and user.

Every figure is that of `senergy report` for the same rows. Of projects and of users the `top` with the most facility
energy have series of their own (in the whole ledger or in one of the months, each as a share of its sum); the others
are together in `other`, and counted. Who is in the ledger has a figure in each window: 0 where nothing ran in it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from operator import truediv
from typing import TYPE_CHECKING, Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from slurm_energy.units import J_PER_KWH, SECONDS_PER_HOUR
from slurm_energy_exporters import metrics
from slurm_energy_exporters.ledger_sums import LEVELS, DaySums, Found, count_lines, label, look

if TYPE_CHECKING:
    from datetime import tzinfo

    from slurm_energy.ledger.store import Ledger

log = logging.getLogger("senergy.exporter")
OTHER = "other"
Labels = tuple[str, ...]
PREFIX = "slurm_energy_ledger_"
KNOWN = {metric.name: metric for metric in metrics.LEDGER}
_FIGURES = (
    ("jobs", "jobs", 1.0),
    ("gpu_seconds", "gpu_h", SECONDS_PER_HOUR),
    ("cpu_seconds", "cpu_h", SECONDS_PER_HOUR),
    ("it_energy_joules", "it_kwh", J_PER_KWH),
    ("facility_energy_joules", "facility_kwh", J_PER_KWH),
    ("co2e_grams", "co2e_g", 1.0),
    ("electricity_usd", "electricity_usd", 1.0),
    ("cloud_low_usd", "cloud_low_usd", 1.0),
    ("cloud_high_usd", "cloud_high_usd", 1.0),
)
"""A figure's name, the column it is made of, and the column's unit in the figure's."""
_BY_PROVENANCE = tuple(f"{name}_kwh" for name in metrics.PROVENANCES)
_MARKED = "CREATE TEMP TABLE marked AS SELECT *, coalesce(lag(again) OVER w, false) AS goes_on FROM ("
_MARKED += "SELECT cluster, a, b, start, bool_and(again) AS again FROM runs JOIN files USING (file) GROUP BY ALL)"
_MARKED += " WINDOW w AS (PARTITION BY cluster, a, b ORDER BY start)"
_JOINED = """
    CREATE TEMP TABLE joined AS SELECT r.*, m.job FROM (
      SELECT *, max(CASE WHEN NOT goes_on THEN start END)
        OVER (PARTITION BY cluster, a, b ORDER BY start ROWS UNBOUNDED PRECEDING) AS job FROM marked
    ) m JOIN (FROM runs JOIN files USING (file)) r USING (cluster, a, b, start)"""


class LedgerCollector(Collector):
    """A custom collector for prometheus-client; scrapes may come at the same time."""

    def __init__(
        self, ledger: Ledger, zone: tzinfo, *, top: int = 100, users: bool = True,
        now: Callable[[], float] | None = None,
    ) -> None:  # fmt: skip
        self.ledger, self.zone, self.top, self.users = ledger, zone, top, users
        self._now = now or (lambda: datetime.now().timestamp())
        self.sums = DaySums(ledger, zone)
        self._lock = threading.Lock()
        self._shown: tuple[Found, date] | None = None
        self._families: list[Metric] = []
        self._said = ""

    def describe(self) -> list[Metric]:
        """Nothing: the registry need not read the ledger to know the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics as the ledger is now; read again only where its files changed or the month is another one."""
        with self._lock:
            try:
                families = self._current()
                self._said = ""
            except Exception as error:  # one that cannot be read is down, with no figures that might be old
                said = f"{self.ledger.path}: {(str(error) or type(error).__name__).splitlines()[0]}"
                if said != self._said:
                    log.error("the ledger cannot be read: %s", said)
                self._said, self._shown, families = said, None, [_family(f"{PREFIX}up", [((), 0.0)])]
        yield from families

    def _current(self) -> list[Metric]:
        found = look(self.ledger)
        today = datetime.fromtimestamp(self._now(), self.zone).date()
        state = (found, today.replace(day=1))
        if self._shown != state:
            self.sums.follow(found)
            self._families = list(self._build(found, state[1]))
            self._shown = state
        return self._families

    def _build(self, found: Found, month: date) -> Iterator[Metric]:
        con = self.sums.con
        for name in ("marked", "joined", "windows"):
            con.execute(f"DROP TABLE IF EXISTS {name}")
        con.execute(_MARKED)
        con.execute(_JOINED)
        con.execute(
            "CREATE TEMP TABLE windows AS SELECT file, 'all' AS win FROM files UNION ALL "
            "SELECT file, 'month' FROM files WHERE day >= ? AND day < ? UNION ALL "
            "SELECT file, 'last_month' FROM files WHERE day >= ? AND day < ?",
            [month, (month + timedelta(days=32)).replace(day=1), (month - timedelta(days=1)).replace(day=1), month],
        )
        yield _family(f"{PREFIX}up", [((), 1.0)])
        yield from self._freshness(found)
        yield from self._idle()
        yield from self._level("cluster")
        folded = []
        for level in LEVELS:
            if level == "user" and not self.users:
                continue
            kept, others = self._kept(level)
            folded.append(((level,), float(others)))
            con.execute("CREATE OR REPLACE TEMP TABLE kept (name TEXT)")
            if kept:
                con.executemany("INSERT INTO kept VALUES (?)", [(name,) for name in kept])
            yield from self._level(level)
        yield _family(f"{PREFIX}groups_folded", folded)

    def _freshness(self, found: Found) -> Iterator[Metric]:
        last: dict[str, date] = {}
        written: dict[str, float] = {}
        days: dict[str, float] = {}
        for file, signature in found.days.items():
            name = label(file.cluster)
            last[name] = max(last.get(name, file.day), file.day)
            written[name] = max(written.get(name, 0.0), signature.mtime_ns / 1e9)
            days[name] = days.get(name, 0.0) + 1
        ends = {name: day + timedelta(days=1) for name, day in last.items()}
        midnights = {
            name: datetime(day.year, day.month, day.day, tzinfo=self.zone).timestamp() for name, day in ends.items()
        }
        runs = {label(clusters): float(at) for clusters, at in found.runs.items()}
        for name, values in (
            ("last_run_timestamp_seconds", runs), ("last_day_timestamp_seconds", midnights),
            ("last_write_timestamp_seconds", written), ("day_files", days),
        ):  # fmt: skip
            yield _family(PREFIX + name, [((cluster,), value) for cluster, value in values.items()])
        yield _family(f"{PREFIX}set_aside_rows", [((), float(count_lines(found.aside)))])

    def _idle(self) -> Iterator[Metric]:
        """What no job used."""
        rows = self.sums.con.execute(
            "SELECT cluster, win, fsum(it_kwh) FILTER (idle) FROM project_sums JOIN files USING (file) "
            "JOIN windows USING (file) GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        idle: dict[Labels, float] = {(cluster, window): (kwh or 0.0) * J_PER_KWH for cluster, window, kwh in rows}
        yield _family(f"{PREFIX}idle_energy_joules", _whole(idle, self._clusters()))

    def _clusters(self) -> list[Labels]:
        rows: list[Labels] = self.sums.con.execute("SELECT DISTINCT cluster FROM files ORDER BY ALL").fetchall()
        return rows

    def _kept(self, level: str) -> tuple[list[str], int]:
        """The names that have series of their own, and how many have none. One that is called `other` is among those."""
        rows = self.sums.con.execute(
            "SELECT name, fsum(facility_kwh) FILTER (win = 'all') AS ever, "
            "coalesce(fsum(facility_kwh) FILTER (win = 'month'), 0) AS lately, "
            "coalesce(fsum(facility_kwh) FILTER (win = 'last_month'), 0) AS before "
            f"FROM {level}_sums JOIN windows USING (file) WHERE NOT idle GROUP BY name"
        ).fetchall()
        sums = [sum(row[index] for row in rows) or 1.0 for index in (1, 2, 3)]
        ranked = sorted(rows, key=lambda row: (-max(map(truediv, row[1:], sums)), row[0]))
        kept = [row[0] for row in ranked if row[0] != OTHER][: self.top]
        return kept, len(rows) - len(kept)

    def _level(self, level: str) -> Iterator[Metric]:
        """The figures by cluster; for projects and users by name, too, those that are not kept together."""
        con = self.sums.con
        keys, table, of_sums, of_runs = "cluster", "project", "", ""
        if level in LEVELS:
            keys, table = "cluster, label", level
            of_sums, of_runs = (
                f", CASE WHEN {column} IN (FROM kept) THEN {column} ELSE '{OTHER}' END AS label"
                for column in ("name", LEVELS[level])
            )
        columns = ", ".join(f"fsum({name})" for name in (*(source for _, source, _ in _FIGURES[1:]), *_BY_PROVENANCE))
        rows = con.execute(
            f"SELECT {keys}, win, sum(jobs), {columns} FROM (SELECT *{of_sums} FROM {table}_sums WHERE NOT idle) "
            f"JOIN files USING (file) JOIN windows USING (file) GROUP BY {keys}, win ORDER BY {keys}, win"
        ).fetchall()
        several = con.execute(
            f"SELECT {keys}, win, count(DISTINCT hash(a, b, job)) FROM (SELECT *{of_runs} FROM joined) "
            f"JOIN windows USING (file) GROUP BY {keys}, win"
        ).fetchall()
        jobs = {tuple(row[:-1]): row[-1] for row in several}
        width = len(keys.split(",")) + 1
        found = {tuple(row[:width]): row[width:] for row in rows}
        names = [key[:-1] for key in found if key[-1] == "all"] if level in LEVELS else self._clusters()
        for index, (name, source, unit) in enumerate(_FIGURES):
            more = jobs if source == "jobs" else {}
            values = {key: (float(row[index] or 0) + more.get(key, 0)) * unit for key, row in found.items()}
            yield _family(f"{PREFIX}{level}_{name}", _whole(values, names))
        known = []
        for index, name in enumerate(metrics.PROVENANCES, len(_FIGURES)):
            values = {key: max(row[index] or 0.0, 0.0) * J_PER_KWH for key, row in found.items()}
            known += [((*key, name), value) for key, value in _whole(values, names)]
        yield _family(f"{PREFIX}{level + '_' if level in LEVELS else ''}provenance_energy_joules", sorted(known))


def _whole(values: Mapping[Labels, float], names: Sequence[Labels]) -> list[tuple[Labels, float]]:
    """Everybody's figure in every window, the window last: 0 where there is none."""
    return [((*name, window), values.get((*name, window), 0.0)) for name in names for window in metrics.WINDOWS]


def _family(name: str, samples: Sequence[tuple[tuple[Any, ...], float]]) -> GaugeMetricFamily:
    metric = KNOWN[name]
    family = GaugeMetricFamily(name, metric.help, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family
