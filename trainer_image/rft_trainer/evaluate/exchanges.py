"""What happens between a question and its answer: one request, or the legs of a thinking that has a budget.

Invariant: what is asked for follows from question, seed and what came before alone, never from time or neighbours.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from rft_trainer.contract import Benchmark
from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.forcing import FINAL_ANSWER, WAIT, Delimiters, ForcedAnswer, Forcing, ThinkingBudget
from rft_trainer.evaluate.sampler import Completion, CompletionRequest, Finish, Holder, Sampler
from rft_trainer.scoring.extract import opened_thinking


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


class Exchange(Protocol):
    """One answer that is coming about."""

    @property
    def done(self) -> bool:
        """Whether the answer is there."""

    def ask(self) -> CompletionRequest:
        """What the engine is to continue next; the same until it is taken, and not to be called when done."""

    def take(self, completion: Completion) -> None:
        """Go on with what came of it."""

    def answer(self) -> Answer:
        """The answer, when done."""


def derived_seed(*parts: object) -> int:
    """A seed of its own for each tuple of parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4]) >> 1


class FreeExchange:
    """The model thinks for as long as it likes within the answer."""

    def __init__(self, asked: Asked, *, benchmark: Benchmark) -> None:
        self._request = CompletionRequest(
            prompt=asked.prompt,
            max_tokens=benchmark.max_tokens,
            temperature=benchmark.temperature,
            top_p=benchmark.top_p,
            seed=asked.seed,
        )
        self._given: Completion | None = None

    @property
    def done(self) -> bool:
        """Whether the answer is there."""
        return self._given is not None

    def ask(self) -> CompletionRequest:
        """The question."""
        return self._request

    def take(self, completion: Completion) -> None:
        """The answer."""
        self._given = completion

    def answer(self) -> Answer:
        """With the mark that the template wrote, so that thinking which was cut is never taken for an answer."""
        assert self._given is not None
        text = opened_thinking(self._request.prompt) + self._given.text
        return Answer(text, self._given.tokens, finished=self._given.finish is not Finish.LENGTH)


class ForcedExchange:
    """The thinking is kept to a budget, leg by leg."""

    def __init__(self, asked: Asked, *, benchmark: Benchmark, forcing: Forcing) -> None:
        self._seed, self._benchmark, self._forcing = asked.seed, benchmark, forcing
        self._turn = 0

    @property
    def done(self) -> bool:
        """Whether the answer is there."""
        return self._forcing.done

    def ask(self) -> CompletionRequest:
        """The next piece of a leg, or the answer."""
        ask = self._forcing.ask()
        return CompletionRequest(
            prompt=ask.text,
            stops=ask.stops,
            max_tokens=ask.max_tokens,
            temperature=self._benchmark.temperature,
            top_p=self._benchmark.top_p,
            seed=derived_seed(self._seed, self._turn),
        )

    def take(self, completion: Completion) -> None:
        """Go on with what came of it."""
        self._forcing.take(completion)
        self._turn += 1

    def answer(self) -> Answer:
        """The answer, with the record of its thinking."""
        forced = self._forcing.answer()
        tokens = forced.thinking_tokens + forced.answer_tokens
        return Answer(forced.text, tokens, finished=forced.answer_finished, forced=forced)


@dataclass(frozen=True)
class Way:
    """How questions are asked: freely, or with a budget for the thinking and the marks of a family of models."""

    benchmark: Benchmark
    budget: ThinkingBudget | None
    delimiters: Delimiters

    def exchange(self, asked: Asked, *, sampler: Sampler) -> Exchange:
        """One answer to be had."""
        if self.budget is None:
            return FreeExchange(asked, benchmark=self.benchmark)
        forcing = Forcing(asked.prompt, delimiters=self.delimiters, budget=self.budget, wait_tokens=sampler.count(WAIT))
        return ForcedExchange(asked, benchmark=self.benchmark, forcing=forcing)

    def check_room(self, prompt: int, *, holder: Holder) -> None:
        """Raise :class:`BadInputError` when a question of so many tokens leaves no room for what is to come after it.

        To be called before anything is paid for. An answer without a budget needs some room; it is cut where that ends.
        """
        if holder.context_tokens is None:
            return
        around = wanted = 0
        if self.budget is not None:
            around = holder.count(f"{self.delimiters.start}\n{self.delimiters.end}{FINAL_ANSWER}")
            wanted = self.budget.thinking_tokens + self.budget.answer_tokens
        name = self.benchmark.name
        if prompt + around + max(1, wanted) <= holder.context_tokens:
            return
        if self.budget is None:
            raise BadInputError(
                f"benchmark {name}: a question of {prompt} tokens leaves no room for an answer in the "
                f"model's {holder.context_tokens}"
            )
        raise BadInputError(
            f"benchmark {name}: maxTokens={self.benchmark.max_tokens} after a question of {prompt} tokens and "
            f"{around} tokens around the thinking do not fit the model's {holder.context_tokens}; lower maxTokens"
        )
