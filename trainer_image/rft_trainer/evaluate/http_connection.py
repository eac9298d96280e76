"""The connection to an engine that speaks HTTP.

Invariant: an overloaded or restarting engine is asked again within bounds, a refusal is an error with the engine's own
words, and the key is for this endpoint alone.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from rft_trainer.errors import BadInputError, StageError

TRIES = 6
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
LOOK_SECONDS = 60.0
"""An engine that does not say within so long what it serves is asked again; an answer may take far longer."""
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_INTERFACE = "/v1"
"""Where OpenAI's interface is below the engine's own, by custom."""


class RefusedError(BadInputError):
    """The engine will not do it, also when it is asked again."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class HttpConnection:
    """Asks one endpoint; ``url`` ends before ``/completions``, as ``http://host:8000/v1``."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 3_600.0,
        look_seconds: float = LOOK_SECONDS,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise BadInputError(f"endpoint {url!r}: must start with http:// or https://")
        self.url = url.rstrip("/")
        self._api_key, self._pause = api_key, pause
        self._timeout_seconds, self._look_seconds = timeout_seconds, look_seconds

    def post(self, path: str, body: Any, *, wanted: Callable[[], bool] = lambda: True) -> bytes:
        """Ask below the interface; no more when the answer is not ``wanted`` any longer."""
        return self._ask(self.url + path, json.dumps(body).encode(), wanted=wanted)

    def get(self, path: str) -> bytes:
        """Read what is below the interface."""
        return self._ask(self.url + path, None)

    def get_own(self, path: str) -> bytes:
        """Read what the engine has beside the interface."""
        return self._ask(self.url.removesuffix(_INTERFACE) + path, None)

    def _ask(self, url: str, body: bytes | None, *, wanted: Callable[[], bool] = lambda: True) -> bytes:
        seconds, reason = FIRST_PAUSE_SECONDS, "was not asked"
        for left in range(TRIES - 1, -1, -1):
            if not wanted():
                break
            try:
                return self._send(url, body)
            except urllib.error.HTTPError as error:
                with error:
                    said = error.read(300).decode(errors="replace")
                if error.code not in _AGAIN:
                    raise RefusedError(f"endpoint {url}: answered {error.code}: {said}", status=error.code) from error
                reason = f"answered {error.code}: {said}"
                asked_for = _seconds(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:
                reason, asked_for = f"could not be reached: {error}", None
            if left:
                self._pause(min(asked_for if asked_for is not None else seconds, LONGEST_PAUSE_SECONDS))
                seconds *= 2
        raise StageError(f"endpoint {url}: {reason}; {TRIES} tries")

    def _send(self, url: str, body: bytes | None) -> bytes:
        headers = {} if body is None else {"Content-Type": "application/json"}
        if self._api_key is not None:
            headers["Authorization"] = f"Bearer {self._api_key}"
        request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 - checked
        seconds = self._look_seconds if body is None else self._timeout_seconds
        with _OPENER.open(request, timeout=seconds) as response:
            return bytes(response.read())


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key is for this endpoint alone."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_StayHere)


def _seconds(header: str | None) -> float | None:
    """``Retry-After`` as seconds; its other form, a date, is not waited for."""
    return float(header) if header is not None and header.isdigit() else None
