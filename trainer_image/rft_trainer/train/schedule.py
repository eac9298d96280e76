"""The learning rate of a step: a function of the step alone, so a resume continues it without any state."""

from __future__ import annotations

import math

from rft_trainer.contract import TrainingConfig


def learning_rate(training: TrainingConfig, *, step: int, total_steps: int) -> float:
    """The rate of step ``step`` (from 0): a linear rise over the warm-up, then the schedule down to 0."""
    warmup_steps = math.ceil(training.warmup_ratio * total_steps)
    if step < warmup_steps:
        return training.learning_rate * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if training.schedule == "cosine":
        return training.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
    if training.schedule == "linear":
        return training.learning_rate * (1.0 - progress)
    return training.learning_rate
