"""A model against a published score, of which nothing but the share and the number of its questions is known.

Invariant: right for one question as for a thousand, and where all answers are alike: no spread is taken from a sample
that shows none. The two are taken to have answered different questions, so a difference must be larger to be seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rft_trainer.evaluate.statistics import (
    NORMAL_QUANTILE,
    Comparison,
    Interval,
    mean_and_stderr,
    score_interval,
    wilson_interval,
)


def compare_published(model: Sequence[float], *, samples: int, published: float, questions: int) -> Comparison:
    """Fisher's exact test, and Newcombe's interval of the difference.

    Several answers to a question vary less than one: their mean is counted as if it were one answer a question, and
    rounded towards the published score, which is on the safe side. Nor is the p ever below what as many coins could
    give that all show one side: fewer than six questions prove nothing.
    """
    mean, stderr = mean_and_stderr(model)
    own = score_interval(model, samples=samples)
    other = wilson_interval(published, questions=questions)
    delta = mean - published
    right = round(mean * len(model), 6)
    counted = math.floor(right) if delta > 0 else math.ceil(right)
    p_value = fisher_exact((counted, len(model)), (round(published * questions), questions))
    other_stderr = math.sqrt(published * (1 - published) / questions)
    return Comparison(
        delta=delta,
        stderr=math.hypot(stderr or _stderr_of(own), other_stderr or _stderr_of(other)),
        interval=Interval(
            delta - math.hypot(mean - own.low, other.high - published),
            delta + math.hypot(own.high - mean, published - other.low),
        ),
        wins=None,
        losses=None,
        p_value=max(p_value, 2.0 ** (1 - len(model))),
    )


def fisher_exact(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Two-sided p that two counts, each ``(right, questions)``, are of one share: all tables no likelier than theirs.

    In whole numbers, so that tables of the same likelihood are told to be.
    """
    (right, questions), (other_right, other_questions) = one, other
    total = right + other_right
    low, high = max(0, total - other_questions), min(total, questions)
    ways = [math.comb(questions, each) * math.comb(other_questions, total - each) for each in range(low, high + 1)]
    observed = ways[right - low]
    return sum(each for each in ways if each <= observed) / sum(ways)


def _stderr_of(interval: Interval) -> float:
    """The standard error that an interval stands for, where the answers are all alike and show none."""
    return (interval.high - interval.low) / (2 * NORMAL_QUANTILE)
