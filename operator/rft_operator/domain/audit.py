"""The bill once more, from API objects alone: what the pods in a dump held, and whether the status says the same.

Invariant: the operator's own code computes the bill, from nothing but the objects; the ledger on record is compared
with it. Pods that are gone left no evidence: of them the record is all there is, and that is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rft_operator.api.choices import PricePolicy
from rft_operator.api.ledger import Ledger, LedgerEntry, LedgerTotal
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.domain.bill import Share, bill
from rft_operator.domain.evidence import Evidence
from rft_operator.domain.facts import Key, NodeFacts, PodFacts
from rft_operator.domain.ledger import next_ledger, open_waste
from rft_operator.domain.money import micro_of_text
from rft_operator.domain.price_steps import Steps
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.rates import Rate, prices_from, rate_of_node
from rft_operator.domain.waste import AttemptLife, lives_of
from rft_operator.errors import AuditError

UNPRICED = Rate(micro_usd_per_gpu_hour=0, source="none")
FOLD_NOTHING = -1
DEFAULT_GPU_RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """The objects of a dump."""

    pods: tuple[PodFacts, ...]
    nodes: tuple[NodeFacts, ...]
    runs: Mapping[Key, ReasoningFinetune]


@dataclass(frozen=True, slots=True, kw_only=True)
class PodBill:
    """What one pod cost."""

    pod: PodFacts
    entry: LedgerEntry
    """Its record, as the operator would have it."""
    share: Share
    former: tuple[LedgerEntry, ...]
    """What of it was charged at former prices, oldest first."""
    priced: bool
    """False: its price floated, and its node is gone: only its record says what it was charged at."""
    guessed: bool
    """Nothing says at what price it was bound: it is shown at the one that its pool has now."""
    waste: Mapping[str, Share]
    disputed_gpu_seconds: int
    estimated_gpu_seconds: int


def audit(dump: Dump, catalogue: PriceCatalogue | None, *, now: int) -> tuple[PodBill, ...]:
    """Return the bill of every pod that held GPUs, oldest first; raises AuditError where no price can be told."""
    held = [pod for pod in dump.pods if pod.gpus > 0 and pod.scheduled_at is not None]
    ordered = sorted(held, key=lambda pod: (pod.namespace, pod.finetune, pod.scheduled_at or 0, pod.rank, pod.uid))
    return tuple(_pod_bill(pod, dump, catalogue, now=now) for pod in ordered)


def _pod_bill(pod: PodFacts, dump: Dump, catalogue: PriceCatalogue | None, *, now: int) -> PodBill:
    run = dump.runs.get(Key(pod.namespace, pod.finetune))
    node = next((each for each in dump.nodes if each.name == pod.node), None)
    gone = frozenset({pod.node or ""}) if dump.nodes and node is None else frozenset()
    resource = run.spec.resources.gpu_resource if run is not None else DEFAULT_GPU_RESOURCE
    floating = run is not None and run.spec.budget.price_policy is PricePolicy.FLOATING

    def prices_of(_: str, since: int) -> Steps:
        if node is None or catalogue is None or not floating:
            return ()
        return prices_from(node, gpu_resource=resource, catalogue=catalogue, since=since)

    rate, guessed = _rate(pod, node, run, catalogue, gpu_resource=resource)
    evidence = Evidence(
        pods=[replace(pod, has_finalizer=True)],
        now=now,
        rate_of=lambda _: rate,
        fallback=UNPRICED,
        prices_of=prices_of,
        lives={(pod.stage.value, pod.attempt): _life(pod, dump, run)},
        silent={each.name: each.silent_since for each in dump.nodes if each.silent_since is not None},
        gone_nodes=gone,
        hold_after=FOLD_NOTHING,
    )
    ledger = next_ledger(Ledger(), evidence)
    (entry,) = (*ledger.open, *ledger.uncounted)
    total = bill(ledger, now=now)
    return PodBill(
        pod=pod,
        entry=entry,
        share=total.by_stage.get(entry.stage, Share()),
        former=tuple(ledger.former),
        priced=node is not None or not floating or catalogue is None,
        guessed=guessed,
        waste=open_waste(ledger, evidence),
        disputed_gpu_seconds=total.disputed_gpu_seconds,
        estimated_gpu_seconds=total.estimated_gpu_seconds,
    )


def _life(pod: PodFacts, dump: Dump, run: ReasoningFinetune | None) -> AttemptLife:
    """Return the life of a pod's attempt: as it is on record, else as the pods of the dump tell it."""
    recorded = lives_of(run.status.attempts) if run is not None else {}
    life = recorded.get((pod.stage.value, pod.attempt), AttemptLife())
    if life.together_at is not None:
        return life
    key = (pod.namespace, pod.finetune, pod.stage, pod.attempt)
    gang = [each for each in dump.pods if (each.namespace, each.finetune, each.stage, each.attempt) == key]
    starts = [each.started_at for each in gang if each.started_at is not None]
    return replace(life, together_at=max(starts) if len(starts) == len(gang) else None)


def _rate(
    pod: PodFacts,
    node: NodeFacts | None,
    run: ReasoningFinetune | None,
    catalogue: PriceCatalogue | None,
    *,
    gpu_resource: str,
) -> tuple[Rate, bool]:
    """Return the price at which a pod was bound, and whether it is a guess.

    It is the spec's, the catalogue's for its node, or the one on record. Of a pod whose record is folded, and which the
    catalogue cannot price, nothing is left but the price of the run's pool.
    """
    given = run.spec.budget.usd_per_gpu_hour if run is not None else None
    if given is not None or (node is not None and catalogue is not None):
        found = rate_of_node(
            node or NodeFacts(name=pod.node or "", labels={}, gpus={}, ready=True),
            gpu_resource=gpu_resource,
            spec_price=given,
            catalogue=(catalogue or PriceCatalogue()).of_any_age(),
            at=pod.scheduled_at or pod.created_at,
        )
        if found is not None:
            return found, False
    recorded = [entry for entry in _entries(run) if entry.uid == pod.uid]
    if recorded:
        return Rate(micro_usd_per_gpu_hour=recorded[0].micro_usd_per_gpu_hour, source=recorded[0].price_source), False
    if run is not None and run.status.cost.usd_per_gpu_hour is not None:
        price = micro_of_text(run.status.cost.usd_per_gpu_hour)
        return Rate(micro_usd_per_gpu_hour=price, source=run.status.cost.price_source or "recorded"), True
    raise AuditError(_no_price(pod, node, catalogue))


def _no_price(pod: PodFacts, node: NodeFacts | None, catalogue: PriceCatalogue | None) -> str:
    where = f"{pod.namespace}/{pod.name} on node {pod.node}"
    if catalogue is None:
        return f"no price for {where}: give the catalogue with --prices FILE (helm value prices)"
    if node is None:
        return f"no price for {where}: the dump has no such node; dump pods,nodes,jobs,rft together"
    return f"no price for {where}: no entry (or no unique one) of the catalogue fits its labels"


def _entries(run: ReasoningFinetune | None) -> tuple[LedgerEntry, ...]:
    return (*run.status.ledger.open, *run.status.ledger.uncounted) if run is not None else ()


def total_of_totals(totals: Sequence[LedgerTotal]) -> Share:
    """Return the sum of what is folded."""
    return Share(gpu_seconds=sum(each.gpu_seconds for each in totals), amount=sum(int(each.amount) for each in totals))


def total_of(bills: Sequence[PodBill]) -> Share:
    """Return the sum of pods' bills, exact: money is rounded once, when it is shown."""
    total = Share()
    for each in bills:
        total = total.plus(each.share.gpu_seconds, each.share.amount)
    return total
