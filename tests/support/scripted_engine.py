"""An engine that says what a script tells it to, token by token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rft_trainer.evaluate.sampler import BatchWindow, Completion, CompletionRequest, Finish, Sampler, Window

EOS = "<eos>"


class ScriptedSampler:
    """After a text that ends with a key of the script, the model says that key's tokens, one after another.

    What it says depends on the text alone, as with a real model: a text that has the first tokens already goes on with
    the next one; of several such keys the longest text counts. A script that has run out is an engine that can hold no
    more.
    """

    def __init__(self, script: Mapping[str, Sequence[str]], *, context_tokens: int | None = None) -> None:
        self.script, self._context_tokens = script, context_tokens
        self.requests: list[CompletionRequest] = []

    @property
    def context_tokens(self) -> int | None:
        return self._context_tokens

    @property
    def identity(self) -> dict[str, str]:
        return {"engine": "scripted"}

    def count(self, text: str) -> int:
        """Words."""
        return len(text.split())

    def window(self) -> Window:
        return BatchWindow(self.complete)

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        self.requests += requests
        return [self._complete(request) for request in requests]

    def _complete(self, request: CompletionRequest) -> Completion:
        text, said = "", 0
        for token in self._next_tokens(request.prompt)[: request.max_tokens]:
            if token == EOS:
                return Completion(text, said, Finish.EOS)
            text, said = text + token, said + 1
            for stop in request.stops:
                if stop in text:
                    kept = text[: text.index(stop)]
                    return Completion(kept, self._tokens_of(request.prompt, kept), Finish.STOP)
        return Completion(text, said, Finish.LENGTH)

    def _next_tokens(self, text: str) -> Sequence[str]:
        found = [
            (said < len(tokens), len(key) + len("".join(tokens[:said])), tokens[said:])
            for key, tokens in self.script.items()
            for said in range(len(tokens) + 1)
            if text.endswith(key + "".join(tokens[:said]))
        ]
        assert found, f"the script does not say what comes after {text!r}"
        return max(found, key=lambda each: each[:2])[2]

    def _tokens_of(self, prompt: str, kept: str) -> int:
        tokens = self._next_tokens(prompt)
        return next(count for count in range(len(tokens) + 1) if len("".join(tokens[:count])) >= len(kept))


class ContinuousSampler(ScriptedSampler):
    """Makes its batches itself, as vLLM does: of the requests under way it finishes one, and asks for no others."""

    def __init__(
        self,
        script: Mapping[str, Sequence[str]],
        *,
        choose: Callable[[Sequence[CompletionRequest]], int] = lambda _: 0,
        context_tokens: int | None = None,
    ) -> None:
        super().__init__(script, context_tokens=context_tokens)
        self.choose = choose
        self.most_under_way = 0

    def window(self) -> Window:
        return _ContinuousWindow(self)


class _ContinuousWindow:
    def __init__(self, sampler: ContinuousSampler) -> None:
        self._sampler = sampler
        self._under_way: list[tuple[int, CompletionRequest]] = []

    def put(self, ticket: int, request: CompletionRequest) -> None:
        self._under_way.append((ticket, request))
        self._sampler.most_under_way = max(self._sampler.most_under_way, len(self._under_way))

    def get(self) -> Sequence[tuple[int, Completion]]:
        index = self._sampler.choose([request for _, request in self._under_way])
        ticket, request = self._under_way.pop(index)
        [completion] = self._sampler.complete([request])
        return [(ticket, completion)]

    def close(self) -> None:
        self._under_way = []


def complete(sampler: Sampler, requests: Sequence[CompletionRequest]) -> list[Completion]:
    """What an engine makes of these requests, in their order."""
    window, given = sampler.window(), dict[int, Completion]()
    try:
        for ticket, request in enumerate(requests):
            window.put(ticket, request)
        while len(given) < len(requests):
            given.update(window.get())
    finally:
        window.close()
    return [given[ticket] for ticket in range(len(requests))]
