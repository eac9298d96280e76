"""Rules of a ``FinetuneBudget``, in the form of :mod:`rft_operator.api.rules`."""

from __future__ import annotations

from rft_operator.api.cel import FORBIDDEN, REQUIRED, Path, Rule

RULES: dict[Path, list[Rule]] = {
    (): [
        Rule(
            expression="size(self.metadata.name) <= 63",
            message="at most 63 characters, so that the names of its Events fit; choose a shorter name",
            field=".metadata.name",
            value="self.metadata.name",
        ),
    ],
    ("spec",): [
        Rule(
            expression="!has(self.resetTime) || !has(oldSelf.resetTime) || self.resetTime >= oldSelf.resetTime",
            message="cannot be earlier than the last reset: what no longer counts stays forgotten",
            field=".resetTime",
        ),
    ],
    ("spec", "selector", "matchExpressions", "[]"): [
        Rule(
            expression="!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)",
            message="operators In and NotIn need values; add some, or use Exists or DoesNotExist",
            field=".values",
            reason=REQUIRED,
        ),
        Rule(
            expression="self.operator in ['In', 'NotIn'] || !has(self.values) || size(self.values) == 0",
            message="operators Exists and DoesNotExist take no values; remove them, or use In or NotIn",
            field=".values",
            reason=FORBIDDEN,
        ),
    ],
}

LIST_KEYS: dict[Path, tuple[str, ...]] = {
    ("status", "reservations"): ("uid",),
    ("status", "conditions"): ("type",),
}
LIST_SETS = frozenset({("spec", "warnAtPercent")})
