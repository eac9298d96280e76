"""Sees that a training has left the numbers: a loss, a gradient or a weight that is not finite.

Invariant: all ranks come to the same verdict, and no checkpoint and no export holds a weight that is not finite. There
is no loss scale here (bf16 and fp32 need none), so an update that DeepSpeed skips is never part of a sound training.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist

from rft_trainer.errors import DivergedError
from rft_trainer.train.checkpoint import Checkpoint


def gradient_is_sound(engine: Any) -> bool:
    """Whether the step just taken had a finite gradient and was applied.

    DeepSpeed gives a norm of -1 for one that is not finite and applies the step, or skips it and keeps the norm of the
    step before, as precision and ZeRO stage have it.
    """
    if getattr(engine.optimizer, "overflow", False):
        return False
    norm = engine.get_global_grad_norm()
    return norm is None or (math.isfinite(norm) and float(norm) >= 0)


def weights_are_finite(model: torch.nn.Module, *, device: torch.device) -> bool:
    """Whether all trained weights of all ranks are finite; all ranks call it together."""
    unsound = any(not bool(torch.isfinite(own_part(each)).all()) for each in model.parameters() if each.requires_grad)
    found = torch.tensor([float(unsound)], device=device)
    dist.all_reduce(found)
    return found.item() == 0


def own_part(parameter: Any) -> torch.Tensor:
    """This rank's part of a parameter, under ZeRO-3 without what fills up the last rank's part: nobody sets it."""
    part = getattr(parameter, "ds_tensor", None)
    if part is None:
        return torch.as_tensor(parameter.data)
    before = part.numel() * dist.get_rank(parameter.ds_process_group)
    return torch.as_tensor(part.data.flatten()[: max(0, parameter.ds_numel - before)])


def diverged(what: str, *, step: int, learning_rate: float, kept: Checkpoint | None) -> DivergedError:
    """The error of a training that cannot go on; ``step`` is the one that it shows in, counted from 1."""
    newest = f"the newest checkpoint is {kept.path.name}" if kept is not None else "there is no checkpoint"
    first = " In a first step, also look for such numbers in the model's own weights." if step == 1 else ""
    return DivergedError(
        f"diverged: step {step}: {what}, at a learning rate of {learning_rate:g}; nothing of it is saved, {newest}. "
        f"Start a run with a lower training.learningRate, or more steps of warm-up (training.warmupRatio).{first}"
    )
