"""Says what to do where a GPU's memory does not hold the training.

Invariant: what does not fit in the very first step, the longest rows of which come first, is bad input. Once steps were
made it is a failure that another attempt may mend, for it begins with whole memory and what is saved must not be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from rft_trainer.errors import BadInputError, StageError

_REMEDY = (
    "lower training.microBatchSize or training.maxSequenceLength, or set training.gradientCheckpointing, a higher "
    "training.deepspeed.zeroStage, training.deepspeed.offload or more GPUs; rft plan -f FILE says what fits"
)


@contextmanager
def memory_explained(*, rank: int, steps_made: Callable[[], int]) -> Iterator[None]:
    """While a model is loaded and trained; ``steps_made`` counts the run's steps, those before a resume included."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        step, said = steps_made(), next(iter(str(error).splitlines()), "")
        words = f"the GPU of rank {rank} has too little memory for step {step + 1}: {_REMEDY} ({said})"
        raise (StageError(words) if step else BadInputError(words)) from error
