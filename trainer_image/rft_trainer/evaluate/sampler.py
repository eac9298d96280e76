"""What the evaluation asks of an engine that generates text, whichever it is.

Invariant: text is the truth between two requests, for the marks around thinking may be several tokens long and may
share a token with what stands before them. A sampled completion depends on its own request, not on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Finish(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    """One of the request's stop texts came; it is not part of the completion."""
    EOS = "eos"
    """The model ended its turn."""
    LENGTH = "length"
    """The request's tokens are used up."""


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """A text to continue."""

    prompt: str
    stops: tuple[str, ...] = ()
    max_tokens: int
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    """A token is drawn from the likeliest that hold so much probability together."""
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """The continuation, without the stop text or the mark that ended it."""

    text: str
    tokens: int
    finish: Finish


class Sampler(Protocol):
    """A loaded model, here or at the other end of a connection."""

    @property
    def context_tokens(self) -> int | None:
        """Tokens of prompt and completion together that the model can hold; None when that is not known."""

    @property
    def identity(self) -> dict[str, str]:
        """What of the engine can change an answer, part of the protocol: its name, its version, its number format."""

    def count(self, text: str) -> int:
        """The number of tokens of a text."""

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Continue every text of a batch, in the order of the requests."""


class AroundSampler:
    """An engine inside another one, which says of itself what that one says."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    @property
    def context_tokens(self) -> int | None:
        """As the engine has it."""
        return self._sampler.context_tokens

    @property
    def identity(self) -> dict[str, str]:
        """As the engine has it."""
        return self._sampler.identity

    def count(self, text: str) -> int:
        """As the engine counts."""
        return self._sampler.count(text)


class RememberingSampler(AroundSampler):
    """Never asks the engine for the same twice, so the settings of a sweep share the thinking they have in common."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__(sampler)
        self._known: dict[CompletionRequest, Completion] = {}

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Ask for what is not known yet."""
        new = [request for request in dict.fromkeys(requests) if request not in self._known]
        if new:
            self._known.update(zip(new, self._sampler.complete(new), strict=True))
        return [self._known[request] for request in requests]
