"""A run as its team budgets see it: what it may spend, what it has spent, and what it asks for.

Invariant: everything here is on record in the run's own object, so a look repeated by anybody says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rft_operator.api.ledger import Ledger
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import ConditionStatus, ConditionType, Status
from rft_operator.api.team import FinetuneBudget, Selector, SelectorExpression, SelectorOperator
from rft_operator.domain.bill import bill, bill_at
from rft_operator.domain.draft import condition_of, is_true
from rft_operator.domain.facts import FINALIZER
from rft_operator.domain.money import micro_usd
from rft_operator.domain.timestamps import epoch
from rft_trainer.contract import Stage

WAITING = "WaitingForTeamBudget"
"""Reason of a condition: the money is there, its reservation is not on record yet."""
EXHAUSTED = "TeamBudgetExhausted"
"""Reason of a condition: the money is not there."""
ASKING = frozenset({WAITING, EXHAUSTED})
BILL_CLOSED = "BillClosed"
"""Reason of WithinBudget: the run is being deleted, and nothing can be charged to it any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamRun:
    """One run."""

    uid: str
    name: str
    labels: Mapping[str, str]
    created_at: int
    generation: int
    limit_micro_usd: int
    """spec.budget.limitUSD."""
    ledger: Ledger
    accepted: bool
    """It was let in; it may have GPU pods at any time."""
    asks: bool
    """It waits for a reservation: to be accepted, or to go on after it failed for want of money."""
    started: bool
    """GPU pods of it may exist or have existed."""
    final: bool
    """Its bill does not change any more."""
    at_rest: bool
    """It holds no GPU, and its next pods will be made under the spec's present limit."""
    deleting: bool

    def spent_at(self, now: int) -> int:
        """Return its bill in micro-dollars."""
        return bill(self.ledger, now=now).spent_micro_usd


def team_run(resource: ReasoningFinetune) -> TeamRun:
    """Return what a run's object says."""
    meta, status = resource.metadata, resource.status
    deleting = meta.deletion_timestamp is not None
    over = is_true(status, ConditionType.COMPLETE) or is_true(status, ConditionType.FAILED)
    gpu_attempts = [each for each in status.attempts if each.stage != Stage.PREPARE]
    holds = bool(status.ledger.open)
    return TeamRun(
        uid=meta.uid,
        name=meta.name,
        labels=meta.labels,
        created_at=epoch(meta.creation_timestamp) if meta.creation_timestamp else 0,
        generation=meta.generation,
        limit_micro_usd=micro_usd(resource.spec.budget.limit_usd),
        ledger=status.ledger,
        accepted=status.start_time is not None,
        asks=not deleting and _asks(status, over=over),
        started=FINALIZER in meta.finalizers or bool(gpu_attempts) or status.ledger != Ledger(),
        final=not holds and (over or (deleting and _has_reason(status, ConditionType.WITHIN_BUDGET, {BILL_CLOSED}))),
        at_rest=not holds
        and status.observed_generation == meta.generation
        and all(each.end_time is not None for each in gpu_attempts),
        deleting=deleting,
    )


def _asks(status: Status, *, over: bool) -> bool:
    if over:
        return is_true(status, ConditionType.FAILED) and _has_reason(status, ConditionType.WITHIN_BUDGET, ASKING)
    refused = condition_of(status, ConditionType.ACCEPTED)
    return refused is not None and refused.status is ConditionStatus.FALSE and refused.reason in ASKING


def _has_reason(status: Status, type_: ConditionType, reasons: frozenset[str] | set[str]) -> bool:
    found = condition_of(status, type_)
    return found is not None and found.reason in reasons


def spent_until(ledger: Ledger, at: int) -> tuple[int, bool]:
    """Return the bill as it was at ``at``, and whether it is exact.

    Where something that ended later is folded already it is a lower bound: a budget errs high.
    """
    exact = ledger.folded_until is None or epoch(ledger.folded_until) <= at
    known = ledger if exact else ledger.model_copy(update={"totals": []})
    return bill_at(known, at).spent_micro_usd, exact


def selects(selector: Selector | None, labels: Mapping[str, str]) -> bool:
    """Return whether a run of these labels shares a budget; no selector takes all."""
    if selector is None:
        return True
    same = all(labels.get(key) == value for key, value in selector.match_labels.items())
    return same and all(_holds(each, labels) for each in selector.match_expressions)


def _holds(expression: SelectorExpression, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression.key)
    if expression.operator is SelectorOperator.EXISTS:
        return value is not None
    if expression.operator is SelectorOperator.DOES_NOT_EXIST:
        return value is None
    return (value in expression.values) is (expression.operator is SelectorOperator.IN)


def free_micro_usd(budget: FinetuneBudget) -> int:
    """Return what is neither promised nor spent, as far as it is on record; below 0 where too much is promised."""
    status = budget.status
    promised = sum(each.reserved_micro_usd for each in status.reservations)
    return micro_usd(budget.spec.limit_usd) - status.closed_micro_usd - promised
