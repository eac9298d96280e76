"""Puts a benchmark's questions to one model.

Invariant: every question is asked the same number of times; an answer is on the volume before the next one is awaited,
and none that is there is generated again. The settings of a sweep are asked batch by batch, so they share the thinking
that they have in common.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rft_trainer.benchmarks import Question
from rft_trainer.contract import Benchmark
from rft_trainer.evaluate.answering import Answer, Asked, answer_forced, answer_freely, derived_seed
from rft_trainer.evaluate.forcing import ForcedAnswer, delimiters_of
from rft_trainer.evaluate.measured import Measured, measured
from rft_trainer.evaluate.programs import run_programs
from rft_trainer.evaluate.protocol import Exam, protocol_hash
from rft_trainer.evaluate.record import AnswerFile, AnswerRecord, ThinkingRecord
from rft_trainer.evaluate.sampler import RememberingSampler, Sampler
from rft_trainer.evaluate.settings import Setting, settings_of
from rft_trainer.evaluate.stopping import Stop, StoppableSampler
from rft_trainer.gym import gym_verifier
from rft_trainer.prepare.formats import Message
from rft_trainer.report import Work
from rft_trainer.scoring import Judge, Verdict
from rft_trainer.scoring.extract import final_part, last_boxed, marked
from rft_trainer.scoring.judge import SANDBOXED
from rft_trainer.scoring.verdict import PENDING, missing
from rft_trainer.uris import parse_uri


@dataclass(frozen=True)
class Model:
    """A model to measure."""

    name: str
    """Names the weights, step included."""
    sampler: Sampler
    render: Callable[[Sequence[Message]], str]
    """Turns -> the text that the model continues."""


class Runner:
    """What all runs of one evaluation share: the exam, the judge, the answers' folder, progress over all of them."""

    def __init__(self, exam: Exam, *, directory: Path, judge: Judge, stop: Stop, work: Work, total: int) -> None:
        self._exam, self._directory, self._judge, self._stop = exam, directory, judge, stop
        self._work, self._total, self._done, self._known = work, total, 0, 0
        self._settings = settings_of(exam.evaluation)

    def skip(self, answers: int) -> None:
        """Count answers that need not be asked for as done."""
        self._done += answers
        self._known += answers

    def answer(self, model: Model, benchmark: Benchmark, *, settings: Sequence[Setting]) -> None:
        """Answer what is not answered yet; raises ``StoppedError`` when there is no more time for it."""
        questions = self._exam.questions[benchmark.name]
        files = {setting: self.answers(model, benchmark, setting) for setting in settings}
        if self._judge.runs_programs:
            for answers in files.values():
                run_programs(answers, questions, stop=self._stop)
        verify = gym_verifier(parse_uri(benchmark.uri)) if questions[0].scorer == "gym" else None
        wanted = [(question, sample) for sample in range(benchmark.samples) for question in questions]
        size, phase = self._exam.evaluation.batch_size, f"{model.name} {benchmark.name}"
        for start in range(0, len(wanted), size):
            batch = wanted[start : start + size]
            shared = RememberingSampler(StoppableSampler(model.sampler, self._stop))
            any_missing = False
            for setting, answers in files.items():
                self._tell(phase)
                self._done += len(batch)
                missing_ = [each for each in batch if (each[0].id, each[1]) not in answers.records]
                self._known += len(batch) - len(missing_)
                if not missing_:
                    continue
                any_missing = True
                self._stop.check()
                asked = [self._asked(model, question, sample) for question, sample in missing_]
                for index, answer in self._answers(shared, asked, benchmark=benchmark, setting=setting):
                    answers.append(self._judged(*missing_[index], answer, verify=verify))
            if any_missing:
                sys.stdout.write(f"{phase}: {start + len(batch)} of {len(wanted)} answers\n")
            sys.stdout.flush()
        self._tell(phase)

    def measured(self, model: Model, benchmark: Benchmark, setting: Setting) -> Measured:
        """Count the answers that are there."""
        answers = self.answers(model, benchmark, setting)
        return measured(answers, self._exam.questions[benchmark.name], samples=benchmark.samples)

    def answers(self, model: Model, benchmark: Benchmark, setting: Setting) -> AnswerFile:
        """The answers so far; those under another protocol are in another file."""
        protocol = self._exam.protocol(benchmark, setting, engine=model.sampler.identity)
        name = "".join(f"-{part.replace('=', '-')}" for part in setting.name.split(",") if part)
        return AnswerFile(self._directory / f"{benchmark.name}-{model.name}{name}-{protocol_hash(protocol)[:12]}.jsonl")

    def _tell(self, phase: str) -> None:
        self._work.tell(done=self._done, total=self._total, phase=phase, known=self._known)

    def _asked(self, model: Model, question: Question, sample: int) -> Asked:
        prompt = model.render(self._exam.turns(question))
        return Asked(prompt, seed=derived_seed(self._exam.evaluation.seed, question.id, sample))

    def _answers(
        self, sampler: Sampler, asked: Sequence[Asked], *, benchmark: Benchmark, setting: Setting
    ) -> Iterator[tuple[int, Answer]]:
        budget = setting.budget(benchmark, self._exam.evaluation)
        if budget is None:
            return answer_freely(sampler, asked, benchmark=benchmark)
        delimiters = delimiters_of(self._exam.format)
        return answer_forced(sampler, asked, benchmark=benchmark, delimiters=delimiters, budget=budget)

    def _judged(
        self, question: Question, sample: int, answer: Answer, *, verify: Callable[..., float] | None
    ) -> AnswerRecord:
        if verify is not None:
            verdict = _gym_verdict(question.entry, answer.text, verify=verify)
        elif question.scorer in SANDBOXED and not self._judge.runs_programs:
            verdict = missing(PENDING)
        elif question.tests is not None:
            verdict = self._judge.score_program(question.tests.read(), answer.text)
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


def _gym_verdict(entry: Mapping[str, object] | None, text: str, *, verify: Callable[..., float]) -> Verdict:
    part = final_part(text)
    found = (last_boxed(part) or marked(part) or part) if part else None
    if not found:
        return missing()
    correct = verify(found, entry) == 1.0
    return Verdict(found, correct=correct, reason="equal" if correct else "different")
