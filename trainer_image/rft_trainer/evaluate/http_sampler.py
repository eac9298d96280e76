"""Lets an engine behind the OpenAI completions interface continue texts (vLLM, SGLang, llama.cpp and others).

Invariant: each text has a connection of its own and is handed over when its answer comes, for the engine makes its
batches itself. An answer ends where the model ends its turn, also where the engine does not know that mark; anything
the engine says that is no completion is an error, never an empty answer.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rft_trainer.errors import BadInputError, StageError
from rft_trainer.evaluate.http_connection import HttpConnection
from rft_trainer.evaluate.http_served import COMPLETIONS, Served, body_of, more_fields
from rft_trainer.evaluate.sampler import Completion, CompletionRequest, Finish, Window

_OWN_MARKS = 1
"""Tokens that an engine may put before a prompt when it cannot be told not to."""


class HttpSampler:
    """A model at the other end of a connection."""

    def __init__(
        self,
        connection: HttpConnection,
        served: Served,
        *,
        count: Callable[[str], int],
        ends: Mapping[int, str],
        connections: int = 32,
    ) -> None:
        self._connection, self._served, self._count = connection, served, count
        self._ends, self._connections = ends, connections
        self._more = more_fields(list(ends)) if served.takes_more else {}

    @property
    def context_tokens(self) -> int:
        """What the engine holds, or less where that was said."""
        return self._served.context_tokens - (0 if self._served.takes_more else _OWN_MARKS)

    @property
    def identity(self) -> dict[str, str]:
        """As the engine gives it."""
        return self._served.identity

    def count(self, text: str) -> int:
        """As the given tokenizer counts."""
        return self._count(text)

    def window(self) -> Window:
        """As many connections as there may be."""
        return _HttpWindow(self, connections=self._connections)

    def within_context(self, request: CompletionRequest) -> CompletionRequest:
        """The request with no more tokens than the context still holds: engines refuse what is beyond it."""
        tokens = self._count(request.prompt)
        room = self.context_tokens - tokens
        if room < 1:
            raise BadInputError(
                f"a prompt of {tokens} tokens leaves no room for an answer in the endpoint's {self.context_tokens}"
            )
        return replace(request, max_tokens=min(request.max_tokens, room))

    def ask(self, request: CompletionRequest, *, wanted: Callable[[], bool]) -> bytes:
        """What the engine says to a request; may be called by several threads."""
        body = body_of(request, model=self._served.model, more=self._more)
        return self._connection.post(COMPLETIONS, body, wanted=wanted)

    def read(self, given: bytes, request: CompletionRequest) -> Completion:
        """What it said as a completion; by one thread alone, for tokenizers cannot count for two at a time."""
        try:
            return self._read(json.loads(given), request)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise StageError(f"endpoint {self._connection.url}: gave no completion but {given[:200]!r}") from error

    def _read(self, given: Any, request: CompletionRequest) -> Completion:
        [choice] = given["choices"]
        text, reason = str(choice["text"]), choice["finish_reason"]
        if reason not in ("length", "stop"):
            raise ValueError(reason)
        ends = [text.index(mark) for mark in self._ends.values() if mark in text]
        if ends:
            return self._counted(text[: min(ends)], Finish.EOS)
        if reason == "length":
            return Completion(text, int(given["usage"]["completion_tokens"]), Finish.LENGTH)
        # vLLM and SGLang say which stop it was. Of others a stop text is assumed, for both end the thinking.
        unsaid = request.stops[0] if request.stops else None
        named = choice.get("stop_reason", choice.get("matched_stop", unsaid))
        return self._counted(text, Finish.STOP if named in request.stops else Finish.EOS)

    def _counted(self, text: str, finish: Finish) -> Completion:
        """The engine counts the mark that ended it too."""
        return Completion(text, self._count(text), finish)


class _HttpWindow:
    """Threads that ask, each for one text at a time."""

    def __init__(self, sampler: HttpSampler, *, connections: int) -> None:
        self._sampler, self._connections = sampler, connections
        self._wanted: queue.SimpleQueue[tuple[int, CompletionRequest] | None] = queue.SimpleQueue()
        self._came: queue.SimpleQueue[tuple[int, bytes | Exception]] = queue.SimpleQueue()
        self._under_way: dict[int, CompletionRequest] = {}
        self._error: Exception | None = None
        self._threads = 0
        self._closed = threading.Event()

    def put(self, ticket: int, request: CompletionRequest) -> None:
        if self._error is not None:
            raise self._error
        self._under_way[ticket] = self._sampler.within_context(request)
        self._wanted.put((ticket, self._under_way[ticket]))
        if self._threads < min(self._connections, len(self._under_way)):
            self._threads += 1
            # Not a pool: its threads would hold up a process that must end before their answers come.
            threading.Thread(target=self._work, name="completions", daemon=True).start()

    def get(self) -> Sequence[tuple[int, Completion]]:
        found: list[tuple[int, Completion]] = []
        while self._error is None and not (found and self._came.empty()):
            ticket, said = self._came.get()
            request = self._under_way.pop(ticket)
            try:
                if isinstance(said, Exception):
                    raise said
                found.append((ticket, self._sampler.read(said, request)))
            except StageError as error:
                self._error = error
        # What came before the error was paid for; it is raised when that is on the disk.
        if self._error is not None and not found:
            raise self._error
        return found

    def close(self) -> None:
        self._closed.set()
        for _ in range(self._threads):
            self._wanted.put(None)

    def _work(self) -> None:
        while (item := self._wanted.get()) is not None and not self._closed.is_set():
            ticket, request = item
            try:
                self._came.put((ticket, self._sampler.ask(request, wanted=lambda: not self._closed.is_set())))
            except Exception as error:  # raised where it is waited for
                self._came.put((ticket, error))
