"""An engine is kept supplied: as many requests under way as may be, nothing asked twice, answers as they come."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_trainer.contract import Benchmark
from rft_trainer.evaluate.answering import ask_all
from rft_trainer.evaluate.exchanges import Answer, Asked, Exchange, FreeExchange
from rft_trainer.evaluate.sampler import Completion, CompletionRequest, Finish
from support.scripted_engine import EOS, ContinuousSampler, ScriptedSampler

BENCHMARK = Benchmark(name="sums", uri="file:///a", max_tokens=9)


class Steps:
    """An answer in so many steps; those that two have in common are the same requests."""

    def __init__(self, name: str, *steps: str) -> None:
        self._name, self._left, self._said = name, list(steps), ""

    @property
    def done(self) -> bool:
        return not self._left

    def ask(self) -> CompletionRequest:
        return CompletionRequest(prompt=self._left[0], max_tokens=9)

    def take(self, completion: Completion) -> None:
        assert completion.finish is Finish.EOS
        self._said += completion.text
        del self._left[0]

    def answer(self) -> Answer:
        return Answer(f"{self._name}: {self._said}", tokens=len(self._said), finished=True)


def free(number: int) -> Exchange:
    return FreeExchange(Asked(f"q{number}", seed=number), benchmark=BENCHMARK)


def echo(*prompts: str) -> dict[str, list[str]]:
    return {prompt: [prompt.upper(), EOS] for prompt in prompts}


def texts(found: Iterable[tuple[str, Answer]]) -> dict[str, str]:
    return {key: answer.text for key, answer in found}


def places(count: int) -> list[dict[int, Exchange]]:
    return [{number: free(number)} for number in range(count)]


def test_window_is_full_for_as_long_as_there_are_questions() -> None:
    under_way: list[int] = []

    def last(requests: Sequence[CompletionRequest]) -> int:
        under_way.append(len(requests))
        return len(requests) - 1

    engine = ContinuousSampler(echo(*(f"q{number}" for number in range(10))), choose=last)
    found = dict(ask_all(engine, places(10), at_once=4))
    assert {number: answer.text for number, answer in found.items()} == {number: f"Q{number}" for number in range(10)}
    assert under_way == [4, 4, 4, 4, 4, 4, 4, 3, 2, 1]
    assert list(found) == [3, 4, 5, 6, 7, 8, 9, 2, 1, 0], "an answer does not wait for those that were asked before it"


def test_question_is_begun_when_there_is_room_for_it_and_not_before() -> None:
    begun: list[int] = []

    def lazily() -> Iterator[Mapping[int, Exchange]]:
        for place in places(10):
            begun.extend(place)
            yield place

    engine = ContinuousSampler(echo(*(f"q{number}" for number in range(10))))
    answers = ask_all(engine, lazily(), at_once=3)
    next(answers)
    assert begun == [0, 1, 2]
    next(answers)
    assert begun == [0, 1, 2, 3]
    answers.close()


def test_no_more_is_under_way_than_may_be_when_a_place_asks_for_much() -> None:
    engine = ContinuousSampler(echo(*(f"q{number}" for number in range(12))))
    wide = [{number: free(number) for number in range(start, start + 6)} for start in (0, 6)]
    assert len(dict(ask_all(engine, wide, at_once=4))) == 12
    assert engine.most_under_way == 4


def test_place_that_was_begun_is_finished_before_more_is_begun() -> None:
    engine = ContinuousSampler(echo("a1", "a2", "a3", "b1"))
    both = [{"a": Steps("a", "a1", "a2", "a3")}, {"b": Steps("b", "b1")}]
    assert list(texts(ask_all(engine, both, at_once=1))) == ["a", "b"]
    assert [request.prompt for request in engine.requests] == ["a1", "a2", "a3", "b1"]


@given(at_once=st.integers(1, 5), order=st.randoms(use_true_random=False))
def test_answers_that_have_steps_in_common_share_them_in_whatever_order_they_come(
    at_once: int, order: random.Random
) -> None:
    steps = {"x": "abc", "y": "ab", "z": "abd", "w": "e"}
    engine = ContinuousSampler(echo(*"abcde"), choose=lambda under_way: order.randrange(len(under_way)))
    place = {name: Steps(name, *wanted) for name, wanted in steps.items()}
    found = texts(ask_all(engine, [place], at_once=at_once))
    assert found == {name: f"{name}: {wanted.upper()}" for name, wanted in steps.items()}
    assert sorted(request.prompt for request in engine.requests) == ["a", "b", "c", "d", "e"]
    assert engine.most_under_way <= at_once


def test_places_do_not_share_what_only_looks_alike() -> None:
    engine = ScriptedSampler(echo("a"))
    alike = [{"x": Steps("x", "a")}, {"y": Steps("y", "a")}]
    assert texts(ask_all(engine, alike, at_once=2)) == {"x": "x: A", "y": "y: A"}
    assert len(engine.requests) == 2, "what was asked for one question is forgotten when that is answered"


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_engine_that_knows_batches_alone_is_given_as_large_ones_as_may_be(at_once: int) -> None:
    sizes: list[int] = []

    class Counting(ScriptedSampler):
        def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
            sizes.append(len(requests))
            return super().complete(requests)

    engine = Counting(echo(*(f"q{number}" for number in range(7))))
    assert len(dict(ask_all(engine, places(7), at_once=at_once))) == 7
    assert sizes == {1: [1] * 7, 3: [3, 3, 1], 100: [7]}[at_once]


def test_nothing_is_under_way_when_there_is_nothing_to_ask() -> None:
    empty: list[Mapping[int, Exchange]] = [{}, {}]
    assert list(ask_all(ScriptedSampler({}), empty, at_once=2)) == []
    assert [key for key, _ in ask_all(ScriptedSampler(echo("q1")), [*empty, {1: free(1)}], at_once=2)] == [1]
