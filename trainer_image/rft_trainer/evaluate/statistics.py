"""Mean and standard error over questions.

Invariant: the unit is the question; several samples of one question are averaged first, so more samples never feign
more questions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean_and_stderr(per_question: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error (0 for a single question); raises ValueError without questions."""
    count = len(per_question)
    if count == 0:
        raise ValueError("no questions: a score cannot be given")
    mean = sum(per_question) / count
    if count == 1:
        return mean, 0.0
    squares = sum((value - mean) ** 2 for value in per_question)
    return mean, math.sqrt(squares / (count * (count - 1)))
