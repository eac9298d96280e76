"""A run as its team budgets see it: what it may spend, what it has spent, and what it asks for.

Invariant: everything here is on record in the run's own object, so a look repeated by anybody says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rft_operator.api.ledger import Ledger
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import ConditionStatus, ConditionType, Status
from rft_operator.api.team import FinetuneBudget, Selector, SelectorExpression, SelectorOperator
from rft_operator.domain.bill import Share, bill, bill_at
from rft_operator.domain.budget import CPU_STAGES
from rft_operator.domain.draft import condition_of, is_true
from rft_operator.domain.facts import FINALIZER
from rft_operator.domain.money import micro_usd
from rft_operator.domain.partial import PartialRun
from rft_operator.domain.timestamps import epoch

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
    metered_until: int | None
    """When the ledger was last compared with the pods."""
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
    readable: bool = True
    """False: it does not fit this operator's models; it keeps what is reserved for it and is granted nothing."""
    refused: bool = False
    """It was not let in, and asks for no money: something else must be mended first."""
    bill_known: bool = True
    """False: nor does its ledger, so that its record stays as it is."""

    @property
    def spent_micro_usd(self) -> int:
        """Return its bill as it was last metered: a pod that still counts as open may have ended since."""
        return bill(self.ledger, now=self.metered_until or 0).spent_micro_usd

    def spent_by(self, at: int) -> Known:
        """Return its bill as it was at a past instant."""
        return bill_until(self.ledger, at, metered_until=self.metered_until)


def team_run(resource: ReasoningFinetune) -> TeamRun:
    """Return what a run's object says."""
    meta, status = resource.metadata, resource.status
    deleting = meta.deletion_timestamp is not None
    over = is_true(status, ConditionType.COMPLETE) or is_true(status, ConditionType.FAILED)
    gpu_attempts = [each for each in status.attempts if each.stage not in CPU_STAGES]
    holds = bool(status.ledger.open)
    return TeamRun(
        uid=meta.uid,
        name=meta.name,
        labels=meta.labels,
        created_at=epoch(meta.creation_timestamp) if meta.creation_timestamp else 0,
        generation=meta.generation,
        limit_micro_usd=micro_usd(resource.spec.budget.limit_usd),
        ledger=status.ledger,
        metered_until=metered_until(status),
        accepted=status.start_time is not None,
        asks=not deleting and _asks(status, over=over),
        started=FINALIZER in meta.finalizers or bool(gpu_attempts) or status.ledger != Ledger(),
        final=not holds and (over or (deleting and _has_reason(status, ConditionType.WITHIN_BUDGET, {BILL_CLOSED}))),
        at_rest=not holds
        and status.observed_generation == meta.generation
        and all(each.end_time is not None for each in gpu_attempts),
        deleting=deleting,
        refused=status.start_time is None and is_refused(status),
    )


def is_refused(status: Status) -> bool:
    """Return whether a run was not let in for a reason that no money of its team would mend."""
    accepted = condition_of(status, ConditionType.ACCEPTED)
    return accepted is not None and accepted.status is ConditionStatus.FALSE and accepted.reason not in ASKING


def team_run_partly(found: PartialRun) -> TeamRun:
    """Return what is known of a run that cannot be read."""
    run = team_run(found.resource)
    return replace(
        run,
        asks=False,
        refused=False,
        at_rest=False,
        final=run.final and found.ledger_known,
        readable=False,
        bill_known=found.ledger_known,
    )


def metered_until(status: Status) -> int | None:
    """Return when a run's ledger was last compared with its pods."""
    return epoch(status.usage.metered_until) if status.usage.metered_until is not None else None


def _asks(status: Status, *, over: bool) -> bool:
    if over:
        return is_true(status, ConditionType.FAILED) and _has_reason(status, ConditionType.WITHIN_BUDGET, ASKING)
    refused = condition_of(status, ConditionType.ACCEPTED)
    return refused is not None and refused.status is ConditionStatus.FALSE and refused.reason in ASKING


def _has_reason(status: Status, type_: ConditionType, reasons: frozenset[str] | set[str]) -> bool:
    found = condition_of(status, type_)
    return found is not None and found.reason in reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a bill at a past instant; where it is not all, it is a lower bound: a budget errs high."""

    micro_usd: int
    complete: bool
    """The run was looked at since, so that every pod that had ended by then is known to have."""
    lost: bool
    """Something that ended later is folded already, and its times with it: it will never be known better."""


def bill_until(ledger: Ledger, at: int, *, metered_until: int | None) -> Known:
    """Return the bill as it was at ``at``; ``metered_until`` is when the ledger was last compared with the pods."""
    lost = ledger.folded_until is not None and epoch(ledger.folded_until) > at
    complete = not ledger.open or (metered_until is not None and metered_until >= at)
    closed = ledger.model_copy(update={"open": [], **({"totals": []} if lost else {})})
    held = Ledger(open=ledger.open)
    proven = at if complete else min(at, metered_until or 0)
    amount = bill_at(closed, at).amount + bill_at(held, proven).amount
    return Known(micro_usd=Share(amount=amount).micro_usd, complete=complete, lost=lost)


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
