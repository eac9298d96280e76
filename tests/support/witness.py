"""The witness who knows what the operator must say: it sees each pod's life and each write of the resource.

What is on record is compared with the pods' own lives, in integers: at every instant what can never be, and once the
operator has had its chance what must be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rft_operator.api import KIND
from rft_operator.domain.facts import FINALIZER, LABEL_FINETUNE
from rft_operator.domain.money import micro_of_text, micro_usd
from rft_operator.domain.timestamps import epoch
from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE
from support.cluster import NODE_PRICES, Life, Object, is_terminal
from support.controllers import LivingCluster
from support.stage import START

MICRO_PRICES = {name: int(text.replace(".", "")) * 10_000 for name, text in NODE_PRICES.items()}
CHEAPEST, DEAREST = min(MICRO_PRICES.values()), max(MICRO_PRICES.values())
STOP_SLACK_SECONDS = 30


class WitnessedCluster(LivingCluster):
    """A living cluster with the witness in it."""

    def __init__(self, *, reached: Counter[str] | None = None, **spec: Any) -> None:
        self.reached = reached if reached is not None else Counter()
        self.completions: list[Stage] = []
        self.known: Mapping[str, Any] = {}
        """The resource's status at its last write."""
        self.limit_micro = self.ceiling_micro = self.training_ceiling_micro = self.highest_micro = 0
        super().__init__(**spec)
        self.pool_changed = False
        """Nodes came, so that the reserve may have become dearer than it was when training began."""
        self.limit_is_known = True
        """The operator had its chance since the limit was changed."""
        self.take_limit()

    @property
    def exists(self) -> bool:
        return (KIND, NAMESPACE, NAME) in self.kube.objects

    @property
    def uid(self) -> str:
        return str(self.kube.objects[KIND, NAMESPACE, NAME]["metadata"]["uid"]) if self.exists else ""

    def complete_pods(self, pods: Sequence[Object]) -> None:
        super().complete_pods(pods)
        self.completions += [Stage(pods[0]["metadata"]["labels"]["rft.dev/stage"])]

    def add_node(self, name: str) -> None:
        super().add_node(name)
        self.pool_changed = True

    # -- the money --------------------------------------------------------------------------------------------

    def set_limit(self, cents: int) -> None:
        """Change the limit; what is already under way may still cost what its stop costs."""
        new = cents * 10_000
        self.limit_micro, self.highest_micro = new, max(new, self.highest_micro)
        self.limit_is_known = False
        self._set_ceilings()
        self.edit(budget={"limitUSD": f"{cents // 100}.{cents % 100:02d}"})

    def _set_ceilings(self) -> None:
        """The limit, or what is spent and what it costs to stop what runs."""
        stop_seconds = sum(life.gpus * (life.grace_seconds + STOP_SLACK_SECONDS) for life in self.running())
        stops = -(-stop_seconds * DEAREST // 3_600)
        reserve = self._reserve_micro() if self.exists else 0
        self.ceiling_micro = max(self.limit_micro, self.spent_micro() + stops)
        self.training_ceiling_micro = max(self.limit_micro - reserve, self.spent_micro(Stage.TRAIN) + stops)

    def take_limit(self) -> None:
        limit = micro_usd(self.run.spec.budget.limit_usd)
        self.limit_micro = self.ceiling_micro = self.highest_micro = limit
        self.training_ceiling_micro = limit - self._reserve_micro()

    def _reserve_micro(self) -> int:
        """What is kept for the evaluation on the cheapest node, at the least."""
        evaluation = self.run.spec.evaluation
        if evaluation is None:
            return 0
        return evaluation.gpus * (evaluation.max_seconds + STOP_SLACK_SECONDS) * CHEAPEST // 3_600

    def mine(self) -> list[Life]:
        return [life for life in self.lives.values() if life.run_uid == self.uid]

    def running(self) -> list[Life]:
        return [life for life in self.mine() if life.ended_at is None and life.vanished_at is None]

    def held(self, uid: str) -> list[Life]:
        """Lives that hold a node that answers."""
        running = [life for life in self.lives.values() if life.run_uid == uid and life.bound_at is not None]
        return [each for each in running if (each.ended_at, each.vanished_at, each.lost_since) == (None, None, None)]

    def spent_micro(self, stage: Stage | None = None) -> int:
        """What the run has cost, but for what no one can stop: pods on dead nodes and pods taken away by hand."""
        amount = 0
        for life in self.mine():
            if stage not in (None, life.stage):
                continue
            until = min(self.now, life.lost_since if life.lost_since is not None else self.now)
            if life.vanished_at is None and life.bound_at is not None:
                amount += life.gpus * life.seconds(until) * MICRO_PRICES[life.node]
        return -(-amount // 3_600)

    # -- what must hold ---------------------------------------------------------------------------------------

    def check(self, *, quiet: bool) -> None:
        """What must hold at every instant; ``quiet``: and what must hold once the operator has had its chance."""
        if quiet and not self.limit_is_known:  # from now on the kubelets know it, too
            self._set_ceilings()
            self.limit_is_known = True
        elif not self.limit_is_known:  # the operator has not seen it yet
            self.ceiling_micro = max(self.ceiling_micro, self.highest_micro)
            reserve = self._reserve_micro() if self.exists else 0
            self.training_ceiling_micro = max(self.training_ceiling_micro, self.highest_micro - reserve)
        spent, trained = self.spent_micro(), self.spent_micro(Stage.TRAIN)
        assert spent <= self.ceiling_micro, f"spent {spent} of {self.ceiling_micro}"
        assert trained <= self.training_ceiling_micro, f"training spent {trained} of {self.training_ceiling_micro}"
        self._check_gangs()
        if self.held(self.uid):
            assert FINALIZER in self.run.metadata.finalizers, "GPUs are held, and nothing holds the resource"
        if quiet and self.exists and self.known:
            self._check_bill()
            self._check_suspension()

    def _check_gangs(self) -> None:
        lost = {life.uid for life in self.lives.values() if life.lost_since is not None}
        alive = {
            (pod["metadata"]["labels"]["rft.dev/stage"], pod["metadata"]["labels"]["rft.dev/attempt"])
            for job in self.kube.find("Job")
            for pod in self.pods_of(job)
            if not is_terminal(pod) and pod["metadata"]["uid"] not in lost
        }
        alive |= {(life.stage.value, str(life.attempt)) for life in self.held(self.uid)}
        assert len(alive) <= 1, f"two gangs are alive: {sorted(alive)}"

    def _check_suspension(self) -> None:
        if self.holds("Suspended"):
            assert not self.held(self.uid), "suspended, and GPUs are held"

    def _check_bill(self) -> None:
        """The bill is what the pods' lives say, to the second; only of vanished pods there are bounds alone."""
        usage = self.known.get("usage") or {}
        until = epoch(usage["meteredUntil"]) if usage.get("meteredUntil") else START
        seconds_low = seconds_high = amount_low = amount_high = 0
        for life in self.mine():
            low, high = self._seconds_of(life, until=until)
            cheapest, dearest = self._price_of(life)
            seconds_low, seconds_high = seconds_low + low, seconds_high + high
            amount_low, amount_high = amount_low + low * cheapest, amount_high + high * dearest
        billed = usage.get("gpuSeconds", 0)
        assert seconds_low <= billed <= seconds_high, f"{billed} GPU-seconds, not {seconds_low} to {seconds_high}"
        spent = (self.known.get("cost") or {}).get("spentMicroUSD", 0)
        assert -(-amount_low // 3_600) <= spent <= -(-amount_high // 3_600), f"{spent}, not {amount_low}/3600"

    def _seconds_of(self, life: Life, *, until: int) -> tuple[int, int]:
        if life.bound_at is None:
            return 0, 0
        if life.vanished_at is None:
            exact = life.gpus * life.seconds(max(until, life.bound_at))
            return exact, exact
        if life.billed_until is None:
            life.billed_until = self.now
        return 0, life.gpus * (life.billed_until - life.bound_at)

    def _price_of(self, life: Life) -> tuple[int, int]:
        if life.node in self.nodes():
            life.priced = True
        exact = MICRO_PRICES.get(life.node, 0)
        return (exact, exact) if life.priced else (CHEAPEST, DEAREST)

    def holds(self, type_: str) -> bool:
        return _condition(self.known, type_).get("status") == "True"

    def witness_status(self, obj: Mapping[str, Any]) -> None:
        """Look at every write of the resource: what is decided for good stays so."""
        old, new = self.known, obj.get("status") or {}
        self.known = new
        assert new.get("observedGeneration", 0) <= obj["metadata"]["generation"]
        assert sum("endTime" not in attempt for attempt in new.get("attempts", ())) <= 1, "two open attempts"
        complete, failed = self.holds("Complete"), self.holds("Failed")
        assert not (complete and failed)
        if complete:
            self._witness_completion(obj)
        if _condition(old, "Complete").get("status") == "True":
            assert complete, "Complete was taken back"
        unpaid = "EvaluationReserveExhausted"
        if _condition(new, "Failed").get("reason") == unpaid != _condition(old, "Failed").get("reason"):
            lost = any((life.lost_since, life.vanished_at) != (None, None) for life in self.lives.values())
            lowered = self.limit_micro < self.highest_micro
            tried = any(attempt["stage"] == "evaluate" for attempt in new.get("attempts", ()))
            assert lost or lowered or tried or self.pool_changed, (
                "trained within the budget, and the evaluation cannot be paid"
            )
        was = _condition(old, "Failed")
        if was.get("status") == "True" and not failed:
            assert was["reason"] in ("BudgetExhausted", "EvaluationReserveExhausted"), f"{was['reason']} was taken back"
            ended_at = micro_of_text(old["cost"]["endedAtLimitUSD"])
            assert micro_usd(obj["spec"]["budget"]["limitUSD"]) > ended_at, "revived without a raise"
        self._count(new)

    def _witness_completion(self, obj: Mapping[str, Any]) -> None:
        assert Stage.TRAIN in self.completions, "complete, but never trained to the end"
        if obj["spec"].get("evaluation"):
            trained = max(index for index, stage in enumerate(self.completions) if stage is Stage.TRAIN)
            assert Stage.EVALUATE in self.completions[trained:], "complete with the scores of a half-trained model"

    def _count(self, status: Mapping[str, Any]) -> None:
        for type_ in ("Complete", "Failed", "Suspended"):
            self.reached[type_] += self.holds(type_)
        self.reached["BudgetExhausted"] += _condition(status, "Failed").get("reason") == "BudgetExhausted"
        for attempt in status.get("attempts", ())[-2:]:
            self.reached[f"{attempt['stage']} {attempt.get('reason', 'open')}"] += 1

    def remains(self) -> list[str]:
        """Names of what is left of the runs, in words."""
        return [
            f"{obj['kind']} {obj['metadata']['name']}"
            for obj in self.kube.objects.values()
            if LABEL_FINETUNE in (obj["metadata"].get("labels") or {}) or obj["kind"] == KIND
        ]


def _condition(status: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    return next((each for each in status.get("conditions", ()) if each["type"] == type_), {})
