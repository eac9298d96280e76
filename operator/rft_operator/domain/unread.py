"""A run that this operator cannot read: it is stopped with a checkpoint, its bill is closed, and nothing starts.

Invariant: what is not understood spends nothing more, and no bill is lost by it. As far as status can be written, all
goes as it does for any run that is stopped. Where it cannot, or the bill on record cannot be read, the pods keep our
finalizer: their timestamps are the bill then, until somebody repairs the run or deletes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rft_operator.api.rules import LIST_KEYS
from rft_operator.api.status import ConditionType, DisplayStage, Status
from rft_operator.domain.actions import Plan
from rft_operator.domain.attempts import stop_if_needed, stopped
from rft_operator.domain.bill import bill
from rft_operator.domain.conclusions import conclude
from rft_operator.domain.draft import Draft, condition_of, finished
from rft_operator.domain.ending import delete, lost_for_good, rest, without_finalizer
from rft_operator.domain.facts import FINALIZER
from rft_operator.domain.gang import ended, gang_of, others_alive
from rft_operator.domain.money import usd_display
from rft_operator.domain.money_state import Money, meter
from rft_operator.domain.partial import PartialRun
from rft_operator.domain.release import deletion_of, end_orphans, letting_go_of, release_pods, remove_strays
from rft_operator.domain.show import show_gang
from rft_operator.domain.show_money import show_money, show_risk
from rft_operator.domain.stops import UNREADABLE, Stop
from rft_operator.domain.view import View

RETRY_SECONDS = 5
IDENTITIES = {place[-1]: keys for place, keys in LIST_KEYS.items() if place[0] == "status"}
"""Lists of status whose items are found again by these keys, as the API server finds them."""


def words_of(found: PartialRun) -> str:
    """Return what is wrong with a run, what follows from it, and what to do."""
    return (
        f"{found.words}. This operator cannot read the run, so it stops it and starts nothing more. Correct the field "
        "(kubectl edit rft), or install the operator and the CRDs of the version that wrote it; the run then goes on "
        "from its checkpoint."
    )


def hold(view: View, found: PartialRun, now: int, *, recordable: bool = True) -> Plan:
    """Return what is to be done for a run that cannot be read; ``view`` holds its stand-in.

    ``recordable``: the API server takes a status for it.
    """
    resource = view.resource
    draft = Draft(view=view, now=now, status=resource.status)
    deleting = resource.metadata.deletion_timestamp is not None
    money = meter(draft) if recordable and found.ledger_known else None
    if money is None or not _is_priced(draft, money):
        draft.status = resource.status
        _hold_without_record(draft, found, recordable=recordable)
        return draft.finish()
    if deleting:
        delete(draft, money)
    elif finished(draft):
        rest(draft, money)
    else:
        _stop(draft, found, money)
    if not deleting:
        remove_strays(draft)
    end_orphans(draft, every=deleting)
    release_pods(draft)
    return draft.finish()


def is_told(status: Status, message: str) -> bool:
    """Return whether a run's conditions on record say so already."""
    found = [condition_of(status, each) for each in (ConditionType.PROGRESSING, ConditionType.ACCEPTED)]
    return any(each is not None and (each.reason, each.message) == (UNREADABLE, message) for each in found)


def merged(raw: object, *, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status on record with what a plan changed of its stand-in; what was not understood stays as it is."""
    out: dict[str, Any] = dict(raw) if isinstance(raw, Mapping) else {}
    for name in before.keys() | after.keys():
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if new is None:
            out.pop(name, None)
        elif name in IDENTITIES:
            out[name] = _merged_list(out.get(name), before=old or (), after=new, keys=IDENTITIES[name])
        elif isinstance(new, Mapping):
            out[name] = merged(out.get(name), before=old or {}, after=new)
        else:
            out[name] = new
    return out


def _merged_list(
    raw: object, *, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], keys: tuple[str, ...]
) -> list[Any]:
    def identity(item: object) -> tuple[object, ...] | None:
        found = tuple(item.get(each) for each in keys) if isinstance(item, Mapping) else (item,)
        return found if all(each is None or isinstance(each, str | int) for each in found) else None

    old, new = ({identity(each): each for each in items} for items in (before, after))
    out = []
    for item in raw if isinstance(raw, list) else ():
        key = identity(item)
        if key in new:
            out.append(merged(item, before=old.get(key, {}), after=new.pop(key)))
        elif key not in old:
            out.append(item)
    return [*out, *new.values()]


def _is_priced(draft: Draft, money: Money) -> bool:
    """Return whether what holds GPUs can be charged; without any price on record it cannot."""
    held = bool(draft.recorded.ledger.open) or any(pod.has_finalizer for pod in draft.view.children.pods)
    return not held or money.rate is not None or draft.recorded.cost.usd_per_gpu_hour is not None


def _stop(draft: Draft, found: PartialRun, money: Money) -> None:
    """Take the open attempt down as a suspension does, and say why."""
    attempt = draft.open_attempt()
    if attempt is not None:
        gang = gang_of(draft, attempt)
        stop = Stop(reason=UNREADABLE, message="The run cannot be read: saving a checkpoint and releasing the GPUs.")
        if (gang.live or gang.job is not None) and not ended(draft, attempt, gang):
            stop_if_needed(draft, attempt, gang, stop=stop)
        else:
            conclude(draft, attempt if attempt.stop_reason is not None else stopped(draft, attempt, stop), gang)
    attempt = draft.open_attempt()
    show_gang(draft, gang_of(draft, attempt) if attempt is not None else None)
    _show(draft, found, at_rest=attempt is None and not others_alive(draft, None))
    show_risk(draft, money)
    show_money(draft, money, stop_at=None)


def _show(draft: Draft, found: PartialRun, *, at_rest: bool) -> None:
    message = words_of(found)
    draft.observe_generation()
    if draft.recorded.start_time is None:
        draft.set_condition(ConditionType.ACCEPTED, False, UNREADABLE, message)
        draft.update(stage=DisplayStage.PENDING)
        return
    draft.set_condition(ConditionType.PROGRESSING, False, UNREADABLE, message)
    if at_rest:
        draft.set_condition(ConditionType.SUSPENDED, True, UNREADABLE, message)
    draft.update(stage=DisplayStage.SUSPENDED if at_rest else DisplayStage.STOPPING)


def _hold_without_record(draft: Draft, found: PartialRun, *, recordable: bool) -> None:
    """End the Jobs of a run whose bill cannot be written; its pods stay as proof of it unless it is deleted."""
    meta, children = draft.view.resource.metadata, draft.view.children
    jobs = [each for each in children.jobs if each.owner_uid in ("", meta.uid)]
    for job in jobs:
        if job.deleted_at is None and not (job.complete or job.failed):
            draft.actions.append(deletion_of(job))
    end_orphans(draft, every=True)
    if meta.deletion_timestamp is None:
        if recordable and not finished(draft):
            _show(draft, found, at_rest=not others_alive(draft, None))
        return
    if FINALIZER not in meta.finalizers:
        return
    held = [pod for pod in children.pods if pod.has_finalizer]
    for pod in held:
        if not pod.holds_node or lost_for_good(draft, pod):
            draft.actions.append(letting_go_of(pod))
    if held or any(not (each.complete or each.failed) for each in jobs):
        draft.wake(draft.now + RETRY_SECONDS)
        return
    spent = usd_display(bill(draft.recorded.ledger, now=draft.now).spent_micro_usd) if found.ledger_known else "nothing"
    message = (
        f"Deleted. Its bill could not be closed on record, where {spent} could be read; its team budgets book all that "
        f"was reserved for it. {found.words}"
    )
    draft.emit("Warning", "Deleted", message)
    draft.actions.append(without_finalizer(draft))
