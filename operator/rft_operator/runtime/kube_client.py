"""The Kube protocol over ``kubernetes.aio``: server-side apply, time-outs, error mapping, metrics, the server's clock.

Invariant: every call has a time-out, and every failure leaves as an error of :mod:`rft_operator.errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import yaml
from kubernetes.aio import client, config
from kubernetes.aio.config import kube_config

from rft_operator.api import KIND
from rft_operator.domain.facts import GATE
from rft_operator.errors import ConfigError, Conflict, KubeError, NotFound, Rejected, Unavailable
from rft_operator.metrics import Metrics
from rft_operator.runtime.clock import ServerClock
from rft_operator.runtime.events import EventWriter
from rft_operator.runtime.kinds import ENDPOINTS, path_of
from rft_operator.runtime.kube import FIELD_MANAGER, STATUS_FIELD_MANAGER, JsonObject, Listed
from rft_operator.runtime.proxies import settle_proxy

TIMEOUT_SECONDS = 15
LIST_TIMEOUT_SECONDS = 60
PAGE = 100
CONCURRENT_REQUESTS = 32
"""Each TLS connection of asyncio holds a read buffer of 256 KiB."""
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY_QUERY = {"force": "true", "fieldValidation": "Ignore"}
"""Server-side apply refuses unknown fields by itself; the second strict parse would only fill warnings nobody reads."""
_UNUSABLE = (config.ConfigException, OSError, yaml.YAMLError, AttributeError, LookupError, TypeError, ValueError)
"""What the library raises of a kubeconfig that is empty, no text, or has values of other kinds."""
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


async def load_configuration() -> client.Configuration:
    """Return the configuration: in-cluster if there is one, else the current kubeconfig; raises ConfigError."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        await read_kubeconfig(configuration)
    configuration.connection_pool_maxsize = CONCURRENT_REQUESTS + 1
    configuration.retries = None
    settle_proxy(configuration)
    return configuration


async def read_kubeconfig(
    configuration: client.Configuration, file: Path | None = None, *, context: str | None = None
) -> str:
    """Take a kubeconfig into a configuration (the current one if ``file`` is None); return its context's namespace.

    Raises ConfigError.
    """
    try:
        loader = await config.load_kube_config(
            config_file=_kubeconfig_files(file), context=context, client_configuration=configuration
        )
    except _UNUSABLE as error:
        msg = f"no usable kubeconfig: {error}. Set KUBECONFIG to a file that `kubectl` can use."
        raise ConfigError(msg) from error
    return str(loader.current_context["context"].get("namespace") or "default")


def _kubeconfig_files(file: Path | None) -> str:
    """Return where the kubeconfig is; as for kubectl, an empty KUBECONFIG is none, and absent files are passed over."""
    default = str(file or kube_config.KUBE_CONFIG_DEFAULT_LOCATION or Path.home() / ".kube" / "config")
    paths = [default] if file is not None else default.split(kube_config.ENV_KUBECONFIG_PATH_SEPARATOR)
    found = [path for path in paths if Path(path).expanduser().exists()]
    if not found:
        msg = f"no usable kubeconfig: {' and '.join(paths)} not found. Set KUBECONFIG to a file that `kubectl` can use."
        raise ConfigError(msg)
    return str(kube_config.ENV_KUBECONFIG_PATH_SEPARATOR.join(found))


class KubeClient:
    """Kube and ObjectStore over the real API server."""

    def __init__(
        self, configuration: client.Configuration, metrics: Metrics, *, instance: str = "rft-operator"
    ) -> None:
        """Make ready to connect; raises ConfigError where the configuration has certificates that cannot be read."""
        try:
            self._api = client.ApiClient(configuration)
        except OSError as error:  # ssl.SSLError is one
            msg = (
                f"no usable kubeconfig: a certificate or key for {configuration.host} cannot be read: {error}. "
                "Set KUBECONFIG to a file that `kubectl` can use."
            )
            raise ConfigError(msg) from error
        self._host: str = configuration.host
        self._metrics = metrics
        self._slots = asyncio.Semaphore(CONCURRENT_REQUESTS)
        self._events = EventWriter(self, instance=instance)
        self.clock = ServerClock()

    async def __aenter__(self) -> KubeClient:
        """Return the client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._api.close()

    async def apply(self, manifest: JsonObject) -> JsonObject:
        """Server-side apply with force."""
        query = {"fieldManager": FIELD_MANAGER, **APPLY_QUERY}
        return await self._call(
            "PATCH", _path(manifest), kind=manifest["kind"], verb="apply", query=query, body=manifest
        )

    async def apply_status(
        self, *, kind: str = KIND, namespace: str, name: str, status: JsonObject, resource_version: str
    ) -> JsonObject:
        """Apply the whole status of one of our resources, if it is still at ``resource_version``."""
        body = {
            "apiVersion": ENDPOINTS[kind].api_version,
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "resourceVersion": resource_version},
            "status": status,
        }
        query = {"fieldManager": STATUS_FIELD_MANAGER, **APPLY_QUERY}
        path = f"{path_of(kind, namespace, name)}/status"
        return await self._call("PATCH", path, kind=kind, verb="apply_status", query=query, body=body)

    async def set_finalizers(
        self, *, kind: str, namespace: str, name: str, finalizers: Sequence[str], resource_version: str
    ) -> JsonObject:
        """Replace an object's finalizers, if it is still at ``resource_version``."""
        body = {"metadata": {"resourceVersion": resource_version, "finalizers": list(finalizers)}}
        return await self._call(
            "PATCH",
            path_of(kind, namespace, name),
            kind=kind,
            verb="set_finalizers",
            query={"fieldManager": FIELD_MANAGER},
            body=body,
            content_type=MERGE,
        )

    async def set_deadline(self, *, namespace: str, name: str, uid: str, seconds: int) -> JsonObject:
        """Lower a pod's activeDeadlineSeconds, if it is still the same pod."""
        spec = {"activeDeadlineSeconds": seconds}
        return await self._patch_pod(namespace, name, uid, spec=spec, verb="set_deadline", content_type=MERGE)

    async def open_gate(self, *, namespace: str, name: str, uid: str) -> JsonObject:
        """Take our scheduling gate off a pod, if it is still the same pod."""
        spec = {"schedulingGates": [{"name": GATE, "$patch": "delete"}]}
        return await self._patch_pod(namespace, name, uid, spec=spec, verb="open_gate", content_type=STRATEGIC)

    async def _patch_pod(
        self, namespace: str, name: str, uid: str, *, spec: JsonObject, verb: str, content_type: str
    ) -> JsonObject:
        try:
            return await self._call(
                "PATCH",
                path_of("Pod", namespace, name),
                kind="Pod",
                verb=verb,
                query={"fieldManager": FIELD_MANAGER},
                body={"metadata": {"uid": uid}, "spec": spec},
                content_type=content_type,
            )
        except Rejected as error:
            if "metadata.uid" in str(error):  # another pod has its name
                raise NotFound(str(error), status=404) from error
            raise

    async def delete(self, *, kind: str, namespace: str, name: str, uid: str | None = None) -> None:
        """Delete in the background; nothing happens if it is gone or another object has its name."""
        body: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", path_of(kind, namespace, name), kind=kind, verb="delete", body=body)
        except (NotFound, Conflict):
            return

    async def get(self, *, kind: str, namespace: str | None, name: str) -> JsonObject:
        """Read one object; of a Secret the metadata only."""
        accept = METADATA_ONLY if kind == "Secret" else "application/json"
        return await self._call("GET", path_of(kind, namespace, name), kind=kind, verb="get", accept=accept)

    async def list(self, *, kind: str, namespace: str | None = None, label_selector: str | None = None) -> Listed:
        """Read all objects of a kind."""
        found = Listed((), version="")
        async for page in self.pages(kind=kind, namespace=namespace, label_selector=label_selector):
            found.version = page.version
            found += page
        return found

    async def pages(
        self, *, kind: str, namespace: str | None = None, label_selector: str | None = None, size: int = PAGE
    ) -> AsyncGenerator[Listed, None]:
        """Read all objects of a kind page by page, all of one version."""
        query = {"limit": str(size)}
        if label_selector is not None:
            query["labelSelector"] = label_selector
        endpoint = ENDPOINTS[kind]
        while True:
            page = await self._call(
                "GET",
                path_of(kind, namespace),
                kind=kind,
                verb="list",
                query=query,
                timeout_seconds=LIST_TIMEOUT_SECONDS,
            )
            # Items of a list come without the two fields that every single object has.
            head = {"apiVersion": endpoint.api_version, "kind": kind}
            token, version = page["metadata"].get("continue"), str(page["metadata"].get("resourceVersion", ""))
            yield Listed(({**head, **item} for item in page["items"]), version=version)
            if not token:
                return
            query["continue"] = token

    async def emit(self, *, regarding: JsonObject, type_: str, reason: str, message: str) -> None:
        """Write a Kubernetes Event."""
        await self._events.emit(regarding=regarding, type_=type_, reason=reason, message=message)

    async def create(self, manifest: JsonObject) -> JsonObject:
        """Create an object."""
        namespace = (manifest.get("metadata") or {}).get("namespace")
        kind = manifest["kind"]
        return await self._call("POST", path_of(kind, namespace), kind=kind, verb="create", body=manifest)

    async def replace(self, manifest: JsonObject) -> JsonObject:
        """Replace an object."""
        return await self._call("PUT", _path(manifest), kind=manifest["kind"], verb="replace", body=manifest)

    async def read(self, *, kind: str, namespace: str | None, name: str) -> JsonObject:
        """Read one whole object."""
        return await self._call("GET", path_of(kind, namespace, name), kind=kind, verb="get")

    async def _call(  # noqa: PLR0913 - one request
        self,
        method: str,
        path: str,
        *,
        kind: str,
        verb: str,
        query: Mapping[str, str] | None = None,
        body: JsonObject | None = None,
        content_type: str | None = None,
        accept: str = "application/json",
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> dict[str, Any]:
        url = self._host + path + (f"?{urlencode(query, quote_via=quote)}" if query else "")
        headers = {
            "Accept": accept,
            "Content-Type": content_type or (APPLY if method == "PATCH" else "application/json"),
        }
        code = "error"
        # The Lease never waits behind other calls: a slow API server would cost the leader its lease.
        async with contextlib.nullcontext() if kind == "Lease" else self._slots:
            sent = time.monotonic()
            try:
                await self._api.update_params_for_auth(headers, [], ["BearerToken"], None, None, None)
                response = await self._api.call_api(method, url, headers, body, _request_timeout=timeout_seconds)
                raw: bytes = await response.read()
                code = str(response.status)
            except (aiohttp.ClientError, config.ConfigException, TimeoutError, OSError) as error:
                msg = f"{verb} {kind} {path}: {type(error).__name__}: {error}"
                raise Unavailable(msg) from error
            finally:
                self._metrics.requests.labels(verb, kind, code).inc()
                self._metrics.request_seconds.labels(verb).observe(time.monotonic() - sent)
        date = response.headers.get("Date")
        if date:
            self.clock.observe(date, sent=sent, received=time.monotonic())
        what = f"{verb} {kind} {path}"
        if response.status >= 400:
            raise map_error(response.status, raw, what=what, headers=response.headers)
        decoded = _object(raw)
        if decoded is None:
            msg = f"{what}: {response.status}: the answer is no JSON object: {_words(raw)}"
            raise Unavailable(msg, status=response.status)
        return decoded


def _path(manifest: JsonObject) -> str:
    meta = manifest["metadata"]
    return path_of(manifest["kind"], meta.get("namespace"), meta["name"])


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        decoded = json.loads(raw) if raw else {}
    except ValueError:
        return None
    return decoded if isinstance(decoded, dict) else None


def _words(raw: bytes) -> str:
    """Return what an answer says, in one line: the message of a Status, or what a proxy in between wrote."""
    status = _object(raw)
    words = str(status.get("message") or "") if status is not None else raw[:300].decode(errors="replace")
    return " ".join(words.split())


def _causes(raw: bytes) -> list[tuple[str, str]]:
    """Return (field, words) of each field that a Status complains of."""
    details = (_object(raw) or {}).get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    return [
        (str(each.get("field") or ""), " ".join(str(each.get("message") or "").split()))
        for each in (causes if isinstance(causes, list) else ())
        if isinstance(each, dict)
    ]


def map_error(status: int, raw: bytes, *, what: str, headers: Mapping[str, str]) -> KubeError:
    """Return the error of an answer with a status of 400 or more."""
    words = _words(raw)
    message = f"{what}: {status}: {words}"
    if status == 404:
        return NotFound(message, status=status)
    causes = _causes(raw)
    if status == 409:
        return Conflict(message, status=status, causes=causes)
    # A field that the stored CRD does not know is a 500 of server-side apply: waiting does not help.
    schema = status == 500 and "failed to create typed patch object" in words
    if schema or (400 <= status < 500 and status not in (401, 408, 429)):
        return Rejected(message, status=status, causes=causes)
    after = headers.get("Retry-After", "")
    return Unavailable(message, status=status, retry_after_seconds=float(after) if after.isdigit() else None)
