"""Adds to scores what their questions say: intervals, and the comparison with the base model.

Invariant: all benchmarks of an evaluation are judged together, so that asking more of them does not make luck likelier.
"""

from __future__ import annotations

from collections.abc import Sequence

from rft_trainer.contract import Score
from rft_trainer.evaluate.statistics import compare, holm, pass_at, score_interval, verdict

PerQuestion = Sequence[float]
"""Share of right answers of each question, in the order of the questions."""


def judged(scores: Sequence[Score], *, pairs: Sequence[tuple[PerQuestion, PerQuestion | None]]) -> tuple[Score, ...]:
    """The scores with interval and verdict; ``pairs`` holds what the trained and the base model got, by score."""
    comparisons = {
        str(index): compare(trained, base, samples=score.samples)
        for index, (score, (trained, base)) in enumerate(zip(scores, pairs, strict=True))
        if base is not None
    }
    adjusted = holm({name: each.p_value for name, each in comparisons.items()})
    rows = []
    for index, (score, (trained, _)) in enumerate(zip(scores, pairs, strict=True)):
        interval = score_interval(trained, samples=score.samples)
        update: dict[str, object] = {"interval": (round(interval.low, 6), round(interval.high, 6))}
        comparison = comparisons.get(str(index))
        if comparison is not None:
            p_value = adjusted[str(index)]
            update |= {
                "wins": comparison.wins,
                "losses": comparison.losses,
                "p_value": float(f"{p_value:.6g}"),
                "verdict": verdict(comparison, adjusted_p=p_value),
            }
        rows.append(score.model_copy(update=update))
    return tuple(rows)


def pass_curve(per_question: PerQuestion, *, samples: int) -> dict[str, float]:
    """The share of questions that some of k answers gets right, for k of 1, 2, 4 ... and all samples."""
    sizes = sorted({*(1 << power for power in range(samples.bit_length())), samples})
    rights = [round(share * samples) for share in per_question]
    return {
        f"pass@{k}": round(sum(pass_at(k, samples=samples, correct=right) for right in rights) / len(rights), 6)
        for k in sizes
    }
