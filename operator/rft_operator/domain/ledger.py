"""From pod timestamps to GPU-seconds and money: the run's bill, exact to the second.

Rules M1 to M9 and M12 of docs/metering.md. Invariants: the bill is a function of the ledger on record and the pods in
view, never incremented on a tick; each pod UID is charged exactly once. Closing a record takes the three steps of Job
tracking (KEP-2307): (1) the closed entry goes on record as *uncounted*, (2) our finalizer comes off the pod, (3) the
entry is folded into the totals. A crash between any two steps repeats the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from rft_operator.api.ledger import MAX_TOTALS, Ledger, LedgerEntry, LedgerTotal, WasteTotal
from rft_operator.domain.bill import (
    ESTIMATED,
    FINISHED_AT,
    NODE_GONE,
    OBSERVED,
    PHASE_WRITTEN,
    VANISHED,
    Share,
    disputed_gpu_seconds,
    priced_from,
    seconds_of,
)
from rft_operator.domain.facts import PodFacts
from rft_operator.domain.rates import Rate
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_operator.domain.waste import AttemptLife, clipped, intervals

POD_SCHEDULED = "podScheduled"
CREATED = "created"
KINDS_SPARED = 8
"""Totals kept free for stages whose kind of machine is one too many to be told apart."""
REPORTED_LATE_SECONDS = 5
"""A terminal phase written so much later than its last container ended is shown as disputed (M4); 2 s are usual."""


def no_steps(_: LedgerEntry) -> Sequence[tuple[int, Rate]]:
    """Return no price change: the price is locked."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that the ledger is computed from, beside the one on record."""

    pods: Sequence[PodFacts]
    now: int
    rate_of: Callable[[PodFacts], Rate | None]
    """The price of a pod's node when it was bound (M10)."""
    fallback: Rate
    """The pool's dearest rate, taken for a node that is already gone."""
    kind_of: Callable[[str], tuple[str | None, str | None]] = lambda _: (None, None)
    """GPU product and capacity type of a node."""
    price_steps: Callable[[LedgerEntry], Sequence[tuple[int, Rate]]] = no_steps
    """Changes of an open entry's price since it holds, as (instant, new rate), in order; none if it is locked."""
    lives: Mapping[tuple[str, int], AttemptLife] = field(default_factory=dict)
    silent: Mapping[str, int] = field(default_factory=dict)
    """Nodes that do not answer, with the instant of their last sign of life (M8)."""
    answering: frozenset[str] = frozenset()
    """Nodes whose kubelet is heard of: what was disputed of their pods is settled."""
    gone_nodes: frozenset[str] = frozenset()
    """Nodes that the API server says do not exist."""
    hold_after: int | None = None
    """What ended later is not folded yet: a team budget must see first which of its windows it belongs to (E8)."""

    def may_fold(self, end: int) -> bool:
        """Return whether what was charged until ``end`` may go into the totals."""
        return self.hold_after is None or end <= self.hold_after

    def silent_since(self, node: str | None) -> int | None:
        """Return the last sign of life of a node that does not answer; None of one that does."""
        return self.silent.get(node or "")


def next_ledger(ledger: Ledger, evidence: Evidence) -> Ledger:
    """Return the ledger one step on, from the one on record and the evidence."""
    by_uid = {pod.uid: pod for pod in evidence.pods}
    still_open: list[LedgerEntry] = []
    uncounted: list[LedgerEntry] = []
    totals = list(ledger.totals)
    folded = [epoch(ledger.folded_until)] if ledger.folded_until is not None else []
    back: list[LedgerEntry] = []
    for entry in ledger.uncounted:
        pod = by_uid.get(entry.uid)
        if pod is not None and _is_back(entry, pod, evidence):
            back.append(entry.model_copy(update={"end_time": None, "end_basis": None, "waste": []}))
        elif pod is not None and pod.has_finalizer:
            uncounted.append(_with_waste(entry, pod, evidence))
        elif evidence.may_fold(_end_of(entry)):
            totals = fold(totals, entry, end=_end_of(entry))
            folded.append(_end_of(entry))
        else:
            uncounted.append(entry)
    for entry in (*ledger.open, *back, *_new_entries(ledger, evidence)):
        pod = by_uid.get(entry.uid)
        latest = _close(entry, pod, evidence)
        for at, rate in evidence.price_steps(entry):
            if evidence.may_fold(at) and (latest.end_time is None or at < epoch(latest.end_time)):
                before, latest = _reprice(latest, pod, at=at, rate=rate, evidence=evidence)
                totals = fold(totals, before, end=at)
                folded.append(at)
        (still_open if latest.end_time is None else uncounted).append(latest)
    until = rfc3339(max(folded)) if folded else None
    return Ledger(open=_ordered(still_open), uncounted=_ordered(uncounted), totals=totals, folded_until=until)


def _ordered(entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """Return entries in an order that does not depend on when they were noticed."""
    return sorted(entries, key=lambda entry: (entry.start_time, entry.pod, entry.uid))


def _is_back(entry: LedgerEntry, pod: PodFacts, evidence: Evidence) -> bool:
    """Return whether a node that was said to be gone is there again, with a pod that goes on and was not let go.

    Somebody deleted the Node object, and the kubelet registered it anew before the pod was collected.
    """
    there = entry.node in evidence.answering or entry.node in evidence.silent
    return entry.end_basis == NODE_GONE and there and pod.has_finalizer and not pod.terminal


def _new_entries(ledger: Ledger, evidence: Evidence) -> list[LedgerEntry]:
    """Return records of bound pods that have none; a pod without our finalizer had its record folded already."""
    known = {entry.uid for entry in (*ledger.open, *ledger.uncounted)}
    return [
        open_entry(pod, evidence.rate_of(pod) or evidence.fallback, kind=evidence.kind_of(pod.node or ""))
        for pod in evidence.pods
        if pod.uid not in known and pod.has_finalizer and pod.gpus > 0 and pod.scheduled_at is not None
    ]


def open_entry(pod: PodFacts, rate: Rate, *, kind: tuple[str | None, str | None]) -> LedgerEntry:
    """Return the record of a bound pod (M1); ``kind`` is GPU product and capacity type of its node."""
    return LedgerEntry(
        uid=pod.uid,
        pod=pod.name,
        stage=pod.stage.value,
        attempt=pod.attempt,
        node=pod.node or "",
        gpus=pod.gpus,
        micro_usd_per_gpu_hour=rate.micro_usd_per_gpu_hour,
        price_source=rate.source,
        gpu_product=kind[0],
        capacity_type=kind[1],
        start_time=rfc3339(pod.scheduled_at or pod.created_at),
        start_basis=CREATED if pod.bound_when_created else POD_SCHEDULED,
    )


def _close(entry: LedgerEntry, pod: PodFacts | None, evidence: Evidence) -> LedgerEntry:
    """Return the entry with its end if the pod holds no GPU any more (M4, M7, M8), else with what is disputed."""
    start, now = epoch(entry.start_time), evidence.now
    if pod is None:
        return _ended(entry, None, evidence, end=max(start, now), basis=VANISHED)
    if not pod.terminal:
        silent = evidence.silent_since(entry.node)
        disputed = None if entry.node in evidence.answering else entry.disputed_since
        if disputed is None and silent is not None:
            disputed = rfc3339(max(start, silent))
        entry = entry.model_copy(update={"disputed_since": disputed})
        if entry.node in evidence.gone_nodes:
            return _ended(entry, pod, evidence, end=max(start, now), basis=NODE_GONE)
        return entry
    if pod.phase_written_at is not None:
        end, basis = max(start, pod.phase_written_at), PHASE_WRITTEN
    elif pod.finished_at is not None:
        end, basis = min(max(start, pod.finished_at + 1), max(start, now)), FINISHED_AT
    else:
        end, basis = max(start, now), OBSERVED
    return _ended(entry, pod, evidence, end=end, basis=basis)


def _ended(entry: LedgerEntry, pod: PodFacts | None, evidence: Evidence, *, end: int, basis: str) -> LedgerEntry:
    disputed = entry.disputed_since
    if basis == PHASE_WRITTEN and pod is not None and evidence.silent_since(entry.node) is None:
        late = pod.finished_at is not None and end - pod.finished_at > REPORTED_LATE_SECONDS
        disputed = rfc3339(max(epoch(entry.start_time), pod.finished_at or end)) if late else None
    closed = entry.model_copy(update={"end_time": rfc3339(end), "end_basis": basis, "disputed_since": disputed})
    return _with_waste(closed, pod, evidence) if pod is not None else closed


def _with_waste(entry: LedgerEntry, pod: PodFacts, evidence: Evidence) -> LedgerEntry:
    """Return a closed entry with its waste; it grows once the attempt has ended in vain."""
    end = _end_of(entry)
    parts = intervals(
        pod,
        start=epoch(entry.start_time),
        end=end,
        life=evidence.lives.get((entry.stage, entry.attempt), AttemptLife()),
        silent_since=epoch(entry.disputed_since) if entry.disputed_since is not None else None,
    )
    return entry.model_copy(update={"waste": clipped(entry, parts, start=priced_from(entry), end=end)})


def _reprice(
    entry: LedgerEntry, pod: PodFacts | None, *, at: int, rate: Rate, evidence: Evidence
) -> tuple[LedgerEntry, LedgerEntry]:
    """Split an entry at a price step: what was charged before it, to be folded, and what goes on at the new price."""
    before = entry.model_copy(update={"end_time": rfc3339(at), "end_basis": None, "waste": []})
    if pod is not None:
        before = _with_waste(before, pod, evidence)
    after = entry.model_copy(
        update={
            "micro_usd_per_gpu_hour": rate.micro_usd_per_gpu_hour,
            "price_source": rate.source,
            "priced_from": rfc3339(at),
        }
    )
    if after.end_time is not None and pod is not None:
        after = _with_waste(after, pod, evidence)
    return before, after


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


def _end_of(entry: LedgerEntry) -> int:
    return epoch(entry.end_time or entry.start_time)


def open_waste(ledger: Ledger, evidence: Evidence) -> Mapping[str, Share]:
    """Return the waste by reason: folded, of closed entries, and of open ones as far as it can be told now."""
    shares: dict[str, Share] = {}

    def add(reason: str, seconds: int, amount: int) -> None:
        shares[reason] = shares.get(reason, Share()).plus(seconds, amount)

    for total in ledger.totals:
        for folded in total.waste:
            add(folded.reason.value, folded.gpu_seconds, int(folded.amount))
    by_uid = {pod.uid: pod for pod in evidence.pods}
    entries = list(ledger.uncounted)
    for entry in ledger.open:
        pod = by_uid.get(entry.uid)
        if pod is not None:
            entries.append(_with_waste(entry.model_copy(update={"end_time": rfc3339(evidence.now)}), pod, evidence))
    for entry in entries:
        for part in entry.waste:
            add(part.reason.value, part.gpu_seconds, part.gpu_seconds * entry.micro_usd_per_gpu_hour)
    return shares


def written_off(ledger: Ledger, uids: Collection[str], *, now: int) -> Ledger:
    """Return the ledger with the open entries of some pods closed now, though nobody saw them end."""
    closed = [
        entry.model_copy(update={"end_time": rfc3339(max(now, epoch(entry.start_time))), "end_basis": OBSERVED})
        for entry in ledger.open
        if entry.uid in uids
    ]
    still_open = [entry for entry in ledger.open if entry.uid not in uids]
    return ledger.model_copy(update={"open": still_open, "uncounted": [*ledger.uncounted, *closed]})


def releasable(ledger: Ledger, pods: Sequence[PodFacts]) -> tuple[PodFacts, ...]:
    """Return the pods whose finalizer may come off: closed on record, or never bound and at an end.

    ``ledger`` must be the one on record, not one that is about to be written: step 2 follows step 1.
    """
    closed = {entry.uid for entry in ledger.uncounted}
    return tuple(
        pod
        for pod in pods
        if pod.has_finalizer
        and (pod.uid in closed or (pod.scheduled_at is None and (pod.terminal or pod.deleted_at is not None)))
    )
