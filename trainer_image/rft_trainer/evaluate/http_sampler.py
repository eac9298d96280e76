"""Lets an engine behind the OpenAI completions interface continue texts (vLLM, SGLang, llama.cpp and others).

Invariant: an overloaded or restarting engine is asked again within bounds; anything else it says is an error, never an
empty answer.
"""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from rft_trainer.errors import BadInputError, StageError
from rft_trainer.evaluate.sampler import Completion, CompletionRequest, Finish

TRIES = 6
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_KEEP_MARKS = {"add_special_tokens": False, "skip_special_tokens": False, "spaces_between_special_tokens": False}
"""Fields beyond OpenAI's: the prompt has its marks already, and the marks of the completion end the thinking."""


class HttpSampler:
    """A model at the other end of a connection; ``url`` ends before ``/completions``, as ``http://host:8000/v1``."""

    def __init__(
        self,
        url: str,
        *,
        model: str,
        count: Callable[[str], int],
        context_tokens: int | None = None,
        api_key: str | None = None,
        connections: int = 32,
        timeout_seconds: float = 3_600.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise BadInputError(f"endpoint {url!r}: must start with http:// or https://")
        self._url, self._model, self._count = url.rstrip("/") + "/completions", model, count
        self._context_tokens, self._api_key = context_tokens, api_key
        self._connections, self._timeout_seconds, self._pause = connections, timeout_seconds, pause

    @property
    def context_tokens(self) -> int | None:
        """As it was given, for the interface does not say."""
        return self._context_tokens

    @property
    def identity(self) -> dict[str, str]:
        """Of the engine at the other end the interface says nothing."""
        return {"engine": "openai-completions"}

    def count(self, text: str) -> int:
        """As the given tokenizer counts."""
        return self._count(text)

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Continue a batch, each text with a connection of its own; the engine makes its batches itself."""
        given: dict[int, Completion] = {}
        wanted: queue.SimpleQueue[tuple[int, CompletionRequest]] = queue.SimpleQueue()
        came: queue.SimpleQueue[tuple[int, Completion | Exception]] = queue.SimpleQueue()
        for item in enumerate(requests):
            wanted.put(item)
        # Not a pool: its threads would hold up a process that must end before their answers come.
        for _ in range(min(self._connections, len(requests))):
            threading.Thread(target=self._work, args=(wanted, came), daemon=True).start()
        try:
            while len(given) < len(requests):
                index, completion = came.get()
                if isinstance(completion, Exception):
                    raise completion
                given[index] = completion
        finally:
            while not wanted.empty():  # after an error nobody will read what comes of the rest
                _next(wanted)
        return [given[index] for index in range(len(requests))]

    def _work(
        self,
        wanted: queue.SimpleQueue[tuple[int, CompletionRequest]],
        came: queue.SimpleQueue[tuple[int, Completion | Exception]],
    ) -> None:
        while (item := _next(wanted)) is not None:
            index, request = item
            try:
                came.put((index, self._complete(request)))
            except Exception as error:  # raised where it is waited for
                came.put((index, error))

    def _complete(self, request: CompletionRequest) -> Completion:
        body = {
            "model": self._model,
            "prompt": request.prompt,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            **({"stop": list(request.stops)} if request.stops else {}),
            **_KEEP_MARKS,
        }
        given = self._ask(json.dumps(body).encode())
        try:
            return self._read(json.loads(given), request)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise StageError(f"endpoint {self._url}: gave no completion but {given[:200]!r}") from error

    def _read(self, given: Any, request: CompletionRequest) -> Completion:
        [choice] = given["choices"]
        text: str = choice["text"]
        if choice["finish_reason"] == "length":
            return Completion(text, int(given["usage"]["completion_tokens"]), Finish.LENGTH)
        if choice["finish_reason"] != "stop":
            raise ValueError(choice["finish_reason"])
        # vLLM and SGLang say which stop it was. Of others a stop text is assumed, for both end the thinking.
        unsaid = request.stops[0] if request.stops else None
        named = choice.get("stop_reason", choice.get("matched_stop", unsaid))
        return Completion(text, self._count(text), Finish.STOP if named in request.stops else Finish.EOS)

    def _ask(self, body: bytes) -> bytes:
        seconds = FIRST_PAUSE_SECONDS
        for left in range(TRIES - 1, -1, -1):
            try:
                return self._post(body)
            except urllib.error.HTTPError as error:
                with error:
                    said = error.read(300).decode(errors="replace")
                if error.code not in _AGAIN:
                    raise BadInputError(f"endpoint {self._url}: answered {error.code}: {said}") from error
                reason = f"answered {error.code}: {said}"
                wanted = _seconds(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:
                reason, wanted = f"could not be reached: {error}", None
            if left:
                self._pause(min(wanted if wanted is not None else seconds, LONGEST_PAUSE_SECONDS))
                seconds *= 2
        raise StageError(f"endpoint {self._url}: {reason}; {TRIES} tries")

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self._api_key is not None:
            headers["Authorization"] = f"Bearer {self._api_key}"
        request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")  # noqa: S310 - checked
        with _OPENER.open(request, timeout=self._timeout_seconds) as response:
            return bytes(response.read())


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key is for this endpoint alone."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_StayHere)


def _next(wanted: queue.SimpleQueue[tuple[int, CompletionRequest]]) -> tuple[int, CompletionRequest] | None:
    try:
        return wanted.get_nowait()
    except queue.Empty:
        return None


def _seconds(header: str | None) -> float | None:
    """``Retry-After`` as seconds; its other form, a date, is not waited for."""
    return float(header) if header is not None and header.isdigit() else None
