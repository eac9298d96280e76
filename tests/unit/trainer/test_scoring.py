"""Extraction and the scorers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rft_trainer.errors import BadInputError, StageError
from rft_trainer.scoring import Judge, mathematics
from rft_trainer.scoring.extract import (
    final_part,
    has_open_box,
    last_boxed,
    last_expression,
    marked,
    numbers,
    opened_thinking,
    without_prose,
)

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as judge:
        yield judge


def test_thought_that_the_chat_template_opened_and_nobody_closed_is_no_answer(judge: Judge) -> None:
    prompt, cut = "<|im_start|>assistant\n<think>\n", "3 + 9 = 12, wait, let me consider 12"
    assert judge.score("integer", answer="12", text=cut).correct
    assert opened_thinking(prompt) == "<think>"
    assert judge.score("integer", answer="12", text=opened_thinking(prompt) + cut).extracted is None
    assert judge.score("integer", answer="12", text=f"{opened_thinking(prompt)}{cut}</think>It is 12.").correct
    assert opened_thinking("<|im_start|>assistant\n") == ""


def test_only_the_last_box_counts_when_the_model_reconsidered() -> None:
    assert last_boxed(r"\boxed{3} Wait, \boxed{\frac{1}{2}}") == r"\frac{1}{2}"
    assert last_boxed(r"\boxed{3} and \boxed{4") == "3"
    assert last_boxed(r"\boxed{\{1,2\}}, not \boxed{}") == r"\{1,2\}"
    assert last_boxed(r"\boxed{\left\{ x \right.} then \fbox{y}") == "y"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("scorer", "answer", "circle", "reason"),
    [
        ("math", "7", "Therefore it is \\boxed{1 ", "box not closed"),
        ("math", "7", "so \\(x + ", "no answer"),
        ("letter", "B", "*\n", "no answer"),
    ],
    ids=["boxes", "formulas", "lines"],
)
def test_text_that_runs_in_circles_costs_no_more_than_its_length(
    judge: Judge, scorer: str, answer: str, circle: str, reason: str
) -> None:
    """A second of work; where each circle looks at all that follow it takes minutes."""
    assert judge.score(scorer, answer=answer, text=circle * 16_000 + "x").reason == reason


def test_box_is_open_when_its_brace_never_closes() -> None:
    assert has_open_box(r"so \boxed{\frac{1}{2}")
    assert not has_open_box(r"so \boxed{\frac{1}{2}}")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<|im_start|>think\n7\n<|im_start|>answer\nAnswer: 5<|im_end|>", "Answer: 5"),
        ("<think>7</think>\n5", "5"),
        ("<|begin_of_thought|>7<|end_of_thought|>\n<|begin_of_solution|>5<|end_of_solution|> 9", "5"),
        ("<think>7 and 8", None),
        ("plain 5", "plain 5"),
        ("<think>7</think> 5 <think>8", None),
        ("<think>7</think> 5 </think> 6", "6"),
        ("</think> \N{MINUS SIGN}5", "-5"),
    ],
)
def test_thinking_is_cut_off_when_it_ended_and_hides_everything_when_not(text: str, wanted: str | None) -> None:
    assert final_part(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Answer: 95", "95"),
        ("So the answer is **12**.", "12"),
        ("**Answer**: 12", "12"),
        ("Answer:\n12", "12"),
        ("Answer: 1\nAnswer: 2\nAnswer: ", "2"),
        ("Answer: 3.5", "3.5"),
        ("no mark 7", None),
        ("reanswer: 7", None),
    ],
)
def test_marked_answer_is_found_when_it_follows_the_mark(text: str, wanted: str | None) -> None:
    assert marked(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("5-3=2", ["5", "3", "2"]),
        ("-5 and $-6 and -$7", ["-5", "-6", "-$7"]),
        ("10-12", ["10", "12"]),
        ("1,234 of 1,2,3", ["1,234", "1", "2", "3"]),
        (".5 or 3.5.", [".5", "3.5"]),
        ("33 m^2, 4 x^{12}, y_3", ["33", "4"]),
        ("1/2", ["1/2"]),
    ],
)
def test_numbers_are_those_that_a_person_reads(text: str, wanted: list[str]) -> None:
    assert numbers(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("18 dollars for 7 days", "18"),
        ("x+1 because y", "x+1"),
        ("that x = 5", "x = 5"),
        ("Evelyn", "Evelyn"),
        ("sqrt(2)", "sqrt(2)"),
        ("12. Therefore 13", "12"),
        ("$5 for each, i.e. $10", "$5"),
        (r"$\frac12$ as shown", r"\frac12"),
        (r"10\text{ dollars}", r"10\text{ dollars}"),
    ],
)
def test_prose_around_an_answer_is_left_out(text: str, wanted: str) -> None:
    assert without_prose(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"The result is $\frac{1}{2}$.", r"\frac{1}{2}"),
        ("$x$ is 5", "5"),
        ("it cost $5 and not $7 then", "$7"),
        (r"\[ 3+4 \]", "3+4"),
        ("none", None),
    ],
)
def test_last_expression_is_the_formula_or_number_that_ends_last(text: str, wanted: str | None) -> None:
    assert last_expression(text) == wanted


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
        ("gsm8k", "18", "The answer is $18.", True),
        ("gsm8k", "18", "The final answer is 18 dollars for 7 days.", True),
        ("gsm8k", "2125", "She pays $2,125.00 in all", True),
        ("gsm8k", "3", "so 5-3=2 are left, and 5-2=3", True),
        ("math", "33", "33", True),
        ("math", "33", r"\boxed{033}", True),
        ("math", "1/2", r"The result is $\frac{1}{2}$.", True),
        ("math", "2", r"The result is $\frac{1}{2}$.", False),
        ("math", "5", "The answer is 5 apples.", True),
        ("math", "x+1", "Answer: $x+1$.", True),
        ("math", "5", r"\boxed{.5}", False),
        ("math", "34", r"\boxed{3  4}", False),
        ("math", "10", r"\boxed{10_2}", False),
        ("math", "2", r"\boxed{10_2}", True),
        ("math", "10_2", r"\boxed{10_3}", False),
        ("math", "10_2", r"\boxed{10_{2}}", True),
        ("math", "2516_8", r"\boxed{2516}", True),
        ("math", "3", r"\boxed{3_{10}}", True),
        ("math", "50", r"\boxed{50\%}", True),
        ("math", r"\text{Evelyn}", r"\boxed{Bob}", False),
        ("math", "10080", r"\boxed{10,080}", True),
        ("math", "(1,2)", r"\boxed{(2,1)}", False),
        ("math", "18", "She makes $18.", True),
        ("integer", "33", "33", True),
        ("integer", "33", r"\boxed{\frac{66}{2}}", True),
        ("integer", "2", r"\boxed{\frac{66}{2}}", False),
        ("integer", "10", r"\boxed{2^{10}}", False),
        ("integer", "33", r"\boxed{33\text{ cm}^2}", True),
        ("integer", "33", r"\boxed{x = 33}", True),
        ("integer", "-33", "Answer: \N{MINUS SIGN}33", True),
        ("integer", "12", r"\boxed{1,2}", False),
        ("letter", "B", r"\boxed{b}", True),
        ("letter", "(B)", "The answer is B because A is too small.", False),
        ("letter", "B", "The answer is B) 12 m, for A = 3.", True),
        ("letter", "A", "Answer: $A$", True),
        ("letter", "A", "Answer: A because it is so", True),
        ("letter", "B", "Answer: I think B", True),
        ("letter", "D", "**D**", True),
        ("letter", "B", "The correct option is B.", True),
        ("letter", "B", "The correct choice is **(B)** 4 m.", True),
        ("letter", "B", "Therefore, B is correct.", True),
        ("letter", "B", "A is too small. **B** is the correct one.", True),
        ("letter", "D", "The answer is option D: because A is wrong", True),
    ],
)
def test_scorer_judges_as_a_person_would_when_forms_differ(
    judge: Judge, scorer: str, answer: str, text: str, correct: bool
) -> None:
    verdict = judge.score(scorer, answer=answer, text=text)
    assert verdict.correct is correct, verdict
    assert verdict.extracted is not None


FORCED = "<|im_start|>think\nx\n<|im_start|>answer\nFinal Answer:"


@pytest.mark.parametrize("scorer", ["math", "integer", "gsm8k"])
@pytest.mark.parametrize(
    "text",
    [
        " 42",
        " 42. Let me verify: 6 times 7 is 42, as 40 + 2.",
        " 42 apples for 3 children",
        " Let's see. We need 6 times 7, which gives 42",
        " There are 3 cases, so the total is 42.",
        " I think that 6 times 7 is 42.",
        " We have 6 groups. Each has 7. In all there are $42$.",
        " Since $a=6$ and $b=7$, the product is $42$",
        "\nTo find it, note that 6 is even.\n\nSo the product is 42.",
        " Let's see, 6 or 7?\n\nThe answer is 42, not 43.",
        " First, 6 and 7. So \\boxed{42} and 3.",
    ],
)
def test_answer_is_what_the_model_comes_to_when_it_was_called_for_and_goes_on_to_derive(
    judge: Judge, scorer: str, text: str
) -> None:
    verdict = judge.score(scorer, answer="42", text=FORCED + text)
    assert verdict.correct, verdict


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("x+1", " The polynomial is x+1"),
        (r"3\sqrt{2}", r" The length is 3\sqrt{2} units"),
        (r"\frac{1}{3}", r" By symmetry of the 6 faces, the probability is $\frac{1}{3}$"),
        ("5", " x = 5 because 2x = 10"),
        ("[2,5)", " The interval is [2,5)."),
    ],
)
def test_whole_expression_is_taken_when_words_lead_to_it(judge: Judge, answer: str, text: str) -> None:
    for before in (FORCED, "First 7. Answer:"):
        verdict = judge.score("math", answer=answer, text=before + text)
        assert verdict.correct, verdict


@pytest.mark.parametrize("text", ["The answer is the sum of 3 and 4, i.e. 7. It took 2 steps.", "Answer: In all, 7"])
def test_marked_answer_is_what_its_sentence_ends_with_when_words_come_first(judge: Judge, text: str) -> None:
    assert judge.score("math", answer="7", text=f"First 5. {text}").correct


@pytest.mark.parametrize("scorer", ["math", "integer", "gsm8k"])
def test_answer_is_not_judged_when_words_alone_follow_the_call_for_it(judge: Judge, scorer: str) -> None:
    verdict = judge.score(scorer, answer="42", text=f"{FORCED} Let's see what that comes to")
    assert (verdict.correct, verdict.answered) == (False, False)
    assert judge.score("math", answer=r"\text{Evelyn}", text=f"{FORCED} Evelyn").correct


@pytest.mark.parametrize("scorer", ["math", "integer", "letter", "gsm8k"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<|im_start|>think\nmaybe 7, B, \\boxed{7}", "thinking did not end"),
        ("<think>7</think>", "no answer"),
        ("<think>7</think> I do not know", "no answer"),
        ("A good question", "no answer"),
        ("so \\boxed{7", "box not closed"),
    ],
)
def test_answer_is_missing_with_a_reason_when_none_was_given(judge: Judge, scorer: str, text: str, reason: str) -> None:
    verdict = judge.score(scorer, answer="B" if scorer == "letter" else "7", text=text)
    assert (verdict.extracted, verdict.correct, verdict.reason, verdict.answered) == (None, False, reason, False)


@pytest.mark.parametrize(
    ("scorer", "answer", "text"),
    [
        ("math", "5", r"\boxed{???}"),
        ("integer", "5", r"\boxed{five}"),
        ("letter", "B", "The answer is A or B."),
    ],
)
def test_answer_is_unparsed_and_not_merely_wrong_when_it_cannot_be_read(
    judge: Judge, scorer: str, answer: str, text: str
) -> None:
    verdict = judge.score(scorer, answer=answer, text=text)
    assert (verdict.correct, verdict.reason, verdict.answered) == (False, "unparsed", False)


def test_verdict_is_timeout_and_the_next_one_works_when_algebra_hangs(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge.score("math", answer="1", text=r"\boxed{2}")
    monkeypatch.setattr(mathematics, "TIMEOUT_SECONDS", 0.0)
    verdict = judge.score("math", answer="5", text=r"\boxed{9^{9^{9^{9}}}}")
    assert (verdict.correct, verdict.reason, verdict.answered) == (False, "timeout", False)
    monkeypatch.undo()
    assert judge.score("math", answer=r"\frac{1}{4}", text=r"\boxed{0.25}").correct


def test_mathematics_is_an_error_when_its_process_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with Judge() as broken, pytest.raises(StageError, match="does not start"):
        broken.score("math", answer="x", text=r"\boxed{y}")


@pytest.mark.parametrize(
    ("scorer", "answer", "message"),
    [
        ("vibes", "1", "'vibes' is unknown; use math, integer, letter, gsm8k"),
        ("math", " ", "answer is empty"),
        ("integer", "x", "'x' is not a number; use scorer math"),
        ("letter", "AB", "'AB' is not one letter of A to J"),
    ],
)
def test_question_is_refused_when_no_text_could_be_right(judge: Judge, scorer: str, answer: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        judge.score(scorer, answer=answer, text="1")


def rows(name: str) -> list[dict[str, str]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not beside this checkout")
    return [json.loads(line) for line in path.read_text().splitlines()]


def wrong(judge: Judge, scorer: str, pairs: list[tuple[str, str]]) -> list[tuple[str, str | None, str]]:
    verdicts = [(answer, judge.score(scorer, answer=answer, text=text)) for answer, text in pairs]
    return [(answer, it.extracted, it.reason) for answer, it in verdicts if not it.correct]


def test_every_solution_of_gsm8k_is_right_by_its_own_answer(judge: Judge) -> None:
    solutions = [row["answer"] for row in rows("gsm8k_test.jsonl")]
    assert len(solutions) == 1_319
    assert wrong(judge, "gsm8k", [(text, text) for text in solutions]) == []
    assert wrong(judge, "gsm8k", [(text.split("#### ")[1], text) for text in solutions]) == []


@pytest.mark.parametrize("form", ["{solution}", "<think>no \\boxed{{0}}</think> {solution}"])
def test_every_solution_of_math500_is_right_by_its_own_answer(judge: Judge, form: str) -> None:
    questions = rows("math500.jsonl")
    assert len(questions) == 500
    assert wrong(judge, "math", [(row["answer"], form.format(**row)) for row in questions]) == []


def test_answers_of_math500_are_wrong_for_another_question(judge: Judge) -> None:
    answers = list(dict.fromkeys(row["answer"] for row in rows("math500.jsonl")))[:40]
    texts = [f"\\boxed{{{answer}}}" for answer in answers]
    others = list(zip(answers, texts[1:] + texts[:1], strict=True))
    assert len(wrong(judge, "math", others)) == len(others)
