"""What a score is worth, and whether two models differ.

Invariant: the unit is the question; several samples of one question are averaged first, so more samples never feign
more questions. Models are compared on the same questions, in pairs, and many benchmarks are not many chances.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from rft_trainer.stage_results import Verdict

CONFIDENCE = 0.95
NORMAL_QUANTILE = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
"""How many standard errors an interval of a normal reaches to each side."""
SIGNIFICANCE = 0.05
FEW_QUESTIONS = 30
"""Below, the t interval of a share is too narrow near 0 and 1."""
BOOTSTRAP_DRAWS = 10_000
BOOTSTRAP_SEED = 20_241_121


@dataclass(frozen=True)
class Interval:
    """A confidence interval of 95 %."""

    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A model against another on the same questions."""

    delta: float
    stderr: float
    interval: Interval
    wins: int | None
    """Questions that the model answers better than the other; None where the other's answers are not known."""
    losses: int | None
    p_value: float
    """Of no difference, two-sided, not yet adjusted for several benchmarks."""


def mean_and_stderr(per_question: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error (0 for a single question); raises ValueError without questions."""
    count = len(per_question)
    if count == 0:
        raise ValueError("no questions: a score cannot be given")
    mean = math.fsum(per_question) / count
    if count == 1:
        return mean, 0.0
    squares = math.fsum((value - mean) ** 2 for value in per_question)
    return mean, math.sqrt(squares / (count * (count - 1)))


def score_interval(per_question: Sequence[float], *, samples: int) -> Interval:
    """Wilson's interval for one sample a question, and where t has too little to go on; else the t interval.

    A mean of several samples varies less than one answer, so Wilson's interval is on the safe side there.
    """
    mean, stderr = mean_and_stderr(per_question)
    count = len(per_question)
    if samples == 1 or count < FEW_QUESTIONS or stderr == 0:
        return wilson_interval(mean, questions=count)
    interval = t_interval(mean, stderr, questions=count)
    return Interval(max(0.0, interval.low), min(1.0, interval.high))


def wilson_interval(share: float, *, questions: int) -> Interval:
    """The interval of a share that holds its confidence for few questions and near 0 and 1."""
    z = NORMAL_QUANTILE
    scale = 1 + z * z / questions
    centre = (share + z * z / (2 * questions)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / questions + (z / (2 * questions)) ** 2)
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return Interval(low, high)


def t_interval(mean: float, stderr: float, *, questions: int) -> Interval:
    """Student's interval of a mean; one question alone bounds nothing."""
    if questions < 2:
        return Interval(-math.inf, math.inf)
    half = t_quantile(questions - 1) * stderr
    return Interval(mean - half, mean + half)


def t_quantile(freedom: int) -> float:
    """How many standard errors the interval reaches to each side."""
    low, high = 0.0, 2.0
    while _t_tails(high, freedom) > 1 - CONFIDENCE:
        low, high = high, 2 * high
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if _t_tails(middle, freedom) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle


def _t_tails(t: float, freedom: int) -> float:
    """Probability that a value of Student's t is farther from 0 than ``t``: an incomplete beta function."""
    a, b, x = freedom / 2, 0.5, freedom / (freedom + t * t)
    complement = t * t / (freedom + t * t)
    if t == 0:
        return 1.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) - a * math.log1p(t * t / freedom)
    front = math.exp(log_front + b * math.log(complement))
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, x) / a
    return 1 - front * _beta_fraction(b, a, complement) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 10_000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + step * d)
            c = 1 + step / c
            value *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return value


def pass_at(k: int, *, samples: int, correct: int) -> float:
    """Chance that at least one of ``k`` answers drawn from the samples is right: unbiased for any ``k``."""
    if not 1 <= k <= samples or not 0 <= correct <= samples:
        raise ValueError(f"pass@{k} of {samples} samples with {correct} right is not defined")
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def compare(model: Sequence[float], other: Sequence[float], *, samples: int) -> Comparison:
    """Compare per-question means in the same order: exact McNemar for one sample each, else a paired bootstrap."""
    differences = [a - b for a, b in zip(model, other, strict=True)]
    delta, stderr = mean_and_stderr(differences)
    wins = sum(each > 0 for each in differences)
    losses = sum(each < 0 for each in differences)
    return Comparison(
        delta=delta,
        stderr=stderr,
        interval=difference_interval(differences),
        wins=wins,
        losses=losses,
        p_value=mcnemar(wins, losses) if samples == 1 else paired_bootstrap(differences),
    )


def difference_interval(differences: Sequence[float]) -> Interval:
    """The t interval of a mean difference; with two more questions where t has too little to go on.

    One of them won and one lost, as Bonett and Price (2012, doi:10.3102/1076998611411915) add them: questions that all
    differ alike would else bound the difference to a point.
    """
    _, stderr = mean_and_stderr(differences)
    if len(differences) < FEW_QUESTIONS or stderr == 0:
        differences = [*differences, 1.0, -1.0]
    return t_interval(*mean_and_stderr(differences), questions=len(differences))


def mcnemar(wins: int, losses: int) -> float:
    """Two-sided p of the exact test: among the questions that differ, either outcome is as likely."""
    differing = wins + losses
    tail = sum(math.comb(differing, count) for count in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / (1 << differing))


def paired_bootstrap(differences: Sequence[float], *, seed: int = BOOTSTRAP_SEED) -> float:
    """Two-sided p by drawing questions anew, with their differences.

    Never below what the signs of the differences alone could give: a bootstrap of three questions that all went up
    would be certain, and three coins show heads one time in eight.
    """
    import numpy

    differing = sum(each != 0 for each in differences)
    if differing == 0:
        return 1.0
    kinds = Counter(round(each, 9) for each in differences)
    values = numpy.array(sorted(kinds))
    counts = numpy.array([kinds[value] for value in sorted(kinds)])
    generator = numpy.random.default_rng(seed)
    drawn = generator.multinomial(len(differences), counts / counts.sum(), size=BOOTSTRAP_DRAWS)
    means = numpy.round(drawn @ values, 6)
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, max(2 * (tail + 1) / (BOOTSTRAP_DRAWS + 1), 2.0 ** (1 - differing)))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """The p values adjusted for being several, by Holm's method; in the order given."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda each: p_values[each])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def verdict(comparison: Comparison, *, adjusted_p: float) -> Verdict:
    """Better or worse only where chance is an unlikely explanation."""
    if adjusted_p >= SIGNIFICANCE or comparison.delta == 0:
        return "Inconclusive"
    return "Improved" if comparison.delta > 0 else "Regressed"
