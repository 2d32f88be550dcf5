"""Panels and variables as these dashboards have them, out of the Grafana Foundation SDK.

Every panel has a title, a description, a unit and a width; widths of a line add up to 24.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from grafana_foundation_sdk.builders import bargauge, common, dashboard, piechart, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models import piechart as p
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = d.DataSourceRef("prometheus", "${datasource}")
DARK = "text"
KEEP = "${datasource:queryparam}&${__url_time_range}"
"""What every link takes along."""


class Column(NamedTuple):
    """A column of figures in a table: its query, name and unit. Columns of labels come with the queries."""

    name: str
    expr: str
    unit: str
    decimals: int | None = None
    bars: bool = False
    words: dict[str, str] = {}  # noqa: RUF012
    """What stands for a value."""


def query(expr: str, legend: str = "", ref: str = "A", *, instant: bool = False, rows: bool = False) -> Any:
    """A PromQL query: over the time range, or of its end; rows: as a table."""
    made = (
        prometheus.Dataquery()
        .expr(" ".join(expr.split()))
        .ref_id(ref)
        .legend_format(legend or "__auto")
        .datasource(SOURCE)
    )
    made = made.instant() if instant or rows else made.range()
    return made.format(PromQueryFormat.TABLE if rows else PromQueryFormat.TIME_SERIES)


def thresholds(steps: Sequence[tuple[float | None, str]]) -> Any:
    """Colours from a value on; the first has None."""
    return dashboard.ThresholdsConfig().mode(d.ThresholdsMode.ABSOLUTE).steps([d.Threshold(*step) for step in steps])


def words(given: dict[str, str]) -> list[Any]:
    """Text in place of values."""
    shown = {value: d.ValueMappingResult(text=text) for value, text in given.items()}
    return [d.ValueMap(options=shown)]


def _plain(panel: Any, title: str, description: str, unit: str, span: int, height: int, decimals: int | None) -> Any:
    panel = panel.title(title).description(" ".join(description.split())).datasource(SOURCE).unit(unit)
    panel = panel.span(span).height(height)
    return panel if decimals is None else panel.decimals(decimals)


def one(
    title: str, description: str, expr: str, unit: str, span: int = 4, *, decimals: int | None = None,
    steps: Sequence[tuple[float | None, str]] = (), shown: dict[str, str] | None = None, trend: bool = False,
) -> Any:  # fmt: skip
    """One figure, as of now; trend: with its course behind it."""
    reduce = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    panel = _plain(stat.Panel(), title, description, unit, span, 4, decimals).reduce_options(reduce)
    panel = panel.graph_mode(c.BigValueGraphMode.AREA if trend else c.BigValueGraphMode.NONE)
    panel = panel.color_mode(c.BigValueColorMode.VALUE).no_value("no data")
    panel = panel.thresholds(thresholds(steps or [(None, DARK)]))
    if shown:
        panel = panel.mappings(words(shown))
    return panel.with_target(query(expr, title, instant=not trend))


def course(
    title: str, description: str, queries: Sequence[tuple[str, str]], unit: str, span: int = 12, *, stacked: bool = False,
    link: tuple[str, str] | None = None, steps: Sequence[tuple[float | None, str]] = (), minimum: float | None = 0,
    height: int = 9,
) -> Any:  # fmt: skip
    """Figures over time. queries: PromQL and legend. link: title and address of a click on a line."""
    panel = _plain(timeseries.Panel(), title, description, unit, span, height, None)
    legend = common.VizLegendOptions().display_mode(c.LegendDisplayMode.TABLE).placement(c.LegendPlacement.BOTTOM)
    panel = panel.legend(legend.show_legend(True).calcs(["lastNotNull", "mean", "max"]))
    panel = panel.tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING))
    panel = panel.line_width(1).fill_opacity(30 if stacked else 5).show_points(c.VisibilityMode.NEVER).span_nulls(False)
    if minimum is not None:
        panel = panel.min(minimum)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(c.StackingMode.NORMAL).group("A"))
    panel = panel.thresholds(thresholds(steps or [(None, DARK)]))
    if steps:
        panel = panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(c.GraphTresholdsStyleMode.DASHED))
    if link:
        panel = panel.data_links([_link(*link)])
    for number, (expr, text) in enumerate(queries):
        panel = panel.with_target(query(expr, text, chr(ord("A") + number)))
    return panel


def _link(title: str, url: str) -> Any:
    return dashboard.DashboardLink(title).type(d.DashboardLinkType.LINK).url(url)


def rows(
    title: str, description: str, columns: Sequence[Column], hidden: Sequence[str] = (), span: int = 12, *,
    links: dict[str, tuple[str, str]] | None = None, sort: str = "", order: Sequence[str] = (), height: int = 9,
    said: dict[str, dict[str, str]] | None = None,
) -> Any:  # fmt: skip
    """A table: a row for each set of labels that the columns' queries have together.

    hidden: labels that are not shown. links: by column, title and address. order: labels from left to right. said: by
    label, what stands for its values.
    """
    panel = _plain(table.Panel(), title, description, columns[0].unit, span, height, None).show_header(True)
    panel = panel.thresholds(thresholds([(None, DARK)]))
    names = {}
    for number, column in enumerate(columns):
        ref = chr(ord("A") + number)
        panel = panel.with_target(query(column.expr, "", ref, rows=True))
        names[f"Value #{ref}" if len(columns) > 1 else "Value"] = column.name
        properties = [d.DynamicConfigValue("unit", column.unit)]
        if column.decimals is not None:
            properties.append(d.DynamicConfigValue("decimals", column.decimals))
        if column.bars:
            properties.append(d.DynamicConfigValue("custom.cellOptions", {"type": "gauge", "mode": "basic"}))
            properties.append(d.DynamicConfigValue("min", 0))
        if column.words:
            properties.append(d.DynamicConfigValue("mappings", words(column.words)))
        panel = panel.override_by_name(column.name, properties)
    for name, (text, url) in (links or {}).items():
        panel = panel.override_by_name(name, [d.DynamicConfigValue("links", [{"title": text, "url": url}])])
    for name, texts in (said or {}).items():
        panel = panel.override_by_name(name, [d.DynamicConfigValue("mappings", words(texts))])
    if sort:
        panel = panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(True)])
    if len(columns) > 1:
        panel = panel.with_transformation(d.DataTransformerConfig(id_val="merge", options={}))
    options = {
        "excludeByName": dict.fromkeys(("Time", "__name__", *hidden), True),
        "renameByName": names,
        "indexByName": {name: place for place, name in enumerate((*order, *names))},
    }
    return panel.with_transformation(d.DataTransformerConfig(id_val="organize", options=options))


def bars(
    title: str, description: str, queries: Sequence[tuple[str, str]], unit: str, span: int = 8, *,
    decimals: int | None = None, height: int = 9, link: tuple[str, str] | None = None,
) -> Any:  # fmt: skip
    """A bar for each series, as of now, the longest first where the query sorts."""
    panel = _plain(bargauge.Panel(), title, description, unit, span, height, decimals).min(0)
    panel = panel.orientation(c.VizOrientation.HORIZONTAL).display_mode(c.BarGaugeDisplayMode.BASIC)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel = panel.thresholds(thresholds([(None, "blue")]))
    if link:
        panel = panel.data_links([_link(*link)])
    for number, (expr, text) in enumerate(queries):
        panel = panel.with_target(query(expr, text, chr(ord("A") + number), instant=True))
    return panel


def shares(title: str, description: str, expr: str, legend: str, unit: str, span: int = 8, height: int = 9) -> Any:
    """Parts of a whole."""
    panel = _plain(piechart.Panel(), title, description, unit, span, height, None).pie_type(p.PieChartType.DONUT)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    table_legend = piechart.PieChartLegendOptions().display_mode(c.LegendDisplayMode.TABLE)
    shown = [p.PieChartLegendValues.VALUE, p.PieChartLegendValues.PERCENT]
    panel = panel.legend(table_legend.placement(c.LegendPlacement.RIGHT).show_legend(True).values(shown))
    return panel.with_target(query(expr, legend, instant=True))


def chosen(name: str, label: str, metric: str, description: str, *, several: bool = True) -> Any:
    """A variable: the values of a label. several: any number of them, all at first."""
    made = dashboard.QueryVariable(name).label(label).description(description).datasource(SOURCE)
    asked = f"label_values({metric}, {name})"
    made = made.query({"query": asked, "refId": f"variable-{name}"}).refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED)
    made = made.sort(d.VariableSort.ALPHABETICAL_ASC).multi(several)
    if several:
        everything = d.VariableOption(selected=True, text="All", value="$__all")
        made = made.include_all(True).all_value(".*").current(everything)
    return made


WINDOWS = {"month": "This month", "last_month": "Last month", "all": "Whole ledger"}


def windows(*, whole: bool = True) -> Any:
    """A variable: the current month, the one before it, or (whole) all of the ledger."""
    shown = {value: text for value, text in WINDOWS.items() if whole or value != "all"}
    options = [d.VariableOption(value == "month", text, value) for value, text in shown.items()]
    made = dashboard.CustomVariable("window").label("Window")
    made = made.values(", ".join(f"{text} : {value}" for value, text in shown.items()))
    more = ", or all that the ledger holds" if whole else ""
    made = made.description(f"The current calendar month or the whole one before it, in the site's time zone{more}.")
    return made.options(options).current(options[0]).multi(False).include_all(False)


def board(uid: str, title: str, description: str, variables: Sequence[Any], *, since: str, refresh: str) -> Any:
    """An empty dashboard with its variables and the links to the others."""
    source = dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus").multi(False)
    made = dashboard.Dashboard(title).uid(uid).description(" ".join(description.split())).tags(["slurm-energy"])
    made = (
        made.time(since, "now").refresh(refresh).timezone("browser").readonly().tooltip(d.DashboardCursorSync.CROSSHAIR)
    )
    made = made.with_variable(source.description("The Prometheus that scrapes the exporters."))
    for variable in variables:
        made = made.with_variable(variable)
    others = dashboard.DashboardLink("slurm-energy").type(d.DashboardLinkType.DASHBOARDS).tags(["slurm-energy"])
    return made.link(others.as_dropdown(True).keep_time(False).include_vars(False))


def row(title: str) -> Any:
    """A heading."""
    return dashboard.Row(title)
