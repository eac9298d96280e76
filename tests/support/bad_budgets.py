"""Specs of team budgets that the API server refuses, with the field it must name and the words a user must read."""

from __future__ import annotations

from typing import Any

Bad = tuple[dict[str, Any], str, str]

FULL: dict[str, Any] = {
    "limitUSD": "450.50",
    "currency": "USD",
    "selector": {
        "matchLabels": {"team": "nlp"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["gold", "silver"]},
            {"key": "free", "operator": "DoesNotExist"},
        ],
    },
    "window": "month",
    "resetTime": "2026-01-01T00:00:00Z",
    "warnAtPercent": [50, 100],
}
"""Every field."""


def expression(**change: Any) -> dict[str, Any]:
    return {"selector": {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["gold"], **change}]}}


BAD: list[Bad] = [
    ({"limitUSD": None}, "spec.limitUSD", "Required value"),
    ({"limitUSD": "lots"}, "spec.limitUSD", "must be at least 0 and below a billion US dollars: a whole number"),
    ({"limitUSD": -1}, "spec.limitUSD", "must be at least 0"),
    ({"limitUSD": "1.0000001"}, "spec.limitUSD", "must be at least 0"),
    ({"limitUSD": 1_000_000_000}, "spec.limitUSD", "below a billion US dollars"),
    ({"currency": "EUR"}, "spec.currency", '"EUR": must be USD, the currency of the price catalogue'),
    ({"currency": ""}, "spec.currency", "nothing is converted; write limitUSD in dollars"),
    ({"window": "year"}, "spec.window", 'supported values: "none", "day", "week", "month"'),
    ({"resetTime": "yesterday"}, "spec.resetTime", 'must be of type date-time: "yesterday"'),
    ({"resetTime": "2026-13-01T00:00:00Z"}, "spec.resetTime", "must be of type date-time"),
    ({"warnAtPercent": [50, 50]}, "spec.warnAtPercent[1]", "Duplicate value: 50"),
    ({"warnAtPercent": [0]}, "spec.warnAtPercent[0]", "greater than or equal to 1"),
    ({"selector": {"matchLabels": {"-": "x"}}}, "spec.selector.matchLabels", "-: this key must look like pool"),
    ({"selector": {"matchLabels": {"a": "b c"}}}, "spec.selector.matchLabels[a]", '"b c": must be empty or letters'),
    (expression(key=None), "spec.selector.matchExpressions[0].key", "Required value"),
    (expression(key="a/b/c"), "spec.selector.matchExpressions[0].key", '"a/b/c": must look like pool'),
    (expression(operator=None), "spec.selector.matchExpressions[0].operator", "Required value"),
    (expression(operator="Is"), "spec.selector.matchExpressions[0].operator", 'supported values: "In", "NotIn"'),
    (expression(values=["b c"]), "spec.selector.matchExpressions[0].values[0]", "must be empty or letters"),
    (expression(values=[]), "spec.selector.matchExpressions[0].values", "operators In and NotIn need values; add some"),
    (expression(values=None), "spec.selector.matchExpressions[0].values", "operators In and NotIn need values"),
    (
        expression(operator="Exists"),
        "spec.selector.matchExpressions[0].values",
        "operators Exists and DoesNotExist take no values; remove them",
    ),
]
