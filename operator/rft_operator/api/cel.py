"""The form of a rule in CEL, and the rules of single values: amounts, quantities, patterns, ranges, addresses.

Invariant: each refusal names the field (the place of the rule and ``field`` below it), the value and the remedy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from rft_operator.api.texts import QUANTITY_PATTERN

Path = tuple[str, ...]

REQUIRED = "FieldValueRequired"
FORBIDDEN = "FieldValueForbidden"
IS_HUB = "self.uri.startsWith('hf://')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A CEL expression that must hold, and what to tell the user if it does not."""

    expression: str
    message: str
    field: str = ""
    """The field to blame, below the place of the rule."""
    value: str = ""
    """CEL for a text in front of the message: the API server itself shows the value of a scalar, but of no object.

    No number: the length of its text has no bound, and the API server bounds the cost of a rule.
    """
    reason: str = ""
    """REQUIRED or FORBIDDEN, where the field is missing or must not be there; else the value is invalid."""
    optional_old_self: bool = False
    """``oldSelf`` is an optional, and the rule judges new resources, too; else a rule that names it judges edits."""

    def to_wire(self) -> dict[str, str | bool]:
        """Return the form of ``x-kubernetes-validations``."""
        wire: dict[str, str | bool] = {"rule": self.expression, "message": self.message}
        if self.value:
            wire["messageExpression"] = f"{self.value} + {json.dumps(': ' + self.message)}"
        if self.field:
            wire["fieldPath"] = self.field
        if self.reason:
            wire["reason"] = self.reason
        if self.optional_old_self:
            wire["optionalOldSelf"] = True
        return wire


_MONEY = "'^[0-9]{1,9}([.][0-9]{1,6})?$'"
_DOLLARS = 'and below a billion US dollars: a whole number such as 450, or a quoted decimal such as "450.50"'


def is_money(field: str) -> str:
    """Return CEL for: this int-or-string is an amount."""
    return f"string({field}).matches({_MONEY})"


INT_OR_TEXT: dict[str, tuple[int, Rule]] = {
    "amount": (16, Rule(expression=is_money("self"), message=f"must be at least 0 {_DOLLARS}")),
    "price": (
        16,
        Rule(
            expression=f"{is_money('self')} && double(self) > 0.0",
            message=f"must be above 0 {_DOLLARS}",
        ),
    ),
    "quantity": (
        32,
        Rule(
            expression=f"string(self).matches(r'{QUANTITY_PATTERN}')",
            message='must be a quantity above 0, such as 8, "500m" or 64Gi',
        ),
    ),
}
"""Longest text and rule of each kind of int-or-string."""


def pattern_rule(pattern: str, remedy: str) -> Rule:
    """Return the rule of a string's pattern."""
    return Rule(expression=f"self.matches(r'{pattern}')", message=remedy)


def keys_rule(pattern: str, remedy: str) -> Rule:
    """Return the rule of the keys of a map."""
    wrong = f"!key.matches(r'{pattern}')"
    return Rule(
        expression=f"!self.exists(key, {wrong})", message=f"this key {remedy}", value=f"self.filter(key, {wrong})[0]"
    )


def uris(*schemes: str) -> list[Rule]:
    """Return what the addresses of these schemes look like."""
    known = {
        "hf": Rule(
            expression="!self.startsWith('hf://') || self.matches('^hf://[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+(/.+)?$')",
            message="a hub address is hf://organisation/name, for example hf://Qwen/Qwen2.5-32B-Instruct",
        ),
        "pvc": Rule(
            expression="!self.startsWith('pvc://') || self.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+$')",
            message="a claim's address is pvc://claim/path, with the name of a PersistentVolumeClaim",
        ),
        "configmap": Rule(
            expression="!self.startsWith('configmap://') || "
            "self.matches('^configmap://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[-._a-zA-Z0-9]+$')",
            message="a ConfigMap's address is configmap://name/key, with the key that holds the rows",
        ),
        "file": Rule(
            expression="!self.startsWith('file://') || self.matches('^file:///.+$')",
            message="a file's address is file:///absolute/path in the trainer's container (three slashes)",
        ),
        "init": Rule(
            expression="!self.startsWith('init://') || self.matches('^init://tiny-qwen2([?].*)?$')",
            message="the only preset of random weights is init://tiny-qwen2",
        ),
        "gym": Rule(
            expression="!self.startsWith('gym://') || self.matches('^gym://[a-z0-9_]+([?].*)?$')",
            message="a generator's address is gym://task?option=value, for example gym://chain_sum?min_terms=2",
        ),
    }
    return [known[scheme] for scheme in schemes]


def only_hub(field: str, message: str) -> Rule:
    """Return the rule of a field beside ``uri`` that speaks of the hub alone."""
    return Rule(expression=f"!has(self.{field}) || {IS_HUB}", message=message, field=f".{field}", reason=FORBIDDEN)


def between(low: str, high: str, *, open_low: bool = False) -> list[Rule]:
    """Return the range of a decimal in text; what is no number has been refused by its pattern."""
    compare, words = (">", "above") if open_low else (">=", "at least")
    number = "self.matches(r'^[0-9]+([.][0-9]+)?(e-?[0-9]+)?$')"
    return [
        Rule(
            expression=f"!{number} || (double(self) {compare} {low} && double(self) <= {high})",
            message=f"must be {words} {low.removesuffix('.0')} and at most {high.removesuffix('.0')}",
        )
    ]
