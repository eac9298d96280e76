"""Adds to scores what their questions say: intervals, and the comparison with the base model.

Invariant: all benchmarks of an evaluation are judged together, so that asking more of them does not make luck likelier.
Only complete measurements are compared: of a part one would not know which part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rft_trainer.evaluate.measured import Measured
from rft_trainer.evaluate.statistics import (
    Comparison,
    Interval,
    compare,
    holm,
    pass_at,
    score_interval,
    verdict,
)
from rft_trainer.evaluate.unpaired import compare_published
from rft_trainer.stage_results import Verdict


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published score of the base model."""

    value: float
    questions: int


Base = Measured | Published | None


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a score is worth."""

    interval: Interval
    comparison: Comparison | None = None
    adjusted_p: float | None = None
    """Of no difference, adjusted for all comparisons of the evaluation."""
    verdict: Verdict | None = None


def judged(pairs: Sequence[tuple[Measured, Base]]) -> list[Judged]:
    """Judge each score, all of them together, in order."""
    comparisons = {
        str(index): comparison
        for index, (trained, base) in enumerate(pairs)
        if (comparison := _compared(trained, base)) is not None
    }
    adjusted = holm({name: each.p_value for name, each in comparisons.items()})
    found = []
    for index, (trained, _) in enumerate(pairs):
        interval = score_interval(trained.per_question, samples=trained.samples)
        comparison = comparisons.get(str(index))
        if comparison is None:
            found.append(Judged(interval=interval))
            continue
        p_value = adjusted[str(index)]
        word = verdict(comparison, adjusted_p=p_value)
        found.append(Judged(interval=interval, comparison=comparison, adjusted_p=p_value, verdict=word))
    return found


def _compared(trained: Measured, base: Base) -> Comparison | None:
    if base is None or not trained.complete:
        return None
    if isinstance(base, Published):
        return compare_published(
            trained.per_question, samples=trained.samples, published=base.value, questions=base.questions
        )
    if not base.complete:
        return None
    return compare(trained.per_question, base.per_question, samples=trained.samples)


def pass_curve(rights: Sequence[int], *, samples: int) -> Mapping[str, float]:
    """The share of questions that some of k answers gets right, for k of 1, 2, 4 ... and all samples."""
    sizes = sorted({*(1 << power for power in range(samples.bit_length())), samples})
    return {
        f"pass@{k}": round(sum(pass_at(k, samples=samples, correct=right) for right in rights) / len(rights), 6)
        for k in sizes
    }
