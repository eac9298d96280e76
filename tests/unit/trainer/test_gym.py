"""Generated questions: traces are right, held-out questions stay out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_trainer.errors import BadInputError
from rft_trainer.gym import GymVerifier, gym_questions
from rft_trainer.prepare.traces import chain_sum_trace
from rft_trainer.uris import parse_uri
from unit.trainer.factory import GYM


@given(st.lists(st.integers(0, 999), min_size=2, max_size=4), st.lists(st.booleans(), min_size=3, max_size=3))
def test_trace_ends_in_the_sum_when_terms_are_added_and_taken_away(terms: list[int], signs: list[bool]) -> None:
    expression, total = str(terms[0]), terms[0]
    for term, plus in zip(terms[1:], signs, strict=False):
        expression += f" {'+' if plus else '-'} {term}"
        total += term if plus else -term
    assert chain_sum_trace({"expression": expression}).endswith(f"So {total}.")


@pytest.mark.parametrize(
    ("expression", "trace"),
    [
        ("38 + 57", "8 + 7 = 15, carry 1. 3 + 5 = 8, + 1 = 9. So 95."),
        ("84 - 12", "84 over 12, sign plus. 4 - 2 = 2, borrow 0. 8 - 1 = 7, - 0 = 7. So 72."),
        ("12 - -5", "2 + 5 = 7, carry 0. 1 + 0 = 1, + 0 = 1. So 17."),
        ("57 - 87", "87 over 57, sign minus. 7 - 7 = 0, borrow 0. 8 - 5 = 3, - 0 = 3. So -30."),
    ],
)
def test_trace_writes_every_column_when_numbers_have_two_digits(expression: str, trace: str) -> None:
    assert chain_sum_trace({"expression": expression}) == trace


def test_questions_repeat_exactly_and_are_distinct_when_drawn_twice() -> None:
    uri = parse_uri(f"{GYM}&seed=5")
    first = list(gym_questions(uri, limit=50, default_size=100, default_seed=0))
    again = list(gym_questions(uri, limit=50, default_size=100, default_seed=0))
    assert [item.question for item in first] == [item.question for item in again]
    assert len({item.question for item in first}) == len(first) == 50


def test_verifier_accepts_the_answer_and_refuses_another_when_asked() -> None:
    uri = parse_uri(GYM)
    item = next(gym_questions(uri, limit=1, default_size=10, default_seed=3))
    verify = GymVerifier(uri)
    assert verify(item.answer, item.entry) == 1.0
    assert verify("no number", item.entry) != 1.0


@pytest.mark.parametrize("text", ["gym://no_such_task", "gym://chain_sum?min_terms=0", "gym://chain_sum?colour=red"])
def test_generator_is_refused_by_its_uri_when_task_or_option_is_wrong(text: str) -> None:
    with pytest.raises(BadInputError, match=r"gym://"):
        list(gym_questions(parse_uri(text), limit=1, default_size=1, default_seed=0))


def test_options_are_typed_when_the_uri_is_parsed() -> None:
    with pytest.raises(BadInputError, match="has an option twice"):
        parse_uri("gym://x?a=1&a=2")
    options = parse_uri("gym://x?a=1&b=0.5&c=false&d=word").options
    assert options == {"a": 1, "b": 0.5, "c": False, "d": "word"}
