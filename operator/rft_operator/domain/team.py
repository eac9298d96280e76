"""Team budgets: which run may spend what of the dollars that several runs share (docs/metering.md E8).

All budgets of a namespace are settled at once, so that a run that shares several of them is granted by all or by none.
Invariant: no grant makes ``what runs may spend + what gone runs have spent`` exceed a limit. Only what runs already,
under a limit that was lowered or a budget that is new, is taken over in full; then nothing is granted until it fits.
Nothing is incremented: every record is computed from the run's ledger, the window's beginning and the record before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rft_operator.api.team import MAX_RESERVATIONS, FinetuneBudget, Reservation
from rft_operator.domain.actions import Emit
from rft_operator.domain.money import micro_usd, usd_display
from rft_operator.domain.team_run import TeamRun, selects
from rft_operator.domain.timestamps import epoch
from rft_operator.domain.windows import next_window, window_start

Runs = Mapping[str, TeamRun]
"""By uid."""


@dataclass(slots=True, kw_only=True)
class Book:
    """One budget while it is settled."""

    budget: FinetuneBudget
    limit_micro_usd: int
    window_start: int
    rolled: bool
    """A new window began since the last look."""
    closed_micro_usd: int
    records: dict[str, Reservation] = field(default_factory=dict)
    waiting: list[tuple[TeamRun, int]] = field(default_factory=list)
    """Runs that are not granted, with the micro-dollars that each wants."""
    events: list[Emit] = field(default_factory=list)
    crowded: bool = False
    """A run found no room for its record."""
    unread: list[str] = field(default_factory=list)
    """Names of runs with a record that do not fit this operator's models."""

    @property
    def promised_micro_usd(self) -> int:
        """Return what runs that exist may spend, what they have spent included."""
        return sum(each.reserved_micro_usd for each in self.records.values())

    @property
    def free_micro_usd(self) -> int:
        """Return what may still be granted; below 0 where too much was taken over."""
        return self.limit_micro_usd - self.closed_micro_usd - self.promised_micro_usd

    def shares(self, run: TeamRun) -> bool:
        """Return whether a run spends this budget: by its labels, or because it was let in by them once."""
        return run.uid in self.records or selects(self.budget.spec.selector, run.labels)


def settle(budgets: Sequence[FinetuneBudget], runs: Sequence[TeamRun], *, now: int) -> list[Book]:
    """Return every budget as it is to be written.

    ``runs`` are all runs of the namespace that exist: a record whose run is not among them is booked for good.
    """
    by_uid = {run.uid: run for run in runs}
    books = [_opened(budget, by_uid, now=now) for budget in budgets]
    for run in sorted(runs, key=lambda run: (run.created_at, run.uid)):
        for book in books:
            if run.accepted and run.uid not in book.records and book.shares(run):
                _adopt(book, run)
    for run in _in_turn(books, runs):
        _grant([book for book in books if book.shares(run)], run)
    for book in books:
        _forget(book, by_uid)
        book.unread += sorted(by_uid[uid].name for uid in book.records if not by_uid[uid].readable)
    return books


def begin_of(budget: FinetuneBudget, now: int) -> int:
    """Return since when spending counts. It never goes back: what is forgotten stays forgotten."""
    spec, status = budget.spec, budget.status
    reset = epoch(spec.reset_time) if spec.reset_time is not None else None
    starts = [
        epoch(budget.metadata.creation_timestamp),
        window_start(spec.window, now),
        reset if reset is not None and reset <= now else None,
        epoch(status.window_start) if status.window_start is not None else None,
    ]
    return max(each for each in starts if each is not None)


def rolls_at(budget: FinetuneBudget, now: int) -> int | None:
    """Return when the budget begins anew; None if never."""
    reset = epoch(budget.spec.reset_time) if budget.spec.reset_time is not None else None
    due = [next_window(budget.spec.window, now), reset if reset is not None and reset > now else None]
    return min((each for each in due if each is not None), default=None)


def _opened(budget: FinetuneBudget, runs: Runs, *, now: int) -> Book:
    status = budget.status
    start = begin_of(budget, now)
    rolled = status.window_start is not None and start > epoch(status.window_start)
    book = Book(
        budget=budget,
        limit_micro_usd=micro_usd(budget.spec.limit_usd),
        window_start=start,
        rolled=rolled,
        closed_micro_usd=0 if rolled else status.closed_micro_usd,
    )
    for record in status.reservations:
        run = runs.get(record.uid)
        if run is None:
            _book_gone(book, record)
        elif record.started or not run.refused:  # else others may have the money; it asks anew (team_money)
            book.records[record.uid] = _carried(record, run, start=start)
    return book


def _book_gone(book: Book, record: Reservation) -> None:
    """Book what a run that is gone has spent in this window; errs high for one that was not settled."""
    if record.settled:
        book.closed_micro_usd += 0 if book.rolled else record.spent_micro_usd
        return
    if not record.started:
        return
    amount = record.reserved_micro_usd - (record.spent_micro_usd if book.rolled else 0)
    book.closed_micro_usd += amount
    message = (
        f"Run {record.name!r} vanished before its bill was final (its finalizer was removed by hand): "
        f"all that it could have spent is booked, {usd_display(amount)}."
    )
    book.events.append(Emit(type="Warning", reason="RunVanished", message=message))


def _carried(record: Reservation, run: TeamRun, *, start: int) -> Reservation:
    """Return a record brought up to date, with no new grant in it.

    What the run may spend over its life stays what it was (its pods' deadlines rest on it), so a new window takes over
    exactly what is left of it. It shrinks to a lowered limit once no pod made under the old one can run.
    """
    if not run.bill_known:
        return record
    allowed = record.spent_before_micro_usd + record.reserved_micro_usd
    known = run.spent_by(start)
    before = max(known.micro_usd, record.spent_before_micro_usd) if known.lost else known.micro_usd
    spent = max(0, run.spent_micro_usd - before)
    reserved = max(allowed - before, spent)
    granted_anew = run.asks and not record.settled
    settled = run.final and not granted_anew
    wanted = max(run.limit_micro_usd - before, spent)
    if settled:
        reserved = spent
    elif run.at_rest and not run.deleting:
        reserved = min(reserved, wanted)
    return record.model_copy(
        update={
            "reserved_micro_usd": reserved,
            "spent_micro_usd": spent,
            "spent_before_micro_usd": before,
            "started": record.started or run.started,
            "settled": settled,
            "observed_generation": run.generation if reserved >= wanted else record.observed_generation,
        }
    )


def _adopt(book: Book, run: TeamRun) -> None:
    """Take over a run that was let in without this budget, in full: it may spend its limit already."""
    record = _new_record(run, start=book.window_start)
    if run.final:
        record = record.model_copy(update={"reserved_micro_usd": record.spent_micro_usd, "settled": True})
        if not record.spent_micro_usd:
            return
    if len(book.records) >= MAX_RESERVATIONS:
        book.crowded = True
        return
    book.records[run.uid] = record


def _new_record(run: TeamRun, *, start: int) -> Reservation:
    before = run.spent_by(start).micro_usd
    spent = max(0, run.spent_micro_usd - before)
    return Reservation(
        uid=run.uid,
        name=run.name,
        reserved_micro_usd=max(run.limit_micro_usd - before, spent),
        spent_micro_usd=spent,
        spent_before_micro_usd=before,
        started=run.started,
        observed_generation=run.generation,
    )


def _in_turn(books: Sequence[Book], runs: Sequence[TeamRun]) -> list[TeamRun]:
    """Return the runs that may want money: first what only part of its budgets granted before a crash, then by age."""

    def is_half_granted(run: TeamRun) -> bool:
        found = [run.uid in book.records for book in books if book.shares(run)]
        return any(found) and not all(found)

    wanting = [
        run for run in runs if run.readable and (run.asks or (run.accepted and not run.final and not run.deleting))
    ]
    return sorted(wanting, key=lambda run: (not is_half_granted(run), run.created_at, run.uid))


def _grant(books: Sequence[Book], run: TeamRun) -> None:
    """Promise a run what it wants in all of its budgets, or in none."""
    missing: list[tuple[Book, Reservation, int]] = []
    for book in books:
        record = book.records.get(run.uid)
        wanted = _wanted(record, run, start=book.window_start)
        more = wanted.reserved_micro_usd - (record.reserved_micro_usd if record is not None else 0)
        if record is None or record.settled or more > 0:
            missing.append((book, wanted, more))
    refused = [(book, more) for book, _, more in missing if not _has_room(book, run, more)]
    for book, more in refused:
        book.waiting.append((run, more))
    if not refused:
        for book, wanted, _ in missing:
            book.records[run.uid] = wanted


def _wanted(record: Reservation | None, run: TeamRun, *, start: int) -> Reservation:
    """Return a run's record as it would be with all that the run's limit lets it spend."""
    if record is None:
        return _new_record(run, start=start)
    limit = run.limit_micro_usd - record.spent_before_micro_usd
    return record.model_copy(
        update={
            "reserved_micro_usd": max(record.reserved_micro_usd, limit),
            "settled": False,
            "observed_generation": run.generation,
        }
    )


def _has_room(book: Book, run: TeamRun, more: int) -> bool:
    if run.uid not in book.records and len(book.records) >= MAX_RESERVATIONS:
        book.crowded = True
        return False
    return more <= max(0, book.free_micro_usd)


def _forget(book: Book, runs: Runs) -> None:
    """Drop the records of runs that are over and have spent nothing in this window."""
    for uid, record in list(book.records.items()):
        if record.settled and not record.spent_micro_usd and not runs[uid].asks:
            del book.records[uid]
