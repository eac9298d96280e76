"""What all ranks agree on at a step boundary, in one all-reduce.

Invariant: every rank sees the same numbers and so takes the same decision. Each rank fills its own slots of one
vector, so the sum is at once a vote and a gathering.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

SLOW_RATIO = 1.3
SMOOTHING = 0.05
"""Weight of the newest step: a rank is called slow for what it did over about twenty steps."""
FEWEST_STEPS = 20
"""Nobody is called slow before: the first steps of a process, with their warm-up, say nothing of a rank."""
_COMMON = 4
_PER_RANK = 2


@dataclass(frozen=True)
class Vote:
    """What one rank brings."""

    stop: bool
    save: bool
    nll: float = 0.0
    """Summed loss of its own rows."""
    targets: int = 0
    """Tokens with loss of its own rows."""
    sound: bool = True
    """Whether its gradient was finite."""
    seconds_per_token: float = 0.0
    """Time for work that no other rank takes part in."""


@dataclass(frozen=True)
class Decision:
    """What all ranks agreed on."""

    stop: bool
    save: bool
    nll: float
    sound: bool
    """Whether the gradient was finite on every rank."""
    loss_max: float
    """The highest mean loss of a rank's own rows."""
    seconds_per_token: tuple[float, ...]
    """By rank."""


def agree(vote: Vote, *, rank: int, world_size: int, device: torch.device) -> Decision:
    """Put the votes together; all ranks call it together."""
    together = torch.zeros(_COMMON + _PER_RANK * world_size, dtype=torch.float64)
    common = [float(vote.stop), float(vote.save), vote.nll, float(not vote.sound)]
    together[:_COMMON] = torch.tensor(common, dtype=torch.float64)
    own = _COMMON + _PER_RANK * rank
    together[own] = vote.nll / max(1, vote.targets)
    together[own + 1] = vote.seconds_per_token
    together = together.to(device)
    dist.all_reduce(together)
    values = together.tolist()
    return Decision(
        stop=values[0] > 0,
        save=values[1] > 0,
        nll=values[2],
        sound=values[3] == 0,
        loss_max=max(values[_COMMON::_PER_RANK], key=_worst_first),
        seconds_per_token=tuple(values[_COMMON + 1 :: _PER_RANK]),
    )


def _worst_first(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss


class Stragglers:
    """Which rank is slow, over about twenty steps."""

    def __init__(self) -> None:
        self._smoothed: list[float] = []
        self._steps = 0

    def record(self, seconds_per_token: Sequence[float]) -> None:
        """Count one step; the first ones weigh alike, so that no single one of them is remembered for long."""
        self._steps += 1
        weight = max(SMOOTHING, 1 / self._steps)
        if not self._smoothed:
            self._smoothed = [0.0] * len(seconds_per_token)
        for rank, seconds in enumerate(seconds_per_token):
            self._smoothed[rank] += weight * (seconds - self._smoothed[rank])

    def slowest(self) -> tuple[int, float] | None:
        """The slowest rank and how much longer it takes than the median one; None when it is not much longer."""
        if len(self._smoothed) < 2 or self._steps < FEWEST_STEPS:
            return None
        usual = statistics.median_low(self._smoothed)
        rank = max(range(len(self._smoothed)), key=self._smoothed.__getitem__)
        ratio = self._smoothed[rank] / usual if usual > 0 else 1.0
        return (rank, ratio) if ratio > SLOW_RATIO else None
