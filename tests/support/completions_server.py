"""A server on 127.0.0.1 that speaks OpenAI's completions interface and answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rft_trainer.evaluate.sampler import CompletionRequest, Finish
from support.scripted_engine import ScriptedSampler


@dataclass(frozen=True)
class Reply:
    """What the server sends; status 0 hangs up without a word."""

    status: int
    body: bytes = b"no"
    headers: dict[str, str] = field(default_factory=dict)


class Completions:
    """Gives its ``failures`` first, one to each request, then what ``give`` makes of a body."""

    def __init__(self, give: Callable[[dict[str, Any]], Any], *failures: Reply) -> None:
        self.give, self.failures = give, list(failures)
        self.bodies: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.url = ""
        self.lock = threading.Lock()

    def reply(self, path: str, body: dict[str, Any], authorization: str | None) -> Reply:
        with self.lock:
            self.bodies.append(body)
            self.authorizations.append(authorization)
            if path != "/v1/completions":
                return Reply(404, f"no {path}".encode())
            if self.failures:
                return self.failures.pop(0)
            return Reply(200, json.dumps(self.give(body)).encode())


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

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = self.completions.reply(self.path, body, self.headers["Authorization"])
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
