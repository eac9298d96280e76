"""The fake API server over HTTP, in a thread of its own: for tests of what users run, from kubeconfig to exit code.

Beyond :mod:`support.fake_kube` it has what only users need: lists with a version, watches that can be cut or compacted
away, logs that grow, dry runs. Whatever else the API server may say is put in the way with :meth:`FakeApi.fail`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.test_utils import TestServer

from rft_operator.errors import Conflict, KubeError, NotFound
from rft_operator.runtime.kinds import ENDPOINTS
from support.builders import merged
from support.fake_kube import FakeKube
from support.json_copy import copied

T = TypeVar("T")
KIND_OF = {(each.api_version, each.plural): kind for kind, each in ENDPOINTS.items()}
POLL_SECONDS = 0.01
PATIENCE_SECONDS = 60
"""The machine that runs the tests may be busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a path speaks of."""

    kind: str | None
    namespace: str
    name: str | None
    part: str | None


@dataclass(slots=True)
class Failure:
    """An answer instead of the real one, as often as said."""

    fits: Callable[[str, str], bool]
    status: int
    message: str
    details: Mapping[str, Any]
    times: int


@dataclass(slots=True)
class FakeApi:
    """Serves a :class:`FakeKube`; the cluster is changed with :meth:`do`."""

    folder: Path
    kube: FakeKube
    namespace: str = "team"
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    """Method, path, query, body."""
    logs: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Pod -> (timestamp, text)."""
    extra_events: list[bytes] = field(default_factory=list)
    """What the next watch begins with; it ends after that."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Path -> answer, of what the fake does not have."""
    _events: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    _oldest: int = 0
    _cut: int = 0
    _failures: list[Failure] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _ready: threading.Event = field(default_factory=threading.Event)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _thread: threading.Thread | None = None
    _background: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig for this server."""
        return self.folder / "kubeconfig"

    def __enter__(self) -> FakeApi:
        self.kube.subscribers.append(self._record)
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        assert self._ready.wait(PATIENCE_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        assert self._thread is not None
        self._thread.join(PATIENCE_SECONDS)
        self._loop.close()

    def do(self, act: Callable[[], T]) -> T:
        """Do something to the cluster, between two requests."""

        async def run() -> T:
            return act()

        return self.submit(run()).result(PATIENCE_SECONDS)

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start work in the server's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def when(self, holds: Callable[[], bool], act: Callable[[], object]) -> None:
        """Do something to the cluster as soon as something holds."""

        async def wait() -> None:
            while not holds():  # noqa: ASYNC110 - a condition of the fake's own state
                await asyncio.sleep(POLL_SECONDS)
            act()

        async def start() -> None:
            task = asyncio.create_task(wait())
            self._background.add(task)
            task.add_done_callback(self._background.discard)

        asyncio.run_coroutine_threadsafe(start(), self._loop)

    def fail(
        self,
        status: int,
        message: str = "no",
        *,
        method: str = "",
        path: str = "",
        times: int = 1_000,
        causes: Mapping[str, str] | None = None,
    ) -> None:
        """Answer requests whose method and path contain these texts with a failure."""
        details = {"causes": [{"field": name, "message": words} for name, words in (causes or {}).items()]}

        def fits(asked: str, where: str) -> bool:
            return method in asked and path in where

        self._failures.append(Failure(fits, status, message, details, times))

    def write(self, pod: str, *lines: tuple[str, str]) -> None:
        """Let a pod's container write lines: (timestamp, text)."""
        self.do(lambda: self.logs.setdefault(pod, []).extend(lines))

    def mend(self) -> None:
        """Answer everything again."""
        self._failures.clear()

    def cut(self) -> None:
        """Break all watches and followed logs off."""
        self.do(self.break_off)

    def break_off(self) -> None:
        """Do so from within the server's thread."""
        self._cut += 1

    def compact(self) -> None:
        """Forget all versions: a watch from before is answered with 410."""
        self.do(lambda: setattr(self, "_oldest", self._newest + 1))
        self.do(self._events.clear)

    # -- inside -----------------------------------------------------------------------------------------------

    @property
    def _newest(self) -> int:
        stored = self.kube.objects.values()
        versions = [int(each["metadata"]["resourceVersion"]) for each in stored]
        return max([0, self._oldest, *versions, *(version for version, _, _ in self._events)])

    def _record(self, kind: str, type_: str, obj: Mapping[str, Any]) -> None:
        raw = copied(dict(obj))
        if type_ == "DELETED":
            raw["metadata"]["resourceVersion"] = str(self._newest + 1)
        self._events.append((int(raw["metadata"]["resourceVersion"]), type_, raw))

    async def _serve(self) -> None:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._answer)
        app.on_response_prepare.append(self._tell_time)
        async with TestServer(app) as server:
            user = {"name": "x", "user": {"token": "t"}}
            content = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "x", "cluster": {"server": str(server.make_url("/")).rstrip("/")}}],
                "users": [user],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": self.namespace}}],
                "current-context": "x",
            }
            self.kubeconfig.write_text(json.dumps(content))
            self._ready.set()
            await self._stop.wait()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _tell_time(self, request: web.Request, response: web.StreamResponse) -> None:
        """The cluster's clock is that of the fake, whatever this machine's says."""
        response.headers["Date"] = formatdate(self.kube.now(), usegmt=True)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw) if raw else None
        self.requests.append((request.method, request.path, dict(request.query), body))
        for failure in self._failures:
            if failure.times and failure.fits(request.method, request.path):
                failure.times -= 1
                return _status(failure.status, failure.message, failure.details)
        try:
            return await self._route(request, _target(request.path), body)
        except KubeError as error:
            return _status(error.status or 500, str(error), {})

    async def _route(self, request: web.Request, target: Target, body: Any) -> web.StreamResponse:
        if request.path in self.extra:
            return web.json_response(self.extra[request.path])
        if target.kind is None:
            return web.Response(status=404, text="404 page not found\n")
        if request.method == "GET" and target.part == "log":
            return await self._log(request, target)
        if request.method == "GET" and target.name is None:
            return await (self._watch if "watch" in request.query else self._list)(request, target)
        if request.method == "GET":
            return web.json_response(self._get(target))
        if request.method == "POST":
            return web.json_response(await self.kube.create(body))
        apply = request.content_type == "application/apply-patch+yaml"
        if "dryRun" in request.query:
            return web.json_response(body)
        return web.json_response(await self.kube.apply(body) if apply else self._merge(target, body))

    def _get(self, target: Target) -> dict[str, Any]:
        try:
            return self.kube.objects[target.kind or "", target.namespace, target.name or ""]
        except KeyError:
            raise NotFound(f'{target.kind} "{target.name}" not found', status=404) from None

    def _merge(self, target: Target, body: dict[str, Any]) -> dict[str, Any]:
        old = self._get(target)
        version = body.get("metadata", {}).get("resourceVersion")
        if version not in (None, old["metadata"]["resourceVersion"]):
            raise Conflict("the object has been modified; please apply your changes to the latest version", status=409)

        def write(obj: dict[str, Any]) -> None:
            obj.update(merged(obj, {key: value for key, value in body.items() if key != "metadata"}))

        return self.kube.patch(target.kind or "", target.namespace, target.name or "", write)

    def _fitting(self, query: Mapping[str, str], target: Target) -> Callable[[Mapping[str, Any]], bool]:
        labels = dict(pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair)
        name = query.get("fieldSelector", "").removeprefix("metadata.name=")

        def fits(obj: Mapping[str, Any]) -> bool:
            meta = obj["metadata"]
            return (
                obj["kind"] == target.kind
                and target.namespace in ("", meta.get("namespace", ""))
                and name in ("", meta["name"])
                and labels.items() <= (meta.get("labels") or {}).items()
            )

        return fits

    async def _list(self, request: web.Request, target: Target) -> web.StreamResponse:
        fits = self._fitting(request.query, target)
        items = [each for each in self.kube.objects.values() if fits(each)]
        api_version = ENDPOINTS[target.kind or ""].api_version
        head = {"apiVersion": api_version, "kind": f"{target.kind}List"}
        return web.json_response({**head, "metadata": {"resourceVersion": str(self._newest)}, "items": items})

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        since, fits, cut = int(request.query["resourceVersion"]), self._fitting(request.query, target), self._cut
        answer = web.StreamResponse()
        await answer.prepare(request)
        if since < self._oldest:
            gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}}
            await answer.write(json.dumps(gone).encode() + b"\n")
            return answer
        if self.extra_events:
            await answer.write(self.extra_events.pop(0) + b"\n")
            return answer
        while cut == self._cut and not self._stop.is_set():
            for version, type_, raw in [each for each in self._events if each[0] > since]:
                since = version
                if fits(raw):
                    await answer.write(json.dumps({"type": type_, "object": raw}).encode() + b"\n")
            await asyncio.sleep(POLL_SECONDS)
        return answer

    async def _log(self, request: web.Request, target: Target) -> web.StreamResponse:
        self._get(target)
        name, cut = target.name or "", self._cut
        if name not in self.logs:
            words = f'container "trainer" in pod "{name}" is waiting to start: ContainerCreating'
            return _status(400, words, {})
        lines = self.logs[name]
        since = request.query.get("sinceTime", "").removesuffix("Z")
        first = next((index for index, (stamp, _) in enumerate(lines) if stamp[:19] >= since), len(lines))
        if "tailLines" in request.query:
            first = max(first, len(lines) - int(request.query["tailLines"]))
        answer = web.StreamResponse()
        await answer.prepare(request)
        follow = request.query.get("follow") == "true"
        while cut == self._cut and not self._stop.is_set():
            for stamp, text in lines[first:]:
                await answer.write(f"{stamp} {text}\n".encode())
            first = len(lines)
            pod = self.kube.objects.get(("Pod", target.namespace, name))
            if not follow or pod is None or pod["status"].get("phase") in ("Succeeded", "Failed"):
                break
            await asyncio.sleep(POLL_SECONDS)
        return answer


def _target(path: str) -> Target:
    """Take a path apart."""
    parts = path.strip("/").split("/")
    core = parts[0] == "api"
    version, rest = (parts[1], parts[2:]) if core else ("/".join(parts[1:3]), parts[3:])
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    plural, name, part = (*rest, None, None, None)[:3]
    return Target(kind=KIND_OF.get((version, plural or "")), namespace=namespace, name=name, part=part)


def _status(code: int, message: str, details: Mapping[str, Any]) -> web.Response:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return web.json_response({**status, "details": details}, status=code)
