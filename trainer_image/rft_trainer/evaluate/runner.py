"""Puts a benchmark's questions to one model.

Invariant: every question is asked the same number of times, and each once before any is asked twice; an answer is on
the volume before the next one is awaited, and none that is there is generated again. Answers are written in the order
in which they are finished, which readers must not mind.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rft_trainer.benchmarks import Question
from rft_trainer.contract import Benchmark
from rft_trainer.evaluate.answering import ask_all
from rft_trainer.evaluate.exchanges import Answer, Asked, Exchange, derived_seed
from rft_trainer.evaluate.forcing import ForcedAnswer
from rft_trainer.evaluate.measured import Measured, measured
from rft_trainer.evaluate.programs import run_programs
from rft_trainer.evaluate.protocol import Exam, protocol_hash
from rft_trainer.evaluate.record import AnswerFile, AnswerRecord, ThinkingRecord
from rft_trainer.evaluate.sampler import Sampler
from rft_trainer.evaluate.settings import Setting
from rft_trainer.evaluate.stopping import Stop, StoppableSampler
from rft_trainer.gym import GymVerifier, Verify
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


@dataclass(frozen=True, eq=False)
class _Open:
    """An answer to a question that some settings do not have yet."""

    question: Question
    sample: int
    settings: Sequence[Setting]


@dataclass(frozen=True, kw_only=True)
class _Sitting:
    """A model's answers to a benchmark: those that are there, and those that are not."""

    model: Model
    benchmark: Benchmark
    files: Mapping[Setting, AnswerFile]
    questions: Sequence[Question]

    @property
    def phase(self) -> str:
        return f"{self.model.name} {self.benchmark.name}"

    @property
    def total(self) -> int:
        return len(self.files) * len(self.questions) * self.benchmark.samples

    def open(self) -> list[_Open]:
        """In the order in which they are asked for."""
        return [
            _Open(question, sample, missing)
            for sample in range(self.benchmark.samples)
            for question in self.questions
            if (missing := [each for each, file in self.files.items() if (question.id, sample) not in file.records])
        ]


class Runner:
    """What all runs of one evaluation share: the exam, the judge, the answers' folder, progress over all of them."""

    def __init__(self, exam: Exam, *, directory: Path, judge: Judge, stop: Stop, work: Work, total: int) -> None:
        self._exam, self._directory, self._judge, self._stop = exam, directory, judge, stop
        self._work, self._total, self._done, self._known = work, total, 0, 0

    def skip(self, answers: int) -> None:
        """Count answers that need not be asked for as done."""
        self._done += answers
        self._known += answers

    def answer(self, model: Model, benchmark: Benchmark, *, settings: Sequence[Setting]) -> None:
        """Answer what is not answered yet; raises ``StoppedError`` when there is no more time for it."""
        files = {setting: self.answers(model, benchmark, setting) for setting in settings}
        questions = self._exam.questions[benchmark.name]
        if self._judge.runs_programs:
            for file in files.values():
                run_programs(file, questions, stop=self._stop)
        sitting = _Sitting(model=model, benchmark=benchmark, files=files, questions=questions)
        open_ = sitting.open()
        self.skip(sitting.total - sum(len(each.settings) for each in open_))
        self._tell(sitting.phase)
        if open_:
            self._ask(sitting, open_)

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

    def _ask(self, sitting: _Sitting, open_: Sequence[_Open]) -> None:
        """Generate and judge; each answer is on the disk before the next one is looked at."""
        at_once = self._exam.evaluation.batch_size
        given, before = 0, sitting.total - sum(len(each.settings) for each in open_)
        sampler = StoppableSampler(sitting.model.sampler, self._stop)
        places = self._places(sitting, open_)
        with _verifying(sitting) as verify, closing(ask_all(sampler, places, at_once=at_once)) as found:
            for (setting, each), answer in found:
                sitting.files[setting].append(self._judged(each.question, each.sample, answer, verify=verify))
                given, self._done = given + 1, self._done + 1
                self._tell(sitting.phase)
                if given % at_once == 0 or before + given == sitting.total:
                    sys.stdout.write(f"{sitting.phase}: {before + given} of {sitting.total} answers\n")
                    sys.stdout.flush()

    def _places(self, sitting: _Sitting, open_: Sequence[_Open]) -> Iterator[Mapping[tuple[Setting, _Open], Exchange]]:
        """What is to be asked, when all of it is known to fit."""
        sampler, evaluation = sitting.model.sampler, self._exam.evaluation
        ways = {setting: self._exam.way(sitting.benchmark, setting) for setting in sitting.files}
        prompts = {
            each.id: sitting.model.render(self._exam.turns(each))
            for each in {each.question.id: each.question for each in open_}.values()
        }
        longest = max(map(sampler.count, prompts.values()))
        for way in ways.values():
            way.check_room(longest, holder=sampler)
        for each in open_:
            seed = derived_seed(evaluation.seed, each.question.id, each.sample)
            asked = Asked(prompts[each.question.id], seed=seed)
            yield {(setting, each): ways[setting].exchange(asked, sampler=sampler) for setting in each.settings}

    def _judged(self, question: Question, sample: int, answer: Answer, *, verify: Verify | None) -> AnswerRecord:
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


@contextmanager
def _verifying(sitting: _Sitting) -> Iterator[Verify | None]:
    """What judges answers to a generator's questions; None where the answers to all of them are known."""
    if sitting.questions[0].scorer != "gym":
        yield None
        return
    with closing(GymVerifier(parse_uri(sitting.benchmark.uri))) as verifier:
        yield verifier


def _gym_verdict(entry: Mapping[str, object] | None, text: str, *, verify: Verify) -> Verdict:
    part = final_part(text)
    found = (last_boxed(part) or marked(part) or part) if part else None
    if not found or entry is None:
        return missing()
    reward = verify(found, entry)
    if reward is None:
        return Verdict(found, correct=False, reason="unparsed")
    return Verdict(found, correct=reward == 1.0, reason="equal" if reward == 1.0 else "different")
