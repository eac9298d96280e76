"""Runs one model through one benchmark.

Invariant: every question is asked the same number of times, or the run fails; a missing answer is never scored as 0.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rft_trainer.benchmarks import Question
from rft_trainer.contract import Benchmark, RunConfig
from rft_trainer.errors import DrainedError, StageError
from rft_trainer.evaluate.generate import Answer, Generator
from rft_trainer.evaluate.protocol import ask
from rft_trainer.evaluate.record import AnswerFile, AnswerRecord
from rft_trainer.evaluate.statistics import mean_and_stderr
from rft_trainer.gym import gym_verifier
from rft_trainer.paths import Layout
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
        self._config, self._layout, self._directory = config, layout, directory
        self._judge, self._deadline = judge, deadline
        self._work, self._total, self._done = work, total, 0

    def measure(
        self, generator: Generator, *, model: str, benchmark: Benchmark, questions: Sequence[Question]
    ) -> Measured:
        """Answer what is not answered yet and score everything. ``model`` names the weights, step included."""
        answers = AnswerFile(self._file(model, benchmark, questions))
        verify = gym_verifier(parse_uri(benchmark.uri)) if questions[0].scorer == "gym" else None
        wanted = [(question, sample) for sample in range(benchmark.samples) for question in questions]
        size = self._batch_size()
        for start in range(0, len(wanted), size):
            batch = wanted[start : start + size]
            self._work.tell(done=self._done, total=self._total, phase=f"{model} {benchmark.name}")
            self._done += len(batch)
            if all((question.id, sample) in answers.records for question, sample in batch):
                continue
            self._check(model, benchmark, done=start, total=len(wanted))
            turns = [ask(question, format_=self._config.dataset.format) for question, _ in batch]
            given = generator.answer(turns, benchmark=benchmark, seed=self._config.training.seed + start)
            answers.append(
                self._judged(question, sample, answer, verify=verify)
                for (question, sample), answer in zip(batch, given, strict=True)
            )
            sys.stdout.write(f"{model} {benchmark.name}: {start + len(batch)} of {len(wanted)} answers\n")
            sys.stdout.flush()
        self._work.tell(done=self._done, total=self._total, phase=f"{model} {benchmark.name}")
        return _score(answers, questions, samples=benchmark.samples)

    def _batch_size(self) -> int:
        assert self._config.evaluation is not None
        return self._config.evaluation.batch_size

    def _file(self, model: str, benchmark: Benchmark, questions: Sequence[Question]) -> Path:
        protocol = {
            "benchmark": benchmark.model_dump(),
            "format": self._config.dataset.format,
            "batch_size": self._batch_size(),
            "seed": self._config.training.seed,
            "questions": [[question.id, question.problem, question.answer, question.scorer] for question in questions],
        }
        digest = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:12]
        return self._directory / f"{benchmark.name}-{model}-{digest}.jsonl"

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
