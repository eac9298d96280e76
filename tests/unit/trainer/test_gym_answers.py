"""No generator's scorer runs what a model wrote."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest
import reasoning_gym

from rft_trainer import gym
from rft_trainer.evaluate.runner import _gym_verdict
from rft_trainer.gym import GymVerifier, gym_questions
from rft_trainer.gym_answers import EXPRESSIONS, LITERALS, may_be_scored
from rft_trainer.uris import parse_uri

TASKS = sorted(EXPRESSIONS | LITERALS)


def test_every_scorer_that_evaluates_an_answer_is_known() -> None:
    """Looks through the installed package: one that is added with another version is found here."""
    found = set()
    for path in Path(reasoning_gym.__file__).parent.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        scorer = re.search(r"def score_answer\(.*?(?=\n    def |\nclass |\Z)", source, re.DOTALL)
        evaluates = scorer is not None and re.search(r"(?:\beval|\bexec|parse_expr|sympify)\((?!entry)", scorer[0])
        name = re.search(r'^DATASET_NAME = "(\w+)"', source, re.MULTILINE)
        if evaluates and name is not None:
            found.add(name[1])
    # its parser is the module's own, of logic; of the numbers the right ones alone are evaluated
    assert found - {"propositional_logic", "number_sorting"} == EXPRESSIONS | LITERALS


@pytest.mark.parametrize("task", TASKS)
def test_right_answers_are_right_as_ever(task: str) -> None:
    uri = parse_uri(f"gym://{task}?seed=3")
    with closing(GymVerifier(uri)) as verify:
        for item in gym_questions(uri, limit=6, default_size=12, default_seed=3):
            assert verify(item.answer, item.entry) == 1.0, item.answer


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "answer",
    [
        "__import__('pathlib').Path({file!r}).write_text('run')",
        "[__import__('pathlib').Path({file!r}).write_text('run')]",
        "[[c for c in [__import__('pathlib').Path({file!r}).write_text('run')]]]",
        "(lambda: open({file!r}, 'w'))()",
        "sqrt(open({file!r}, 'w'))",
        "sympify(\"open({file!r}, 'w')\")",
        "x.__class__",
    ],
)
def test_program_in_place_of_an_answer_is_wrong_and_not_run(tmp_path: Path, task: str, answer: str) -> None:
    uri = parse_uri(f"gym://{task}?seed=3")
    item = next(gym_questions(uri, limit=1, default_size=4, default_seed=3))
    file = tmp_path / "run"
    assert GymVerifier(uri)(answer.format(file=str(file)), item.entry) is None
    assert not file.exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "answer", ["9**9**9**9", "((9**99)**99)**99", "9**(99*99*99*99)", "9**(9**9*x/x)", "[1]*10**12", "9" * 100_000]
)
def test_answer_that_would_never_be_worked_out_is_wrong_at_once(task: str, answer: str) -> None:
    assert not may_be_scored(task, answer)


@pytest.mark.parametrize("answer", ["2*(-10*x - 10)**(3/2)/3 + C", "exp(2*x)*sin(x)/5 - x**-1 + C", "-(x + 1)**(-3/2)"])
def test_expression_of_a_person_is_given_to_the_scorer(answer: str) -> None:
    assert may_be_scored("simple_integration", answer)


@pytest.mark.parametrize(
    ("task", "answer"),
    [("prime_factorization", "x"), ("coin_flip", "1e999"), ("game_of_life", "{}")],
)
def test_answer_is_unparsed_when_the_scorer_fails_at_it(task: str, answer: str) -> None:
    uri = parse_uri(f"gym://{task}?seed=5")
    item = next(gym_questions(uri, limit=1, default_size=4, default_seed=5))
    verdict = _gym_verdict(item.entry, f"Answer: {answer}", verify=GymVerifier(uri))
    assert (verdict.extracted, verdict.correct, verdict.reason) == (answer, False, "unparsed")


def test_algebra_that_takes_too_long_costs_one_verdict_and_knows_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    uri = parse_uri("gym://simple_integration?seed=3")
    item = next(gym_questions(uri, limit=1, default_size=4, default_seed=3))
    with closing(GymVerifier(uri)) as verify:
        with monkeypatch.context() as impatient:  # what sympy makes of such a one is chance: it may give up at once
            impatient.setattr(gym, "TIMEOUT_SECONDS", 0.0)
            assert verify("sin(exp(exp(exp(99))))*x", item.entry) is None
        assert not verify._worker.runs
        assert verify(item.answer, item.entry) == 1.0
        assert "HF_TOKEN" not in (verify._worker._environment or {"HF_TOKEN": "inherited"})


def test_scorers_that_evaluate_nothing_are_given_every_answer() -> None:
    assert may_be_scored("chain_sum", "__import__('os')")
