"""What can be waited for: a condition, the end of a run, or anything a function can tell.

Invariant: a wait ends as soon as it is decided: one for Complete does not go on after the run has failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import ConditionType
from rft_operator.client.explain import nearest
from rft_operator.domain.draft import condition_of, has_failed, is_over
from rft_operator.errors import Refused

Predicate: TypeAlias = Callable[[ReasoningFinetune], bool]
Condition: TypeAlias = str | Predicate
"""``Complete``, ``Suspended=False``, ``over`` (complete or failed), or a function of the run."""
OVER = "over"
_STATUSES = {"true": "True", "false": "False", "unknown": "Unknown"}


@dataclass(frozen=True, slots=True)
class Goal:
    """What is waited for."""

    words: str
    holds: Predicate
    ends_with_run: bool
    """Nothing that can happen after the end of the run makes it true."""

    def is_lost(self, run: ReasoningFinetune) -> bool:
        """Return whether waiting is vain."""
        return self.ends_with_run and is_over(run.status) and is_fresh(run) and not self.holds(run)


def goal_of(condition: Condition) -> Goal:
    """Return what a condition asks for; raises Refused for a type that does not exist."""
    if callable(condition):
        name = getattr(condition, "__name__", "<lambda>")
        return Goal("the condition" if name == "<lambda>" else name, condition, ends_with_run=True)
    if condition == OVER:
        return Goal("the end of the run", lambda run: is_over(run.status), ends_with_run=False)
    type_text, _, status_text = condition.partition("=")
    types = {each.value.lower(): each for each in ConditionType}
    type_ = types.get(type_text.lower())
    wanted = _STATUSES.get((status_text or "True").lower())
    if type_ is None:
        close = nearest(type_text, [each.value for each in ConditionType])
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        known = ", ".join(each.value for each in ConditionType)
        raise Refused(f"{type_text!r} is no condition of a run{hint} Known are {known}, and {OVER}")
    if wanted is None:
        raise Refused(f"{condition!r}: a condition is True, False or Unknown, not {status_text!r}")

    def holds(run: ReasoningFinetune) -> bool:
        found = condition_of(run.status, type_)
        return found is not None and found.status.value == wanted and is_fresh(run)

    return Goal(f"{type_.value}={wanted}", holds, ends_with_run=True)


def is_fresh(run: ReasoningFinetune) -> bool:
    """Return whether the status speaks of the newest spec, and not of one before an edit."""
    return (run.status.observed_generation or 0) >= run.metadata.generation


def why_lost(run: ReasoningFinetune, goal: Goal) -> str:
    """Return why a run can no longer become what is waited for."""
    where = f"{run.metadata.namespace}/{run.metadata.name}"
    failed = condition_of(run.status, ConditionType.FAILED)
    if has_failed(run.status) and failed is not None:
        return f"{where} failed while {goal.words} was waited for: {failed.reason}: {failed.message}"
    return f"{where} is over and {goal.words} does not hold"
