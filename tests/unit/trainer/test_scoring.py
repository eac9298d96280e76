"""Extraction and the scorers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rft_trainer.errors import BadInputError
from rft_trainer.scoring import Judge
from rft_trainer.scoring.extract import final_part, last_boxed, marked


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as judge:
        yield judge


def test_only_the_last_box_counts_when_the_model_reconsidered() -> None:
    assert last_boxed(r"\boxed{3} Wait, \boxed{\frac{1}{2}}") == r"\frac{1}{2}"
    assert last_boxed(r"\boxed{3} and \boxed{4") == "3"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<|im_start|>think\n7\n<|im_start|>answer\nAnswer: 5<|im_end|>", "Answer: 5"),
        ("<think>7</think>\n5", "5"),
        ("<|begin_of_thought|>7<|end_of_thought|>\n<|begin_of_solution|>5<|end_of_solution|> 9", "5"),
        ("<think>7 and 8", None),
        ("plain 5", "plain 5"),
    ],
)
def test_thinking_is_cut_off_when_it_ended_and_hides_everything_when_not(text: str, wanted: str | None) -> None:
    assert final_part(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("Answer: 95", "95"), ("So the answer is **12**.", "12"), ("Answer: 3.5", "3.5"), ("no mark 7", None)],
)
def test_marked_answer_is_found_when_it_follows_the_mark(text: str, wanted: str | None) -> None:
    assert marked(text) == wanted


@pytest.mark.parametrize(
    ("scorer", "answer", "text", "correct"),
    [
        ("math", r"\frac{1}{2}", r"so \boxed{0.5}", True),
        ("math", r"\left( 3, \frac{\pi}{2} \right)", r"\boxed{(3, \pi/2)}", True),
        ("math", "2", r"\boxed{3} Wait. \boxed{2}", True),
        ("math", "3", r"\boxed{3} Wait. \boxed{2}", False),
        ("math", "x+1", r"\boxed{1+x}", True),
        ("math", r"\text{Evelyn}", r"\boxed{Evelyn}", True),
        ("integer", "33", r"\boxed{033}", True),
        ("integer", "1234", "Answer: 1,234", True),
        ("integer", "33", "the year 1933", False),
        ("letter", "B", "Answer: (B)", True),
        ("letter", "B", r"\boxed{\text{B}}", True),
        ("letter", "B", "A good question. (C)", False),
        ("gsm8k", "he has 3 + 4 = 7\n#### 7", "#### $7.00", True),
        ("gsm8k", "7", "The answer is 8.", False),
    ],
)
def test_scorer_judges_as_a_person_would_when_forms_differ(
    judge: Judge, scorer: str, answer: str, text: str, correct: bool
) -> None:
    verdict = judge.score(scorer, answer=answer, text=text)
    assert verdict.correct is correct, verdict
    assert verdict.extracted is not None


@pytest.mark.parametrize("scorer", ["math", "integer", "letter", "gsm8k"])
def test_answer_is_missing_when_thinking_never_ended(judge: Judge, scorer: str) -> None:
    verdict = judge.score(scorer, answer="7", text="<|im_start|>think\nmaybe 7, B, \\boxed{7}")
    assert (verdict.extracted, verdict.correct, verdict.reason) == (None, False, "no answer")


def test_verdict_is_timeout_and_the_next_one_works_when_algebra_hangs(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge.score("math", answer="1", text=r"\boxed{2}")
    monkeypatch.setattr("rft_trainer.scoring.judge.MATH_TIMEOUT_SECONDS", 0.0)
    verdict = judge.score("math", answer="5", text=r"\boxed{9^{9^{9^{9}}}}")
    assert (verdict.correct, verdict.reason) == (False, "timeout")
    monkeypatch.undo()
    assert judge.score("math", answer=r"\frac{1}{4}", text=r"\boxed{0.25}").correct


def test_scorer_is_refused_when_it_is_unknown(judge: Judge) -> None:
    with pytest.raises(BadInputError, match="'vibes': is unknown"):
        judge.score("vibes", answer="1", text="1")
