"""The progress server: Kubeflow Trainer's wire contract, so that any `transformers` script reports by itself.

``POST /apis/rft.dev/v1alpha1/namespaces/{ns}/reasoningfinetunes/{name}/status`` with a projected service-account
token whose audience is that path: 200, 403 (token, audience or pod do not fit), 404 (no such run), 422 (bad body), 413
(a body beyond the limit), 503 (ask another replica, or later: a pod that is not known yet, too).
Invariant: only a pod of the run itself can report on it, and a report never writes to the API server: the reconcile
decides when it is worth a write.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from rft_operator.api import GROUP, PLURAL, VERSION
from rft_operator.domain.facts import Key, PodFacts, Report
from rft_operator.domain.pods import token_audience
from rft_operator.errors import KubeError
from rft_operator.metrics import Metrics
from rft_operator.runtime.cache import Cache
from rft_operator.runtime.kube import JsonObject, ObjectStore
from rft_trainer.progress_report import ProgressReport, TrainerStatus

log = logging.getLogger(__name__)

BODY_LIMIT_BYTES = 64 * 1_024
REVIEW_SECONDS = 60.0
REFUSAL_SECONDS = 2.0
"""A token that is refused may be good: the API server refuses all while it cannot look up whose they are."""
REVIEWS_KEPT = 4_096
REVIEWS_AT_ONCE = 8
"""Anybody who reaches the port can ask for reviews: they leave most of the operator's calls to its own work."""
POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"


@dataclass(frozen=True, slots=True)
class _Reviewed:
    pod: str | None
    pod_uid: str | None
    namespace: str | None
    until: float


class ProgressServer:
    """The request handler; wired into an aiohttp application by :meth:`application`."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        cache: Cache,
        wake: Callable[[Key], None],
        now: Callable[[], int],
        leading: Callable[[], bool],
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._cache = cache
        self._wake = wake
        self._now = now
        self._leading = leading
        self._metrics = metrics
        self._monotonic = monotonic
        self._reviews: dict[str, _Reviewed] = {}
        self._reviewing = asyncio.Semaphore(REVIEWS_AT_ONCE)

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(client_max_size=BODY_LIMIT_BYTES)
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/{PLURAL}/{{name}}/status"
        app.router.add_post(path, self._post)
        return app

    async def _post(self, request: web.Request) -> web.Response:
        response = await self._answer(request)
        self._metrics.reports.labels(str(response.status)).inc()
        return response

    async def _answer(self, request: web.Request) -> web.Response:
        key = Key(request.match_info["namespace"], request.match_info["name"])
        if not self._leading():
            response = refusal(503, "ServiceUnavailable", "this replica does not lead; try again")
            response.force_close()
            return response
        try:
            reviewed = await self._review(request, key)
        except KubeError as error:
            return refusal(503, "ServiceUnavailable", f"the token cannot be reviewed now: {error}")
        if reviewed is None:
            return refusal(403, "Forbidden", "the token is not valid for this run")
        run = self._cache.resource(key)
        if run is None:
            return refusal(404, "NotFound", f"{PLURAL} {key.name!r} not found in namespace {key.namespace!r}")
        pod = self._sender(key, reviewed, run)
        if isinstance(pod, web.Response):
            return pod
        try:
            report = ProgressReport.model_validate_json(await request.read())
        except web.HTTPRequestEntityTooLarge:
            return refusal(413, "RequestEntityTooLarge", f"a report has at most {BODY_LIMIT_BYTES} bytes")
        except ValidationError as error:
            return refusal(422, "Invalid", _first_problem(error))
        if report.trainer_status is not None:
            self._cache.put_report(key, self._report(pod, report.trainer_status))
            self._wake(key)
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 200})

    def _sender(self, key: Key, reviewed: _Reviewed, run: JsonObject) -> PodFacts | web.Response:
        """Return the pod of this run that a token belongs to; of a deleted namesake one may go on where nobody ends it.

        The watch may lag: a pod that it has not told of must not take that for a no.
        """
        stranger = refusal(403, "Forbidden", "the token does not belong to a pod of this run")
        if reviewed.namespace != key.namespace:
            return stranger
        pod = self._cache.pod(key, reviewed.pod) if reviewed.pod else None
        if pod is None:
            return refusal(503, "ServiceUnavailable", "the token's pod is not known to be one of this run; try again")
        mine = pod.uid == reviewed.pod_uid and pod.run_uid in ("", run["metadata"]["uid"])
        return pod if mine else stranger

    def _report(self, pod: PodFacts, status: TrainerStatus) -> Report:
        return Report(
            stage=pod.stage,
            attempt=pod.attempt,
            received_at=self._now(),
            percent=status.progress_percentage,
            eta_seconds=status.estimated_remaining_seconds,
            metrics=tuple((metric.name, metric.value) for metric in status.metrics),
        )

    async def _review(self, request: web.Request, key: Key) -> _Reviewed | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return None
        digest = hashlib.sha256(f"{key}\0{token}".encode()).hexdigest()
        known = self._known(digest)
        if known is None:
            async with self._reviewing:
                # It may have been asked for while this one waited.
                known = self._known(digest) or await self._ask(token, audience=token_audience(key.namespace, key.name))
            if len(self._reviews) >= REVIEWS_KEPT:
                self._reviews.clear()
            self._reviews[digest] = known
        return known if known.pod is not None else None

    def _known(self, digest: str) -> _Reviewed | None:
        found = self._reviews.get(digest)
        return found if found is not None and found.until >= self._monotonic() else None

    async def _ask(self, token: str, *, audience: str) -> _Reviewed:
        answer = await self._store.create(
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [audience]},
            }
        )
        status: dict[str, Any] = answer.get("status") or {}
        now = self._monotonic()
        if not status.get("authenticated") or audience not in (status.get("audiences") or ()):
            return _Reviewed(None, None, None, now + REFUSAL_SECONDS)
        user = status.get("user") or {}
        extra = user.get("extra") or {}
        parts = str(user.get("username", "")).split(":")
        namespace = parts[2] if parts[:2] == ["system", "serviceaccount"] and len(parts) == 4 else None
        names, uids = extra.get(POD_NAME) or [None], extra.get(POD_UID) or [None]
        return _Reviewed(names[0], uids[0], namespace, now + REVIEW_SECONDS)


def refusal(code: int, reason: str, message: str) -> web.Response:
    """Return a Kubernetes ``Status`` body that says why."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return web.json_response(body, status=code)


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'body'}: {first['msg']}"
