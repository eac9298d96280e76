"""After the end: the last entries of the ledger, the time to live, the deletion.

Invariant: the resource goes only when no pod can cost anything any more and the ledger is closed, so no bill is lost;
and it always goes: a node that never answers again does not hold it up.
"""

from __future__ import annotations

from rft_operator.api.status import ConditionStatus, ConditionType, DisplayStage
from rft_operator.domain.actions import Delete, SetFinalizers
from rft_operator.domain.bill import hours_text
from rft_operator.domain.conclusions import WANT_OF_MONEY
from rft_operator.domain.draft import Draft, is_over
from rft_operator.domain.facts import FINALIZER, PodFacts
from rft_operator.domain.gang import silence_of
from rft_operator.domain.ledger import written_off
from rft_operator.domain.money import micro_of_text, micro_usd, usd_display
from rft_operator.domain.money_state import Money
from rft_operator.domain.release import deletion_of
from rft_operator.domain.show import stage_word
from rft_operator.domain.show_money import show_money, show_risk
from rft_operator.domain.team_money import close_bill, is_booked
from rft_operator.domain.timestamps import epoch


def revivable(draft: Draft) -> bool:
    """Return whether a run failed for want of money alone, and may spend more now than it might when it ended.

    Neither a price that falls nor another edit brings a run back that its user has seen end.
    """
    failed, ended_at = draft.condition(ConditionType.FAILED), draft.status.cost.ended_at_limit_usd
    if failed is None or failed.status is not ConditionStatus.TRUE or failed.reason not in WANT_OF_MONEY:
        return False
    return ended_at is not None and micro_usd(draft.spec.budget.limit_usd) > micro_of_text(ended_at)


def revive(draft: Draft) -> None:
    """Let a run go on whose budget was raised after it failed for want of money; it resumes from its checkpoint."""
    message = "budget.limitUSD was raised: the run goes on from its checkpoint."
    draft.set_condition(ConditionType.FAILED, False, "BudgetRaised", message)
    draft.set_condition(ConditionType.COMPLETE, ConditionStatus.UNKNOWN, "BudgetRaised", message)
    draft.set_condition(ConditionType.EVALUATED, ConditionStatus.UNKNOWN, "BudgetRaised", message)
    draft.set_condition(ConditionType.WITHIN_BUDGET, True, "BudgetRaised", message)
    cost = draft.status.cost.model_copy(update={"ended_at_limit_usd": None})
    draft.update(completion_time=None, cost=cost)
    draft.update(stage=stage_word(draft, None, None))
    draft.emit("Normal", "BudgetRaised", message)
    draft.wake(draft.now)


def rest(draft: Draft, money: Money, *, may_expire: bool = True) -> None:
    """Look after a finished run: close the ledger, let go of the finalizer, delete it after its time to live.

    One that is asked to go on, and waits for its team's money, is not thrown away meanwhile.
    """
    _close_ledger(draft, money)
    meta = draft.view.resource.metadata
    held = FINALIZER in meta.finalizers and draft.status == draft.recorded
    if held and _settled(draft) and is_booked(draft):
        draft.actions.append(without_finalizer(draft))
    ttl = draft.spec.ttl_seconds_after_finished
    if ttl is None or draft.status.completion_time is None or not may_expire:
        return
    due = epoch(draft.status.completion_time) + ttl
    if draft.now < due:
        draft.wake(due)
        return
    draft.actions.append(Delete(kind="ReasoningFinetune", namespace=meta.namespace, name=meta.name, uid=meta.uid))


def delete(draft: Draft, money: Money) -> None:
    """Take the run down: Jobs first, then, when no GPU pod is left, the finalizer on the resource."""
    meta = draft.view.resource.metadata
    if FINALIZER not in meta.finalizers:
        # Garbage collection does the rest; the pods' finalizers come off by the orphan rule of the cache.
        return
    draft.update(stage=DisplayStage.DELETING)
    for job in draft.view.children.jobs:
        if job.deleted_at is None and job.owner_uid in ("", meta.uid):
            draft.actions.append(deletion_of(job))
    _write_off_lost(draft)
    _close_ledger(draft, money)
    if not _settled(draft) or any(job.deleted_at is None for job in draft.view.children.jobs):
        draft.wake(draft.now + 5)
        return
    if not is_booked(draft):
        if not is_over(draft.recorded) or draft.view.unbooked:
            close_bill(draft)
        return
    if draft.status == draft.recorded:
        spent = usd_display(money.bill.spent_micro_usd)
        message = f"Deleted. {hours_text(money.bill.gpu_seconds)} GPU-hours, {spent} in all."
        draft.emit("Normal", "Deleted", message)
        draft.actions.append(without_finalizer(draft))


def _close_ledger(draft: Draft, money: Money) -> None:
    show_risk(draft, money)
    show_money(draft, money, stop_at=None)
    if draft.status != draft.recorded:
        draft.wake(draft.now)


def _settled(draft: Draft) -> bool:
    ledger = draft.status.ledger
    charged = any(pod.has_finalizer for pod in draft.view.children.pods)
    return not (ledger.open or ledger.uncounted or charged)


def _write_off_lost(draft: Draft) -> None:
    """A node that does not answer cannot end its pods: a deletion closes their bill without it."""
    lost = {pod.uid for pod in draft.view.children.pods if lost_for_good(draft, pod)}
    draft.update(ledger=written_off(draft.status.ledger, lost, now=draft.now))


def lost_for_good(draft: Draft, pod: PodFacts) -> bool:
    """Return whether a pod should have ended by now, and its node does not answer."""
    if not pod.holds_node or pod.deleted_at is None or draft.now < pod.deleted_at:
        return False
    since = silence_of(draft, pod)
    return since is not None and draft.now >= since + draft.view.settings.node_lost_seconds


def without_finalizer(draft: Draft) -> SetFinalizers:
    """Return the action that lets go of the run."""
    meta = draft.view.resource.metadata
    return SetFinalizers(
        kind="ReasoningFinetune",
        namespace=meta.namespace,
        name=meta.name,
        resource_version=meta.resource_version,
        finalizers=tuple(each for each in meta.finalizers if each != FINALIZER),
    )
