"""``/metrics``, ``/livez`` and ``/readyz``.

Invariant: liveness proves progress, not just a bound port: the event loop must have turned lately and the leader must
have swept lately, by this machine's own clock: the API server's may be set while nothing is wrong. A standby replica is
ready: it has nothing to do but wait.
"""

from __future__ import annotations

import asyncio

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from rft_operator.runtime.app import Runtime

STUCK_SECONDS = 30.0
MISSED_SWEEPS = 4


class Probes:
    """The plain HTTP endpoints."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._scraping = asyncio.Lock()

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/livez", self._live)
        app.router.add_get("/readyz", self._ready)
        return app

    async def _metrics(self, _: web.Request) -> web.Response:
        # The series of a thousand runs take some tenths of a second: the event loop must turn meanwhile.
        async with self._scraping:
            body = await asyncio.to_thread(generate_latest, self._runtime.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _live(self, _: web.Request) -> web.Response:
        runtime = self._runtime
        now = asyncio.get_running_loop().time()
        silent = now - runtime.alive_at
        if silent > STUCK_SECONDS:
            return web.Response(status=500, text=f"the event loop has not turned for {silent:.0f} s\n")
        if runtime.leading:
            age = now - runtime.swept_at
            if age > MISSED_SWEEPS * runtime.config.sweep_seconds:
                return web.Response(status=500, text=f"the last sweep is {age:.0f} s old\n")
        return web.Response(text="ok\n")

    async def _ready(self, _: web.Request) -> web.Response:
        runtime = self._runtime
        if runtime.elected and not runtime.leading:
            return web.Response(status=503, text="the first sweep is not done\n")
        return web.Response(text="leading\n" if runtime.leading else "standing by\n")
