"""Writes tests/unit/trainer/golden/statistics/random.json: random data and what scipy and statsmodels say of them.

Neither is a dependency, so this runs in an environment of its own:
``uv run --no-project --with scipy --with statsmodels python hack/statistics_golden.py``
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import statsmodels
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

FEW_QUESTIONS = 30
TARGET = Path(__file__).parent.parent / "tests" / "unit" / "trainer" / "golden" / "statistics" / "random.json"


def means(generator: np.random.Generator) -> dict[str, Any]:
    """Means of several samples a question: standard error and t interval."""
    questions, samples = int(generator.integers(2, 600)), int(generator.integers(2, 65))
    rights = generator.binomial(samples, generator.beta(1, 1, size=questions))
    values = rights / samples
    stderr = float(stats.sem(values))
    low, high = stats.t.interval(0.95, questions - 1, loc=values.mean(), scale=stderr)
    return {
        "rights": rights.tolist(),
        "samples": samples,
        "mean": float(values.mean()),
        "stderr": stderr,
        "interval": [float(low), float(high)],
    }


def share(generator: np.random.Generator) -> dict[str, Any]:
    """One sample a question: Wilson's interval."""
    questions = int(generator.integers(1, 2_000))
    right = int(generator.integers(0, questions + 1))
    return {
        "questions": questions,
        "right": right,
        "interval": [float(each) for each in proportion_confint(right, questions, method="wilson")],
    }


def pairs(generator: np.random.Generator) -> dict[str, Any]:
    """Two models on the same questions: exact McNemar, and the t interval of the difference."""
    questions = int(generator.integers(5, 600))
    one = generator.random(questions) < generator.random()
    other = np.where(generator.random(questions) < 0.8, one, generator.random(questions) < generator.random())
    wins, losses = int((one & ~other).sum()), int((~one & other).sum())
    differences = one.astype(float) - other.astype(float)
    return {
        "model": one.astype(int).tolist(),
        "other": other.astype(int).tolist(),
        "wins": wins,
        "losses": losses,
        "p": float(mcnemar([[0, wins], [losses, 0]], exact=True).pvalue),
        "interval": difference_interval(differences),
    }


def difference_interval(differences: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    """The t interval; with a question won and one lost more (Bonett and Price) where few differ, or all alike."""
    if len(differences) < FEW_QUESTIONS or differences.std() == 0:
        differences = np.append(differences, [1.0, -1.0])
    interval = stats.t.interval(0.95, len(differences) - 1, loc=differences.mean(), scale=stats.sem(differences))
    return [float(each) for each in interval]


def alike() -> list[dict[str, Any]]:
    """Questions that all differ by the same."""
    cases = [(1, 1.0), (1, 0.0), (2, -1.0), (6, 0.5), (30, 0.25), (40, 0.0), (500, 1.0)]
    return [
        {"questions": questions, "difference": by, "interval": difference_interval(np.full(questions, by))}
        for questions, by in cases
    ]


def unpaired(generator: np.random.Generator) -> list[dict[str, Any]]:
    """Two shares of other questions: Fisher's exact test, Newcombe's interval of the difference."""
    small = [(1, 1, 420, 500), (0, 1, 420, 500), (0, 3, 8, 30), (3, 3, 420, 500), (1, 1, 0, 500), (30, 30, 30, 30)]
    cases = [*small, *((0, 1, 500, 500), (6, 6, 15, 30), (0, 40, 0, 30), (17, 30, 15, 30))]
    for _ in range(40):
        questions, others = (int(each) for each in generator.integers(1, 1_400, size=2))
        share = generator.random()
        cases.append(
            (int(generator.binomial(questions, share)), questions, int(generator.binomial(others, share)), others)
        )
    return [_unpaired(*case) for case in cases]


def _unpaired(right: int, questions: int, other_right: int, others: int) -> dict[str, Any]:
    interval = confint_proportions_2indep(right, questions, other_right, others, compare="diff", method="newcomb")
    table = [[right, questions - right], [other_right, others - other_right]]
    return {
        "one": [right, questions],
        "other": [other_right, others],
        "p": float(stats.fisher_exact(table).pvalue),
        "interval": [float(each) for each in interval],
    }


def several(generator: np.random.Generator) -> dict[str, Any]:
    """Holm's method."""
    p_values = generator.beta(0.4, 2, size=int(generator.integers(1, 17)))
    return {"p": p_values.tolist(), "adjusted": multipletests(p_values, method="holm")[1].tolist()}


def main() -> None:
    generator = np.random.default_rng(7)
    freedoms = [*range(1, 31), 49, 99, 197, 499, 1_318, 9_999]
    golden = {
        "made_with": {"scipy": scipy.__version__, "statsmodels": statsmodels.__version__, "seed": 7},
        "t_quantiles": [[each, float(stats.t.ppf(0.975, each))] for each in freedoms],
        "means": [means(generator) for _ in range(20)],
        "shares": [share(generator) for _ in range(60)],
        "pairs": [pairs(generator) for _ in range(20)],
        "several": [several(generator) for _ in range(20)],
        "alike": alike(),
        "unpaired": unpaired(generator),
    }
    TARGET.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
