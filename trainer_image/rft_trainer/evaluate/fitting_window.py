"""The window of an engine that computes whole batches in a memory whose use grows with every row and every token.

Invariant: a batch that the memory does not hold is parted and never lost, for ``evaluation.batchSize`` cannot change
once the training is paid for. What was found to be too much is not tried again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from rft_trainer.errors import StageError
from rft_trainer.evaluate.engines import free_memory
from rft_trainer.evaluate.sampler import BatchWindow, Completion, CompletionRequest

Complete = Callable[[Sequence[CompletionRequest]], Sequence[Completion]]


@dataclass
class MostRows:
    """What an engine has learned of its memory, for all windows that it has one after another."""

    rows: int | None = None
    """So many at once; None while all that were asked for have fitted."""


class FittingWindow(BatchWindow):
    """Completes what was put first, as much of it as the memory holds; the rest waits for the next batch."""

    def __init__(self, complete: Complete, most: MostRows) -> None:
        super().__init__(complete)
        self._most = most

    def get(self) -> Sequence[tuple[int, Completion]]:
        """Complete a batch, and hand it over together; raises :class:`StageError` where a single row is too much."""
        while True:
            batch = self._waiting[: self._most.rows]
            completions = self._completed([request for _, request in batch])
            if completions is not None:
                del self._waiting[: len(batch)]
                return [(ticket, it) for (ticket, _), it in zip(batch, completions, strict=True)]
            if len(batch) == 1:
                raise StageError(
                    f"a single answer of up to {batch[0][1].max_tokens} tokens needs more memory than there is beside "
                    "the model: evaluate with fewer tokens (maxTokens), or with engine: vllm over more gpus"
                )
            self._most.rows = len(batch) // 2

    def _completed(self, requests: Sequence[CompletionRequest]) -> Sequence[Completion] | None:
        """None where the memory did not hold it."""
        try:
            return self._complete(requests)
        except torch.OutOfMemoryError as error:
            words = str(error).partition(". ")[0]
            sys.stdout.write(f"{len(requests)} answers at once need more memory than there is ({words})\n")
            sys.stdout.flush()
        free_memory()  # only here, where no frame of the error holds what was computed
        return None
