"""Which sequences a rank trains on in which step.

Invariant: the content of a global batch is a function of the seed and the step alone; the number of ranks only says who
computes what. So a resume, on any number of ranks, sees exactly the data that an uninterrupted run would have seen.

Inside a global batch the order is free, for a step adds its rows up: the micro batches are ordered by length, so that
the ranks of a micro step, which wait for one another, have rows of about one length and pad little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rft_trainer.contract import TrainingConfig
from rft_trainer.errors import BadInputError


@dataclass(frozen=True)
class StepPlan:
    """One optimiser step of one rank."""

    micro_batches: tuple[tuple[int, ...], ...]
    """Sequences of each micro batch, in order."""
    target_tokens: int
    """Tokens with loss in the whole global batch."""
    tokens: int
    """Tokens of the whole global batch."""
    padded_tokens: int
    """The same with each micro batch padded to its longest sequence."""


class BatchPlan:
    """Step -> rank -> micro batches, ordered by length so that ranks in lockstep wait little."""

    def __init__(
        self,
        *,
        lengths: NDArray[np.int64],
        targets: NDArray[np.int64],
        seed: int,
        global_batch_size: int,
        micro_batch_size: int,
        world_size: int,
    ) -> None:
        self._lengths, self._targets, self._seed = lengths, targets, seed
        self._global, self._micro, self._world = global_batch_size, micro_batch_size, world_size
        self._orders: dict[int, NDArray[np.int64]] = {}

    def global_batch(self, step: int) -> NDArray[np.int64]:
        """The sequences of step ``step`` (from 0), in data order."""
        count = len(self._lengths)
        positions = np.arange(step * self._global, (step + 1) * self._global, dtype=np.int64)
        epochs = positions // count
        for epoch in sorted(self._orders):
            if epoch < epochs[0]:
                del self._orders[epoch]
        return np.asarray([self._order(int(e))[p % count] for e, p in zip(epochs, positions, strict=True)])

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            generator = np.random.Generator(np.random.PCG64([self._seed, epoch]))
            self._orders[epoch] = generator.permutation(len(self._lengths))
        return self._orders[epoch]

    def epoch(self, step: int) -> float:
        """Passes over the data done before step ``step``."""
        return step * self._global / len(self._lengths)

    def step(self, step: int, *, rank: int) -> StepPlan:
        """What ``rank`` computes in step ``step``."""
        batch = self.global_batch(step)
        arranged = self._arrange(batch)
        longest = self._lengths[arranged].max(axis=2)
        return StepPlan(
            micro_batches=tuple(tuple(int(index) for index in row) for row in arranged[:, rank]),
            target_tokens=int(self._targets[batch].sum()),
            tokens=int(self._lengths[batch].sum()),
            padded_tokens=int(longest.sum()) * self._micro,
        )

    def _arrange(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        """Micro step x rank x sequence, the longest first: what does not fit into memory shows at once.

        Every other micro step hands out backwards, so that no rank has the longer rows throughout.
        """
        order = np.lexsort((batch, -self._lengths[batch]))
        arranged = batch[order].reshape(-1, self._world, self._micro)
        arranged[1::2] = arranged[1::2, ::-1].copy()
        return arranged


def accumulation_steps(training: TrainingConfig, *, world_size: int) -> int:
    """Micro batches a rank computes in one step; raises :class:`BadInputError` when the sizes do not fit."""
    held = training.micro_batch_size * world_size
    if training.global_batch_size % held:
        raise BadInputError(
            f"training.globalBatchSize={training.global_batch_size} must be a multiple of microBatchSize="
            f"{training.micro_batch_size} x {world_size} GPUs = {held}; change one of them"
        )
    return training.global_batch_size // held


def padding_share(plan: BatchPlan, *, steps: int) -> float:
    """The share of padding in what the first ``steps`` steps compute."""
    plans = [plan.step(step, rank=0) for step in range(steps)]
    return 1 - sum(each.tokens for each in plans) / sum(each.padded_tokens for each in plans)
