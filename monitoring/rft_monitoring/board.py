"""What a dashboard is: variables, sections of panels, and where it is found.

Invariant: a dashboard is read-only and has a fixed uid, so that an upgrade replaces it and links to it stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from rft_monitoring.panels import SOURCE, Panel

TAG = "rft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A variable: the values of a label, chosen by whoever looks."""

    name: str
    query: str
    several: bool = True
    """More than one value, or all of them, may be chosen."""


def variables(*choices: Choice) -> list[Builder[model.VariableModel]]:
    """Return the variables of a dashboard: the datasource first."""
    made: list[Builder[model.VariableModel]] = [
        dashboard.DatasourceVariable("datasource").label("Datasource").type("prometheus")
    ]
    for choice in choices:
        variable = (
            dashboard.QueryVariable(choice.name)
            .label(choice.name.capitalize())
            .query(choice.query)
            .datasource(SOURCE)
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
            .multi(choice.several)
            .include_all(choice.several)
        )
        if choice.several:
            variable.all_value(".+").current(model.VariableOption(selected=True, text="All", value="$__all"))
        made.append(variable)
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and its panels."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    description: str
    since: str
    """Start of the time range that is shown first, for example ``now-6h``."""
    choices: Sequence[Choice]
    sections: Sequence[Section]

    def build(self) -> model.Dashboard:
        """Return Grafana's model of it; panels are numbered in order."""
        made = (
            dashboard.Dashboard(self.title)
            .uid(self.uid)
            .description(self.description)
            .tags([TAG])
            .readonly()
            .refresh("30s")
            .time(self.since, "now")
            .timezone("browser")
            .tooltip(model.DashboardCursorSync.CROSSHAIR)
            .variables(variables(*self.choices))
            .link(
                dashboard.DashboardLink("Finetunes")
                .type(model.DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .as_dropdown(True)
                .include_vars(True)
                .keep_time(True)
            )
        )
        for section in self.sections:
            made.with_row(dashboard.Row(section.title))
            for panel in section.panels:
                made.with_panel(panel)
        built = made.build()
        for number, each in enumerate(built.panels or (), start=1):
            each.id_val = number
        return built
