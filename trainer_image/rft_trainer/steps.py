"""How many optimiser steps a training takes: one formula for Prepare, Train and the reports."""

from __future__ import annotations

from rft_trainer.contract import TrainingConfig


def total_steps(training: TrainingConfig, *, sequences: int) -> int:
    """Optimiser steps; epochs run into one another, so only the last global batch is filled up with old rows."""
    steps = -(-sequences * training.epochs // training.global_batch_size)
    return max(1, min(steps, training.max_steps) if training.max_steps is not None else steps)
