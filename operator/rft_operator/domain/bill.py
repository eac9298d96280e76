"""The bill: GPU-seconds and money of a run at an instant, from the ledger alone.

Invariants: integers only; an amount is divided by 3,600 once and rounded up once, when it is shown (M12 of
docs/metering.md); the bill never falls while time passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rft_operator.api.ledger import Ledger, LedgerEntry, WasteReason
from rft_operator.domain.timestamps import epoch, rfc3339

SECONDS_PER_HOUR = 3_600
PHASE_WRITTEN = "phaseWritten"
FINISHED_AT = "finishedAt"
OBSERVED = "observed"
VANISHED = "vanished"
NODE_GONE = "nodeGone"
ESTIMATED = frozenset({OBSERVED, VANISHED, NODE_GONE})
"""Ends that no timestamp of the cluster proves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of the bill."""

    gpu_seconds: int = 0
    amount: int = 0
    """Sum of GPUs x seconds x micro-dollars per GPU-hour; 3,600 of it are one micro-dollar."""

    def plus(self, gpu_seconds: int, amount: int) -> Share:
        """Return the sum."""
        return Share(gpu_seconds=self.gpu_seconds + gpu_seconds, amount=self.amount + amount)

    @property
    def micro_usd(self) -> int:
        """Return the money, rounded up once."""
        return -(-self.amount // SECONDS_PER_HOUR)


class Kind(NamedTuple):
    """What a share of the bill was for."""

    stage: str
    gpu_product: str
    capacity_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a run has used and what it costs now."""

    by_kind: Mapping[Kind, Share]
    """By stage and kind of machine."""
    rate: int
    """Micro-dollars per hour of everything that holds GPUs now."""
    estimated_gpu_seconds: int = 0
    disputed_gpu_seconds: int = 0

    @property
    def by_stage(self) -> Mapping[str, Share]:
        """Return the shares of the stages."""
        shares: dict[str, Share] = {}
        for kind, share in self.by_kind.items():
            shares[kind.stage] = shares.get(kind.stage, Share()).plus(share.gpu_seconds, share.amount)
        return shares

    @property
    def gpu_seconds(self) -> int:
        """Return the GPU-seconds of all stages."""
        return sum(share.gpu_seconds for share in self.by_kind.values())

    @property
    def amount(self) -> int:
        """Return the amount of all stages; 3,600 of it are one micro-dollar."""
        return sum(share.amount for share in self.by_kind.values())

    @property
    def spent_micro_usd(self) -> int:
        """Return the money spent, rounded up once (M12)."""
        return -(-self.amount // SECONDS_PER_HOUR)


def hours_text(gpu_seconds: int) -> str:
    """Return GPU-hours with three decimals, rounded half up."""
    thousandths = (gpu_seconds * 1_000 + SECONDS_PER_HOUR // 2) // SECONDS_PER_HOUR
    return f"{thousandths // 1_000}.{thousandths % 1_000:03d}"


def priced_from(entry: LedgerEntry) -> int:
    """Return since when an entry is charged at its price; what was charged before is in the totals."""
    return epoch(entry.priced_from or entry.start_time)


def end_of(entry: LedgerEntry) -> int:
    """Return the end of an entry that is closed; of an open one its beginning."""
    return epoch(entry.end_time or entry.start_time)


def pieces_of(entry: LedgerEntry, *, now: int) -> tuple[Share, ...]:
    """Return what is in no total, price by price: a change that is on record holds from its second, whoever looks."""
    end = max(priced_from(entry), epoch(entry.end_time) if entry.end_time is not None else now)
    steps = [(priced_from(entry), entry.micro_usd_per_gpu_hour)]
    steps += [(epoch(each.since), each.micro_usd_per_gpu_hour) for each in entry.announced if epoch(each.since) < end]
    ends = [*(at for at, _ in steps[1:]), end]
    pieces = []
    for (at, price), until in zip(steps, ends, strict=True):
        seconds = entry.gpus * (until - at)
        pieces.append(Share(gpu_seconds=seconds, amount=seconds * price))
    return tuple(pieces)


def rate_of(entry: LedgerEntry, *, now: int) -> int:
    """Return what an open entry costs per hour at an instant."""
    held = [each.micro_usd_per_gpu_hour for each in entry.announced if epoch(each.since) <= now]
    return entry.gpus * (held[-1] if held else entry.micro_usd_per_gpu_hour)


def seconds_of(entry: LedgerEntry, *, now: int) -> int:
    """Return the GPU-seconds of an entry that are in no total; an open one counts until ``now``."""
    end = epoch(entry.end_time) if entry.end_time is not None else now
    return entry.gpus * max(0, end - priced_from(entry))


def disputed_gpu_seconds(entry: LedgerEntry, *, end: int) -> int:
    """Return the part of an entry that errs high: charged after the last proof that the pod still held its GPUs."""
    if entry.disputed_since is None:
        return 0
    return entry.gpus * max(0, end - max(priced_from(entry), epoch(entry.disputed_since)))


def bill(ledger: Ledger, *, now: int) -> Bill:
    """Return the bill: totals + closed entries and parts + open entries recomputed from their timestamps (M9)."""
    by_kind = {
        Kind(each.stage, each.gpu_product or "", each.capacity_type or ""): Share(
            gpu_seconds=each.gpu_seconds, amount=int(each.amount)
        )
        for each in ledger.totals
    }
    estimated = sum(each.estimated_gpu_seconds for each in ledger.totals)
    disputed = sum(each.disputed_gpu_seconds for each in ledger.totals)
    for entry in (*ledger.uncounted, *ledger.former, *ledger.open):
        kind = Kind(entry.stage, entry.gpu_product or "", entry.capacity_type or "")
        for piece in pieces_of(entry, now=now):
            by_kind[kind] = by_kind.get(kind, Share()).plus(piece.gpu_seconds, piece.amount)
        estimated += seconds_of(entry, now=now) if entry.end_basis in ESTIMATED else 0
        disputed += disputed_gpu_seconds(entry, end=epoch(entry.end_time) if entry.end_time is not None else now)
    return Bill(
        by_kind=by_kind,
        rate=sum(rate_of(each, now=now) for each in ledger.open),
        estimated_gpu_seconds=estimated,
        disputed_gpu_seconds=disputed,
    )


def bill_at(ledger: Ledger, at: int) -> Bill:
    """Return the bill as it was at a past instant: nothing after it counts.

    Exact as long as nothing that ended after ``at`` is folded yet.
    """

    def until(entry: LedgerEntry) -> LedgerEntry:
        late = entry.end_time is None or epoch(entry.end_time) > at
        return entry.model_copy(update={"end_time": rfc3339(at)}) if late else entry

    entries = [until(each) for each in (*ledger.uncounted, *ledger.former, *ledger.open)]
    return bill(ledger.model_copy(update={"uncounted": entries, "former": [], "open": []}), now=at)


def closed_waste(ledger: Ledger) -> Mapping[WasteReason, int]:
    """Return the wasted GPU-seconds of pods that have ended, by reason: they never fall."""
    sums: dict[WasteReason, int] = {}
    parts = [(each.reason, each.gpu_seconds) for total in ledger.totals for each in total.waste]
    parts += [(each.reason, each.gpu_seconds) for entry in (*ledger.uncounted, *ledger.former) for each in entry.waste]
    for reason, seconds in parts:
        sums[reason] = sums.get(reason, 0) + seconds
    return sums
