"""The progress server: Kubeflow Trainer's wire contract, open to the run's own pods alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from rft_operator.domain.facts import Key
from rft_operator.domain.observe import ANNOTATION_RUN_UID
from rft_operator.domain.pods import token_audience
from rft_operator.errors import KubeError, NotFound, Unavailable
from rft_operator.metrics import Metrics
from rft_operator.runtime import progress
from rft_operator.runtime.cache import Cache
from rft_operator.runtime.kube_client import CONCURRENT_REQUESTS
from rft_operator.runtime.progress import BODY_LIMIT_BYTES, ProgressServer
from rft_trainer.contract import Stage
from rft_trainer.report import MINIMUM_INTERVAL_SECONDS
from support.builders import NAME, NAMESPACE, UID
from support.objects import stored_child, stored_run

KEY = Key(NAMESPACE, NAME)
POD, POD_UID = "demo-train-1-0-x", "pod-uid"
PATH = f"/apis/rft.dev/v1alpha1/namespaces/{NAMESPACE}/reasoningfinetunes/{NAME}/status"
TIME = "2026-01-01T00:00:00Z"
BODY = {
    "trainerStatus": {
        "lastUpdatedTime": TIME,
        "progressPercentage": 40,
        "estimatedRemainingSeconds": 60,
        "metrics": [{"name": "loss", "value": "1.5"}],
    }
}


class Reviewer:
    """Reviews tokens as the API server does; every other call is a mistake."""

    def __init__(self) -> None:
        self.tokens: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, list[str]]] = []
        self.error: KubeError | None = None

    def admit(
        self, token: str, *, pod: str = POD, uid: str = POD_UID, namespace: str = NAMESPACE, audience: str | None = None
    ) -> None:
        """Know a projected token of a pod."""
        name = "authentication.kubernetes.io/pod"
        self.tokens[token] = {
            "authenticated": True,
            "audiences": [audience or token_audience(NAMESPACE, NAME)],
            "user": {
                "username": f"system:serviceaccount:{namespace}:default",
                "extra": {f"{name}-name": [pod], f"{name}-uid": [uid]},
            },
        }

    async def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        assert manifest["kind"] == "TokenReview"
        spec = manifest["spec"]
        self.asked.append((spec["token"], spec["audiences"]))
        if self.error is not None:
            raise self.error
        known = self.tokens.get(spec["token"])
        fits = known is not None and set(known["audiences"]) & set(spec["audiences"])
        return {**manifest, "status": known if fits else {"error": "invalid token"}}

    async def replace(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    async def read(self, *, kind: str, namespace: str | None, name: str) -> dict[str, Any]:
        raise NotImplementedError


class Served:
    """A progress server with a client."""

    def __init__(self) -> None:
        self.reviewer = Reviewer()
        self.cache = Cache()
        self.woken: list[Key] = []
        self.leading = True
        self.local = 0.0
        self.metrics = Metrics()
        self.client: TestClient[Any, Any]
        self.cache.put(stored_run())
        self.cache.put(stored_child("Pod", POD, uid=POD_UID))
        self.reviewer.admit("good")
        self.server = ProgressServer(
            store=self.reviewer,
            cache=self.cache,
            wake=self.woken.append,
            now=lambda: 1_000,
            leading=lambda: self.leading,
            metrics=self.metrics,
            monotonic=lambda: self.local,
        )

    async def post(
        self, body: Any = BODY, *, token: str | None = "good", path: str = PATH, scheme: str = "Bearer"
    ) -> ClientResponse:
        headers = {"Authorization": f"{scheme} {token}"} if token is not None else {}
        data = body if isinstance(body, bytes) else json.dumps(body)
        return await self.client.post(path, data=data, headers=headers)

    async def refused(self, **how: Any) -> tuple[int, str]:
        """POST, and return the status and the message of the Kubernetes Status that comes back."""
        response = await self.post(**how)
        said = await response.json()
        assert (said["kind"], said["status"], said["code"]) == ("Status", "Failure", response.status)
        assert not self.woken
        assert self.cache.report(KEY) is None
        return response.status, said["message"]


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Served]:
    it = Served()
    async with TestClient(TestServer(it.server.application())) as client:
        it.client = client
        yield it


async def test_report_is_kept_and_wakes_the_run_when_its_own_pod_sends_it() -> None:
    async with served() as it:
        response = await it.post()
        assert response.status == 200
        assert (await response.json())["status"] == "Success"
        report = it.cache.report(KEY)
        assert report is not None
        assert (report.stage, report.attempt, report.received_at) == (Stage.TRAIN, 1, 1_000)
        assert (report.percent, report.eta_seconds, report.metrics) == (40, 60, (("loss", "1.5"),))
        assert it.woken == [KEY]


@pytest.mark.parametrize("body", [{}, {"trainerStatus": None}])
async def test_report_without_a_status_changes_nothing(body: Any) -> None:
    async with served() as it:
        assert (await it.post(body)).status == 200
        assert it.cache.report(KEY) is None
        assert not it.woken


async def test_unknown_fields_are_let_pass() -> None:
    async with served() as it:
        body = {"trainerStatus": {**BODY["trainerStatus"], "fromTheFuture": 1}, "more": 2}
        assert (await it.post(body)).status == 200


@pytest.mark.parametrize("how", [{"token": None}, {"token": ""}, {"token": "forged"}, {"scheme": "Basic"}], ids=str)
async def test_report_is_forbidden_without_a_valid_token(how: dict[str, Any]) -> None:
    async with served() as it:
        assert (await it.refused(**how))[0] == 403


async def test_token_is_reviewed_for_the_audience_of_this_run_alone() -> None:
    async with served() as it:
        it.reviewer.admit("other run", audience=token_audience(NAMESPACE, "other"))
        assert (await it.refused(token="other run"))[0] == 403
        assert it.reviewer.asked == [("other run", [token_audience(NAMESPACE, NAME)])]


async def test_authenticator_that_knows_no_audiences_is_not_trusted() -> None:
    async with served() as it:
        it.reviewer.tokens["good"]["audiences"] = []

        async def review(manifest: Mapping[str, Any]) -> dict[str, Any]:
            return {**manifest, "status": it.reviewer.tokens["good"]}

        it.reviewer.create = review  # type: ignore[method-assign]
        assert (await it.refused())[0] == 403


@pytest.mark.parametrize(
    "whose",
    [
        {"uid": "of a former pod of this name"},
        {"namespace": "elsewhere"},
    ],
    ids=str,
)
async def test_report_is_forbidden_when_the_token_is_of_no_pod_of_this_run(whose: dict[str, str]) -> None:
    async with served() as it:
        it.reviewer.admit("good", **whose)
        status, message = await it.refused()
        assert status == 403
        assert "pod" in message


async def test_pod_that_the_watch_has_not_told_of_is_asked_to_try_again() -> None:
    async with served() as it:
        it.cache.drop(stored_child("Pod", POD, uid=POD_UID))
        assert (await it.refused())[0] == 503
        it.cache.put(stored_child("Pod", POD, uid=POD_UID, version=2))
        assert (await it.post()).status == 200


async def test_good_token_is_reviewed_again_soon_when_the_api_server_refused_it() -> None:
    async with served() as it:
        known = it.reviewer.tokens.pop("good")
        assert (await it.refused())[0] == 403
        assert (await it.refused())[0] == 403
        assert len(it.reviewer.asked) == 1
        it.reviewer.tokens["good"] = known
        it.local += MINIMUM_INTERVAL_SECONDS
        assert (await it.post()).status == 200


@pytest.mark.parametrize(("made_for", "answer"), [("another-uid", 403), (UID, 200), (None, 200)])
async def test_pod_of_a_deleted_namesake_does_not_report_on_the_new_run(made_for: str | None, answer: int) -> None:
    async with served() as it:
        annotations = {ANNOTATION_RUN_UID: made_for} if made_for is not None else {}
        it.cache.put(stored_child("Pod", POD, uid=POD_UID, version=2, metadata={"annotations": annotations}))
        assert (await it.post()).status == answer
        assert (it.cache.report(KEY) is None) == (answer == 403), "its checkpoint would be taken for the new run's"


async def test_report_is_forbidden_when_the_token_is_bound_to_no_pod() -> None:
    async with served() as it:
        it.reviewer.tokens["good"]["user"]["extra"] = {}
        assert (await it.refused())[0] == 403


async def test_report_is_forbidden_when_the_token_is_of_a_user() -> None:
    async with served() as it:
        it.reviewer.tokens["good"]["user"]["username"] = "jane"
        assert (await it.refused())[0] == 403


async def test_report_on_an_unknown_run_is_not_found_but_only_for_those_with_a_token() -> None:
    path = PATH.replace(f"/{NAME}/", "/ghost/")
    async with served() as it:
        it.reviewer.admit("good", audience=token_audience(NAMESPACE, "ghost"))
        status, message = await it.refused(path=path)
        assert status == 404
        assert "'ghost'" in message
        assert (await it.refused(path=path, token="forged"))[0] == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"no json", "body"),
        (b"\xff", "body"),
        ([], "body"),
        ({"trainerStatus": {}}, "lastUpdatedTime"),
        ({"trainerStatus": {"lastUpdatedTime": TIME, "progressPercentage": 101}}, "progressPercentage"),
        ({"trainerStatus": {"lastUpdatedTime": TIME, "progressPercentage": "many"}}, "progressPercentage"),
        ({"trainerStatus": {"lastUpdatedTime": TIME, "estimatedRemainingSeconds": -1}}, "estimatedRemainingSeconds"),
        ({"trainerStatus": {"lastUpdatedTime": TIME, "estimatedRemainingSeconds": 2**40}}, "estimatedRemainingSeconds"),
        ({"trainerStatus": {"lastUpdatedTime": TIME, "metrics": [{"name": "", "value": "1"}]}}, "metrics.0.name"),
        (
            {"trainerStatus": {"lastUpdatedTime": TIME, "metrics": [{"name": "a", "value": "9" * 65}]}},
            "metrics.0.value",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_bad_body_is_invalid_and_its_field_is_named(body: Any, field: str) -> None:
    async with served() as it:
        status, message = await it.refused(body=body)
        assert status == 422
        assert field in message


async def test_body_beyond_the_limit_is_not_read() -> None:
    async with served() as it:
        assert (await it.refused(body=b"x" * (BODY_LIMIT_BYTES + 1)))[0] == 413
        assert (await it.post({**BODY, "padding": "x" * (BODY_LIMIT_BYTES - 1_000)})).status == 200


async def test_standby_sends_the_trainer_to_another_replica_and_asks_the_api_server_nothing() -> None:
    async with served() as it:
        it.leading = False
        response = await it.post()
        assert response.status == 503
        assert response.headers["Connection"] == "close"
        assert not it.reviewer.asked


@pytest.mark.parametrize("error", [Unavailable("time-out"), NotFound("no such API")])
async def test_report_is_to_be_repeated_when_the_token_cannot_be_reviewed(error: KubeError) -> None:
    async with served() as it:
        it.reviewer.error = error
        assert (await it.refused())[0] == 503
        it.reviewer.error = None
        assert (await it.post()).status == 200


async def test_token_is_reviewed_once_a_minute_and_not_with_every_report() -> None:
    async with served() as it:
        for _ in range(3):
            assert (await it.post()).status == 200
        assert len(it.reviewer.asked) == 1
        del it.reviewer.tokens["good"]
        it.local += progress.REVIEW_SECONDS + 1
        assert (await it.post()).status == 403
        assert len(it.reviewer.asked) == 2


async def test_many_who_ask_at_once_leave_the_operator_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = most = 0
    async with served() as it:
        review = it.reviewer.create

        async def slow(manifest: Mapping[str, Any]) -> dict[str, Any]:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1
            return await review(manifest)

        monkeypatch.setattr(it.reviewer, "create", slow)
        posts = [it.post(token=f"forged {index}") for index in range(4 * progress.REVIEWS_AT_ONCE)]
        answers = await asyncio.gather(*posts)
        assert {each.status for each in answers} == {403}
        assert most == progress.REVIEWS_AT_ONCE < CONCURRENT_REQUESTS / 2


async def test_review_of_one_run_does_not_open_another() -> None:
    async with served() as it:
        it.cache.put(stored_run(name="other", uid="other"))
        it.cache.put(stored_child("Pod", POD, uid=POD_UID, finetune="other"))
        assert (await it.post()).status == 200
        assert (await it.post(path=PATH.replace(f"/{NAME}/", "/other/"))).status == 403


async def test_memory_of_reviews_is_bounded_when_somebody_tries_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REVIEWS_KEPT", 5)
    async with served() as it:
        for index in range(20):
            assert (await it.post(token=f"forged {index}")).status == 403
        assert len(it.server._reviews) <= 5


@pytest.mark.parametrize(("method", "path"), [("GET", PATH), ("POST", "/"), ("POST", f"{PATH}/more")])
async def test_nothing_else_is_served(method: str, path: str) -> None:
    async with served() as it:
        response = await it.client.request(method, path)
        assert response.status in (404, 405)


async def test_answers_are_counted() -> None:
    async with served() as it:
        await it.post()
        await it.post(token="forged")
        await it.post(b"x" * (BODY_LIMIT_BYTES + 1))

        def count(code: str) -> float | None:
            return it.metrics.registry.get_sample_value("rft_progress_reports_total", {"code": code})

        assert (count("200"), count("403"), count("413")) == (1, 1, 1)
