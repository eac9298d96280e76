"""What a run's team budgets let it spend: read by the run, written by nobody but the budgets' own reconciler.

Invariant: a run never spends what is not reserved for it on record. It is let in only with a reservation in each budget
that it shares, and it goes only when each of them has booked its final bill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rft_operator.api.ledger import Ledger
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import ConditionStatus, ConditionType
from rft_operator.api.team import FinetuneBudget, Reservation
from rft_operator.domain.bill import bill
from rft_operator.domain.budget import CPU_STAGES, RAISE
from rft_operator.domain.draft import Draft, condition_of, is_true
from rft_operator.domain.money import micro_of_text, micro_usd, usd_display
from rft_operator.domain.team import begin_of
from rft_operator.domain.team_run import (
    ASKING,
    BILL_CLOSED,
    EXHAUSTED,
    WAITING,
    Known,
    bill_until,
    free_micro_usd,
    is_refused,
    metered_until,
    selects,
)
from rft_operator.domain.timestamps import epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A team budget that a run shares, and what is reserved there for it."""

    budget: FinetuneBudget
    record: Reservation | None

    @property
    def allowed_micro_usd(self) -> int | None:
        """Return what the run may spend over its whole life; None where no reservation says so."""
        if self.record is None or self.record.settled:
            return None
        return self.record.spent_before_micro_usd + self.record.reserved_micro_usd


def claims_of(resource: ReasoningFinetune, budgets: Sequence[FinetuneBudget]) -> tuple[Claim, ...]:
    """Return a run's share in each budget: those that select it, and those in which it was let in once."""
    found = []
    for budget in budgets:
        uid = resource.metadata.uid
        record = next((each for each in budget.status.reservations if each.uid == uid), None)
        if record is not None or selects(budget.spec.selector, resource.metadata.labels):
            found.append(Claim(budget=budget, record=record))
    return tuple(found)


def claims(draft: Draft) -> tuple[Claim, ...]:
    """Return the claims of the run that is looked at."""
    return claims_of(draft.view.resource, draft.view.budgets)


def effective_limit(draft: Draft) -> int:
    """Return the micro-dollars that the run may spend over its life: its own limit, or less if less is reserved.

    A run that is over spends nothing; whether it could go on is a question of its own limit first.
    """
    limit = micro_usd(draft.spec.budget.limit_usd)
    if is_true(draft.recorded, ConditionType.FAILED) or is_true(draft.recorded, ConditionType.COMPLETE):
        return limit
    allowed = [each.allowed_micro_usd for each in claims(draft)]
    if draft.view.unreadable_budgets:
        allowed.append(_limit_on_record(draft))
    return min([limit, *(each for each in allowed if each is not None)])


def _limit_on_record(draft: Draft) -> int | None:
    """Return the limit that the money on record speaks of: it holds where a budget cannot say what it has reserved."""
    cost = draft.recorded.cost
    if cost.remaining_usd is None:
        return None
    return cost.spent_micro_usd + micro_of_text(cost.remaining_usd) - micro_of_text(cost.overshoot_usd)


def in_a_team(draft: Draft, message: str) -> str:
    """Return why the money is short, with what helps: not a higher limit where the run may not spend the one it has."""
    limit, allowed = micro_usd(draft.spec.budget.limit_usd), effective_limit(draft)
    if allowed >= limit:
        return message
    reserved = f"{usd_display(allowed)} of its limit of {usd_display(limit)}"
    return message.removesuffix(RAISE) + f"Its team budgets have reserved {reserved}; it goes on with more."


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Why a run waits for its team."""

    reason: str
    message: str
    again: bool = False
    """It need only be asked on record."""


def unreserved(draft: Draft) -> Wait | None:
    """Return why the run may not be let in yet: some budget that it shares has nothing reserved for it.

    What was reserved before it was refused for another reason may be given away at any moment, unless it asks again.
    """
    found = claims(draft)
    missing = [each for each in found if each.record is None]
    wait = _unreadable(draft) or (_wait(draft, missing) if missing else None)
    if wait is None and found and is_refused(draft.recorded):
        return Wait(
            reason=WAITING, message="What it was refused for is mended: it asks for its reservation.", again=True
        )
    return wait


def _unreadable(draft: Draft) -> Wait | None:
    names = ", ".join(draft.view.unreadable_budgets)
    words = f"Team budget {names} cannot be read; apply the CRD of this version."
    return Wait(reason=WAITING, message=words) if names else None


def unraised(draft: Draft) -> Wait | None:
    """Return why the run may not spend its whole limit yet, or again; None if it may."""
    limit, generation = micro_usd(draft.spec.budget.limit_usd), draft.view.resource.metadata.generation
    short = [
        each
        for each in claims(draft)
        if each.allowed_micro_usd is None
        or each.allowed_micro_usd < limit
        or (each.record is not None and each.record.observed_generation != generation)
    ]
    return _unreadable(draft) or (_wait(draft, short) if short else None)


def _wait(draft: Draft, short: Sequence[Claim]) -> Wait:
    poor = [each for each in short if _wanted(draft, each) > free_micro_usd(each.budget)]
    worst = (poor or short)[0]
    return Wait(reason=EXHAUSTED if poor else WAITING, message=_numbers(draft, worst, poor=bool(poor)))


def _wanted(draft: Draft, claim: Claim) -> int:
    """Return the micro-dollars that a run wants from a budget beyond what is reserved there."""
    limit, record = micro_usd(draft.spec.budget.limit_usd), claim.record
    if record is not None:
        return max(0, limit - record.spent_before_micro_usd - record.reserved_micro_usd)
    return max(0, limit - _known(draft, begin_of(claim.budget, draft.now)).micro_usd)


def _known(draft: Draft, at: int) -> Known:
    """Return what is on record of the bill at a past instant."""
    return bill_until(draft.recorded.ledger, at, metered_until=metered_until(draft.recorded))


def _numbers(draft: Draft, claim: Claim, *, poor: bool) -> str:
    """Return the arithmetic in words; no amount in it moves while other runs spend."""
    status, name = claim.budget.status, claim.budget.metadata.name
    live = [each.reserved_micro_usd for each in status.reservations if not each.settled]
    ended = status.closed_micro_usd + sum(each.spent_micro_usd for each in status.reservations if each.settled)
    free = max(0, free_micro_usd(claim.budget))
    words = (
        f"Team budget {name!r}: limit {usd_display(micro_usd(claim.budget.spec.limit_usd))}, reserved for runs "
        f"{usd_display(sum(live))}, spent by runs that ended {usd_display(ended)}, free {usd_display(free)}; "
        f"this run wants {usd_display(_wanted(draft, claim))}"
    )
    if not poor:
        return f"{words}. Its reservation is not on record yet."
    return (
        f"{words}. It gets it by itself when so much is free; lower spec.budget.limitUSD, end another run, "
        "or have limitUSD of the team budget raised."
    )


def show_team(draft: Draft) -> None:
    """Say in WithinBudget why a live run may not spend its limit yet, unless nothing starts for want of a price."""
    within = draft.condition(ConditionType.WITHIN_BUDGET)
    if within is None or within.status is ConditionStatus.UNKNOWN:
        return
    raised = effective_limit(draft) < micro_usd(draft.spec.budget.limit_usd)
    unknown = _unknown_start(draft)
    wait = unknown or (unraised(draft) if raised else None)
    if wait is not None:
        held = "takes no GPU" if unknown else f"may spend {usd_display(effective_limit(draft))}"
        message = f"{wait.message} Until then the run {held}."
        _announce(draft, wait)
        draft.set_condition(ConditionType.WITHIN_BUDGET, within.status, wait.reason, message)
    elif within.reason in ASKING:
        draft.set_condition(ConditionType.WITHIN_BUDGET, True, "WithinLimit")


def _announce(draft: Draft, wait: Wait) -> None:
    old = condition_of(draft.recorded, ConditionType.WITHIN_BUDGET)
    if wait.reason == EXHAUSTED and (old is None or old.reason != EXHAUSTED):
        draft.emit("Warning", wait.reason, wait.message)


def ask_again(draft: Draft, wait: Wait) -> None:
    """Ask for a reservation for a run that failed for want of money and could go on."""
    _announce(draft, wait)
    draft.set_condition(ConditionType.WITHIN_BUDGET, False, wait.reason, wait.message)


def ask_no_more(draft: Draft) -> None:
    """Withdraw that question: the run could not go on, even with its whole limit."""
    within = draft.condition(ConditionType.WITHIN_BUDGET)
    if within is not None and within.reason in ASKING:
        draft.set_condition(ConditionType.WITHIN_BUDGET, False, "Exhausted", "spec.budget.limitUSD is not enough.")


def start_is_known(draft: Draft) -> bool:
    """Return whether each budget knows that GPU pods may exist: a run that vanishes is booked in full from then on."""
    return _unknown_start(draft) is None and all(each.record is None or each.record.started for each in claims(draft))


def _unknown_start(draft: Draft) -> Wait | None:
    """Return why the first GPU pod must wait: a budget that cannot be read holds the run's record, as of no GPU yet."""
    recorded = draft.recorded
    started = recorded.ledger != Ledger() or any(each.stage not in CPU_STAGES for each in recorded.attempts)
    return _unreadable(draft) if draft.view.unbooked and not started else None


def is_booked(draft: Draft) -> bool:
    """Return whether each budget has booked the final bill."""
    if draft.view.unbooked:
        return False
    ledger = draft.status.ledger
    spent = bill(ledger, now=draft.now).spent_micro_usd
    for claim in claims(draft):
        record, start = claim.record, claim.budget.status.window_start
        if start is None:
            return False
        if record is None:
            if bill_until(ledger, epoch(start), metered_until=None).micro_usd != spent:
                return False
        elif not record.settled or record.spent_before_micro_usd + record.spent_micro_usd != spent:
            return False
    return True


def close_bill(draft: Draft) -> None:
    """Say that nothing can be charged any more to a run that is being deleted, so that its budgets can book it."""
    within = draft.condition(ConditionType.WITHIN_BUDGET)
    status = within.status if within is not None else True
    spent = usd_display(bill(draft.status.ledger, now=draft.now).spent_micro_usd)
    message = f"{spent} in all; waiting for the team budgets to book it."
    if draft.view.unbooked:
        names = ", ".join(draft.view.unbooked)
        message += f" {names} cannot be read by this operator: apply the CRD of this version again, or delete it."
    draft.set_condition(ConditionType.WITHIN_BUDGET, status, BILL_CLOSED, message)


def hold_after(draft: Draft) -> int | None:
    """Return after which instant nothing may be folded yet: a budget has not seen what was spent before its window.

    Once an entry is folded its times are lost, so the budget must have the bill at its window's beginning first.
    """
    holds = []
    for claim in claims(draft):
        start, record, seen = begin_of(claim.budget, draft.now), claim.record, claim.budget.status.window_start
        known = _known(draft, start)
        stale = record is not None and (not known.complete or record.spent_before_micro_usd != known.micro_usd)
        if seen is None or epoch(seen) != start or (stale and not known.lost):
            holds.append(start)
    return min(holds, default=None)
