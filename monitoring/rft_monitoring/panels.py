"""The few kinds of panels that our dashboards are made of, with what every panel must have in one place.

Invariant: a panel has a title, a description, a unit and the templated datasource.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
Panel = Builder[model.Panel]
Steps = Sequence[tuple[float | None, str]]
"""Thresholds: from which value on (None: from the start) which colour."""
PLAIN: Steps = ((None, "text"),)
"""A value that is neither good nor bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One PromQL expression of a panel and how its series are called."""

    expr: str
    legend: str = ""
    dashed: bool = False
    """Drawn as a thin dashed line: a bound, not a measurement."""
    filled: bool = True
    """Whether the area below the line is filled."""
    colour: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One value of a table of runs."""

    name: str
    expr: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Width (of 24) and height of a panel on Grafana's grid."""

    width: int
    height: int


TILE = Size(width=4, height=4)
HALF = Size(width=12, height=8)
THIRD = Size(width=8, height=8)


def ref(index: int) -> str:
    """Return Grafana's name of a panel's query."""
    return chr(ord("A") + index)


def _target(index: int, query: Query) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(ref(index)).datasource(SOURCE)


def _target_now(index: int, query: Query) -> prometheus.Dataquery:
    """Return a query of the newest values alone: what a run was before must not stand beside what it is."""
    return _target(index, query).instant()


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    made = [model.Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(made)


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def tile(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    size: Size = TILE,
    decimals: int | None = None,
    steps: Steps = PLAIN,
    otherwise: str = "none",
) -> Panel:
    """Return a panel that shows the newest value in large type; ``otherwise`` stands where there is none."""
    mode = common_model.BigValueTextMode.VALUE_AND_NAME if queries[0].legend else common_model.BigValueTextMode.VALUE
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .no_value(otherwise)
        .thresholds(_thresholds(steps))
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .color_mode(common_model.BigValueColorMode.VALUE)
        .graph_mode(common_model.BigValueGraphMode.NONE)
        .text_mode(mode)
        .reduce_options(_last())
        .span(size.width)
        .height(size.height)
    )
    if decimals is not None:
        panel.decimals(decimals)
    for index, query in enumerate(queries):
        panel.with_target(_target_now(index, query))
    return panel


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    size: Size = HALF,
    stacked: bool = False,
    least: float | None = 0,
    most: float | None = None,
) -> Panel:
    """Return a panel of lines over time.

    The axis begins at ``least`` (None: where the values begin) and reaches at least to ``most``.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .line_width(2)
        .fill_opacity(25 if stacked else 8)
        .show_points(common_model.VisibilityMode.NEVER)
        .span_nulls(False)
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .legend(
            common.VizLegendOptions()
            .display_mode(common_model.LegendDisplayMode.LIST)
            .placement(common_model.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_model.TooltipDisplayMode.MULTI)
            .sort(common_model.SortOrder.DESCENDING)
        )
        .span(size.width)
        .height(size.height)
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL).group("A"))
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.axis_soft_max(most)
    for index, query in enumerate(queries):
        panel.with_target(_target(index, query))
        properties = _line_properties(query)
        if properties:
            panel.override_by_query(ref(index), properties)
    return panel


def _line_properties(query: Query) -> list[model.DynamicConfigValue]:
    made = []
    if query.dashed:
        made.append(model.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 6]}))
        made.append(model.DynamicConfigValue(id_val="custom.lineWidth", value=1))
    if query.dashed or not query.filled:
        made.append(model.DynamicConfigValue(id_val="custom.fillOpacity", value=0))
    if query.colour is not None:
        made.append(
            model.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": query.colour}),
        )
    return made


def bars(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    size: Size = THIRD,
    most: float | None = None,
    decimals: int | None = None,
    otherwise: str = "none",
) -> Panel:
    """Return a panel with a horizontal bar for each series' newest value; ``most`` is the axis' upper end."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .no_value(otherwise)
        .thresholds(_thresholds(((None, "blue"),)))
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .orientation(common_model.VizOrientation.HORIZONTAL)
        .display_mode(common_model.BarGaugeDisplayMode.BASIC)
        .value_mode(common_model.BarGaugeValueMode.TEXT)
        .show_unfilled(True)
        .text(common.VizTextDisplayOptions().title_size(14).value_size(18))
        .reduce_options(_last())
        .span(size.width)
        .height(size.height)
    )
    if most is not None:
        panel.max(most)
    if decimals is not None:
        panel.decimals(decimals)
    for index, query in enumerate(queries):
        panel.with_target(_target_now(index, query))
    return panel


def run_table(title: str, description: str, columns: Sequence[Column], *, keys: Sequence[str], size: Size) -> Panel:
    """Return a table with a row for each combination of the labels ``keys``, largest first by the first column."""
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(columns[0].unit)
        .no_value("")
        .show_header(True)
        .sort_by([common.TableSortByFieldState().display_name(columns[0].name).desc(True)])
        .span(size.width)
        .height(size.height)
    )
    renamed = {key: key.capitalize() for key in keys}
    for index, column in enumerate(columns):
        query = _target_now(index, Query(expr=column.expr)).format(PromQueryFormat.TABLE)
        panel.with_target(query)
        properties = [model.DynamicConfigValue(id_val="unit", value=column.unit)]
        if column.unit == "currencyUSD":
            properties.append(model.DynamicConfigValue(id_val="decimals", value=2))
        panel.override_by_name(column.name, properties)
        renamed[f"Value #{ref(index)}" if len(columns) > 1 else "Value"] = column.name
    panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    order = {name: place for place, name in enumerate(renamed)}
    hidden: Mapping[str, Any] = {"Time": True}
    organised = {"excludeByName": hidden, "indexByName": order, "renameByName": renamed}
    panel.with_transformation(model.DataTransformerConfig(id_val="organize", options=organised))
    return panel
