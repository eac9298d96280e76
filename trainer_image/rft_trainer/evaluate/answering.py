"""Puts questions to an engine, with or without a budget for the thinking.

Invariant: an answer is handed on as soon as it is there, and depends on its own question and seed alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rft_trainer.contract import Benchmark
from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.forcing import FINAL_ANSWER, WAIT, Delimiters, ForcedAnswer, Forcing, ThinkingBudget
from rft_trainer.evaluate.sampler import CompletionRequest, Finish, Sampler
from rft_trainer.scoring.extract import opened_thinking

ANSWERING_VERSION = 2
"""Part of the protocol: raised when a change of ours can change what a model answers."""


@dataclass(frozen=True)
class Asked:
    """A rendered question and the seed of this answer to it."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Answer:
    """One generated answer."""

    text: str
    tokens: int
    finished: bool
    """False when the token limit cut it."""
    forced: ForcedAnswer | None = None
    """How the thinking went, where it had a budget."""


def derived_seed(*parts: object) -> int:
    """A seed of its own for each tuple of parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4]) >> 1


def answer_freely(sampler: Sampler, asked: Sequence[Asked], *, benchmark: Benchmark) -> Iterator[tuple[int, Answer]]:
    """Give ``(index, answer)`` for each question; the model thinks for as long as it likes within the answer."""
    requests = [
        CompletionRequest(
            prompt=each.prompt,
            max_tokens=benchmark.max_tokens,
            temperature=benchmark.temperature,
            top_p=benchmark.top_p,
            seed=each.seed,
        )
        for each in asked
    ]
    for index, given in enumerate(sampler.complete(requests)):
        # With the mark that the template wrote, so that thinking which was cut is never taken for an answer.
        text = opened_thinking(asked[index].prompt) + given.text
        yield index, Answer(text, given.tokens, finished=given.finish is not Finish.LENGTH)


def answer_forced(
    sampler: Sampler,
    asked: Sequence[Asked],
    *,
    benchmark: Benchmark,
    delimiters: Delimiters,
    budget: ThinkingBudget,
) -> Iterator[tuple[int, Answer]]:
    """Give ``(index, answer)`` as the answers come, for some samples take more legs than others."""
    _check_room(sampler, asked, benchmark=benchmark, delimiters=delimiters, budget=budget)
    wait_tokens = sampler.count(WAIT)
    open_ = {
        index: Forcing(each.prompt, delimiters=delimiters, budget=budget, wait_tokens=wait_tokens)
        for index, each in enumerate(asked)
    }
    turn = 0
    while open_:
        requests = []
        for index, sample in open_.items():
            ask = sample.ask()
            requests.append(
                CompletionRequest(
                    prompt=ask.text,
                    stops=ask.stops,
                    max_tokens=ask.max_tokens,
                    temperature=benchmark.temperature,
                    top_p=benchmark.top_p,
                    seed=derived_seed(asked[index].seed, turn),
                )
            )
        for index, completion in zip(list(open_), sampler.complete(requests), strict=True):
            open_[index].take(completion)
            if open_[index].done:
                yield index, _answer(open_.pop(index).answer())
        turn += 1


def _answer(forced: ForcedAnswer) -> Answer:
    tokens = forced.thinking_tokens + forced.answer_tokens
    return Answer(forced.text, tokens, finished=forced.answer_finished, forced=forced)


def _check_room(
    sampler: Sampler,
    asked: Sequence[Asked],
    *,
    benchmark: Benchmark,
    delimiters: Delimiters,
    budget: ThinkingBudget,
) -> None:
    if sampler.context_tokens is None:
        return
    around = sampler.count(f"{delimiters.start}\n{delimiters.end}{FINAL_ANSWER}")
    prompt = max(sampler.count(each.prompt) for each in asked)
    if prompt + around + budget.thinking_tokens + budget.answer_tokens > sampler.context_tokens:
        raise BadInputError(
            f"benchmark {benchmark.name}: maxTokens={benchmark.max_tokens} after a question of {prompt} tokens and "
            f"{around} tokens around the thinking do not fit the model's {sampler.context_tokens}; lower maxTokens"
        )
