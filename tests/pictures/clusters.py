"""Two teams' namespaces on a simulated cluster, played by a script: the operator's own core decides everything else.

Invariant: no clock and no chance is asked, so the same script gives the same series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, sin
from typing import Any

from rft_operator.api import KIND
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.domain.facts import Key, NodeFacts, Report
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.timestamps import rfc3339
from rft_trainer.contract import Outcome, Stage
from rft_trainer.progress_report import MetricName
from rft_trainer.stage_results import EvaluateSummary, Score, StageResult
from support.builders import NAMESPACE, node
from support.team import TeamWorld, team_budget

SAVE_SECONDS = 1_200
CATALOGUE = """\
version: 1
prices:
- {name: h100-on-demand, match: {gpuProduct: H100, capacityType: on-demand}, usdPerHour: "2.95", asOf: "2025-12-12"}
- {name: h100-spot, match: {gpuProduct: H100, capacityType: spot}, usdPerHour: "1.85", asOf: "2025-12-29"}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A node of eight H100."""

    name: str
    capacity_type: str

    def manifest(self) -> dict[str, Any]:
        """Return the Node."""
        made = node(self.name, gpus=8)
        made["metadata"]["labels"] |= {
            "nvidia.com/gpu.product": "H100",
            "karpenter.sh/capacity-type": self.capacity_type,
        }
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How fast a run trains and what it learns."""

    total_steps: int
    step_seconds: float
    tokens_per_second: float
    loss_at_start: float
    loss_at_end: float

    def loss(self, step: int) -> float:
        """Return a curve that falls and wavers as losses do."""
        share = step / self.total_steps
        fall = (self.loss_at_start - self.loss_at_end) * exp(-5 * share)
        return self.loss_at_end + fall + 0.012 * sin(1.7 * step) + 0.009 * sin(0.31 * step)


@dataclass(slots=True)
class Training:
    """An attempt whose trainer reports."""

    recipe: Recipe
    attempt: int
    began_at: int
    first_step: int
    saved_step: int
    saved_at: int

    def step(self, now: int) -> int:
        """Return the step it has reached."""
        done = self.first_step + int((now - self.began_at) / self.recipe.step_seconds)
        return min(self.recipe.total_steps, done)


class Team(TeamWorld):
    """The runs, nodes and budget of one team; its namespace is shown under the team's name."""

    def __init__(self, name: str, *, machines: Sequence[Machine], limit_usd: int, start: int) -> None:
        self.name = name
        self.training: dict[str, Training] = {}
        super().__init__(team_budget("daily", limitUSD=limit_usd, window="day"), names=())
        self.now = start
        self.catalogue, problems = PriceCatalogue.parse(CATALOGUE)
        assert problems == ()
        for found in list(self.kube.find("Node")):
            self.kube.remove("Node", "", found["metadata"]["name"])
        for machine in machines:
            self.kube.put(machine.manifest())

    # -- what is shown ----------------------------------------------------------------------------------------

    def runs(self) -> list[ReasoningFinetune]:
        """Return the runs, in the team's namespace."""
        found = [ReasoningFinetune.parse(raw) for raw in self.kube.find(KIND)]
        return [
            each.model_copy(update={"metadata": each.metadata.model_copy(update={"namespace": self.name})})
            for each in found
        ]

    def nodes(self) -> Sequence[NodeFacts]:
        """Return the team's nodes."""
        return tuple(self.cache.nodes())

    def raw_budget(self) -> dict[str, Any]:
        """Return the budget, in the team's namespace."""
        raw = self.kube.objects["FinetuneBudget", NAMESPACE, "daily"]
        return {**raw, "metadata": {**raw["metadata"], "namespace": self.name}}

    # -- what the cluster and its users do --------------------------------------------------------------------

    def submit(self, name: str, **spec: Any) -> None:
        """A user applies a run."""
        self.names = (*self.names, name)
        self.apply(name, **spec)

    def bind_pods(self, name: str, stage: Stage, nodes: Sequence[str], *, attempt: int = 1) -> None:
        """The Job controller makes the pods, the scheduler binds them; their image is being pulled."""
        self.at(name).create_pods(stage, attempt)
        for pod, machine in zip(self.pods(stage, attempt), nodes, strict=True):
            self.bind(pod, machine)

    def start_pods(self, name: str, stage: Stage, *, attempt: int = 1) -> None:
        """The containers run."""
        for pod in self.at(name).pods(stage, attempt):
            self.set_status(pod, phase="Running", running=True)

    def train(self, name: str, recipe: Recipe, *, attempt: int = 1) -> None:
        """The ranks found each other: steps are made from the newest checkpoint on."""
        before = self.training.get(name)
        step = before.saved_step if before is not None else 0
        self.training[name] = Training(recipe, attempt, self.now, step, step, self.now)

    def crash(self, name: str, *, attempt: int = 1) -> None:
        """A rank ends with an error."""
        self.at(name).finish_pods(Stage.TRAIN, attempt, exit_code=1)

    def end_training(self, name: str, *, attempt: int = 1) -> None:
        """All steps are done."""
        self.training.pop(name)
        self.at(name).complete(Stage.TRAIN, attempt)

    def end_evaluation(self, name: str, scores: Mapping[str, tuple[float, float]]) -> None:
        """The scores are there: base and trained model by benchmark."""
        made = tuple(
            Score(
                benchmark=benchmark,
                metric="accuracy",
                value=trained,
                stderr=0.02,
                interval=(trained - 0.04, trained + 0.04),
                questions=198,
                samples=1,
                no_answer=0,
                baseline=base,
                wins=40,
                losses=12,
                p_value=0.001,
                verdict="Improved",
            )
            for benchmark, (base, trained) in scores.items()
        )
        summary = StageResult(stage=Stage.EVALUATE, outcome=Outcome.COMPLETED, evaluate=EvaluateSummary(scores=made))
        self.at(name).finish_pods(Stage.EVALUATE, result=summary)

    def report_all(self) -> None:
        """Every trainer reports; checkpoints are saved as time goes by."""
        for name, training in self.training.items():
            step = training.step(self.now)
            if self.now - training.saved_at >= SAVE_SECONDS:
                training.saved_step, training.saved_at = step, self.now
            self.cache.put_report(Key(NAMESPACE, name), self._report(training, step))

    def _report(self, training: Training, step: int) -> Report:
        recipe = training.recipe
        speed = recipe.tokens_per_second * (1 + 0.02 * sin(0.7 * step))
        values: dict[MetricName, str] = {
            MetricName.STEP: str(step),
            MetricName.TOTAL_STEPS: str(recipe.total_steps),
            MetricName.LOSS: f"{recipe.loss(step):.4f}",
            MetricName.TOKENS_PER_SECOND: f"{speed:.1f}",
            MetricName.CHECKPOINT_STEP: str(training.saved_step),
            MetricName.CHECKPOINT_SECONDS: "45",
            MetricName.CHECKPOINT_TIME: rfc3339(training.saved_at),
        }
        return Report(
            stage=Stage.TRAIN,
            attempt=training.attempt,
            received_at=self.now,
            percent=100 * step // recipe.total_steps,
            eta_seconds=int((recipe.total_steps - step) * recipe.step_seconds),
            metrics=tuple((name.value, value) for name, value in values.items()),
        )
