"""From pod timestamps to GPU-seconds and money: the run's bill, exact to the second.

Rules M1 to M9 and M12 of docs/metering.md. Invariants: the bill is a function of the ledger on record and the pods in
view, never incremented on a tick; each pod UID is charged exactly once. Closing a record takes the three steps of Job
tracking (KEP-2307): (1) the closed entry goes on record as *uncounted*, (2) our finalizer comes off the pod, (3) the
entry is folded into the totals. A crash between any two steps repeats the same step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rft_operator.api.ledger import MAX_LEDGER_ENTRIES, Ledger, LedgerEntry
from rft_operator.domain.bill import (
    FINISHED_AT,
    NODE_GONE,
    OBSERVED,
    PHASE_WRITTEN,
    VANISHED,
    Share,
    end_of,
    priced_from,
)
from rft_operator.domain.evidence import Evidence
from rft_operator.domain.facts import PodFacts
from rft_operator.domain.price_steps import (
    capped,
    changes,
    rate_of_entry,
    revised,
    steps_of_entry,
    with_announced,
)
from rft_operator.domain.rates import Rate
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_operator.domain.totals import fold
from rft_operator.domain.waste import AttemptLife, clipped, intervals

POD_SCHEDULED = "podScheduled"
CREATED = "created"
REPORTED_LATE_SECONDS = 5
"""A terminal phase written so much later than its last container ended is shown as disputed (M4); 2 s are usual."""


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
        elif evidence.may_fold(end_of(entry)):
            totals = fold(totals, entry, end=end_of(entry))
            folded.append(end_of(entry))
        else:
            uncounted.append(entry)
    former = list(ledger.former)
    for entry in (*ledger.open, *back, *_new_entries(ledger, evidence)):
        pod = by_uid.get(entry.uid)
        parts, latest = _repriced(_close(entry, pod, evidence), pod, evidence)
        former += parts
        (still_open if latest.end_time is None else uncounted).append(latest)
    held: list[LedgerEntry] = []
    for part in former:
        if evidence.may_fold(end_of(part)) or len(held) == MAX_LEDGER_ENTRIES:
            totals = fold(totals, part, end=end_of(part))
            folded.append(end_of(part))
        else:
            held.append(part)
    until = rfc3339(max(folded)) if folded else None
    return Ledger(
        open=_ordered(still_open),
        uncounted=_ordered(uncounted),
        former=_ordered(held),
        totals=totals,
        folded_until=until,
    )


def step_is_due(ledger: Ledger, evidence: Evidence) -> bool:
    """Return whether a ledger that is put on record now can be folded further at once (step 3): its pods are gone."""
    held = {pod.uid for pod in evidence.pods if pod.has_finalizer}
    return any(entry.uid not in held and evidence.may_fold(end_of(entry)) for entry in ledger.uncounted)


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
        _new_entry(pod, evidence)
        for pod in evidence.pods
        if pod.uid not in known and pod.has_finalizer and pod.gpus > 0 and pod.scheduled_at is not None
    ]


def _new_entry(pod: PodFacts, evidence: Evidence) -> LedgerEntry:
    """Return a record with all changes of its price that the catalogue has since the pod was bound."""
    entry = open_entry(pod, evidence.rate_of(pod) or evidence.fallback, kind=evidence.kind_of(pod.node or ""))
    since = epoch(entry.start_time)
    later = [step for step in evidence.prices_of(entry.node, since) if step[0] > since]
    return with_announced(entry, changes(later, held=rate_of_entry(entry)))


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
    end = end_of(entry)
    parts = intervals(
        pod,
        start=epoch(entry.start_time),
        end=end,
        life=evidence.lives.get((entry.stage, entry.attempt), AttemptLife()),
        silent_since=epoch(entry.disputed_since) if entry.disputed_since is not None else None,
    )
    return entry.model_copy(update={"waste": clipped(entry, parts, start=priced_from(entry), end=end)})


def _repriced(entry: LedgerEntry, pod: PodFacts | None, evidence: Evidence) -> tuple[list[LedgerEntry], LedgerEntry]:
    """Return an entry at its price of now, and what was charged at former prices (M10).

    Changes on record hold from their instant, whether or not the pod or its node is still there; what the catalogue
    says since is then taken on record.
    """
    parts: list[LedgerEntry] = []

    def step(at: int, rate: Rate) -> None:
        nonlocal entry
        before, entry = _split(entry, pod, at=at, rate=rate, evidence=evidence)
        parts.extend([before] if at > priced_from(before) else [])

    end = end_of(entry) if entry.end_time is not None else evidence.now + 1
    known = steps_of_entry(entry)
    for at, rate in known[1:]:
        if at < end:
            step(at, rate)
    later = [(at, rate) for at, rate in known[1:] if at >= end]
    if entry.end_time is not None:
        return parts, with_announced(entry, later if entry.end_basis == NODE_GONE else ())
    at = max(evidence.now, priced_from(entry))
    wanted = evidence.prices_of(entry.node, at)
    if wanted:
        first, *later = revised(known, wanted, now=at, notice_seconds=evidence.notice_seconds(entry))
        if first[1] != rate_of_entry(entry):
            step(at, first[1])
    return parts, with_announced(entry, capped(later))


def _split(
    entry: LedgerEntry, pod: PodFacts | None, *, at: int, rate: Rate, evidence: Evidence
) -> tuple[LedgerEntry, LedgerEntry]:
    """Split an entry at a change of its price: what was charged before it, and what goes on at the new price."""
    before = entry.model_copy(update={"end_time": rfc3339(at), "end_basis": None, "waste": [], "announced": []})
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


def open_waste(ledger: Ledger, evidence: Evidence) -> Mapping[str, Share]:
    """Return the waste by reason: folded, of closed entries, and of open ones as far as it can be told now."""
    shares: dict[str, Share] = {}

    def add(reason: str, seconds: int, amount: int) -> None:
        shares[reason] = shares.get(reason, Share()).plus(seconds, amount)

    for total in ledger.totals:
        for folded in total.waste:
            add(folded.reason.value, folded.gpu_seconds, int(folded.amount))
    by_uid = {pod.uid: pod for pod in evidence.pods}
    entries = [*ledger.uncounted, *ledger.former]
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
        entry.model_copy(
            update={"end_time": rfc3339(max(now, epoch(entry.start_time))), "end_basis": OBSERVED, "announced": []}
        )
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
