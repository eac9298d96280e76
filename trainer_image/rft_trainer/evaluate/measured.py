"""What a model's answers to a benchmark come to, under one setting.

Invariant: what is missing is told and never scored as wrong. All questions are asked once before any is asked twice, so
of an evaluation that was ended early all questions count with the samples that each of them has; only of a first round
that was not finished some questions are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from rft_trainer.benchmarks import Question
from rft_trainer.evaluate.forcing import Ending
from rft_trainer.evaluate.record import AnswerFile, AnswerRecord
from rft_trainer.evaluate.statistics import mean_and_stderr
from rft_trainer.scoring.judge import is_answered
from rft_trainer.scoring.verdict import PENDING


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A model's answers to a benchmark, counted."""

    rights: tuple[int, ...]
    """Right answers of each question that counts, in the order of the questions."""
    samples: int
    """Answers that count of each of them."""
    asked: int
    """Questions that there are."""
    wanted_samples: int | None = None
    """Answers that each was to be given, where that is more."""
    no_answer: int = 0
    capped: int = 0
    pending: int = 0
    """Answers that are programs and were not run yet; their questions do not count."""
    thinking_tokens: float | None = None
    answer_tokens: float | None = None
    longest_thinking_tokens: int | None = None
    endings: Mapping[str, int] = field(default_factory=dict)
    """Of forced thinking, by :class:`Ending`."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Of verdicts."""
    measured_by: str | None = None
    """The run that these were taken over from."""

    @property
    def complete(self) -> bool:
        """Whether every answer was given."""
        return len(self.rights) == self.asked and self.wanted_samples in (None, self.samples)

    @property
    def wanted(self) -> int:
        """Answers that were to be given."""
        return self.asked * (self.wanted_samples or self.samples)

    @property
    def per_question(self) -> list[float]:
        """Share of right answers of each question."""
        return [right / self.samples for right in self.rights]

    @property
    def value(self) -> float:
        """The score; there is none without a question."""
        return mean_and_stderr(self.per_question)[0]

    @property
    def stderr(self) -> float:
        """Its standard error over questions."""
        return mean_and_stderr(self.per_question)[1]


def measured(answers: AnswerFile, questions: Sequence[Question], *, samples: int) -> Measured:
    """Count the answers that are there."""
    judged = {place: each for place, each in answers.records.items() if each.reason != PENDING}
    rounds = 0
    while rounds < samples and all((question.id, rounds) in judged for question in questions):
        rounds += 1
    rights: list[int] = []
    records: list[AnswerRecord] = []
    for question in questions:
        found = [judged.get((question.id, sample)) for sample in range(max(1, rounds))]
        whole = [each for each in found if each is not None]
        if whole:
            rights.append(sum(record.correct for record in whole))
            records += whole
    thought = [record.thinking for record in records if record.thinking is not None]
    forced = len(thought) == len(records)
    return Measured(
        rights=tuple(rights),
        samples=max(1, rounds),
        wanted_samples=samples,
        asked=len(questions),
        no_answer=sum(not is_answered(record.reason) for record in records),
        pending=len(answers.records) - len(judged),
        capped=sum(_capped(record) for record in records),
        thinking_tokens=_mean([each.tokens for each in thought] if forced else [each.tokens for each in records]),
        answer_tokens=_mean([each.answer_tokens for each in thought]) if forced else None,
        longest_thinking_tokens=max((each.tokens for each in thought), default=None) if forced else None,
        endings=dict(sorted(Counter(each.ending for each in thought).items())),
        reasons=dict(sorted(Counter(record.reason for record in records).items())),
    )


def _capped(record: AnswerRecord) -> bool:
    if record.thinking is None:
        return not record.finished
    return not record.finished or Ending.CAPPED.value in record.thinking.leg_endings


def _mean(numbers: Sequence[int]) -> float | None:
    return round(fmean(numbers), 1) if numbers else None
