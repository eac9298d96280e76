"""The operator's runtime over the fake API server, leading in the background of a test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

from rft_operator.api import BUDGET_KIND
from rft_operator.config import Config
from rft_operator.metrics import Metrics
from rft_operator.runtime.app import Runtime
from rft_operator.runtime.clock import ServerClock
from rft_operator.runtime.kube_client import KubeClient
from rft_operator.runtime.sweep import KINDS
from support.fake_kube import FakeKube

WATCHED = {*KINDS, BUDGET_KIND, "Node"}


class ClockedKube(FakeKube):
    """The fake API server with a clock, as the client has one; ``wall`` is its time."""

    def __init__(self) -> None:
        self.wall = 1_767_225_600
        super().__init__(lambda: self.wall)
        self.clock = ServerClock(monotonic=lambda: 0.0, wall=lambda: float(self.wall))


class Operator:
    """A runtime that sees what happens in the fake cluster."""

    def __init__(self, **settings: Any) -> None:
        self.kube = ClockedKube()
        self.metrics = Metrics()
        config = Config(**{"trainer_image": "rft.local/trainer:dev", "workers": 4, **settings})
        self.runtime = Runtime(config, cast(KubeClient, self.kube), self.metrics)
        self.kube.subscribers = [self._watch]

    def _watch(self, kind: str, type_: str, obj: Mapping[str, Any]) -> None:
        if kind in WATCHED:
            self.runtime.saw(kind, type_, obj)

    def sample(self, name: str, **labels: str) -> float:
        """Return a metric's value; nought if it has none yet."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    @contextlib.asynccontextmanager
    async def leading(self) -> AsyncIterator[asyncio.Task[None]]:
        """Lead while the block runs; fails if the lead ends by itself."""
        task = asyncio.create_task(self.runtime.lead())
        beside = asyncio.create_task(self.runtime.follow_prices())
        try:
            yield task
            assert not task.done(), task
        finally:
            for each in (task, beside):
                each.cancel()
            await asyncio.gather(task, beside, return_exceptions=True)
