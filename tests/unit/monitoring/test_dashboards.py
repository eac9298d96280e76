"""The dashboards are the generated ones and keep the rules of good ones; each rule can fail."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rft_monitoring import boards
from support.dashboards import FOLDER, Dashboard, complaints, dashboards, filled, panels, targets, uses

pytestmark = pytest.mark.grader

ROOT = Path(__file__).resolve().parents[3]
Spoil = Callable[[Dashboard], Any]


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """The series of the reference, which a test of the operator holds to the code."""
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `([a-z_]+)` \|", page, flags=re.MULTILINE))


def the(uid: str) -> Dashboard:
    return next(board for board in dashboards() if board["uid"] == uid)


def first(board: Dashboard) -> dict[str, Any]:
    return next(panels(board))


def test_committed_dashboards_are_the_generated_ones() -> None:
    for path, text in boards.outputs(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is not up to date; run: make generate"
    assert set(boards.outputs(ROOT)) == set(FOLDER.glob("*.json"))


@pytest.mark.parametrize("uid", ["rft-run", "rft-team", "rft-operator"])
def test_dashboard_keeps_every_rule(uid: str, exported: set[str]) -> None:
    assert complaints(the(uid), exported=exported) == []


def test_dashboards_have_their_own_uids_and_titles() -> None:
    boards = dashboards()
    assert len({board["uid"] for board in boards}) == len({board["title"] for board in boards}) == len(boards) == 3


BAD: dict[str, tuple[Spoil, str]] = {
    "editable": (lambda board: board.update(editable=True), "it can be edited"),
    "another uid": (lambda board: board.update(uid="x"), "it has no uid of ours"),
    "no tag": (lambda board: board.update(tags=[]), "it lacks the tag"),
    "fixed datasource": (
        lambda board: first(board).update(datasource={"type": "prometheus", "uid": "abc"}),
        "its datasource is not the variable",
    ),
    "no description": (lambda board: first(board).update(description=""), "it has no description"),
    "no title": (lambda board: first(board).update(title=""), "it has no title"),
    "no unit": (lambda board: first(board)["fieldConfig"]["defaults"].pop("unit"), "it has no unit"),
    "wide panel": (lambda board: first(board)["gridPos"].update(x=22), "leaves the grid"),
    "panel on another": (lambda board: first(board)["gridPos"].update(w=8), "overlap"),
    "number twice": (lambda board: first(board).update(id=1), "two panels have one number"),
    "title twice": (
        lambda board: first(board).update(title="Limit"),
        "two panels have one title",
    ),
    "stale variable": (
        lambda board: board["templating"]["list"][1].update(refresh=1),
        "is not refreshed when the time range changes",
    ),
    "single job": (lambda board: board["templating"]["list"][1].update(multi=False), "does not admit several values"),
}
QUERIES = {
    "sum(": "does not parse",
    "reasoning_finetune_spent": "the operator exports no reasoning_finetune_spent",
    "reasoning_finetune_spent_usd": "is not bound to the job",
    'reasoning_finetune_cost_usd_total{job=~"$job"}': "is a counter outside a rate",
    'rft_reconcile_duration_seconds_count{job=~"$job"}': "is a counter outside a rate",
    'rate(reasoning_finetune_cost_usd_total{job=~"$job"}[5m])': "is rated over a fixed time",
    'reasoning_finetune_spent_usd{job=~"$job", team="$team"}': "which is no variable",
}


@pytest.mark.parametrize(("spoil", "words"), BAD.values(), ids=BAD.keys())
def test_rule_is_broken_when_a_dashboard_is_spoilt(spoil: Spoil, words: str, exported: set[str]) -> None:
    board = copy.deepcopy(the("rft-run"))
    spoil(board)
    assert any(words in each for each in complaints(board, exported=exported))


@pytest.mark.parametrize(("expr", "words"), QUERIES.items())
def test_rule_is_broken_when_a_query_is_bad(expr: str, words: str, exported: set[str]) -> None:
    board = copy.deepcopy(the("rft-run"))
    first(board)["targets"][0]["expr"] = expr
    assert any(words in each for each in complaints(board, exported=exported))


def test_variables_are_filled_in_as_grafana_does() -> None:
    expr = 'rate(a_total{job=~"$job", jobs="$jobs", x="${job}"}[$__rate_interval])'
    assert filled(expr, job=".+", jobs="b") == 'rate(a_total{job=~".+", jobs="b", x=".+"}[2m])'


def test_reading_of_a_query_tells_functions_and_ranges() -> None:
    plain, counted = uses("max(a) / rate(b_total[5m])")
    assert (plain.name, plain.ranged, plain.functions) == ("a", False, ())
    assert (counted.name, counted.ranged, counted.functions) == ("b_total", True, ("rate",))


def test_every_panel_that_the_three_readers_need_is_there() -> None:
    shown = {uid: {target.panel for target in targets(the(uid))} for uid in ("rft-run", "rft-team", "rft-operator")}
    assert shown["rft-run"] >= {
        *("Spent", "Limit", "Reserve", "Remaining", "Spend against plan", "Cost per hour", "Time to soft stop"),
        *("Forecast", "Cost by stage", "Waste by reason", "Price of a GPU-hour", "Age of the price", "Speed"),
        *("Training loss", "Cost of 1,000 tokens", "Score"),
    }
    assert shown["rft-team"] >= {
        *("Runs", "Spend by namespace", "Reservations", "Burn-down of the window", "GPUs idle", "Spot and on-demand"),
    }
    assert shown["rft-operator"] >= {
        *("Runs that wait", "Time of a look", "Failed looks", "Age of the ledger", "Clock offset"),
        "Lag of the event loop",
    }
