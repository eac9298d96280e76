"""What a report tells, whatever it was read from: the resource in the cluster, the run's folder on its volume, or both.

Invariant: a part that was not measured is absent and its place says why; nothing is made up to fill a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rft_operator.api.scores import EvaluationStatus, ScoreResult
from rft_operator.domain.spend import Lines, SpendPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Accuracy with so much thinking."""

    setting: str
    thinking_tokens: float
    value: float
    stderr: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Accuracy against thinking tokens of one model on one benchmark."""

    benchmark: str
    of: str
    """trained or base."""
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossPoint:
    """An optimiser step."""

    step: int
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """One try of a stage."""

    stage: str
    number: int
    start: int
    end: int | None
    start_step: int | None
    end_step: int | None
    result: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CostShare:
    """A part of the bill."""

    name: str
    gpu_seconds: int
    micro_usd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What training was estimated to take before it began."""

    seconds: int
    micro_usd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """The bill and its lines."""

    spent_micro_usd: int
    gpu_seconds: int
    price_micro_usd: int | None
    """Of a GPU-hour."""
    price_source: str | None
    points: tuple[SpendPoint, ...]
    lines: Lines
    by_stage: tuple[CostShare, ...]
    waste: tuple[CostShare, ...]
    plan: Plan | None
    plan_note: str
    """Why there is no plan to compare with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All that a page tells."""

    title: str
    state: str
    """Complete, Failed, Training, ...; or "Folder" for a run's folder without its resource."""
    why: str = ""
    """Why it failed, or what it waits for."""
    made_at: int
    start: int | None = None
    end: int | None = None
    restarts: int = 0
    total_steps: int | None = None
    losses: tuple[LossPoint, ...] = ()
    losses_note: str = ""
    attempts: tuple[AttemptRow, ...] = ()
    money: Money | None = None
    money_note: str = ""
    evaluation: EvaluationStatus | None = None
    scores_note: str = ""
    curves: tuple[Curve, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    """The run card in short: (name, value)."""
    card: dict[str, Any] = field(default_factory=dict)
    """The run card in full."""

    @property
    def scores(self) -> Sequence[ScoreResult]:
        """Return the scores, in the order of the benchmarks."""
        return self.evaluation.results if self.evaluation is not None else ()
