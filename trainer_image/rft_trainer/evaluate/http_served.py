"""What an engine behind OpenAI's completions interface serves, and what it takes.

Invariant: what the engine does not say is ``unknown``, never a guess; what changes an answer and must be known is asked
of the user, before anything is generated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.http_connection import HttpConnection, RefusedError
from rft_trainer.evaluate.sampler import CompletionRequest

UNKNOWN = "unknown"
COMPLETIONS = "/completions"
PROBE = "1 + 1 ="
"""Asked for one token of, to see whether the engine takes the fields beyond OpenAI's."""
INTERFACE = "openai-completions"
_VERSIONS: Mapping[str, tuple[str, str, str]] = {
    "vllm": ("vllm", "/version", "version"),
    "sglang": ("sglang", "/get_server_info", "version"),
    "llamacpp": ("llama.cpp", "/props", "build_info"),
}
"""By what a model is said to be owned by: the engine, where it says its version, and under which key."""
_ALL_TOKENS = 1 << 30
"""More than any vocabulary has; -1 and 0, which stand for all with some engines, are out of bounds with others."""
_NOT_HERE = frozenset({404, 405, 501})
_NOT_SO = frozenset({400, 422})


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model at the other end of a connection."""

    model: str
    """The name it is asked for by."""
    weights: str = UNKNOWN
    """The engine's own name for what it loaded, a folder or a repository; another one is another model."""
    engine: str = INTERFACE
    version: str = UNKNOWN
    context_tokens: int
    """Tokens of prompt and completion together."""
    takes_more: bool
    """Whether it takes fields beyond OpenAI's; else it may put a mark of its own before a prompt."""

    @property
    def identity(self) -> dict[str, str]:
        """What of the engine can change an answer; the model itself is no part of a protocol."""
        return {
            "engine": self.engine,
            "version": self.version,
            "interface": INTERFACE,
            "fields": "extended" if self.takes_more else "openai",
            "context_tokens": str(self.context_tokens),
        }


def look_at(
    connection: HttpConnection, model: str, *, ends: Sequence[int], context_tokens: int | None = None
) -> Served:
    """Ask the engine; raises :class:`BadInputError` when it does not serve the model, or must be told more about it."""
    cards = _cards(connection)
    card = cards.get(model, {})
    if cards and not card:
        raise BadInputError(f"model {model!r}: the endpoint {connection.url} serves {', '.join(sorted(cards))}")
    engine, version = _engine(connection, str(card.get("owned_by")))
    return Served(
        model=model,
        weights=str(card.get("root") or UNKNOWN),
        engine=engine,
        version=version,
        context_tokens=_context(card, cards, given=context_tokens, connection=connection),
        takes_more=_takes_more(connection, model, ends=ends),
    )


def body_of(request: CompletionRequest, *, model: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """What to send for a completion."""
    return {
        "model": model,
        "prompt": request.prompt,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        **({"stop": list(request.stops)} if request.stops else {}),
        **more,
    }


def more_fields(ends: Sequence[int]) -> dict[str, Any]:
    """What OpenAI's interface does not have.

    The prompt has its marks already, and those of the completion are read. Servers of vLLM and SGLang take what a
    request leaves open from the model's own settings (Qwen's: a penalty for repetitions, the 20 likeliest tokens),
    which are no part of a protocol; so nothing is left open.
    """
    return {
        "add_special_tokens": False,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "stop_token_ids": list(ends),
        "top_k": _ALL_TOKENS,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }


def _takes_more(connection: HttpConnection, model: str, *, ends: Sequence[int]) -> bool:
    """Whether one token is given for a request with all fields, or for one with those of OpenAI alone."""
    probe = CompletionRequest(prompt=PROBE, max_tokens=1)
    try:
        connection.post(COMPLETIONS, body_of(probe, model=model, more=more_fields(ends)))
    except RefusedError as error:
        if error.status not in _NOT_SO:
            raise
        connection.post(COMPLETIONS, body_of(probe, model=model, more={}))
        return False
    return True


def _cards(connection: HttpConnection) -> dict[str, Mapping[str, Any]]:
    """What the engine says of its models, by name; nothing where it does not say."""
    try:
        found = json.loads(connection.get("/models"))
        return {str(card["id"]): card for card in found["data"]}
    except RefusedError as error:
        if error.status not in _NOT_HERE:
            raise
    except (ValueError, KeyError, TypeError):
        pass
    return {}


def _engine(connection: HttpConnection, owner: str) -> tuple[str, str]:
    """Name and version; a version that cannot be had just now is an error, for it would be another protocol."""
    if owner not in _VERSIONS:
        return INTERFACE, UNKNOWN
    name, path, key = _VERSIONS[owner]
    try:
        return name, str(json.loads(connection.get_own(path))[key])
    except (RefusedError, ValueError, KeyError, TypeError):
        return name, UNKNOWN


def _context(
    card: Mapping[str, Any], cards: Mapping[str, Mapping[str, Any]], *, given: int | None, connection: HttpConnection
) -> int:
    # An adapter can hold what the model below it can.
    held = _held(card) or _held(cards.get(str(card.get("parent")), {}))
    if held is None:
        if given is None:
            raise BadInputError(
                f"--context-tokens: is needed, for the endpoint {connection.url} does not say how many tokens of prompt"
                " and answer together the model can hold"
            )
        return given
    if given is not None and given > held:
        raise BadInputError(
            f"--context-tokens {given}: the endpoint {connection.url} holds {held}; give less or nothing"
        )
    return held if given is None else given


def _held(card: Mapping[str, Any]) -> int | None:
    """vLLM and SGLang have it in a model's card, llama.cpp one level below."""
    below = card.get("meta")
    found = card.get("max_model_len") or (below.get("n_ctx") if isinstance(below, Mapping) else None)
    return found if isinstance(found, int) and found > 0 else None
