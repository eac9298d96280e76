"""Resources, and when the first child of each appeared.

The ConfigMap ``<name>-run`` is the first child by the plan; a child that came earlier would only make the true
figures better than the measured ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.api import Api, BenchError, until
from rft_operator.domain.facts import LABEL_FINETUNE, LABEL_MANAGED_BY, MANAGED_BY, Key, child_name
from rft_operator.runtime.kinds import path_of
from support.builders import resource

KIND = "ReasoningFinetune"
CHILDREN = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
CONFIG_MAPS = path_of("ConfigMap", None)
SENDERS = 32
"""Creates that are under way at once in a burst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """One create: when it was sent, and when the answer was here."""

    key: Key
    sent: float
    accepted: float


class FirstChildren:
    """Times at which the benchmark's watch saw the first child of each run."""

    def __init__(self) -> None:
        self.seen: dict[Key, float] = {}
        self._news = asyncio.Event()

    async def follow(self, api: Api, *, since: str) -> None:
        """Watch until cancelled."""
        async for event in api.watch(CONFIG_MAPS, since=since, selector=CHILDREN):
            finetune = event.metadata["labels"][LABEL_FINETUNE]
            if event.type == "ADDED" and event.metadata["name"] == child_name(finetune, "run"):
                self.seen.setdefault(Key(event.metadata["namespace"], finetune), event.at)
                self._news.set()

    async def wait_for(self, keys: Sequence[Key], *, seconds: float) -> None:
        """Return once every run has its first child."""
        try:
            async with asyncio.timeout(seconds):
                while missing := [key for key in keys if key not in self.seen]:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise BenchError(
                f"{len(missing)} of {len(keys)} runs had no child after {seconds:.0f} s, for example {missing[0]}"
            ) from None


@asynccontextmanager
async def first_children(api: Api) -> AsyncIterator[FirstChildren]:
    """Watch for first children in the background; a watch that breaks breaks the benchmark."""
    children = FirstChildren()
    _, since = await api.names(CONFIG_MAPS, selector=CHILDREN)
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(children.follow(api, since=since))
        try:
            yield children
        finally:
            watch.cancel()


async def create(api: Api, key: Key) -> Created:
    """Create one run, priced by the catalogue."""
    body = resource(key.name, namespace=key.namespace, budget={"usdPerGpuHour": None})
    sent = time.perf_counter()
    await api.call("POST", path_of(KIND, key.namespace), body)
    return Created(key=key, sent=sent, accepted=time.perf_counter())


async def stream(api: Api, keys: Sequence[Key], *, per_second: float) -> list[Created]:
    """Create runs at a fixed rate, whether or not former ones were answered."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for index, key in enumerate(keys):
            await asyncio.sleep(max(0.0, began + index / per_second - loop.time()))
            tasks.append(group.create_task(create(api, key)))
    return [task.result() for task in tasks]


async def burst(api: Api, keys: Sequence[Key]) -> list[Created]:
    """Create runs as fast as the API server takes them."""
    waiting = list(reversed(keys))
    done: list[Created] = []

    async def send() -> None:
        while waiting:
            done.append(await create(api, waiting.pop()))

    async with asyncio.TaskGroup() as group:
        for _ in range(SENDERS):
            group.create_task(send())
    return done


async def delete_all(api: Api, namespace: str, *, seconds: float) -> None:
    """Delete the runs of a namespace and wait until they are gone."""
    path = path_of(KIND, namespace)
    await api.call("DELETE", path, {"propagationPolicy": "Background"})

    async def gone() -> bool:
        return not (await api.names(path))[0]

    await until(gone, what=f"the runs of namespace {namespace} to vanish", seconds=seconds)
