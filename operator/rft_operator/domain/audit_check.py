"""Does a run's status say what its pods say? Each sum on record is compared with one that was computed anew.

Invariant: a difference of one GPU-second or one micro-dollar is a finding; what cannot be compared is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rft_operator.api.ledger import LedgerEntry
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.domain.audit import PodBill, total_of, total_of_totals
from rft_operator.domain.bill import ESTIMATED, Share, bill, end_of, priced_from, seconds_of
from rft_operator.domain.money import usd_text
from rft_operator.domain.timestamps import epoch

COMPARED = ("gpus", "micro_usd_per_gpu_hour", "start_time", "end_time", "end_basis", "priced_from")
PRICES = ("micro_usd_per_gpu_hour", "priced_from")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the comparison of one run found."""

    findings: tuple[str, ...]
    """Disagreements; none: the status is right."""
    unproved: tuple[str, ...]
    """Attempts on record whose pods are gone, whose floating prices are gone with their nodes, or whose ends are not
    in the dump."""
    recorded: Share
    """What is on record of pods that are gone."""


def check(run: ReasoningFinetune, bills: Sequence[PodBill], *, has_ledger: bool, now: int) -> Verdict:
    """Compare a run's status with the bill of its pods; ``bills`` are those of this run, computed at ``now``."""
    if not has_ledger:
        return Verdict(findings=tuple(_without_ledger(run, bills)), unproved=(), recorded=Share())
    by_uid = {each.pod.uid: each for each in bills}
    entries = _records(run)
    unproved = tuple(_unproved(run, bills, entries))
    missing = Share()
    findings = [*_entries(run, by_uid, now=now), *_unknown(by_uid, entries, run), *_sums(run, now=now)]
    for stage, total in _totals(run).items():
        proved = _folded(stage, by_uid, run)
        rest = Share(gpu_seconds=total.gpu_seconds - proved.gpu_seconds, amount=total.amount - proved.amount)
        missing = missing.plus(rest.gpu_seconds, rest.amount)
        gone = any(word.startswith(stage) for word in unproved)
        differences = [rest.gpu_seconds, *([] if _is_guessed(stage, by_uid, entries) else [rest.amount])]
        if min(differences) < 0 or (not gone and any(differences)):
            findings.append(
                f"status.ledger.totals of stage {stage} has {total.gpu_seconds} GPU-seconds and "
                f"${usd_text(total.micro_usd)}; the pods of the dump give {proved.gpu_seconds} and "
                f"${usd_text(proved.micro_usd)}"
            )
    return Verdict(findings=tuple(findings), unproved=unproved, recorded=missing)


def _is_guessed(stage: str, by_uid: Mapping[str, PodBill], entries: Mapping[str, LedgerEntry]) -> bool:
    """Return whether the money of a stage's total rests on prices that the dump does not have."""
    return any(each.guessed and each.entry.stage == stage and uid not in entries for uid, each in by_uid.items())


def _is_proved(each: PodBill) -> bool:
    """Return whether the dump says what a pod cost: its price, and if it has ended, when."""
    return each.priced and each.entry.end_basis not in ESTIMATED


def _is_running(each: PodBill) -> bool:
    return each.entry.end_time is None


def _totals(run: ReasoningFinetune) -> Mapping[str, Share]:
    """Return what is folded of each stage, over all kinds of machines."""
    totals = run.status.ledger.totals
    return {stage: total_of_totals([each for each in totals if each.stage == stage]) for stage in _stages(run)}


def _stages(run: ReasoningFinetune) -> tuple[str, ...]:
    return tuple(sorted({each.stage for each in run.status.ledger.totals}))


def _folded(stage: str, by_uid: Mapping[str, PodBill], run: ReasoningFinetune) -> Share:
    """Return what the pods of the dump say is in the totals: pods that have ended, and former prices of the others."""
    entries = _records(run)
    own = {uid: each for uid, each in by_uid.items() if each.entry.stage == stage and _is_proved(each)}
    total = total_of([each for uid, each in own.items() if uid not in entries and not _is_running(each)])
    kept = {(each.uid, each.end_time) for each in run.status.ledger.former}
    parts = [
        part
        for uid, each in own.items()
        if uid in entries
        for part in each.former
        if end_of(part) <= priced_from(entries[uid]) and (uid, part.end_time) not in kept
    ]
    for part in parts:
        seconds = seconds_of(part, now=0)
        total = total.plus(seconds, seconds * part.micro_usd_per_gpu_hour)
    return total


def _records(run: ReasoningFinetune) -> Mapping[str, LedgerEntry]:
    return {entry.uid: entry for entry in (*run.status.ledger.open, *run.status.ledger.uncounted)}


def _as_of(found: PodBill, recorded: LedgerEntry, at: int) -> LedgerEntry:
    """Return what a pod was charged at when its record was written: its price may have changed since."""
    if recorded.end_time is not None:
        return found.entry
    return next((part for part in found.former if end_of(part) > at), found.entry)


def _without_ledger(run: ReasoningFinetune, bills: Sequence[PodBill]) -> Iterator[str]:
    total = total_of(bills)
    if run.status.usage.gpu_seconds != total.gpu_seconds:
        yield f"status.usage.gpuSeconds is {run.status.usage.gpu_seconds}, the pods give {total.gpu_seconds}"
    if run.status.cost.spent_micro_usd != total.micro_usd:
        yield f"status.cost.spentMicroUSD is {run.status.cost.spent_micro_usd}, the pods give {total.micro_usd}"


def _entries(run: ReasoningFinetune, by_uid: Mapping[str, PodBill], *, now: int) -> Iterator[str]:
    """Compare the records of pods that are in the dump, field by field; an open one may have ended since."""
    for uid, entry in _records(run).items():
        if uid not in by_uid:
            continue
        found = _as_of(by_uid[uid], entry, _metered_until(run, now=now))
        compared = COMPARED if by_uid[uid].priced else tuple(name for name in COMPARED if name not in PRICES)
        # An end that no timestamp proves was seen by the operator alone: it is the record's word.
        ended = entry.end_time is not None and entry.end_basis not in ESTIMATED
        fields = [name for name in compared if ended or not name.startswith("end")]
        for name in fields:
            recorded, computed = getattr(entry, name), getattr(found, name)
            if recorded != computed and name == "micro_usd_per_gpu_hour":
                yield (
                    f"status.ledger of pod {entry.pod} has ${usd_text(recorded)} per GPU-hour ({entry.price_source}), "
                    f"the catalogue gives ${usd_text(computed)}: was it edited since the pod was bound?"
                )
            elif recorded != computed:
                yield f"status.ledger of pod {entry.pod}: {name} is {recorded!r}, the pod gives {computed!r}"


def _unknown(
    by_uid: Mapping[str, PodBill], entries: Mapping[str, LedgerEntry], run: ReasoningFinetune
) -> Iterator[str]:
    """A pod that holds GPUs and is on no record is money nobody counts."""
    for uid, each in by_uid.items():
        if uid not in entries and _is_running(each) and run.status.start_time is not None:
            yield f"pod {each.pod.name} holds {each.pod.gpus} GPUs and is not in status.ledger.open"


def _unproved(run: ReasoningFinetune, bills: Sequence[PodBill], entries: Mapping[str, LedgerEntry]) -> Iterator[str]:
    # A pod that its node's taint evicted, or that somebody deleted, is gone alone: its peers are still there.
    known = {each.pod.uid: each.entry for each in bills} | dict(entries)
    unproved = {each.pod.uid for each in bills if not _is_proved(each)}
    for attempt in run.status.attempts:
        own = [each for each in known.values() if (each.stage, each.attempt) == (attempt.stage, attempt.number)]
        proved = sum(each.gpus for each in own if each.uid not in unproved)
        if attempt.gpus and proved < attempt.gpus:
            yield f"{attempt.stage} {attempt.number}"
    for stage in _stages(run):  # a pod that somebody took away, and that its Job has made anew
        seconds = sum(each.estimated_gpu_seconds for each in run.status.ledger.totals if each.stage == stage)
        if seconds:
            yield f"{stage} ({seconds} GPU-seconds are estimated)"


def _metered_until(run: ReasoningFinetune, *, now: int) -> int:
    at = run.status.usage.metered_until
    return epoch(at) if at is not None else now


def _sums(run: ReasoningFinetune, *, now: int) -> Iterator[str]:
    """Compare the sums that people read with the ledger they come from."""
    usage, cost, ledger = run.status.usage, run.status.cost, run.status.ledger
    found = bill(ledger, now=_metered_until(run, now=now))
    if found.gpu_seconds != usage.gpu_seconds:
        yield f"status.usage.gpuSeconds is {usage.gpu_seconds}, status.ledger gives {found.gpu_seconds}"
    if found.spent_micro_usd != cost.spent_micro_usd:
        yield f"status.cost.spentMicroUSD is {cost.spent_micro_usd}, status.ledger gives {found.spent_micro_usd}"
    if usd_text(cost.spent_micro_usd) != cost.spent_usd:
        yield f"status.cost.spentUSD is {cost.spent_usd}, spentMicroUSD gives {usd_text(cost.spent_micro_usd)}"
    for each in usage.by_stage:
        share = found.by_stage.get(each.stage, Share())
        if (each.gpu_seconds, each.spent_usd) != (share.gpu_seconds, usd_text(share.micro_usd)):
            yield (
                f"status.usage.byStage of stage {each.stage} has {each.gpu_seconds} GPU-seconds and ${each.spent_usd}, "
                f"status.ledger gives {share.gpu_seconds} and ${usd_text(share.micro_usd)}"
            )
    for stage in sorted(found.by_stage.keys() - {each.stage for each in usage.by_stage}):
        yield f"status.usage.byStage has no stage {stage}, status.ledger gives {found.by_stage[stage].gpu_seconds} s"
