"""The dashboards that the chart ships, and what every one of them must hold to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser

FOLDER = Path(__file__).resolve().parents[2] / "helm" / "rft-operator" / "files" / "dashboards"
RATES = {"rate", "irate", "increase"}
PARTS = ("_bucket", "_sum", "_count")
"""What a histogram is exported as."""
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
ROW = "row"
BUILT_IN = {"__rate_interval", "__range", "__interval"}

Dashboard = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One query of a panel."""

    board: str
    panel: str
    expr: str
    legend: str
    kind: str
    """The panel's type."""

    def filled(self, **values: str) -> str:
        """Return the query with the variables' values, as Grafana sends it."""
        return filled(self.expr, **values)

    def __str__(self) -> str:
        return f"{self.board}/{self.panel}: {self.expr}"


def dashboards() -> list[Dashboard]:
    """Return what is in the chart."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))]


def panels(board: Dashboard) -> Iterator[dict[str, Any]]:
    """Yield the panels that show something."""
    yield from (panel for panel in board["panels"] if panel["type"] != ROW)


def targets(*boards: Dashboard) -> list[Target]:
    """Return every query."""
    return [
        Target(
            board=board["uid"],
            panel=panel["title"],
            expr=target["expr"],
            legend=target.get("legendFormat") or "",
            kind=panel["type"],
        )
        for board in boards
        for panel in panels(board)
        for target in panel["targets"]
    ]


def filled(expr: str, *, rate_interval: str = "2m", **values: str) -> str:
    """Return an expression with the variables' values, as Grafana sends it; a value may be a pattern."""
    expr = expr.replace("$__rate_interval", rate_interval)
    for name, value in values.items():
        expr = re.sub(rf"\$({name}\b|{{{name}}})", lambda _, value=value: value, expr)  # type: ignore[misc]
    return expr


@dataclass(frozen=True, slots=True)
class Use:
    """One series that an expression reads."""

    name: str
    labels: dict[str, str]
    functions: tuple[str, ...]
    """The calls around it, outermost first."""
    ranged: bool


def uses(expr: str) -> list[Use]:
    """Return the series that an expression reads; raises ValueError if it does not parse."""
    found: list[Use] = []
    calls: list[str] = []
    ranges: list[object] = []

    def enter(node: object) -> None:
        if isinstance(node, promql_parser.Call):
            calls.append(node.func.name)
        elif isinstance(node, promql_parser.MatrixSelector):
            ranges.append(node)
        elif isinstance(node, promql_parser.VectorSelector):
            labels = {each.name: each.value for each in node.matchers.matchers}
            found.append(Use(node.name or "", labels, tuple(calls), bool(ranges)))

    def leave(node: object) -> None:
        if isinstance(node, promql_parser.Call):
            calls.pop()
        elif isinstance(node, promql_parser.MatrixSelector):
            ranges.pop()

    promql_parser.walk(promql_parser.parse(expr), enter, leave)
    return found


def complaints(board: Dashboard, *, exported: set[str]) -> list[str]:
    """Return what is wrong with a dashboard, in sentences; ``exported`` are the names of the operator's series."""
    found = [*_about_board(board), *_about_layout(board)]
    for panel in panels(board):
        found += [f"{panel['title'] or panel['id']}: {each}" for each in _about_panel(panel)]
    variables = {each["name"] for each in board["templating"]["list"]}
    for target in targets(board):
        found += [f"{target.panel}: {each}" for each in _about_query(target, variables, exported)]
    text = json.dumps(board)
    found += [
        f"variable {name} is not used" for name in variables if f"${name}" not in text and f"${{{name}" not in text
    ]
    return found


def _about_board(board: Dashboard) -> Iterator[str]:
    if board.get("editable") is not False:
        yield "it can be edited"
    if board.get("id") is not None:
        yield "it carries an id of one Grafana"
    if not re.fullmatch(r"rft-[a-z]+", board.get("uid") or ""):
        yield "it has no uid of ours"
    if "rft" not in board.get("tags", ()):
        yield "it lacks the tag"
    if not board.get("description"):
        yield "it has no description"
    source, *others = board["templating"]["list"]
    if (source["type"], source["query"]) != ("datasource", "prometheus"):
        yield "its first variable is not the datasource"
    for each in others:
        if each["datasource"] != SOURCE:
            yield f"variable {each['name']} has a datasource of its own"
        if each["refresh"] != 2:
            yield f"variable {each['name']} is not refreshed when the time range changes"
        if each["name"] in ("job", "instance") and not (each["multi"] and each["includeAll"]):
            yield f"variable {each['name']} does not admit several values"


def _about_layout(board: Dashboard) -> Iterator[str]:
    numbers = [panel["id"] for panel in board["panels"]]
    if len(set(numbers)) < len(numbers):
        yield "two panels have one number"
    titles = [panel["title"] for panel in board["panels"]]
    if len(set(titles)) < len(titles):
        yield "two panels have one title"
    places = {panel["id"]: panel["gridPos"] for panel in board["panels"]}
    for number, place in places.items():
        if place["x"] + place["w"] > 24:
            yield f"panel {number} leaves the grid"
    for (one, a), (two, b) in combinations(places.items(), 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        if not apart and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]:
            yield f"panels {one} and {two} overlap"


def _about_panel(panel: dict[str, Any]) -> Iterator[str]:
    if not panel.get("title"):
        yield "it has no title"
    if len((panel.get("description") or "").split()) < 3:
        yield "it has no description"
    if not panel["fieldConfig"]["defaults"].get("unit"):
        yield "it has no unit"
    if panel.get("datasource") != SOURCE or any(each["datasource"] != SOURCE for each in panel["targets"]):
        yield "its datasource is not the variable"
    if not panel["targets"]:
        yield "it asks for nothing"


def _about_query(target: Target, variables: set[str], exported: set[str]) -> Iterator[str]:
    named = set(re.findall(r"\$\{?(\w+)", target.expr))
    if named - variables - BUILT_IN:
        yield f"it names {sorted(named - variables - BUILT_IN)}, which is no variable"
    try:
        found = uses(filled(target.expr))
    except ValueError as error:
        yield f"it does not parse: {error}"
        return
    for use in found:
        if use.name not in exported and not any(use.name.removesuffix(part) in exported for part in PARTS):
            yield f"the operator exports no {use.name}"
        if use.labels.get("job") != "$job":
            yield f"{use.name} is not bound to the job"
        rated = use.ranged and not RATES.isdisjoint(use.functions)
        if use.name.endswith(("_total", *PARTS)) and not rated:
            yield f"{use.name} is a counter outside a rate"
        if use.ranged and {"rate", "irate"} & set(use.functions) and "[$__rate_interval]" not in target.expr:
            yield f"{use.name} is rated over a fixed time"
