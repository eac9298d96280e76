"""The API server as a user meets it: own field manager, dry runs, lists with their version, streams.

Invariant: what a user writes is owned by the field manager ``rft`` and never taken from another by force, unless asked
for; a stream ends with an error of :mod:`rft_operator.errors` or because the server ended it, never by a silent stall.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import client, config

from rft_operator.errors import ConfigError, KubeError, Unavailable
from rft_operator.metrics import Metrics
from rft_operator.runtime.kinds import path_of
from rft_operator.runtime.kube import JsonObject
from rft_operator.runtime.kube_client import (
    LIST_TIMEOUT_SECONDS,
    MERGE,
    KubeClient,
    map_error,
    read_kubeconfig,
)
from rft_operator.runtime.proxies import settle_proxy

FIELD_MANAGER = "rft"
PAGE = 500
CONNECT_SECONDS = 15
WATCH_SECONDS = 240
"""The server is asked to end a watch after so long, so that a connection that died unseen is noticed."""
WATCH_SILENCE_SECONDS = 300
LOG_SILENCE_SECONDS = 600
"""A rank may say nothing for as long as a checkpoint takes; then the stream is opened anew where it was."""
STREAM_ERRORS = (aiohttp.ClientError, config.ConfigException, TimeoutError, OSError)
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class UserApi(KubeClient):
    """Adds to the operator's client what only users do."""

    async def apply_as_user(self, manifest: JsonObject, *, force: bool = False, dry_run: bool = False) -> JsonObject:
        """Server-side apply; Conflict names the fields that others own."""
        meta = manifest["metadata"]
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower(), "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        path = path_of(manifest["kind"], meta["namespace"], meta["name"])
        return await self._call("PATCH", path, kind=manifest["kind"], verb="apply", query=query, body=manifest)

    async def create_as_user(self, manifest: JsonObject) -> JsonObject:
        """Create an object; Conflict if one of its name exists."""
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        path = path_of(manifest["kind"], manifest["metadata"]["namespace"])
        return await self._call("POST", path, kind=manifest["kind"], verb="create", query=query, body=manifest)

    async def change(self, *, kind: str, namespace: str, name: str, body: JsonObject) -> JsonObject:
        """Change the given fields; Conflict if the body names a resourceVersion that is not the newest."""
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return await self._call(
            "PATCH",
            path_of(kind, namespace, name),
            kind=kind,
            verb="change",
            query=query,
            body=body,
            content_type=MERGE,
        )

    async def look(self, path: str) -> dict[str, Any]:
        """Return the answer of any path, for example ``/version``."""
        return await self._call("GET", path, kind="none", verb="look")

    async def listing(
        self, *, kind: str, namespace: str | None, selectors: Mapping[str, str] | None = None
    ) -> tuple[list[dict[str, Any]], str]:
        """Return all objects and the version of the list; ``selectors`` are labelSelector and fieldSelector."""
        query = {"limit": str(PAGE), **(selectors or {})}
        found: list[dict[str, Any]] = []
        while True:
            page = await self._call(
                "GET",
                path_of(kind, namespace),
                kind=kind,
                verb="list",
                query=query,
                timeout_seconds=LIST_TIMEOUT_SECONDS,
            )
            head = {"apiVersion": page.get("apiVersion", ""), "kind": kind}
            found += [{**head, **item} for item in page["items"]]
            token = page["metadata"].get("continue")
            if not token:
                return found, str(page["metadata"].get("resourceVersion", ""))
            query["continue"] = token

    async def watch(
        self, *, kind: str, namespace: str | None, version: str, selectors: Mapping[str, str] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events after a version, until the server ends the stream."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
            **(selectors or {}),
        }
        async for line in self._lines(path_of(kind, namespace), query, silence_seconds=WATCH_SILENCE_SECONDS):
            try:
                yield json.loads(line)
            except ValueError as error:
                msg = f"watch {kind}: an event is no JSON: {line[:80]!r}"
                raise Unavailable(msg) from error

    async def log(self, *, namespace: str, pod: str, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a pod's log, without their ends."""
        path = f"{path_of('Pod', namespace, pod)}/log"
        async for line in self._lines(path, query, silence_seconds=LOG_SILENCE_SECONDS):
            yield line

    async def _lines(
        self, path: str, query: Mapping[str, str], *, silence_seconds: float
    ) -> AsyncGenerator[bytes, None]:
        """Yield the lines of an answer as they come; of any length."""
        url = f"{self._host}{path}?{urlencode(query, quote_via=quote)}"
        headers = {"Accept": "*/*"}
        timeout: Any = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence_seconds)
        try:
            await self._api.update_params_for_auth(headers, [], ["BearerToken"], None, None, None)
            answer = (await self._api.call_api("GET", url, headers, None, _request_timeout=timeout)).response
        except STREAM_ERRORS as error:
            raise _broken(path, error) from error
        try:
            if answer.status >= 400:
                raise map_error(answer.status, await answer.read(), what=f"GET {path}", headers=answer.headers)
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line
            if rest:
                yield rest
        except STREAM_ERRORS as error:
            raise _broken(path, error) from error
        finally:
            answer.close()


def _broken(path: str, error: Exception) -> KubeError:
    return Unavailable(f"GET {path}: {type(error).__name__}: {error}")


async def connect(*, kubeconfig: Path | None = None, context: str | None = None) -> tuple[UserApi, str]:
    """Return a client and its namespace: the kubeconfig's, or inside a pod without one the pod's own.

    Raises ConfigError.
    """
    configuration = client.Configuration()
    try:
        namespace = await read_kubeconfig(configuration, kubeconfig, context=context)
    except ConfigError:
        own = _pods_namespace()
        if kubeconfig is not None or context is not None or own is None:
            raise
        config.load_incluster_config(client_configuration=configuration)
        namespace = own
    configuration.retries = None
    configuration.connection_pool_maxsize = 0  # no bound: every pod whose log is followed holds a connection
    settle_proxy(configuration)
    return UserApi(configuration, Metrics(), instance=FIELD_MANAGER), namespace


def _pods_namespace() -> str | None:
    """Return the namespace of the pod that this is; None outside of one."""
    return NAMESPACE_FILE.read_text(encoding="utf-8").strip() if NAMESPACE_FILE.is_file() else None
