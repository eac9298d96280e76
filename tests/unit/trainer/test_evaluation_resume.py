"""An evaluation that is killed goes on where it was: nothing that is on the volume is generated again."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rft_trainer.benchmarks import Question
from rft_trainer.contract import EvaluationConfig
from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.measured import Measured
from rft_trainer.evaluate.protocol import Exam
from rft_trainer.evaluate.record import AnswerFile, AnswerRecord, ThinkingRecord
from rft_trainer.evaluate.runner import Model, Runner
from rft_trainer.evaluate.sampler import CompletionRequest
from rft_trainer.evaluate.settings import settings_of
from rft_trainer.evaluate.stopping import Stop
from rft_trainer.report import Work
from rft_trainer.scoring import Judge
from support.scripted_engine import EOS, ContinuousSampler, ScriptedSampler

QUESTIONS = [Question(str(number), f"q{number}", str(number), "integer") for number in range(3)]
SAMPLES = 2
SWEEP = {"waits": [0, 1, 2], "max_thinking_tokens": 8}
ENDS = "<|im_start|>"


class KilledError(BaseException):
    """The process is gone."""


def script() -> dict[str, list[str]]:
    """Question n is answered right after n Waits and from then on."""
    said: dict[str, list[str]] = {}
    for number in range(3):
        thinking = f"q{number} think"
        for waits in range(3):
            said[thinking] = [f" {waits}", ENDS]
            thinking += f" {waits}"
            said[f"{thinking}{ENDS}answer"] = [f"\nAnswer: {number if waits >= number else 99}", EOS]
            thinking += "Wait"
        said[f"q{number} "] = [f"think 0{ENDS}answer\nAnswer: {number}", EOS]
    return said


class Engine(ScriptedSampler):
    """A scripted engine whose prompts end as the script has it, and which dies before a given batch."""

    def __init__(self, *, dies_before_batch: int | None = None, context_tokens: int | None = None) -> None:
        super().__init__(
            {key.replace(" think", f" {ENDS}think"): tokens for key, tokens in script().items()},
            context_tokens=context_tokens,
        )
        self._left = dies_before_batch

    def complete(self, requests: Any) -> Any:
        if self._left == 0:
            raise KilledError
        if self._left is not None:
            self._left -= 1
        return super().complete(requests)


class Continuous(ContinuousSampler):
    """The same engine as one that makes its batches itself, and dies when it has given so many completions."""

    def __init__(self, *, order: random.Random, dies_after: int | None = None) -> None:
        super().__init__(Engine().script, choose=self._choose)
        self._order, self._left = order, dies_after
        self.lost: list[CompletionRequest] = []

    def _choose(self, under_way: Sequence[CompletionRequest]) -> int:
        if self._left is not None:
            if self._left == 0:
                self.lost = list(under_way)
                raise KilledError
            self._left -= 1
        return self._order.randrange(len(under_way))


def measure(directory: Path, engine: ScriptedSampler, *, sweep: dict[str, Any] | None = None) -> dict[str, Measured]:
    benchmark = {"name": "sums", "uri": "file:///a", "samples": SAMPLES, "temperature": 1.0, "max_tokens": 16}
    evaluation = EvaluationConfig.model_validate(
        {"benchmarks": [benchmark], "baseline": "none", "batch_size": 4, "max_seconds": 1, "budget_forcing": sweep}
    )
    exam = Exam(evaluation=evaluation, format="s1", questions={"sums": QUESTIONS})
    model = Model("base", sampler=engine, render=lambda turns: f"{turns[-1].content} ")
    settings, [asked] = settings_of(evaluation), evaluation.benchmarks
    with Judge() as judge:
        runner = Runner(exam, directory=directory, judge=judge, stop=Stop(), work=Work(None), total=1)
        runner.answer(model, asked, settings=settings)
        return {setting.name: runner.measured(model, asked, setting) for setting in settings}


def lines(directory: Path) -> dict[str, list[str]]:
    return {path.name: sorted(path.read_text().splitlines()) for path in sorted(directory.glob("*.jsonl"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[str]], list[CompletionRequest]]:
    """The answers and the requests of a sweep that nobody disturbed."""
    directory, engine = tmp_path_factory.mktemp("whole"), Engine()
    measure(directory, engine, sweep=SWEEP)
    return lines(directory), engine.requests


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The process dies after as many more answers as the list's only number says; it may leave half a line."""
    left: list[int] = []
    append = AnswerFile.append

    def append_or_die(self: AnswerFile, record: AnswerRecord) -> None:
        if left and left[0] == 0:
            with self._path.open("a") as stream:
                stream.write('{"id": "0", "sam')
            raise KilledError
        append(self, record)
        if left:
            left[0] -= 1

    monkeypatch.setattr(AnswerFile, "append", append_or_die)
    return left


def test_sweep_scores_each_number_of_waits_when_they_share_their_thinking(tmp_path: Path) -> None:
    engine = Engine()
    measured = measure(tmp_path, engine, sweep=SWEEP)
    assert {name: each.rights for name, each in measured.items()} == {
        "wait=0": (2, 0, 0),
        "wait=1": (2, 2, 0),
        "wait=2": (2, 2, 2),
    }
    assert [round(each.value, 3) for each in measured.values()] == [0.333, 0.667, 1.0]
    thinking = [request for request in engine.requests if request.stops]
    assert len(thinking) == len(QUESTIONS) * SAMPLES * 3, "the thinking before a Wait is generated once"
    assert len(engine.requests) == len(thinking) + len(QUESTIONS) * SAMPLES * 3
    [path] = tmp_path.glob("sums-base-wait-2-*.jsonl")
    record = AnswerFile(path).records["1", 0]
    assert record.text == "<|im_start|>think 0Wait 1Wait 2<|im_start|>answer\nAnswer: 1"
    assert record.thinking == ThinkingRecord(
        waits=2, tokens=5, answer_tokens=1, ending="natural", leg_tokens=[1, 1, 1], leg_endings=["natural"] * 3
    )


@pytest.mark.parametrize("answers", range(len(QUESTIONS) * SAMPLES * 3))
def test_no_answer_is_generated_twice_when_the_process_is_killed_between_two_of_them(
    tmp_path: Path, killed_after: list[int], whole: tuple[dict[str, list[str]], list[CompletionRequest]], answers: int
) -> None:
    killed_after.append(answers)
    with pytest.raises(KilledError):
        measure(tmp_path, Engine(), sweep=SWEEP)
    killed_after.clear()
    kept = [json.loads(line) for each in lines(tmp_path).values() for line in each if line.endswith("}")]
    assert len(kept) == answers
    engine = Engine()
    measure(tmp_path, engine, sweep=SWEEP)
    expected, requests = whole
    assert lines(tmp_path) == expected
    assert set(engine.requests) <= set(requests)
    asked_for_an_answer = sum(not request.stops for request in engine.requests)
    assert asked_for_an_answer == len(QUESTIONS) * SAMPLES * 3 - answers


@pytest.mark.parametrize("batches", [0, 1, 2, 5, 9])
def test_answers_are_those_of_an_undisturbed_run_when_the_process_is_killed_while_it_generates(
    tmp_path: Path, whole: tuple[dict[str, list[str]], list[CompletionRequest]], batches: int
) -> None:
    with pytest.raises(KilledError):
        measure(tmp_path, Engine(dies_before_batch=batches), sweep=SWEEP)
    measure(tmp_path, Engine(), sweep=SWEEP)
    assert lines(tmp_path) == whole[0]
    engine = Engine()
    measure(tmp_path, engine, sweep=SWEEP)
    assert not engine.requests


def test_model_thinks_freely_when_no_budget_is_set(tmp_path: Path) -> None:
    engine = Engine()
    [(name, measured)] = measure(tmp_path, engine).items()
    assert (name, measured.value) == ("", 1.0)
    assert {(request.max_tokens, request.stops) for request in engine.requests} == {(16, ())}
    assert len({request.seed for request in engine.requests}) == len(QUESTIONS) * SAMPLES


def test_sweep_is_refused_when_question_thinking_and_answer_do_not_fit_the_model(tmp_path: Path) -> None:
    with pytest.raises(
        BadInputError, match=r"maxTokens=16 after a question of 1 tokens and .* do not fit the model's 16"
    ):
        measure(tmp_path, Engine(context_tokens=16), sweep=SWEEP)


def test_record_is_read_as_it_was_written_when_its_thinking_had_no_budget(tmp_path: Path) -> None:
    record = AnswerRecord("0", 1, "\u2028 ü", 3, finished=True, extracted=None, correct=False, reason="no answer")
    AnswerFile(tmp_path / "a.jsonl").append(record)
    assert AnswerFile(tmp_path / "a.jsonl").records == {("0", 1): record}


def asks_for_answer(request: CompletionRequest) -> bool:
    return not request.stops


@pytest.mark.parametrize("sweep", [None, SWEEP], ids=["free", "forced"])
@pytest.mark.parametrize("seed", range(3))
def test_answers_are_the_same_in_whatever_order_the_engine_finishes_them(
    tmp_path: Path, sweep: dict[str, Any] | None, seed: int
) -> None:
    engine = Continuous(order=random.Random(seed))
    found = measure(tmp_path / "any", engine, sweep=sweep)
    assert found == measure(tmp_path / "batches", Engine(), sweep=sweep)
    assert lines(tmp_path / "any") == lines(tmp_path / "batches")
    assert len(set(engine.requests)) == len(engine.requests)
    assert engine.most_under_way == 4, "as many as may be, and no more"


@pytest.mark.parametrize("completions", range(len(QUESTIONS) * SAMPLES))
def test_at_most_what_was_under_way_is_asked_again_when_the_process_is_killed(tmp_path: Path, completions: int) -> None:
    killed = Continuous(order=random.Random(completions), dies_after=completions)
    with pytest.raises(KilledError):
        measure(tmp_path, killed)
    assert sum(map(len, lines(tmp_path).values())) == completions, "an answer is written when it is finished"
    assert len(killed.lost) == min(4, len(QUESTIONS) * SAMPLES - completions)
    engine = Continuous(order=random.Random(1))
    measure(tmp_path, engine)
    assert not set(engine.requests) & set(killed.requests), "what was finished is not asked for again"
    assert set(killed.lost) <= set(engine.requests)
    measure(tmp_path / "whole", Engine())
    assert lines(tmp_path) == lines(tmp_path / "whole")


@pytest.mark.parametrize("completions", range(0, 36, 5))
def test_finished_answers_of_a_sweep_stay_when_the_process_is_killed(
    tmp_path: Path, whole: tuple[dict[str, list[str]], list[CompletionRequest]], completions: int
) -> None:
    killed = Continuous(order=random.Random(completions), dies_after=completions)
    with pytest.raises(KilledError):
        measure(tmp_path, killed, sweep=SWEEP)
    answered = list(filter(asks_for_answer, killed.requests))
    assert sum(map(len, lines(tmp_path).values())) == len(answered)
    engine = Continuous(order=random.Random(1))
    measure(tmp_path, engine, sweep=SWEEP)
    assert not set(engine.requests) & set(answered)
    assert len(answered) + sum(map(asks_for_answer, engine.requests)) == len(QUESTIONS) * SAMPLES * 3
    assert lines(tmp_path) == whole[0]


def test_nothing_is_generated_when_a_question_leaves_no_room_for_an_answer(tmp_path: Path) -> None:
    engine = Engine(context_tokens=1)
    with pytest.raises(BadInputError, match=r"benchmark sums: a question of 1 tokens leaves no room .* model's 1"):
        measure(tmp_path, engine)
    assert not engine.requests
