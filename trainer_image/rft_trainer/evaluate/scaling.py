"""What more thinking is worth: Control, Scaling and Performance of a sweep (s1, arXiv 2501.19393, section 3.2).

Invariant: a curve is made of complete measurements of one benchmark only, against the thinking tokens that were really
used, not those that were allowed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Point:
    """One setting of a sweep as it was measured."""

    setting: str
    thinking_tokens: float
    """Mean of a sample."""
    allowed_tokens: int
    value: float
    stderr: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The settings of a sweep together."""

    points: tuple[Point, ...]
    """From less thinking to more."""
    control: float
    """Share of the settings whose mean thinking is within the budget."""
    slope: float
    """Percentage points per 1,000 thinking tokens: mean over pairs of settings."""
    performance: float
    """The best score."""


def curve(points: Sequence[Point]) -> Curve | None:
    """The curve of a sweep; None where a single setting is none."""
    if len(points) < 2:
        return None
    ordered = tuple(sorted(points, key=lambda point: (point.thinking_tokens, point.value)))
    slopes = [
        100_000 * (b.value - a.value) / (b.thinking_tokens - a.thinking_tokens)
        for a, b in itertools.combinations(ordered, 2)
        if b.thinking_tokens > a.thinking_tokens
    ]
    return Curve(
        points=ordered,
        control=sum(point.thinking_tokens <= point.allowed_tokens for point in ordered) / len(ordered),
        slope=sum(slopes) / len(slopes) if slopes else 0.0,
        performance=max(point.value for point in ordered),
    )
