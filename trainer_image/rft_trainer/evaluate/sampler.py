"""What the evaluation asks of an engine that generates text, whichever it is.

Invariant: text is the truth between two requests, for the marks around thinking may be several tokens long and may
share a token with what stands before them. A completion depends on its own request, not on its neighbours, and is
handed over when it is finished; only an engine that knows nothing but batches finishes a batch together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class Window(Protocol):
    """The requests that an engine has under way; each is handed back as soon as it is finished, in any order."""

    def put(self, ticket: int, request: CompletionRequest) -> None:
        """Take a request in; raises :class:`BadInputError` when its prompt fills what the model can hold."""

    def get(self) -> Sequence[tuple[int, Completion]]:
        """Wait until something is finished and hand all of that over, by ticket; never empty."""

    def close(self) -> None:
        """Nobody will ask for what is still under way."""


class Holder(Protocol):
    """What is known of how much a model can hold, whether it is loaded or not."""

    @property
    def context_tokens(self) -> int | None:
        """Tokens of prompt and completion together that the model can hold; None when that is not known."""

    def count(self, text: str) -> int:
        """The number of tokens of a text."""


class Sampler(Holder, Protocol):
    """A loaded model, here or at the other end of a connection."""

    @property
    def identity(self) -> dict[str, str]:
        """What of the engine can change an answer, part of the protocol: its name, its version, its number format."""

    def window(self) -> Window:
        """An empty window; an engine has one at a time."""


class BatchWindow:
    """The window of an engine that knows batches alone: what was put since the last batch is the next one."""

    def __init__(self, complete: Callable[[Sequence[CompletionRequest]], Sequence[Completion]]) -> None:
        self._complete = complete
        self._waiting: list[tuple[int, CompletionRequest]] = []

    def put(self, ticket: int, request: CompletionRequest) -> None:
        """Keep it for the next batch."""
        self._waiting.append((ticket, request))

    def get(self) -> Sequence[tuple[int, Completion]]:
        """Complete all that waits, and hand it over together."""
        batch, self._waiting = self._waiting, []
        completions = self._complete([request for _, request in batch])
        return [(ticket, it) for (ticket, _), it in zip(batch, completions, strict=True)]

    def close(self) -> None:
        """Forget what waits."""
        self._waiting = []


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
