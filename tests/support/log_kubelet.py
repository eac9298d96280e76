"""The part of a kubelet that serves containers' logs, for the real API server to read from: nodes that exist in the API
alone have none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from rft_operator.runtime.tls import make_authority, server_context

PATCH = "application/strategic-merge-patch+json"
POLL_SECONDS = 0.02


@dataclass(slots=True)
class LogKubelet:
    """Answers ``/containerLogs/<namespace>/<pod>/<container>`` as a kubelet does."""

    logs: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Pod -> (timestamp, text)."""
    ended: set[str] = field(default_factory=set)
    """Pods whose container has ended."""
    queries: list[dict[str, str]] = field(default_factory=list)
    _cut: int = 0

    def cut(self) -> None:
        """Break all streams off, as a restart of the kubelet does."""
        self._cut += 1

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Give a log."""
        pod, query, cut = request.match_info["pod"], request.query, self._cut
        self.queries.append(dict(query))
        lines = self.logs.get(pod, [])
        since = query.get("sinceTime", "").removesuffix("Z")
        done = next((index for index, (stamp, _) in enumerate(lines) if stamp[:19] >= since), len(lines))
        if "tailLines" in query:
            done = max(done, len(lines) - int(query["tailLines"]))
        answer = web.StreamResponse()
        answer.content_type = "text/plain"
        await answer.prepare(request)
        while cut == self._cut:
            for stamp, text in lines[done:]:
                begin = f"{stamp} " if query.get("timestamps") == "true" else ""
                await answer.write(f"{begin}{text}\n".encode())
            done = len(lines)
            if query.get("follow") != "true" or pod in self.ended:
                break
            await asyncio.sleep(POLL_SECONDS)
        return answer


@contextlib.asynccontextmanager
async def serving(core: client.CoreV1Api, nodes: list[str]) -> AsyncIterator[LogKubelet]:
    """Let the API server find the logs of pods on these nodes here."""
    kubelet = LogKubelet()
    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", kubelet.handle)
    context = server_context(make_authority(), hostnames=("127.0.0.1",))
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    try:
        for name in nodes:
            endpoints = {"kubeletEndpoint": {"Port": server.port}}
            status = {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": endpoints}
            await core.patch_node_status(name, {"status": status}, _content_type=PATCH)
        yield kubelet
    finally:
        kubelet.cut()
        await server.close()
