"""A lean client for the benchmark: what it costs must be small beside what it measures."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import aiohttp
import yaml

JsonObject = Mapping[str, Any]
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
CONNECTIONS = 64
TIMEOUT_SECONDS = 60


class BenchError(Exception):
    """Something the benchmark needs did not work; there is no figure to show."""


async def until(holds: Callable[[], Awaitable[bool]], *, what: str, seconds: float, every: float = 0.1) -> None:
    """Poll until something holds; raises BenchError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not await holds():
        if time.monotonic() > deadline:
            raise BenchError(f"waited {seconds:.0f} s for {what}")
        await asyncio.sleep(every)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An object's metadata, and when the benchmark's watch saw it."""

    type: str
    metadata: JsonObject
    at: float


class Api:
    """Calls and watches as the user of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        raw = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        cluster = raw["clusters"][0]["cluster"]
        self.server: str = cluster["server"]
        self.authority: str = cluster["certificate-authority"]
        token = raw["users"][0]["user"]["token"]
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    async def __aenter__(self) -> Api:
        context = ssl.create_default_context(cafile=self.authority)
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(ssl=context, limit=CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_SECONDS),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        body: JsonObject | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        allow: tuple[int, ...] = (),
    ) -> dict[str, Any]:
        """Send one request; raises BenchError for a status of 400 or more, but nothing for an allowed one."""
        data = None if body is None else json.dumps(body).encode()
        async with self._session.request(method, self.server + path, data=data, headers=headers) as response:
            raw = await response.read()
        if response.status in allow:
            return {}
        if response.status >= 400:
            raise BenchError(f"{method} {path}: {response.status}: {raw[:500].decode(errors='replace')}")
        decoded: dict[str, Any] = json.loads(raw)
        return decoded

    async def names(self, path: str, *, selector: str = "") -> tuple[list[JsonObject], str]:
        """Return the metadata of all objects of a collection, and the resourceVersion to watch from."""
        query = f"?{urlencode({'labelSelector': selector})}" if selector else ""
        listed = await self.call("GET", path + query, headers={"Accept": METADATA_LIST})
        return [item["metadata"] for item in listed["items"] or ()], listed["metadata"]["resourceVersion"]

    async def watch(self, path: str, *, since: str, selector: str = "") -> AsyncIterator[Seen]:
        """Yield what happens to a collection, metadata only; raises BenchError when the watch ends."""
        query = {"watch": "true", "resourceVersion": since, **({"labelSelector": selector} if selector else {})}
        url = f"{self.server}{path}?{urlencode(query)}"
        async with self._session.get(url, headers={"Accept": METADATA_ONLY}) as response:
            async for line in response.content:
                at = time.perf_counter()
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise BenchError(f"the watch of {path} failed: {event['object']}")
                yield Seen(type=event["type"], metadata=event["object"]["metadata"], at=at)
        raise BenchError(f"the watch of {path} ended")
