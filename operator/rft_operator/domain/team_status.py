"""What people and programs see of a team budget: sums, conditions, Events.

Invariant: limit = reserved + spent + free, but where more is promised than there is. Messages name no amount that moves
while runs spend, so that an idle budget is never written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rft_operator.api.status import ConditionStatus
from rft_operator.api.team import TeamCondition, TeamConditionType, TeamDisplay, TeamStatus
from rft_operator.domain.actions import Emit
from rft_operator.domain.money import usd_display, usd_text
from rft_operator.domain.team import Book
from rft_operator.domain.timestamps import epoch, rfc3339

NAMED = 4
"""So many waiting runs are named in a message."""
CENT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A budget's next status, and what is to be announced once it is written."""

    status: TeamStatus
    events: tuple[Emit, ...]
    changed: bool
    """It differs from the one on record."""
    is_news: bool
    """More changed than what open runs have spent."""


def statement(book: Book, *, now: int) -> Statement:
    """Return a settled budget's status."""
    old = book.budget.status
    spent = book.closed_micro_usd + sum(each.spent_micro_usd for each in book.records.values())
    events = list(book.events)
    asked = book.budget.spec.warn_at_percent
    warned = [] if book.rolled else [percent for percent in old.warned_at_percent if percent in asked]
    for percent in _crossed(book, spent, warned):
        warned.append(percent)
        events.append(_warning(book, percent, spent))
    conditions = _conditions(book, now=now)
    if _turned_true(old, conditions, TeamConditionType.OVER_COMMITTED):
        message = next(each.message for each in conditions if each.type is TeamConditionType.OVER_COMMITTED)
        events.append(Emit(type="Warning", reason="OverCommitted", message=message))
    status = _with_sums(
        TeamStatus(
            observed_generation=book.budget.metadata.generation,
            window_start=rfc3339(book.window_start),
            closed_micro_usd=book.closed_micro_usd,
            reservations=[*book.records.values()],
            warned_at_percent=warned,
            metered_until=old.metered_until,
            conditions=conditions,
        ),
        book,
        spent=spent,
    )
    changed = status != old
    is_news = without_news(status) != without_news(old)
    if changed:
        status = status.model_copy(update={"metered_until": rfc3339(now)})
    return Statement(status=status, events=tuple(events), changed=changed, is_news=is_news)


def _with_sums(status: TeamStatus, book: Book, *, spent: int) -> TeamStatus:
    free = max(0, book.free_micro_usd)
    reserved = max(0, book.promised_micro_usd + book.closed_micro_usd - spent)
    return status.model_copy(
        update={
            "limit_usd": usd_text(book.limit_micro_usd),
            "reserved_usd": usd_text(reserved),
            "spent_usd": usd_text(spent),
            "free_usd": usd_text(free),
            "display": TeamDisplay(
                reserved=usd_display(reserved),
                spent=usd_display(spent),
                free=usd_display(free - free % CENT),
            ),
        }
    )


def without_news(status: TeamStatus) -> TeamStatus:
    """Return a status without what moves while runs hold GPUs."""
    kept = [each if each.settled else each.model_copy(update={"spent_micro_usd": 0}) for each in status.reservations]
    moving = {"reserved_usd": "", "spent_usd": "", "display": TeamDisplay(), "metered_until": None}
    return status.model_copy(update={**moving, "reservations": kept})


def _crossed(book: Book, spent: int, already: list[int]) -> list[int]:
    if not book.limit_micro_usd:
        return []
    percents = sorted(set(book.budget.spec.warn_at_percent) - set(already))
    return [percent for percent in percents if spent * 100 >= book.limit_micro_usd * percent]


def _warning(book: Book, percent: int, spent: int) -> Emit:
    limit = usd_display(book.limit_micro_usd)
    message = f"{percent} % of the team budget is spent: {usd_display(spent)} of {limit}."
    return Emit(type="Warning", reason=f"TeamBudgetWarning{percent}", message=message)


def _turned_true(old: TeamStatus, new: list[TeamCondition], type_: TeamConditionType) -> bool:
    before = next((each for each in old.conditions if each.type is type_), None)
    after = next(each for each in new if each.type is type_)
    was = before is not None and before.status is ConditionStatus.TRUE
    return after.status is ConditionStatus.TRUE and not was


def _conditions(book: Book, *, now: int) -> list[TeamCondition]:
    found = {
        TeamConditionType.READY: _ready(book),
        TeamConditionType.EXHAUSTED: _exhausted(book),
        TeamConditionType.OVER_COMMITTED: _over_committed(book),
    }
    return [_condition(book, type_, *found[type_], now=now) for type_ in TeamConditionType]


def _condition(
    book: Book, type_: TeamConditionType, true: bool, reason: str, message: str, *, now: int
) -> TeamCondition:
    status = ConditionStatus.TRUE if true else ConditionStatus.FALSE
    old = next((each for each in book.budget.status.conditions if each.type is type_), None)
    kept = old is not None and old.status is status
    return TeamCondition(
        type=type_,
        status=status,
        observed_generation=book.budget.metadata.generation,
        last_transition_time=old.last_transition_time if kept and old is not None else rfc3339(now),
        reason=reason,
        message=message,
    )


def _ready(book: Book) -> tuple[bool, str, str]:
    if book.crowded:
        return (
            False,
            "TooManyRuns",
            "No room for the record of another run; delete runs that ended, or split the budget.",
        )
    message = f"Spending counts since {rfc3339(book.window_start)}."
    if book.unread:
        message += (
            f" {_named(book.unread)} cannot be read by this operator, and count with what is reserved for them; their "
            "condition Progressing says why."
        )
    return True, "InForce", message


def _named(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f", and {more} more" if more > 0 else "")


def _exhausted(book: Book) -> tuple[bool, str, str]:
    free = usd_display(max(0, book.free_micro_usd))
    if book.waiting:
        names = ", ".join(f"{run.name} ({usd_display(more)})" for run, more in book.waiting[:NAMED])
        others = f", and {len(book.waiting) - NAMED} more" if len(book.waiting) > NAMED else ""
        return True, "RunsWait", f"{free} is free; runs that want more: {names}{others}."
    if book.free_micro_usd <= 0:
        return True, "NothingFree", "All of the limit is reserved or spent."
    return False, "Free", f"{free} is free."


def _over_committed(book: Book) -> tuple[bool, str, str]:
    if book.free_micro_usd >= 0:
        return False, "WithinLimit", ""
    more = usd_display(-book.free_micro_usd)
    message = (
        f"Runs that were let in before may spend {more} more than limitUSD; nothing is granted until it fits. "
        "Lower their budget.limitUSD, or raise this limit."
    )
    return True, "PromisedMoreThanLimit", message


def metered_at(status: TeamStatus) -> int:
    """Return the instant that a status speaks of."""
    return epoch(status.metered_until) if status.metered_until is not None else 0
