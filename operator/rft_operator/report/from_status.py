"""A story out of a resource: its spec, its status, its ledger.

Invariant: money is the ledger's at the moment of the report; scores are those that the operator took over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.scores import ScoreResult
from rft_operator.api.spec import Spec
from rft_operator.cli.plan_input import find_data, find_model
from rft_operator.domain.bill import bill
from rft_operator.domain.cost import waste_of
from rft_operator.domain.estimate import estimate
from rft_operator.domain.estimate_gpu import ASSUMED, GPU_PRODUCT_LABEL, GPUS
from rft_operator.domain.figures import why
from rft_operator.domain.money import micro_of_text
from rft_operator.domain.rates import Rate
from rft_operator.domain.spend import lines_of, spend_points
from rft_operator.domain.timestamps import epoch
from rft_operator.errors import RftError
from rft_operator.report.story import AttemptRow, CostShare, Curve, CurvePoint, LossPoint, Money, Plan, Story

NO_LOSSES = (
    "No step is known: the trainer's pods, whose logs have them, are gone. Give the run's folder: --directory DIR."
)
NO_SCORES = "No score was posted."


def story_of_run(run: ReasoningFinetune, *, now: int, losses: Sequence[LossPoint] = ()) -> Story:
    """Return what the resource tells."""
    status, meta = run.status, run.metadata
    evaluation = status.evaluation
    scores = evaluation.results if evaluation is not None else []
    return Story(
        title=f"{meta.namespace}/{meta.name}",
        state=status.stage.value if status.stage is not None else "New",
        why=why(run),
        made_at=now,
        start=epoch(status.start_time) if status.start_time is not None else None,
        end=epoch(status.completion_time) if status.completion_time is not None else None,
        restarts=status.restarts.total,
        total_steps=status.progress.total_steps if status.progress is not None else None,
        losses=tuple(losses),
        losses_note="" if losses else NO_LOSSES,
        attempts=tuple(_attempts(run)),
        money=money_of(run, now=now),
        evaluation=evaluation,
        scores_note="" if scores else NO_SCORES,
        curves=curves_of(scores),
        facts=facts_of_spec(run.spec),
        card={"spec": run.spec.to_wire()},
    )


def _attempts(run: ReasoningFinetune) -> list[AttemptRow]:
    rows = []
    for each in run.status.attempts:
        outcome = each.outcome.value if each.outcome is not None else "running"
        reason = f" ({each.reason})" if each.reason not in (None, outcome) else ""
        rows.append(
            AttemptRow(
                stage=each.stage,
                number=each.number,
                start=epoch(each.start_time),
                end=epoch(each.end_time) if each.end_time is not None else None,
                start_step=each.start_step,
                end_step=each.end_step,
                result=outcome + reason,
                message=each.message or "",
            )
        )
    return rows


def money_of(run: ReasoningFinetune, *, now: int) -> Money:
    """Return the bill, its lines, and the plan where the estimate knows model, data and price."""
    found, cost = bill(run.status.ledger, now=now), run.status.cost
    price = micro_of_text(cost.usd_per_gpu_hour) if cost.usd_per_gpu_hour is not None else None
    plan, note = _plan(run.spec, price)
    stages = sorted(found.by_stage.items())
    wasted = sorted(waste_of(run).items(), key=lambda each: -each[1].amount)
    return Money(
        spent_micro_usd=found.spent_micro_usd,
        gpu_seconds=found.gpu_seconds,
        price_micro_usd=price,
        price_source=cost.price_source,
        points=spend_points(run, now=now),
        lines=lines_of(run),
        by_stage=tuple(_share(name, share) for name, share in stages if share.gpu_seconds),
        waste=tuple(_share(name, share) for name, share in wasted if share.gpu_seconds),
        plan=plan,
        plan_note=note,
    )


def _share(name: str, share: Any) -> CostShare:
    return CostShare(name=str(name), gpu_seconds=share.gpu_seconds, micro_usd=share.micro_usd)


def _plan(spec: Spec, price: int | None) -> tuple[Plan | None, str]:
    if price is None:
        return None, "no price was known"
    try:
        model, data = find_model(spec, config=None), find_data(spec, rows=None, mean_tokens=None)
        gpu = GPUS.get(spec.scheduling.node_selector.get(GPU_PRODUCT_LABEL, ""), ASSUMED)
        rate = Rate(micro_usd_per_gpu_hour=price, source="status")
        found = estimate(spec, facts=model, data=data, rate=rate, gpu=gpu)
    except RftError as error:
        return None, str(error).split(". ", maxsplit=1)[0]
    if found.money is None:
        return None, "no price was known"
    return Plan(seconds=found.seconds.expected, micro_usd=found.money.micro_usd.expected), ""


def curves_of(scores: Sequence[ScoreResult]) -> tuple[Curve, ...]:
    """Return accuracy against thinking tokens, where a benchmark was measured with several budgets of thinking."""
    found = []
    for name in dict.fromkeys(score.benchmark for score in scores):
        points = [
            CurvePoint(
                setting=score.metric.rpartition("@")[2],
                thinking_tokens=float(score.thinking_tokens),
                value=float(score.value),
                stderr=float(score.stderr) if score.stderr is not None else None,
            )
            for score in scores
            if score.benchmark == name and score.thinking_tokens is not None and score.partial_of is None
        ]
        if len(points) > 1:
            points.sort(key=lambda point: (point.thinking_tokens, point.value))
            found.append(Curve(benchmark=name, of="trained", points=tuple(points)))
    return tuple(found)


def facts_of_spec(spec: Spec) -> tuple[tuple[str, str], ...]:
    """Return what makes the run what it is."""
    training, resources = spec.training, spec.resources
    rows: list[tuple[str, Any]] = [
        ("Recipe", spec.recipe.value if spec.recipe is not None else None),
        ("Model", spec.model.uri),
        ("Revision", spec.model.revision),
        ("Dataset", spec.dataset.uri),
        ("Revision of the dataset", spec.dataset.revision),
        ("Format", spec.dataset.format.value),
        ("Rows at most", spec.dataset.max_samples),
        ("Method", training.method.value if training.method is not None else None),
        ("Epochs", training.epochs),
        ("Steps at most", training.max_steps),
        ("Learning rate", training.learning_rate),
        ("Global batch", training.global_batch_size),
        ("Sequence length", training.max_sequence_length),
        ("Seed", training.seed),
        ("GPUs", f"{resources.nodes} x {resources.gpus_per_node} ({resources.gpu_resource})"),
        ("Limit", f"${spec.budget.limit_usd}"),
    ]
    return tuple((name, str(value)) for name, value in rows if value is not None)
