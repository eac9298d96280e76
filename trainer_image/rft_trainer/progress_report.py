"""What a pod reports while it runs: Kubeflow Trainer's wire contract (KEP-2779) and our own names of metrics.

Part of the contract with the operator. Invariant: an unknown field or metric is no error; others report here, too.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from rft_trainer.stage_results import Whole


class Metric(BaseModel):
    """A named value of the progress report; the value is text, as in Kubeflow Trainer's contract."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    value: Annotated[str, StringConstraints(max_length=64)]


class TrainerStatus(BaseModel):
    """Body of a progress report: Kubeflow Trainer's wire contract (KEP-2779), unchanged."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    last_updated_time: str = Field(alias="lastUpdatedTime")
    progress_percentage: int | None = Field(default=None, ge=0, le=100, alias="progressPercentage")
    estimated_remaining_seconds: Whole | None = Field(default=None, alias="estimatedRemainingSeconds")
    metrics: Annotated[tuple[Metric, ...], Field(max_length=256)] = ()


class ProgressReport(BaseModel):
    """The envelope of a POST; an absent ``trainerStatus`` changes nothing."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    trainer_status: TrainerStatus | None = Field(default=None, alias="trainerStatus")


LONG_PHASES = frozenset({"convert", "save", "drain", "export"})
"""What a training does without making steps: its time goes with the model's size and the volume's speed."""
LONG_PHASE_FACTOR = 4
"""Such a phase may take so many times the bound of a start (convert) or of a step."""


class MetricName(StrEnum):
    """Names our own trainer reports under; the operator reads the steps and the checkpoint from them."""

    STEP = "step"
    TOTAL_STEPS = "total_steps"
    EPOCH = "epoch"
    LOSS = "loss"
    LEARNING_RATE = "learning_rate"
    GRADIENT_NORM = "gradient_norm"
    LOSS_MAX = "loss_max"
    """Of all ranks the highest mean loss of a rank's own rows."""
    TOKENS_PER_SECOND = "tokens_per_second"
    """Without padding."""
    MFU = "mfu"
    """Share of the GPUs' peak that the model's arithmetic uses; absent where the peak is unknown."""
    PADDING_SHARE = "padding_share"
    """Of the positions computed, those that are padding."""
    SLOW_RANK = "slow_rank"
    """The rank that takes much longer than the others for the same work; absent when none does."""
    SLOW_RATIO = "slow_ratio"
    """How much longer it takes than the median rank."""
    CHECKPOINT_AGE_SECONDS = "checkpoint_age_seconds"
    CHECKPOINT_STEP = "checkpoint_step"
    CHECKPOINT_SECONDS = "checkpoint_seconds"
    CHECKPOINT_TIME = "checkpoint_time"
    """RFC 3339, the moment the newest complete checkpoint was marked complete."""
    PHASE = "phase"
