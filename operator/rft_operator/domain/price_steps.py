"""What a pod pays over time where its price floats: the prices on record, and when a change of them takes effect.

Invariant (M10 of docs/metering.md): a pod pays what is on its record. A change that is announced early enough holds
from exactly its instant; a rise that nobody announced holds one stop bound after it was noticed, because a budget can
be held only against prices that are known: until then whatever the rise makes too dear has been stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

from rft_operator.api.ledger import MAX_PRICE_STEPS, LedgerEntry, PriceStep
from rft_operator.domain.bill import priced_from
from rft_operator.domain.rates import Rate
from rft_operator.domain.timestamps import epoch, rfc3339

Steps = Sequence[tuple[int, Rate]]
"""(from, rate), ascending."""


def rate_of_entry(entry: LedgerEntry) -> Rate:
    """Return the price an entry is charged at now."""
    return Rate(micro_usd_per_gpu_hour=entry.micro_usd_per_gpu_hour, source=entry.price_source)


def steps_of_entry(entry: LedgerEntry) -> Steps:
    """Return the price of an entry and the changes of it that are on record."""
    later = [
        (epoch(each.since), Rate(micro_usd_per_gpu_hour=each.micro_usd_per_gpu_hour, source=each.price_source))
        for each in entry.announced
    ]
    return [(priced_from(entry), rate_of_entry(entry)), *later]


def rate_at(steps: Steps, at: int) -> Rate | None:
    """Return the price at an instant; None before the first step."""
    return next((rate for since, rate in reversed(steps) if since <= at), None)


def with_announced(entry: LedgerEntry, steps: Steps) -> LedgerEntry:
    """Return the entry with these later changes of its price on record."""
    announced = [
        PriceStep(since=rfc3339(at), micro_usd_per_gpu_hour=rate.micro_usd_per_gpu_hour, price_source=rate.source)
        for at, rate in steps
    ]
    return entry if announced == entry.announced else entry.model_copy(update={"announced": announced})


def changes(steps: Steps, *, held: Rate) -> Steps:
    """Return the steps that change the price, from the one that is held before them."""
    found = []
    for at, rate in steps:
        if rate != held:
            found.append((at, rate))
        held = rate
    return found


def revised(known: Steps, wanted: Steps, *, now: int, notice_seconds: int) -> Steps:
    """Return the prices from now on: the catalogue's as it is now (``wanted``), where they may hold already.

    Until the notice is over a pod pays the lesser of what is on record (``known``) and what the catalogue says: a fall
    holds at once, a rise that was announced when it was announced for. A price that is missing changes nothing.
    """
    from_then = now + notice_seconds
    instants = sorted({now, from_then, *(at for at, _ in (*known, *wanted) if at > now)})
    found: list[tuple[int, Rate]] = []
    for at in instants:
        old, new = rate_at(known, at), rate_at(wanted, at)
        rates = [rate for rate in (old, new) if rate is not None]
        rate = new if at >= from_then and new is not None else _least(rates)
        if rate is not None and (not found or found[-1][1] != rate):
            found.append((at, rate))
    return found


def _least(rates: Sequence[Rate]) -> Rate | None:
    return min(rates, key=lambda rate: rate.micro_usd_per_gpu_hour, default=None)


def capped(steps: Steps) -> Steps:
    """Return as many steps as fit on a record; the rest comes on record when these have passed."""
    return steps[:MAX_PRICE_STEPS]
