"""A protocol's hash changes with all that can change a score, and with nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from rft_trainer.benchmarks import Question
from rft_trainer.contract import EvaluationConfig
from rft_trainer.evaluate.prompts import BOXED_LAST, ask, wordings
from rft_trainer.evaluate.protocol import Exam, protocol_hash
from rft_trainer.evaluate.settings import settings_of
from rft_trainer.prepare.formats import BOXED, SKY_T1_SYSTEM, Format
from rft_trainer.scoring import judge

ENGINE = {"engine": "scripted", "version": "1"}
QUESTION = Question("1", "1+1?", "2", "math")
VALUES: dict[str, Any] = {
    "benchmarks": [{"name": "sums", "uri": "file:///a", "max_tokens": 64}],
    "baseline": "measure",
    "batch_size": 4,
    "max_seconds": 60,
}


def hashed(*, questions: tuple[Question, ...] = (QUESTION,), format_: Format = "s1", **change: Any) -> str:
    engine = change.pop("engine_identity", ENGINE)
    benchmark = {**VALUES["benchmarks"][0], **change.pop("benchmark", {})}
    evaluation = EvaluationConfig.model_validate({**VALUES, **change, "benchmarks": [benchmark]})
    exam = Exam(evaluation=evaluation, format=format_, questions={"sums": questions})
    return protocol_hash(exam.protocol(evaluation.benchmarks[0], settings_of(evaluation)[0], engine=engine))


@pytest.mark.parametrize(
    "change",
    [
        {"questions": (QUESTION, Question("2", "2+2?", "4", "math"))},
        {"questions": (Question("1", "1+1?", "3", "math"),)},
        {"questions": (Question("1", "1+1?", "2", "integer"),)},
        {"format_": "sky-t1"},
        {"prompt": "boxed"},
        {"seed": 43},
        {"batch_size": 5},
        {"benchmark": {"samples": 2, "temperature": 1.0}},
        {"benchmark": {"temperature": 0.6}},
        {"benchmark": {"top_p": 0.95}},
        {"benchmark": {"max_tokens": 65}},
        {"budget_forcing": {"waits": [0], "max_thinking_tokens": 32}},
        {"budget_forcing": {"waits": [1], "max_thinking_tokens": 32}},
        {"engine_identity": {**ENGINE, "version": "2"}},
    ],
    ids=str,
)
def test_hash_is_another_one_when_a_score_could_be(change: dict[str, Any]) -> None:
    assert hashed(**change) != hashed()


@pytest.mark.parametrize(
    "change",
    [{"max_seconds": 61}, {"baseline": "none"}, {"benchmark": {"uri": "pvc://data/a"}}, {"preset": "s1"}],
    ids=str,
)
def test_hash_is_the_same_when_a_score_is(change: dict[str, Any]) -> None:
    assert hashed(**change) == hashed()


def test_hash_is_another_one_when_the_scorers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    before = hashed()
    monkeypatch.setattr(judge, "VERSION", judge.VERSION + 1)
    assert hashed() != before


@pytest.mark.parametrize(
    ("style", "format_", "turns"),
    [
        ("format", "s1", ["1+1?"]),
        ("format", "messages", [f"{BOXED}1+1?"]),
        ("format", "sky-t1", [SKY_T1_SYSTEM, f"{BOXED}1+1?"]),
        ("bare", "sky-t1", ["1+1?"]),
        ("boxed", "s1", [f"{BOXED}1+1?"]),
        ("boxed-last", "s1", [f"1+1?{BOXED_LAST}"]),
        ("sky-t1", "s1", [SKY_T1_SYSTEM, f"{BOXED}1+1?"]),
    ],
)
def test_question_is_put_as_the_style_says(style: Any, format_: Format, turns: list[str]) -> None:
    assert [turn.content for turn in ask(QUESTION, format_=format_, style=style)] == turns


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        (QUESTION, f"{BOXED}1+1?"),
        (
            Question("1", "Which?", "A", "letter", choices=("w", "x", "y", "z")),
            (
                "Return your final response within \\boxed{} and only include the letter choice (A, B, C, or D) as "
                "your final response. Which?\nA) w, B) x, C) y, D) z"
            ),
        ),
        (
            Question("1", "How many?", "2", "gsm8k"),
            (
                "Given the following problem, reason and give a final answer to the problem.\nProblem: How many?\nYour "
                'response should end with "The final answer is [answer]" where [answer] is the response to the problem.'
            ),
        ),
        (
            Question("1", "Add. Ours", "", "code", plain="Add."),
            (
                "Generate an executable Python function generated from the given prompt. The function should take "
                "stdin as input and print the output. Simply call the function after the definition. Add."
            ),
        ),
        (
            Question("1", "Add. Ours", "", "code", plain="Add.\n\ndef f():", is_function=True),
            (
                "Generate an executable Python function generated from the given prompt. Return the function body "
                "without invoking it at the final solution. Add.\n\ndef f():"
            ),
        ),
        (Question("1", "Ours", "", "code"), "Ours"),
        (Question("1", "Sort {x}", "", "gym", {}), "Sort {x}"),
    ],
    ids=lambda value: value.scorer if isinstance(value, Question) else "",
)
def test_question_is_put_in_the_words_of_skythought_when_its_preset_asks(question: Question, asked: str) -> None:
    system, user = ask(question, format_="s1", style="skythought")
    assert (system.content, user.content) == (SKY_T1_SYSTEM, asked)


def test_generated_question_is_asked_without_the_wish_for_a_box() -> None:
    for style in ("boxed", "boxed-last"):
        [turn] = ask(Question("1", "1+1?", "2", "gym", {}), format_="s1", style=style)
        assert turn.content == "1+1?"


def test_question_is_known_in_all_the_words_that_an_evaluation_has_for_it() -> None:
    letter = Question("1", "Which?", "A", "letter", choices=("x", "y"))
    assert {"Which?", "Which?\nA) x\nB) y"} <= wordings(letter)
    program = Question("1", "Add. Ours", "", "code", plain="Add.\n\ndef f():", is_function=True, published="Add.")
    assert {"Add. Ours", "Add.\n\ndef f():", "Add."} <= wordings(program)
    assert any(words.startswith("Generate an executable Python function") for words in wordings(program))
    assert "" not in wordings(letter)


def test_choices_stand_below_their_question() -> None:
    [turn] = ask(Question("1", "Which?", "A", "letter", choices=("x", "y")), format_="s1")
    assert turn.content == "Which?\nA) x\nB) y"
