"""What something costs per hour from now on, as far as the catalogue announces it: how long money lasts.

Invariant: integers only; a schedule is a step function whose first step holds now, so a rise that is announced is paid
for before it comes (E1, E3 and E7 of docs/metering.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rft_operator.domain.bill import SECONDS_PER_HOUR


@dataclass(frozen=True, slots=True)
class Schedule:
    """Micro-dollars per hour: (from, rate), ascending; the first step holds now."""

    steps: tuple[tuple[int, int], ...]

    @classmethod
    def flat(cls, now: int, rate: int) -> Schedule:
        """Return a rate that never changes."""
        return cls(((now, rate),))

    @classmethod
    def of(cls, now: int, instants: Iterable[int], rate_at: Callable[[int], int]) -> Schedule:
        """Return a schedule with the rate at each instant after now."""
        moments = sorted({now, *(instant for instant in instants if instant > now)})
        return cls(tuple((moment, rate_at(moment)) for moment in moments))

    @property
    def now(self) -> int:
        """Return the instant of the first step."""
        return self.steps[0][0]

    def at(self, instant: int) -> int:
        """Return the rate at an instant."""
        return [rate for since, rate in self.steps if since <= instant][-1]

    def times(self, factor: int) -> Schedule:
        """Return the schedule of so many of the same."""
        return Schedule(tuple((since, rate * factor) for since, rate in self.steps))

    def delayed(self, seconds: int) -> Schedule:
        """Return what the schedule will be for one who begins so much later, as if it began now."""
        later = self.now + seconds
        rest = tuple((since - seconds, rate) for since, rate in self.steps if since > later)
        return Schedule(((self.now, self.at(later)), *rest))

    def plus(self, other: Schedule) -> Schedule:
        """Return the sum of two schedules that begin at the same instant."""
        instants = [since for since, _ in (*self.steps, *other.steps)]
        return Schedule.of(self.now, instants, lambda instant: self.at(instant) + other.at(instant))

    def never_cheaper(self) -> Schedule:
        """Return the dearest rate so far at each instant: of a price that is locked at an unknown time."""
        dearest, steps = 0, []
        for since, rate in self.steps:
            dearest = max(dearest, rate)
            steps.append((since, dearest))
        return Schedule(tuple(steps))

    def dearest(self, until: int) -> int:
        """Return the dearest rate from now until an instant."""
        return max(rate for since, rate in self.steps if since <= max(until, self.now))

    def lasts(self, amount: int) -> int | None:
        """Return for how many seconds an amount lasts; None: for ever.

        ``amount`` is in micro-dollars per hour x seconds: 3,600 of it are one micro-dollar.
        """
        left, ends = amount, [since for since, _ in self.steps[1:]]
        for (since, rate), end in zip(self.steps, [*ends, None], strict=True):
            if end is None or rate * (end - since) > left:
                return since - self.now + left // rate if rate else None
            left -= rate * (end - since)
        return None

    def cost(self, seconds: int) -> int:
        """Return what so many seconds from now cost, in micro-dollars per hour x seconds."""
        until, total = self.now + seconds, 0
        ends = [since for since, _ in self.steps[1:]]
        for (since, rate), end in zip(self.steps, [*ends, until], strict=True):
            total += rate * max(0, min(end, until) - since)
        return total


def amount_of(micro_usd: int) -> int:
    """Return micro-dollars as an amount."""
    return micro_usd * SECONDS_PER_HOUR
