"""A server on 127.0.0.1 that speaks OpenAI's completions interface and answers as it is told.

It refuses what the engine that it plays refuses: vLLM what does not fit its context or is out of bounds, a server of
OpenAI's own interface every field that this does not have.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rft_trainer.evaluate.http_served import PROBE
from rft_trainer.evaluate.sampler import CompletionRequest, Finish
from support.scripted_engine import ScriptedSampler


@dataclass(frozen=True)
class Reply:
    """What the server sends; status 0 hangs up without a word."""

    status: int
    body: bytes = b"no"
    headers: dict[str, str] = field(default_factory=dict)


_OF_OPENAI = frozenset({"model", "prompt", "max_tokens", "temperature", "top_p", "seed", "stop"})
_OF_VLLM = frozenset(
    {
        *("add_special_tokens", "skip_special_tokens", "spaces_between_special_tokens", "stop_token_ids"),
        *("top_k", "min_p", "repetition_penalty"),
    }
)
VLLM = {"/version": {"version": "0.33.0"}}
"""What vLLM has beside the interface."""


def card(model: str, **values: Any) -> dict[str, Any]:
    """What vLLM says of a model that it serves."""
    return {"id": model, "object": "model", "owned_by": "vllm", "root": model, "max_model_len": 4_096, **values}


class Completions:
    """Gives its ``failures`` first, one to each request, then what ``give`` makes of a body."""

    def __init__(
        self,
        give: Callable[[dict[str, Any]], Any],
        *failures: Reply,
        models: Sequence[dict[str, Any]] | None = (card("m"),),
        own: Mapping[str, Any] = VLLM,
        takes_more: bool = True,
        count: Callable[[str], int] = lambda text: len(text.split()),
    ) -> None:
        self.give, self.failures = give, list(failures)
        self.models, self.own, self.count, self.takes_more = models, own, count, takes_more
        self.bodies: list[dict[str, Any]] = []
        self.probes: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.url = ""
        self.lock = threading.Lock()

    def look(self, path: str, authorization: str | None) -> Reply:
        """What is said to a GET."""
        with self.lock:
            self.authorizations.append(authorization)
        if path == "/v1/models" and self.models is not None:
            return _json(200, {"object": "list", "data": list(self.models)})
        return _json(200, self.own[path]) if path in self.own else _json(404, {"detail": "Not Found"})

    def reply(self, path: str, body: dict[str, Any], authorization: str | None) -> Reply:
        """What is said to a POST; a probe is counted apart, and no failure is for it."""
        with self.lock:
            self.authorizations.append(authorization)
            probe = body["prompt"] == PROBE
            (self.probes if probe else self.bodies).append(body)
            if path != "/v1/completions":
                return Reply(404, f"no {path}".encode())
            if self.failures and not probe:
                return self.failures.pop(0)
            refusal = self.refusal(body)
            if refusal is not None:
                return refusal
        return _json(200, _TWO if probe else self.give(body))

    def refusal(self, body: dict[str, Any]) -> Reply | None:
        """Why this engine does not do it; None when it does."""
        unknown = body.keys() - _OF_OPENAI - (_OF_VLLM if self.takes_more else frozenset())
        if unknown:
            return _refused(400, f"Unrecognized request arguments supplied: {', '.join(sorted(unknown))}")
        models = {each["id"]: each for each in self.models or ()}
        if models and body["model"] not in models:
            return _refused(404, f"The model `{body['model']}` does not exist.")
        held = models.get(body["model"], {}).get("max_model_len")
        prompt, wanted = self.count(body["prompt"]), body["max_tokens"]
        if held is not None and prompt + wanted > held:
            return _refused(
                400, f"This model's maximum context length is {held} tokens. However, you requested {prompt + wanted}"
            )
        if wanted < 1 or body["temperature"] < 0 or not 0 < body["top_p"] <= 1 or "" in body.get("stop", ()):
            return _refused(400, "a value is out of bounds")
        if not all(isinstance(each, int) for each in body.get("stop_token_ids", ())):
            return _refused(400, "stop_token_ids must contain only integers")
        return None


_TWO = {"choices": [{"text": " 2", "finish_reason": "length"}], "usage": {"completion_tokens": 1}}


def _json(status: int, value: Any) -> Reply:
    return Reply(status, json.dumps(value).encode())


def _refused(status: int, message: str) -> Reply:
    return _json(status, {"error": {"message": message, "code": status}})


def as_vllm(engine: ScriptedSampler) -> Callable[[dict[str, Any]], Any]:
    """Answer with a scripted engine in vLLM's words: its tokens include the stop's, and it says which stop it was."""

    def give(body: dict[str, Any]) -> Any:
        stops = tuple(body.get("stop", ()))
        asked = CompletionRequest(prompt=body["prompt"], stops=stops, max_tokens=body["max_tokens"], seed=body["seed"])
        [given] = engine.complete([asked])
        reason = "length" if given.finish is Finish.LENGTH else "stop"
        stop = next(iter(stops), None) if given.finish is Finish.STOP else None
        usage = {"completion_tokens": given.tokens + (given.finish is not Finish.LENGTH)}
        return {"choices": [{"text": given.text, "finish_reason": reason, "stop_reason": stop}], "usage": usage}

    return give


class _Handler(BaseHTTPRequestHandler):
    completions: Completions

    def do_GET(self) -> None:
        self._send(self.completions.look(self.path, self.headers["Authorization"]))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(self.completions.reply(self.path, body, self.headers["Authorization"]))

    def _send(self, reply: Reply) -> None:
        if not reply.status:
            return
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""


@contextmanager
def serving(completions: Completions) -> Iterator[Completions]:
    """Serve until the block ends."""
    handler = type("Handler", (_Handler,), {"completions": completions})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        completions.url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield completions
        finally:
            server.shutdown()
            thread.join()
