"""Which part of a pod's paid time trained and evaluated nothing, and why.

Invariant: the intervals of one pod do not overlap and lie within its charge, so waste is never more than the bill.
Waste explains the bill, it never changes it: it may rest on clocks of nodes, which the bill may not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rft_operator.api.ledger import LedgerEntry, WasteReason, WasteSeconds
from rft_operator.api.status import Attempt, AttemptOutcome
from rft_operator.domain.facts import STILL_STARTING, PodFacts
from rft_operator.domain.timestamps import epoch
from rft_trainer.contract import Stage


class Interval(NamedTuple):
    """Seconds since the epoch, the end excluded."""

    reason: WasteReason
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLife:
    """What the waste of a pod needs to know of its attempt."""

    together_at: int | None = None
    """When the last rank's container started; None: not all of them ran yet."""
    lost_since: int | None = None
    """After this instant nothing was saved, and the attempt ended before its work was done."""


def lives_of(attempts: Sequence[Attempt]) -> Mapping[tuple[str, int], AttemptLife]:
    """Return the lives of attempts by (stage, number)."""
    return {(each.stage, each.number): _life(each) for each in attempts}


def _life(attempt: Attempt) -> AttemptLife:
    together = epoch(attempt.running_time) if attempt.running_time is not None else None
    in_vain = attempt.end_time is not None and attempt.outcome is not AttemptOutcome.SUCCEEDED
    if attempt.stage == Stage.EVALUATE:  # each answer is kept once it is given, whatever ends the pod but its own fault
        in_vain = in_vain and bool(attempt.counted)
    saved = attempt.last_checkpoint_time
    lost = (epoch(saved) if saved is not None else together) if in_vain else None
    return AttemptLife(together_at=together, lost_since=lost)


def intervals(
    pod: PodFacts, *, start: int, end: int, life: AttemptLife, silent_since: int | None
) -> tuple[Interval, ...]:
    """Return the wasted intervals of a pod that was charged from ``start`` to ``end``, in order."""
    lost = min(end, max(start, silent_since)) if silent_since is not None else end
    asked = pod.deletion_requested_at
    stopping = min(lost, max(start, asked)) if asked is not None else lost

    def within(at: int | None, earliest: int) -> int:
        return stopping if at is None else min(stopping, max(earliest, at))

    started = within(pod.started_at, start)
    together = within(life.together_at, started) if pod.stage is Stage.TRAIN else started
    vain = within(life.lost_since, together)
    never_ran = pod.started_at is None and pod.waiting_reason not in (None, *STILL_STARTING)
    parts = (
        Interval(WasteReason.BACK_OFF if never_ran else WasteReason.PULL, start, started),
        Interval(WasteReason.GANG_WAIT, started, together),
        Interval(WasteReason.LOST_WORK, vain, stopping),
        Interval(WasteReason.TERMINATING, stopping, lost),
        Interval(WasteReason.NODE_LOST, lost, end),
    )
    return tuple(each for each in parts if each.end > each.start)


def clipped(entry: LedgerEntry, parts: Sequence[Interval], *, start: int, end: int) -> list[WasteSeconds]:
    """Return the GPU-seconds of the intervals between two instants."""
    out = []
    for part in parts:
        seconds = min(end, part.end) - max(start, part.start)
        if seconds > 0:
            out.append(WasteSeconds(reason=part.reason, gpu_seconds=seconds * entry.gpus))
    return out
