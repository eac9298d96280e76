"""What Prometheus sees of the runs: money and time read from the ledger when it asks, so restarts lose nothing.

Invariants: the series of a deleted run vanish with it; labels never carry a pod or a uid; money is the gauge
``_spent_usd``, counters are for rates. A counter must not step back, or its rate would jump: pods that run are
counted up to ``SETTLED_SECONDS`` ago, when their end, if there was one, is known, and their waste when they have ended.
Names: docs/reference/metrics.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rft_operator.api.ledger import WasteReason
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.scores import ScoreResult
from rft_operator.api.status import Attempt, ConditionType, Progress
from rft_operator.domain.bill import SECONDS_PER_HOUR, bill, closed_waste
from rft_operator.domain.budget import STOP_SLACK_SECONDS
from rft_operator.domain.draft import is_over, is_true
from rft_operator.domain.facts import NodeFacts
from rft_operator.domain.money import MICRO, micro_of_text, micro_usd
from rft_operator.domain.observe import DEFAULT_GPU_RESOURCE
from rft_operator.domain.prices import LABELS, PriceCatalogue
from rft_operator.domain.timestamps import epoch
from rft_operator.pool_metrics import pool_sizes, price_ages
from rft_trainer.contract import Stage
from rft_trainer.progress_report import MetricName

SETTLED_SECONDS = 10
PREFIX = "reasoning_finetune_"
RUN = ("namespace", "finetune")

COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "gpu_seconds": ("GPU-seconds held, by stage and kind of GPU.", ("phase", "gpu_product", "capacity_type")),
    "cost_usd": ("Dollars spent; for rates only, spent_usd is exact.", ("phase", "gpu_product", "capacity_type")),
    "idle_gpu_seconds": (
        "GPU-seconds of ended pods that were paid for and trained or evaluated nothing.",
        ("reason",),
    ),
    "train_steps": ("Optimizer steps done by all attempts, those of lost work again each time.", ()),
    "budget_stops": (
        "Attempts that ended for the budget: soft saved, hard did not, deadline by the kubelet.",
        ("kind",),
    ),
    "ledger_estimated_gpu_seconds": ("GPU-seconds of ended pods whose end no timestamp of the cluster proves.", ()),
    "ledger_disputed_gpu_seconds": ("GPU-seconds charged after the last proof that the GPUs were held.", ()),
}
IDLE: Mapping[WasteReason, str] = {
    WasteReason.PULL: "image_pull",
    WasteReason.BACK_OFF: "crash_backoff",
    WasteReason.GANG_WAIT: "gang_wait",
    WasteReason.LOST_WORK: "lost_work",
    WasteReason.TERMINATING: "terminating",
    WasteReason.NODE_LOST: "node_lost",
}
"""Reasons as Prometheus spells words."""
GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "budget_usd": ("budget.limitUSD.", ()),
    "spent_usd": ("Dollars spent at this instant.", ()),
    "charged_usd": ("The same by stage and kind of GPU, not rounded.", ("phase", "gpu_product", "capacity_type")),
    "waste_usd": (
        "Dollars of it that trained and evaluated nothing, at most a minute old; what runs is judged anew.",
        ("reason",),
    ),
    "rate_usd_per_hour": ("What the pods that hold GPUs now cost per hour.", ()),
    "reserved_usd": (
        "Dollars that training may not touch: for the evaluation, the last save, noticing and ending (kill).",
        ("purpose",),
    ),
    "forecast_usd": ("Dollars at the end if the run goes on as now; absent while nothing is known.", ()),
    "overshoot_usd": ("Dollars spent beyond the limit; must be 0.", ()),
    "gpus_allocated": ("GPUs held now.", ("gpu_product", "capacity_type")),
    "price_usd_per_gpu_hour": ("Dearest price at which the run's next GPU may be bound.", ("source",)),
    "stop_timestamp_seconds": ("When training stops: soft by the operator, hard by the pods' deadline.", ("kind",)),
    "ledger_reconcile_timestamp_seconds": ("Until when the ledger on record was computed.", ()),
    "progress_ratio": ("Progress of the stage, 0 to 1.", ()),
    "tokens_per_second": ("Tokens trained per second, without padding, as the trainer reported last.", ()),
    "loss": ("Training loss as the trainer reported last; NaN if that is what it is.", ()),
    "checkpoint_timestamp_seconds": ("When the newest complete checkpoint was complete.", ()),
    "stage": ("1 for the stage a run is in.", ("stage",)),
    "score": ("Score of a benchmark, 0 to 1.", ("benchmark", "metric")),
    "baseline_score": ("Score of the base model under the same protocol, 0 to 1.", ("benchmark", "metric")),
    "score_low": ("Lower end of the score's 95 % interval.", ("benchmark", "metric")),
    "score_high": ("Upper end of the score's 95 % interval.", ("benchmark", "metric")),
    "score_thinking_tokens": ("Thinking tokens of an answer on average.", ("benchmark", "metric")),
    "score_no_answer": ("Answers that could not be found or read.", ("benchmark", "metric")),
    "score_capped": ("Answers that their budget of tokens ended.", ("benchmark", "metric")),
    "score_verdict": ("1 for the verdict on a score against the base model.", ("benchmark", "metric", "verdict")),
    "evaluation": ("1 for the protocol that the scores are of; partial where time ended it.", ("protocol", "partial")),
}
REPORTED: Mapping[str, MetricName] = {
    "tokens_per_second": MetricName.TOKENS_PER_SECOND,
    "loss": MetricName.LOSS,
}
"""Gauges that hold what the trainer of the running attempt reported last."""


@dataclass(slots=True)
class Families:
    """The families of one scrape."""

    counters: dict[str, CounterMetricFamily] = field(
        default_factory=lambda: {
            name: CounterMetricFamily(PREFIX + name, words, labels=(*RUN, *labels))
            for name, (words, labels) in COUNTERS.items()
        }
    )
    gauges: dict[str, GaugeMetricFamily] = field(
        default_factory=lambda: {
            name: GaugeMetricFamily(PREFIX + name, words, labels=(*RUN, *labels))
            for name, (words, labels) in GAUGES.items()
        }
    )

    def all(self) -> Iterator[Metric]:
        """Yield the families."""
        yield from self.counters.values()
        yield from self.gauges.values()


class RunCollector(Collector):
    """Series of the runs, computed from their status when Prometheus asks."""

    def __init__(
        self,
        *,
        resources: Callable[[], Iterable[ReasoningFinetune]],
        nodes: Callable[[], Iterable[NodeFacts]],
        catalogue: Callable[[], PriceCatalogue],
        now: Callable[[], int],
    ) -> None:
        self._resources = resources
        self._nodes = nodes
        self._catalogue = catalogue
        self._now = now

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registration must not compute the series."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the families of all runs, and how old the catalogue's prices are."""
        found, now = Families(), self._now()
        every = tuple(self._nodes())
        nodes = {node.name: node.labels for node in every}
        gpu_resources = {DEFAULT_GPU_RESOURCE}
        for run in self._resources():
            gpu_resources.add(run.spec.resources.gpu_resource)
            scraped = _Run(run=run, now=now, found=found)
            scraped.money()
            scraped.work()
            scraped.held(nodes)
        yield from found.all()
        yield price_ages(self._catalogue(), now=now)
        yield pool_sizes(every, gpu_resources=gpu_resources)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    run: ReasoningFinetune
    now: int
    found: Families

    def _count(self, name: str, value: float, *labels: str) -> None:
        self.found.counters[name].add_metric([*self._names, *labels], value)

    def _show(self, name: str, value: float, *labels: str) -> None:
        self.found.gauges[name].add_metric([*self._names, *labels], value)

    @property
    def _names(self) -> tuple[str, str]:
        return self.run.metadata.namespace, self.run.metadata.name

    def money(self) -> None:
        status, limit = self.run.status, micro_usd(self.run.spec.budget.limit_usd)
        current, settled = bill(status.ledger, now=self.now), bill(status.ledger, now=self.now - SETTLED_SECONDS)
        for kind, share in settled.by_kind.items():
            self._count("gpu_seconds", share.gpu_seconds, *kind)
            self._count("cost_usd", share.amount / SECONDS_PER_HOUR / MICRO, *kind)
        for reason, seconds in closed_waste(status.ledger).items():
            self._count("idle_gpu_seconds", seconds, IDLE[reason])
        ended = bill(status.ledger.model_copy(update={"open": []}), now=self.now)
        self._count("ledger_estimated_gpu_seconds", ended.estimated_gpu_seconds)
        self._count("ledger_disputed_gpu_seconds", ended.disputed_gpu_seconds)
        self._show("budget_usd", limit / MICRO)
        self._show("spent_usd", current.spent_micro_usd / MICRO)
        for kind, share in current.by_kind.items():
            self._show("charged_usd", share.amount / SECONDS_PER_HOUR / MICRO, *kind)
        for waste in status.usage.waste:
            self._show("waste_usd", micro_of_text(waste.spent_usd) / MICRO, IDLE[waste.reason])
        self._show("rate_usd_per_hour", current.rate / MICRO)
        self._show("overshoot_usd", max(0, current.spent_micro_usd - limit) / MICRO)
        cost = status.cost
        if cost.forecast_usd is not None:
            self._show("forecast_usd", micro_of_text(cost.forecast_usd) / MICRO)
        if cost.usd_per_gpu_hour is not None:
            price = micro_of_text(cost.usd_per_gpu_hour) / MICRO
            self._show("price_usd_per_gpu_hour", price, cost.price_source or "recorded")
        if status.usage.metered_until is not None:
            self._show("ledger_reconcile_timestamp_seconds", epoch(status.usage.metered_until))
        self._reserves(current.rate)

    def _reserves(self, rate: int) -> None:
        cost, attempt = self.run.status.cost, _open_attempt(self.run)
        needless = is_true(self.run.status, ConditionType.EVALUATED) or is_over(self.run.status)
        if cost.reserve_usd is not None:
            self._show("reserved_usd", 0 if needless else micro_of_text(cost.reserve_usd) / MICRO, "evaluation")
        if attempt is not None and attempt.grace_seconds is not None:
            for purpose, seconds in (("checkpoint", attempt.grace_seconds), ("kill", STOP_SLACK_SECONDS)):
                self._show("reserved_usd", rate * seconds / SECONDS_PER_HOUR / MICRO, purpose)

    def work(self) -> None:
        status = self.run.status
        if status.stage is not None:
            self._show("stage", 1, status.stage.value)
        if status.progress is not None:
            self._show("progress_ratio", status.progress.percent / 100)
            self._reported(status.progress)
        if status.checkpoint is not None:
            self._show("checkpoint_timestamp_seconds", epoch(status.checkpoint.time))
        self._count("train_steps", _steps_done(self.run))
        for kind in ("soft", "hard", "deadline"):
            self._count("budget_stops", sum(_budget_stop(each) == kind for each in status.attempts), kind)
        if status.evaluation is not None:
            partial = str(status.evaluation.partial).lower()
            self._show("evaluation", 1, status.evaluation.protocol_hash or "", partial)
            for score in status.evaluation.results:
                self._score(score)

    def _score(self, score: ScoreResult) -> None:
        place = score.benchmark, score.metric
        numbers = {
            "score": score.value,
            "baseline_score": score.baseline,
            "score_low": score.interval_low,
            "score_high": score.interval_high,
            "score_thinking_tokens": score.thinking_tokens,
        }
        for name, number in numbers.items():
            if number is not None:
                self._show(name, float(number), *place)
        self._show("score_no_answer", score.no_answer, *place)
        self._show("score_capped", score.capped, *place)
        if score.verdict is not None:
            self._show("score_verdict", 1, *place, score.verdict.value)

    def _reported(self, progress: Progress) -> None:
        """Show what the trainer that runs says of itself; its words are not trusted: what is no number is left out."""
        attempt = _open_attempt(self.run)
        if attempt is None or (attempt.stage, attempt.number) != (Stage.TRAIN, progress.attempt):
            return
        if progress.stage != Stage.TRAIN:
            return
        values = {each.name: each.value for each in progress.metrics}
        for name, reported in REPORTED.items():
            with contextlib.suppress(ValueError, KeyError):
                self._show(name, float(values[reported]))

    def held(self, nodes: Mapping[str, Mapping[str, str]]) -> None:
        held: dict[tuple[str, str], int] = {}
        for entry in self.run.status.ledger.open:
            labels = nodes.get(entry.node, {})  # of an entry of before its kind was recorded
            product = entry.gpu_product or labels.get(LABELS["gpu_product"], "")
            kind = product, entry.capacity_type or labels.get(LABELS["capacity_type"], "")
            held[kind] = held.get(kind, 0) + entry.gpus
        for kind, gpus in held.items():
            self._show("gpus_allocated", gpus, *kind)
        attempt = _open_attempt(self.run)
        if self.run.status.cost.stop_time is not None:
            self._show("stop_timestamp_seconds", epoch(self.run.status.cost.stop_time), "soft")
        if attempt is None or attempt.deadline_seconds is None:
            return
        key = attempt.stage, attempt.number
        starts = [epoch(each.start_time) for each in self.run.status.ledger.open if (each.stage, each.attempt) == key]
        if starts:  # pods of lost nodes, of former attempts, have no deadline that anybody keeps
            self._show("stop_timestamp_seconds", min(starts) + attempt.deadline_seconds, "hard")


def _open_attempt(run: ReasoningFinetune) -> Attempt | None:
    return next((each for each in run.status.attempts if each.end_time is None), None)


def _steps_done(run: ReasoningFinetune) -> int:
    """Return the steps of all attempts: one that works its way up to where another ended does steps, and is no hang.

    What attempts did that status no longer holds counts up to where the first one that it holds began.
    """
    attempts = [each for each in run.status.attempts if each.stage == Stage.TRAIN]
    done = attempts[0].start_step or 0 if attempts else 0
    progress = run.status.progress
    for each in attempts:
        last = each.end_step or 0
        reported = progress is not None and (progress.stage, progress.attempt) == (each.stage, each.number)
        if progress is not None and reported and each.end_time is None:
            last = max(last, progress.step or 0)  # of a stage that is done it shows the end, whoever reported last
        done += max(0, last - (each.start_step or 0))
    return done


def _budget_stop(attempt: Attempt) -> str | None:
    # The deadline of any other stage is its own bound; an evaluation keeps every answer that it has given.
    if attempt.reason == "DeadlineExceeded":
        return "deadline" if attempt.stage == Stage.TRAIN else None
    if attempt.reason != "BudgetExhausted":
        return None
    saved = attempt.last_checkpoint_time is not None or attempt.stage == Stage.EVALUATE
    return "soft" if saved else "hard"
