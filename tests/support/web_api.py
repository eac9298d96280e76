"""A tiny HTTP server in the place of an API server: records requests, answers as a test says."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from rft_operator.metrics import Metrics
from rft_operator.runtime.kube_client import KubeClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


Answer = Callable[[Request], Awaitable[web.StreamResponse]]


def answer(body: Any = None, *, status: int = 200, **headers: str) -> Answer:
    """Return an answer of JSON (text as it is), with headers such as ``Retry_After``."""

    async def give(_: Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, str):
            return web.Response(text=body, status=status, headers=named)
        return web.json_response({} if body is None else body, status=status, headers=named)

    return give


def failure(status: int, message: str = "no", **headers: str) -> Answer:
    """Return the API server's Status of a failure."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status}
    return answer(body, status=status, **headers)


@dataclass(slots=True)
class WebApi:
    """The server: ``answers`` are given in turn, the last one again and again."""

    answers: list[Answer] = field(default_factory=lambda: [answer()])
    requests: list[Request] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Record the request and give the next answer."""
        seen = Request(
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers=dict(request.headers),
            body=await request.read(),
        )
        self.requests.append(seen)
        give = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await give(seen)


@contextlib.asynccontextmanager
async def serve(api: WebApi) -> AsyncIterator[str]:
    """Serve on a free port of 127.0.0.1; yield the URL."""
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", api.handle)
    async with TestServer(app) as server:
        yield str(server.make_url("/")).rstrip("/")


@contextlib.asynccontextmanager
async def client_of(api: WebApi, metrics: Metrics | None = None) -> AsyncIterator[KubeClient]:
    """Yield the operator's client of the server."""
    async with serve(api) as url:
        configuration = client.Configuration()
        configuration.host = url
        configuration.api_key["BearerToken"] = "bearer secret"
        configuration.retries = None
        async with KubeClient(configuration, metrics or Metrics()) as kube:
            yield kube
