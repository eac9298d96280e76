"""A proxy before the API server that writes down what its client does there, in the words of RBAC.

The client speaks plain HTTP to the proxy and authenticates with its own token, so the API server decides as ever.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import aiohttp
from aiohttp import web
from kubernetes.aio import client

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
HOP_BY_HOP = {"host", "connection", "transfer-encoding", "content-length", "content-encoding", "accept-encoding"}


class Use(NamedTuple):
    """One use of a right; ``namespace`` is None for what is cluster-wide, ``name`` for lists and creations."""

    group: str
    resource: str
    verb: str
    namespace: str | None
    name: str | None


@dataclass(slots=True)
class Recorder:
    """Everything the client did."""

    port: int = 0
    uses: set[Use] = field(default_factory=set)
    refused: set[Use] = field(default_factory=set)

    def add(self, request: web.Request, status: int) -> None:
        use = use_of(request.method, request.path, watch=request.query.get("watch") in ("true", "1"))
        if use is None:
            return
        (self.refused if status == 403 else self.uses).add(use)
        if request.method == "PATCH" and status == 201:
            self.uses.add(use._replace(verb="create", name=None))  # a server-side apply that made the object


def use_of(method: str, path: str, *, watch: bool) -> Use | None:
    """Return what a request asks for; None if it is for discovery, which everybody may read."""
    parts = [part for part in path.split("/") if part]
    if parts[:2] == ["api", "v1"]:
        group, rest = "", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 3:
        group, rest = parts[1], parts[3:]
    else:
        return None
    namespace = None
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    if not rest:
        return None
    name = rest[1] if len(rest) > 1 else None
    resource = f"{rest[0]}/{rest[2]}" if len(rest) > 2 else rest[0]
    reading = "watch" if watch else "get" if name is not None else "list"
    return Use(group, resource, VERBS.get(method, reading), namespace, name)


@asynccontextmanager
async def recording(configuration: client.Configuration) -> AsyncIterator[Recorder]:
    """Serve the API server of ``configuration`` on 127.0.0.1 and record until the block ends."""
    recorder = Recorder()
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0), auto_decompress=False)

    async def forward(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        url = f"{configuration.host}{request.raw_path}"
        body = await request.read() or None
        no_limit = aiohttp.ClientTimeout(total=None)
        async with session.request(request.method, url, headers=headers, data=body, timeout=no_limit) as answer:
            recorder.add(request, answer.status)
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            with suppress(ConnectionResetError):  # the client has had enough of a watch
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
            return response

    app = web.Application(client_max_size=16 * 2**20)
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    recorder.port = runner.addresses[0][1]
    try:
        yield recorder
    finally:
        await runner.cleanup()
        await session.close()
