"""The judgement of one answer.

Invariant: it says what was extracted and why that is right or wrong; no answer is never right.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_ANSWER = "no answer"
NOT_ENDED = "thinking did not end"
NOT_CLOSED = "box not closed"
PENDING = "not run yet"
"""A program that waits for a place where it may be run; no verdict, and never counted as one."""
_JUDGED = frozenset(
    {"equal", "different", "runtime error", "time limit", "memory limit", "output limit"}
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """The judgement of one answer."""

    extracted: str | None
    correct: bool
    reason: str
    """equal and different, and for programs runtime error, time limit, memory limit and output limit; all others mean
    that there is no answer to judge: no answer, thinking did not end, box not closed, code not closed, unparsed,
    timeout."""
    detail: str | None = None
    """Of a program: the test that it fails, and its last words."""

    @property
    def answered(self) -> bool:
        """Whether an answer was given that could be read."""
        return is_answered(self.reason)


def is_answered(reason: str) -> bool:
    """Whether a verdict of this reason judges an answer."""
    return reason in _JUDGED


def missing(reason: str = NO_ANSWER) -> Verdict:
    """The verdict on a text without an answer."""
    return Verdict(None, correct=False, reason=reason)
