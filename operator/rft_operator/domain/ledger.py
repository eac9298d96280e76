"""From pod timestamps to GPU-seconds and money: the run's bill, exact to the second.

Rules M1 to M9 and M12 of docs/metering.md. Invariants: the bill is a
function of the ledger on record and the pods in view, never incremented on a tick; each pod UID is charged exactly
once. Closing a record takes the three steps of Job tracking (KEP-2307): (1) the closed entry goes on record as
*uncounted*, (2) our finalizer comes off the pod, (3) the entry is folded into the totals. A crash between any two
steps repeats the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from rft_operator.api.status import Ledger, LedgerEntry, LedgerTotal
from rft_operator.domain.facts import PodFacts
from rft_operator.domain.prices import Rate
from rft_operator.domain.timestamps import epoch, rfc3339

SECONDS_PER_HOUR = 3_600
PHASE_WRITTEN = "phaseWritten"
FINISHED_AT = "finishedAt"
OBSERVED = "observed"
VANISHED = "vanished"
ESTIMATED = frozenset({OBSERVED, VANISHED})
"""Ends that no timestamp of the cluster proves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a run has used and what it costs now."""

    gpu_seconds: int
    amount: int
    """Sum of GPUs x seconds x micro-dollars per GPU-hour; 3,600 of it are one micro-dollar."""
    by_stage: Mapping[str, int]
    """GPU-seconds."""
    rate: int
    """Micro-dollars per hour of everything that holds GPUs now."""

    @property
    def spent_micro_usd(self) -> int:
        """Return the money spent, rounded up once."""
        return -(-self.amount // SECONDS_PER_HOUR)

    @property
    def gpu_hours_text(self) -> str:
        """Return the GPU-hours with three decimals, rounded half up."""
        thousandths = (self.gpu_seconds * 1_000 + SECONDS_PER_HOUR // 2) // SECONDS_PER_HOUR
        return f"{thousandths // 1_000}.{thousandths % 1_000:03d}"


def seconds_of(entry: LedgerEntry, *, now: int) -> int:
    """Return the GPU-seconds of an entry; an open one counts until ``now``."""
    end = epoch(entry.end_time) if entry.end_time is not None else now
    return entry.gpus * max(0, end - epoch(entry.start_time))


def bill(ledger: Ledger, *, now: int) -> Bill:
    """Return the bill: totals + closed entries + open entries recomputed from their timestamps (M9)."""
    by_stage: dict[str, int] = {}
    amount = 0
    parts = [(each.stage, each.gpu_seconds, each.micro_usd_per_gpu_hour) for each in ledger.totals]
    parts += [
        (each.stage, seconds_of(each, now=now), each.micro_usd_per_gpu_hour)
        for each in (*ledger.uncounted, *ledger.open)
    ]
    for stage, seconds, price in parts:
        by_stage[stage] = by_stage.get(stage, 0) + seconds
        amount += seconds * price
    return Bill(
        gpu_seconds=sum(by_stage.values()),
        amount=amount,
        by_stage=by_stage,
        rate=sum(each.gpus * each.micro_usd_per_gpu_hour for each in ledger.open),
    )


def next_ledger(
    ledger: Ledger,
    *,
    pods: Sequence[PodFacts],
    rate_of: Callable[[PodFacts], Rate | None],
    fallback: Rate,
    now: int,
) -> Ledger:
    """Return the ledger one step on, from the one on record and the pods in view.

    ``rate_of`` gives the price of a pod's node when it was bound (M10); ``fallback`` is the pool's dearest rate, taken
    for a node that is already gone.
    """
    by_uid = {pod.uid: pod for pod in pods}
    still_open: list[LedgerEntry] = []
    uncounted: list[LedgerEntry] = []
    totals = list(ledger.totals)
    for entry in ledger.uncounted:
        pod = by_uid.get(entry.uid)
        if pod is None or not pod.has_finalizer:
            totals = _fold(totals, entry)
        else:
            uncounted.append(entry)
    for entry in ledger.open:
        closed = _close(entry, by_uid.get(entry.uid), now=now)
        (still_open if closed.end_time is None else uncounted).append(closed)
    known = {entry.uid for entry in (*ledger.open, *ledger.uncounted)}
    for pod in sorted(pods, key=lambda pod: (pod.scheduled_at or 0, pod.uid)):
        if pod.uid in known or not pod.has_finalizer or pod.gpus == 0 or pod.scheduled_at is None:
            continue
        entry = _close(_open(pod, rate_of(pod) or fallback), pod, now=now)
        (still_open if entry.end_time is None else uncounted).append(entry)
    return Ledger(open=still_open, uncounted=uncounted, totals=totals)


def _open(pod: PodFacts, rate: Rate) -> LedgerEntry:
    return LedgerEntry(
        uid=pod.uid,
        pod=pod.name,
        stage=pod.stage.value,
        attempt=pod.attempt,
        node=pod.node or "",
        gpus=pod.gpus,
        micro_usd_per_gpu_hour=rate.micro_usd_per_gpu_hour,
        price_source=rate.source,
        start_time=rfc3339(pod.scheduled_at or pod.created_at),
    )


def _close(entry: LedgerEntry, pod: PodFacts | None, *, now: int) -> LedgerEntry:
    """Return the entry with its end if the pod holds no GPU any more (M4, M7), else as it is."""
    start = epoch(entry.start_time)
    if pod is None:
        end, basis = max(start, now), VANISHED
    elif not pod.terminal:
        return entry
    elif pod.phase_written_at is not None:
        end, basis = max(start, pod.phase_written_at), PHASE_WRITTEN
    elif pod.finished_at is not None:
        end, basis = min(max(start, pod.finished_at + 1), max(start, now)), FINISHED_AT
    else:
        end, basis = max(start, now), OBSERVED
    return entry.model_copy(update={"end_time": rfc3339(end), "end_basis": basis})


def written_off(ledger: Ledger, uids: Collection[str], *, now: int) -> Ledger:
    """Return the ledger with the open entries of some pods closed now, though nobody saw them end."""
    closed = [
        entry.model_copy(update={"end_time": rfc3339(max(now, epoch(entry.start_time))), "end_basis": OBSERVED})
        for entry in ledger.open
        if entry.uid in uids
    ]
    still_open = [entry for entry in ledger.open if entry.uid not in uids]
    return ledger.model_copy(update={"open": still_open, "uncounted": [*ledger.uncounted, *closed]})


def _fold(totals: list[LedgerTotal], entry: LedgerEntry) -> list[LedgerTotal]:
    seconds = seconds_of(entry, now=0)
    estimated = seconds if entry.end_basis in ESTIMATED else 0
    key = (entry.stage, entry.micro_usd_per_gpu_hour)
    folded = list(totals)
    for index, total in enumerate(folded):
        if (total.stage, total.micro_usd_per_gpu_hour) == key:
            folded[index] = total.model_copy(
                update={
                    "gpu_seconds": total.gpu_seconds + seconds,
                    "estimated_gpu_seconds": total.estimated_gpu_seconds + estimated,
                }
            )
            return folded
    folded.append(
        LedgerTotal(
            stage=entry.stage,
            micro_usd_per_gpu_hour=entry.micro_usd_per_gpu_hour,
            gpu_seconds=seconds,
            estimated_gpu_seconds=estimated,
        )
    )
    return folded


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
