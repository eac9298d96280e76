"""The folded part of a bill: closed records summed by stage and kind of machine.

Invariant: folding adds a record's exact amount, so the bill is the same before and after it (M6 and M9 of
docs/metering.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from rft_operator.api.ledger import MAX_TOTALS, LedgerEntry, LedgerTotal, WasteTotal
from rft_operator.domain.bill import ESTIMATED, disputed_gpu_seconds, seconds_of

KINDS_SPARED = 8
"""Totals kept free for stages whose kind of machine is one too many to be told apart."""


def fold(totals: Sequence[LedgerTotal], entry: LedgerEntry, *, end: int) -> list[LedgerTotal]:
    """Return the totals with an entry added that was charged until ``end``."""
    seconds = seconds_of(entry, now=end)
    kind = entry.stage, entry.gpu_product, entry.capacity_type
    if kind not in {_kind(each) for each in totals} and len(totals) >= MAX_TOTALS - KINDS_SPARED:
        kind = entry.stage, None, None
    old = next((each for each in totals if _kind(each) == kind), None)
    base = old or LedgerTotal(stage=kind[0], gpu_product=kind[1], capacity_type=kind[2], gpu_seconds=0, amount="0")
    new = LedgerTotal(
        stage=kind[0],
        gpu_product=kind[1],
        capacity_type=kind[2],
        gpu_seconds=base.gpu_seconds + seconds,
        amount=str(int(base.amount) + seconds * entry.micro_usd_per_gpu_hour),
        estimated_gpu_seconds=base.estimated_gpu_seconds + (seconds if entry.end_basis in ESTIMATED else 0),
        disputed_gpu_seconds=base.disputed_gpu_seconds + disputed_gpu_seconds(entry, end=end),
        waste=_fold_waste(base.waste, entry),
    )
    rest = [each for each in totals if each is not old]
    return sorted([*rest, new], key=lambda each: (each.stage, each.gpu_product or "", each.capacity_type or ""))


def _kind(total: LedgerTotal) -> tuple[str, str | None, str | None]:
    return total.stage, total.gpu_product, total.capacity_type


def _fold_waste(waste: Sequence[WasteTotal], entry: LedgerEntry) -> list[WasteTotal]:
    by_reason = {each.reason: each for each in waste}
    for part in entry.waste:
        old = by_reason.get(part.reason)
        by_reason[part.reason] = WasteTotal(
            reason=part.reason,
            gpu_seconds=part.gpu_seconds + (old.gpu_seconds if old else 0),
            amount=str(part.gpu_seconds * entry.micro_usd_per_gpu_hour + (int(old.amount) if old else 0)),
        )
    return sorted(by_reason.values(), key=lambda each: each.reason)
