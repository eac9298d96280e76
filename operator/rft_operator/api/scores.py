"""``status.evaluation``: what the model is worth, and how sure that is.

Invariant: every number comes from the trainer's own result, within the bounds of this schema; numbers are text, for
floats have no exact form in YAML.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from rft_operator.api.base import Counter, StatusModel
from rft_operator.api.texts import text

DecimalText = Annotated[str, text(32)]


class Verdict(StrEnum):
    """Whether training changed a score, as far as the questions can tell."""

    IMPROVED = "Improved"
    REGRESSED = "Regressed"
    INCONCLUSIVE = "Inconclusive"


class Comparison(StrEnum):
    """What a score is compared with."""

    PAIRED = "paired"
    PUBLISHED = "published"


class ScoreResult(StatusModel):
    """Score of one benchmark."""

    benchmark: Annotated[str, text(40)]
    """Name of the benchmark."""
    metric: Annotated[str, text(40)]
    """accuracy, or mean@k of k answers a question; with the setting behind it where several are measured."""
    value: DecimalText
    """Score of the trained model, 0 to 1."""
    stderr: DecimalText | None = None
    """Standard error over questions."""
    interval_low: DecimalText | None = None
    """Lower end of the score's 95 % confidence interval."""
    interval_high: DecimalText | None = None
    """Upper end."""
    questions: Counter
    """Number of questions."""
    samples: Counter = 1
    """Answers per question."""
    partial_of: Counter | None = None
    """Only of a partial score: so many answers were to be given; the score is over questions x samples of them."""
    no_answer: Counter = 0
    """Answers that could not be found or read."""
    capped: Counter = 0
    """Answers whose thinking was ended at its budget or, where it had none, that the token limit cut."""
    thinking_tokens: DecimalText | None = None
    """Thinking tokens of an answer on average; of the whole answer where thinking has no budget."""
    baseline: DecimalText | None = None
    """Score of the base model."""
    baseline_stderr: DecimalText | None = None
    """Its standard error."""
    comparison: Comparison | None = None
    """paired: the base model answered the same questions under the same protocol. published: a score from elsewhere."""
    delta: DecimalText | None = None
    """Score less that of the base model."""
    wins: Counter | None = None
    """Questions that the trained model answers better than the base model."""
    losses: Counter | None = None
    """Questions that it answers worse."""
    p_value: DecimalText | None = None
    """How likely such a difference is by chance, adjusted for the number of benchmarks."""
    verdict: Verdict | None = None
    """Improved or Regressed where chance is an unlikely explanation (below 5 %), else Inconclusive."""


class ScalingResult(StatusModel):
    """What more thinking is worth on a benchmark: the settings of a sweep together."""

    benchmark: Annotated[str, text(40)]
    """Name of the benchmark."""
    control: DecimalText
    """Share of the settings whose thinking stayed within its budget."""
    slope: DecimalText
    """Percentage points per 1,000 thinking tokens, mean over pairs of settings."""
    performance: DecimalText
    """Score of the best setting, 0 to 1."""


class EvaluationStatus(StatusModel):
    """Scores."""

    results: Annotated[list[ScoreResult], Field(max_length=16)] = Field(default_factory=list)
    """In the order of the benchmarks."""
    partial: bool = False
    """The evaluation was ended by its bound: scores are partial or missing."""
    protocol_hash: Annotated[str, text(80)] | None = None
    """Of all that the scores depend on beside the model; scores of different protocols cannot be compared."""
    scaling: Annotated[list[ScalingResult], Field(max_length=16)] = Field(default_factory=list)
    """Where several budgets of thinking were measured."""
    artifacts: Annotated[str, text(1_024)] | None = None
    """Folder with every answer, results.json and protocol.json, on the volume."""
    display: Annotated[str, text(64)] = ""
    """Score of the first benchmark with its interval and verdict, for the SCORE column."""
