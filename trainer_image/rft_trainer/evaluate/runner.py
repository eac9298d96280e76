"""Runs one model through one benchmark.

Invariant: every question is asked the same number of times, or the run fails; a missing answer is never scored as 0.
The settings of a sweep over Waits are asked batch by batch, so they share the thinking that they have in common.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rft_trainer.benchmarks import Question
from rft_trainer.contract import Benchmark, EvaluationConfig, RunConfig
from rft_trainer.errors import DrainedError, StageError
from rft_trainer.evaluate.answering import Answer, Asked, answer_forced, answer_freely, derived_seed
from rft_trainer.evaluate.forcing import ForcedAnswer, ThinkingBudget, delimiters_of
from rft_trainer.evaluate.protocol import ask
from rft_trainer.evaluate.record import AnswerFile, AnswerRecord, ThinkingRecord
from rft_trainer.evaluate.sampler import RememberingSampler, Sampler
from rft_trainer.evaluate.statistics import mean_and_stderr
from rft_trainer.gym import gym_verifier
from rft_trainer.paths import Layout
from rft_trainer.prepare.formats import Message
from rft_trainer.report import Work
from rft_trainer.scoring import Judge, Verdict
from rft_trainer.scoring.extract import final_part, last_boxed, marked
from rft_trainer.uris import parse_uri


@dataclass(frozen=True)
class Measured:
    """A model's score on a benchmark."""

    value: float
    stderr: float
    questions: int
    no_answer: int


@dataclass(frozen=True)
class Model:
    """A model to measure."""

    name: str
    """Names the weights, step included."""
    sampler: Sampler
    render: Callable[[Sequence[Message]], str]
    """Turns -> the text that the model continues."""


def settings_of(evaluation: EvaluationConfig) -> tuple[int | None, ...]:
    """The numbers of Waits to measure with, in order; None is an answer whose thinking has no budget."""
    return (None,) if evaluation.budget_forcing is None else evaluation.budget_forcing.waits


class Runner:
    """What all runs of one evaluation share: deadline, judge, configuration, progress over all of them."""

    def __init__(
        self,
        config: RunConfig,
        layout: Layout,
        *,
        directory: Path,
        judge: Judge,
        deadline: float,
        work: Work,
        total: int,
    ) -> None:
        assert config.evaluation is not None
        self._config, self._layout, self._directory = config, layout, directory
        self._evaluation = config.evaluation
        self._judge, self._deadline = judge, deadline
        self._work, self._total, self._done = work, total, 0

    def measure(
        self, model: Model, *, benchmark: Benchmark, questions: Sequence[Question]
    ) -> dict[int | None, Measured]:
        """Answer what is not answered yet and score everything, for each number of Waits."""
        files = {
            waits: AnswerFile(self._file(model.name, benchmark, questions, waits=waits))
            for waits in settings_of(self._evaluation)
        }
        verify = gym_verifier(parse_uri(benchmark.uri)) if questions[0].scorer == "gym" else None
        wanted = [(question, sample) for sample in range(benchmark.samples) for question in questions]
        size = self._evaluation.batch_size
        for start in range(0, len(wanted), size):
            batch = wanted[start : start + size]
            shared = RememberingSampler(model.sampler)
            any_missing = False
            for waits, answers in files.items():
                self._work.tell(done=self._done, total=self._total, phase=f"{model.name} {benchmark.name}")
                self._done += len(batch)
                missing = [
                    (question, sample) for question, sample in batch if (question.id, sample) not in answers.records
                ]
                if not missing:
                    continue
                any_missing = True
                self._check(model.name, benchmark, done=start, total=len(wanted))
                asked = [self._asked(model, question, sample) for question, sample in missing]
                for index, answer in self._answers(shared, asked, benchmark=benchmark, waits=waits):
                    answers.append(self._judged(*missing[index], answer, verify=verify))
            if any_missing:
                sys.stdout.write(f"{model.name} {benchmark.name}: {start + len(batch)} of {len(wanted)} answers\n")
            sys.stdout.flush()
        self._work.tell(done=self._done, total=self._total, phase=f"{model.name} {benchmark.name}")
        return {waits: _score(it, questions, samples=benchmark.samples) for waits, it in files.items()}

    def _asked(self, model: Model, question: Question, sample: int) -> Asked:
        prompt = model.render(ask(question, format_=self._config.dataset.format))
        return Asked(prompt, seed=derived_seed(self._config.training.seed, question.id, sample))

    def _answers(
        self, sampler: Sampler, asked: Sequence[Asked], *, benchmark: Benchmark, waits: int | None
    ) -> Iterator[tuple[int, Answer]]:
        forcing = self._evaluation.budget_forcing
        if waits is None or forcing is None:
            return answer_freely(sampler, asked, benchmark=benchmark)
        budget = ThinkingBudget(
            waits=waits,
            thinking_tokens=forcing.max_thinking_tokens,
            answer_tokens=benchmark.max_tokens - forcing.max_thinking_tokens,
        )
        delimiters = delimiters_of(self._config.dataset.format)
        return answer_forced(sampler, asked, benchmark=benchmark, delimiters=delimiters, budget=budget)

    def _file(self, model: str, benchmark: Benchmark, questions: Sequence[Question], *, waits: int | None) -> Path:
        forcing = self._evaluation.budget_forcing
        protocol = {
            "benchmark": benchmark.model_dump(),
            "format": self._config.dataset.format,
            "batch_size": self._evaluation.batch_size,
            "seed": self._config.training.seed,
            "questions": [[question.id, question.problem, question.answer, question.scorer] for question in questions],
            "waits": waits,
            "max_thinking_tokens": None if forcing is None else forcing.max_thinking_tokens,
        }
        digest = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:12]
        setting = "" if waits is None else f"-wait-{waits}"
        return self._directory / f"{benchmark.name}-{model}{setting}-{digest}.jsonl"

    def _check(self, model: str, benchmark: Benchmark, *, done: int, total: int) -> None:
        where = f"{model} on {benchmark.name}, {done} of {total} answers"
        if self._layout.stop_file.exists():
            raise DrainedError(f"stopped while evaluating {where}; the next attempt goes on from there")
        if time.monotonic() > self._deadline:
            raise StageError(f"evaluation.maxSeconds is used up at {where}; raise it, or lower limit or maxTokens")

    def _judged(
        self, question: Question, sample: int, answer: Answer, *, verify: Callable[..., float] | None
    ) -> AnswerRecord:
        if verify is not None:
            verdict = _gym_verdict(question, answer.text, verify=verify)
        else:
            verdict = self._judge.score(question.scorer, answer=question.answer, text=answer.text)
        return AnswerRecord(
            id=question.id,
            sample=sample,
            text=answer.text,
            tokens=answer.tokens,
            finished=answer.finished,
            extracted=verdict.extracted,
            correct=verdict.correct,
            reason=verdict.reason,
            thinking=None if answer.forced is None else _thinking(answer.forced),
        )


def _thinking(forced: ForcedAnswer) -> ThinkingRecord:
    return ThinkingRecord(
        waits=forced.waits,
        tokens=forced.thinking_tokens,
        answer_tokens=forced.answer_tokens,
        ending=forced.ending.value,
        leg_tokens=[leg.tokens for leg in forced.legs],
        leg_endings=[leg.ending.value for leg in forced.legs],
    )


def _gym_verdict(question: Question, text: str, *, verify: Callable[..., float]) -> Verdict:
    part = final_part(text)
    found = (last_boxed(part) or marked(part) or part) if part else None
    if not found:
        return Verdict(None, correct=False, reason="no answer")
    correct = verify(found, question.entry) == 1.0
    return Verdict(found, correct=correct, reason="equal" if correct else "different")


def _score(answers: AnswerFile, questions: Sequence[Question], *, samples: int) -> Measured:
    means, no_answer = [], 0
    for question in questions:
        records = [answers.records[question.id, sample] for sample in range(samples)]
        means.append(sum(record.correct for record in records) / samples)
        no_answer += sum(record.extracted is None or not record.finished for record in records)
    value, stderr = mean_and_stderr(means)
    return Measured(value=round(value, 6), stderr=round(stderr, 6), questions=len(questions), no_answer=no_answer)
