"""The gate before a run: what it refers to exists, its parts fit, its price is known, its budget is enough.

Invariant: nothing is created for a run that is not accepted, and a run that can be accepted later (a Secret that is
not there yet, a price that is not known yet) is looked at again by itself.
"""

from __future__ import annotations

from rft_operator.api.status import ConditionStatus, ConditionType
from rft_operator.domain.budget import admit
from rft_operator.domain.draft import Draft
from rft_operator.domain.estimate import Estimate
from rft_operator.domain.expect import expectation, expected_micro_usd, tight, too_big, unevaluable
from rft_operator.domain.facts import ChildKind
from rft_operator.domain.money import usd_display, usd_text
from rft_operator.domain.money_state import Money, terms_of
from rft_operator.domain.rates import shared_words, twins_of_empty_pool, unpriced_nodes, without_gpus_per_node
from rft_operator.domain.resolve import resolve
from rft_operator.domain.show_money import PRICE_RETRY_SECONDS
from rft_operator.domain.stops import PRICE_UNKNOWN
from rft_operator.domain.team_money import unreserved
from rft_operator.domain.team_run import WAITING
from rft_operator.errors import InvalidResource
from rft_trainer.contract import Stage

REFERENCE_RETRY_SECONDS = 15
REASONS = {
    "Secret": "SecretNotFound",
    "PersistentVolumeClaim": "ClaimNotFound",
    "ConfigMap": "ConfigMapNotFound",
}


def accept(draft: Draft, money: Money) -> None:
    """Set Accepted, and the start time with it when the run may start."""
    strangers = _strangers(draft)
    if strangers:
        message = (
            f"Objects of a deleted resource of this name are still there: {', '.join(strangers[:4])}. "
            "The run starts when they are gone; those without an owner must be deleted by hand."
        )
        _refuse(draft, "WaitingForCleanup", message, retry_seconds=REFERENCE_RETRY_SECONDS)
        return
    if draft.view.missing:
        kind, name = draft.view.missing[0]
        others = len(draft.view.missing) - 1
        tail = f", and {others} more are missing" if others else ""
        message = (
            f"{kind} {name!r} does not exist in namespace {draft.view.resource.metadata.namespace}{tail}. "
            "The run starts when it is there."
        )
        _refuse(draft, REASONS.get(kind, "ReferenceNotFound"), message, retry_seconds=REFERENCE_RETRY_SECONDS)
        return
    try:
        resolve(draft.view.resource, draft.view.settings)
    except InvalidResource as error:
        _refuse(draft, error.reason, str(error), retry_seconds=None)
        return
    if money.rate is None:
        _refuse(draft, PRICE_UNKNOWN, _no_price(draft), retry_seconds=PRICE_RETRY_SECONDS)
        return
    admission = admit(terms_of(draft, money, rate=money.rate, stage=Stage.TRAIN), money.bill)
    if not admission.ok:
        _refuse(draft, "BudgetInsufficient", admission.message + _smaller_reserve(draft), retry_seconds=None)
        return
    try:
        expected = expectation(draft, money.rate)
    except InvalidResource as error:
        _refuse(draft, error.reason, str(error), retry_seconds=None)
        return
    words = (too_big(expected) if expected is not None else None) or unevaluable(draft)
    if words is not None:
        _refuse(draft, "OutOfMemory", words, retry_seconds=PRICE_RETRY_SECONDS)
        return
    wait = unreserved(draft)
    if wait is not None:
        _refuse(draft, wait.reason, wait.message, retry_seconds=0 if wait.again else None)
        return
    price = usd_display(money.rate.micro_usd_per_gpu_hour)
    price = f"Price {price} per GPU-hour ({money.rate.source}); pods without GPUs cost nothing."
    message = f"{price} {admission.message}"
    draft.set_condition(ConditionType.ACCEPTED, True, "Accepted", message)
    draft.set_condition(ConditionType.WITHIN_BUDGET, True, "WithinLimit")
    draft.update(start_time=draft.now_text)
    draft.emit("Normal", "Accepted", message)
    if expected is not None:
        _take_estimate(draft, expected)
    _warn_of_claims(draft)


def _take_estimate(draft: Draft, expected: Estimate) -> None:
    """Forecast from the estimate until the trainer reports; say so if memory may be short."""
    micro = expected_micro_usd(expected)
    if micro is not None:
        draft.update(cost=draft.status.cost.model_copy(update={"forecast_usd": usd_text(micro)}))
    warning = tight(expected)
    if warning is not None:
        draft.emit("Warning", "MemoryMayBeShort", warning)


def _warn_of_claims(draft: Draft) -> None:
    """Ranks that cannot all mount a volume hold GPUs until pendingSeconds are over, and no pod's status says why."""
    nodes, names = draft.spec.resources.nodes, list(draft.view.unshared)
    if draft.spec.storage.claim_name is None:  # a former run of this name may have left its own
        names += [each.name for each in draft.view.children.objects if not each.shared]
    if nodes > 1 and names:
        message = (
            f"By its access modes one node at a time can have the claim {', '.join(names[:4])}, and resources.nodes is "
            f"{nodes}: on most storage the ranks of a second node then wait in ContainerCreating, holding their GPUs. "
            "Use a claim with ReadWriteMany."
        )
        draft.emit("Warning", "ClaimNotShared", message)


def _smaller_reserve(draft: Draft) -> str:
    """Return what else would help: to keep less for the evaluation."""
    if draft.spec.evaluation is None:
        return ""
    if draft.spec.budget.evaluation_reserve_usd is not None:
        return " budget.evaluationReserveUSD may be lowered, too."
    return " Until it has started evaluation.maxSeconds may be lowered, too."


def _strangers(draft: Draft) -> list[str]:
    """Return what has the name of a child but belongs to a deleted namesake, or to nobody; a kept claim is welcome."""
    uid = draft.view.resource.metadata.uid
    children = draft.view.children
    kept = [each for each in children.objects if each.kind is ChildKind.CLAIM and not each.owner_uid]
    named = [(job.name, job.owner_uid) for job in children.jobs]
    named += [(each.name, each.owner_uid) for each in children.objects if each not in kept]
    return [name for name, owner in named if owner != uid]


def _no_price(draft: Draft) -> str:
    spec = draft.spec
    names = unpriced_nodes(
        draft.view.nodes,
        node_selector=spec.scheduling.node_selector,
        gpu_resource=spec.resources.gpu_resource,
        catalogue=draft.view.catalogue,
        at=draft.now,
    )
    shared = [(node.name, words) for node in draft.view.nodes if node.name in names and (words := shared_words(node))]
    if shared:
        name, words = shared[0]
        return (
            f"{name} offers {words}, which the catalogue does not price. Use nodes with whole GPUs "
            "(scheduling.nodeSelector), or set budget.usdPerGpuHour to the price of one such share."
        )
    twins = twins_of_empty_pool(spec.scheduling.node_selector, draft.view.catalogue, at=draft.now)
    if not names and twins:
        return (
            f"No node of the pool exists yet, and {', '.join(twins[:4])} of the catalogue (Helm value prices) price "
            "the same machines from the same instant: remove one, give it effectiveFrom, or one more key of match."
        )
    whole = without_gpus_per_node(spec.scheduling.node_selector, draft.view.catalogue, at=draft.now)
    if not names and whole:
        return (
            f"No node of the pool exists yet, and the price of {', '.join(whole[:4])} is one of a whole node (basis: "
            "node): add gpusPerNode, the GPUs that such a node offers, to the entry of the catalogue (Helm value "
            "prices), set budget.usdPerGpuHour, or start a node."
        )
    if names:
        where = f"The price catalogue has no (or no unique) price for {', '.join(names[:4])}"
    else:
        where = f"No node offers {spec.resources.gpu_resource} for this nodeSelector, and no catalogue entry matches it"
    stale = draft.view.catalogue.stale(at=draft.now)
    if stale:
        where += (
            f"; {', '.join(stale[:4])} is older than the catalogue's maxAgeDays: check the price and renew its asOf"
        )
    return f"{where}. Add an entry to the catalogue (Helm value prices), or set budget.usdPerGpuHour."


def _refuse(draft: Draft, reason: str, message: str, *, retry_seconds: int | None) -> None:
    old = draft.condition(ConditionType.ACCEPTED)
    draft.set_condition(ConditionType.ACCEPTED, ConditionStatus.FALSE, reason, message)
    if (old is None or old.reason != reason) and reason != WAITING:
        draft.emit("Warning", reason, message)
    if retry_seconds is not None:
        draft.wake(draft.now + retry_seconds)
