"""What a stage says of itself when it ends: ``result.json`` and the termination message.

Part of the contract with the operator. Invariant: every value is bounded as the resource's status is; what a pod says
outside of the bounds is no result, and must not stop the operator.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from rft_trainer.contract import Contract, Outcome, Stage

ShortText = Annotated[str, StringConstraints(max_length=1_024)]
Whole = Annotated[int, Field(ge=0, le=2_147_483_647)]
Label = Annotated[str, StringConstraints(max_length=40)]
Share = Annotated[float, Field(ge=0, le=1)]
Verdict = Literal["Improved", "Regressed", "Inconclusive"]


class StageResult(Contract):
    """``result.json`` and the termination message: what a stage says of itself when it ends.

    Success is read from here, never from exit code 0 alone.
    """

    version: Literal[1] = 1
    stage: Stage
    outcome: Outcome
    error: ShortText | None = None
    prepare: PrepareSummary | None = None
    train: TrainSummary | None = None
    evaluate: EvaluateSummary | None = None
    publish: PublishSummary | None = None


class PrepareSummary(Contract):
    """What the Prepare stage found."""

    rows: int
    dropped_rows: int
    """Rows that are not trained on: all of the three below; dropped whole, never cut."""
    too_long_rows: int = 0
    """Rows longer than the maximum sequence length."""
    unanswered_rows: int = 0
    """Rows without an answer."""
    held_out_rows: int = 0
    """Rows whose question a benchmark asks."""
    sequences: int = 0
    """What a batch is made of: rows, or packed rows."""
    longest_row_tokens: int = 0
    fill: Share | None = None
    """Share of the maximum sequence length that a sequence has, on average."""
    padding_share: Share | None = None
    """Share of padding in what the ranks compute in one epoch."""
    tokens: int
    target_tokens: int
    steps: int
    """Optimiser steps the whole training takes."""
    parameters: int
    dataset_sha256: str


class TrainSummary(Contract):
    """Where training stands when its process ends."""

    step: Whole
    total_steps: Whole
    tokens: int
    loss: float | None = None
    checkpoint_step: Whole | None = None
    checkpoint_path: ShortText | None = None
    checkpoint_seconds: Annotated[float, Field(ge=0, le=2_147_483_647)] | None = None
    """Measured duration of the last save: the budget's bound for a stop."""
    checkpoint_count: int = 0
    export_path: str | None = None


Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32,64}$", max_length=64)]
Tokens = Annotated[float, Field(ge=0, le=2_147_483_647)]


class _Short(BaseModel):
    """Fields have short names in the termination message, which has little room, and their own everywhere else."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Score(_Short):
    """One benchmark's score: ``value`` and ``stderr`` in 0..1; the standard error is over questions."""

    benchmark: Label = Field(alias="b")
    metric: Label = Field(alias="m")
    value: Share = Field(alias="v")
    stderr: Share = Field(alias="se")
    questions: Whole = Field(alias="n")
    """Questions that the score is over."""
    samples: Whole = Field(alias="k")
    of_answers: Whole | None = Field(default=None, alias="of")
    """Of a partial score: so many answers were to be given, where it is over questions x samples."""
    no_answer: Whole = Field(default=0, alias="na")
    """Answers that could not be found or read."""
    capped: Whole = Field(default=0, alias="ca")
    """Answers whose thinking was ended at its budget or, where it had none, that the token limit cut."""
    thinking_tokens: Tokens | None = Field(default=None, alias="tt")
    """Mean of an answer; where thinking has no budget, of the whole answer."""
    interval: tuple[Share, Share] | None = Field(default=None, alias="ci")
    """Of 95 %."""
    baseline: Share | None = Field(default=None, alias="bv")
    baseline_stderr: Share | None = Field(default=None, alias="bs")
    comparison: Literal["paired", "published"] | None = Field(default=None, alias="cm")
    """What the baseline is. Paired: the base model answered the same questions under the same protocol. A message
    that had no room for it has a baseline without it, and then no verdict."""
    wins: Whole | None = Field(default=None, alias="w")
    """Questions answered better than by the baseline."""
    losses: Whole | None = Field(default=None, alias="l")
    p_value: Share | None = Field(default=None, alias="p")
    """Of no difference to the baseline, adjusted for the number of benchmarks."""
    verdict: Verdict | None = Field(default=None, alias="ve")


class Scaling(_Short):
    """What more thinking is worth on a benchmark (s1, section 3.2): the sweep's settings together."""

    benchmark: Label = Field(alias="b")
    control: Share = Field(alias="c")
    """Share of the settings that stayed within their budget of thinking tokens."""
    slope: Annotated[float, Field(ge=-1e6, le=1e6)] = Field(alias="s")
    """Percentage points per 1,000 thinking tokens, mean over pairs of settings."""
    performance: Share = Field(alias="v")
    """The best setting's score."""


class BaseAnswers(_Short):
    """How the base model answered a benchmark under one protocol: what a later run need not pay for again."""

    key: Hash = Field(alias="h")
    """Hash of model and protocol."""
    questions: Annotated[int, Field(ge=1, le=1_000_000)] = Field(alias="n")
    samples: Annotated[int, Field(ge=1, le=256)] = Field(alias="k")
    rights: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=8_192)] = Field(alias="r")
    """Right answers of each question, packed (rft_trainer.evaluate.base_answers)."""
    no_answer: Whole = Field(default=0, alias="na")
    capped: Whole = Field(default=0, alias="ca")
    thinking_tokens: Tokens | None = Field(default=None, alias="tt")


class KeptBaseAnswers(Contract):
    """An entry of the ConfigMap that the operator keeps for runs of the same base model."""

    version: Literal[1] = 1
    measured_by: Label
    """Name of the run whose evaluation paid for it."""
    measured_at: Label
    answers: BaseAnswers


class EvaluateSummary(_Short):
    """Scores in the order of the benchmarks asked for."""

    scores: Annotated[tuple[Score, ...], Field(max_length=16)]
    artifacts: ShortText | None = None
    protocol: Hash | None = Field(default=None, alias="pr")
    """Of all that the scores depend on beside the model: scores of different protocols are not comparable."""
    stopped: Literal["deadline", "asked"] | None = None
    """Why not every question was answered: the time was used up, or a stop was asked for; the scores are over those
    questions that were."""
    scaling: Annotated[tuple[Scaling, ...], Field(max_length=16)] = Field(default=(), alias="sc")
    base_answers: Annotated[tuple[BaseAnswers, ...], Field(max_length=16)] = Field(default=(), alias="ba")
    packed_base_answers: Annotated[str, StringConstraints(max_length=4_096)] | None = Field(default=None, alias="bp")
    """In their place in a message that has little room (rft_trainer.packed_answers)."""
    pending: Whole = Field(default=0, alias="pe")
    """Answers that are programs and wait for the stage Score; there are no scores before it. With ``stopped`` they are
    not all that were asked for, and the scores will be partial."""


class PublishSummary(Contract):
    """Where the model is now."""

    uri: ShortText
    revision: Annotated[str, StringConstraints(max_length=64)] | None = None
    """The hub's commit; a volume has none."""
    files: Whole
    bytes: Annotated[int, Field(ge=0)]


StageResult.model_rebuild()
