"""The progress server as trainers meet it: over TLS, with tokens that the API server issued."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from kubernetes.aio import client

from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import ENV_PROGRESS_TOKEN, ENV_PROGRESS_URL, Stage
from support.kubelet import Kubelet, Pod
from support.live_run import LiveRun
from support.operator_process import STANDING_BY
from support.operator_thread import OperatorThread, Settings, operating

REPORT = {
    "trainerStatus": {
        "lastUpdatedTime": "2026-01-01T00:00:00Z",
        "progressPercentage": 40,
        "estimatedRemainingSeconds": 90,
        "metrics": [{"name": "step", "value": "20"}, {"name": "loss", "value": "1.25"}],
    }
}


@dataclass(slots=True)
class Reporter:
    """A trainer's pod, and what its environment, its ConfigMap and its volume tell it."""

    core: client.CoreV1Api
    pod: Pod
    url: str
    audience: str
    context: ssl.SSLContext

    async def token(self, *, audience: str | None = None, pod: Pod | None = None) -> str:
        """Ask for a token as a kubelet does, of the run's audience and bound to the trainer's pod if not told else."""
        meta = (pod or self.pod)["metadata"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        spec = {"audiences": [audience or self.audience], "boundObjectRef": bound, "expirationSeconds": 600}
        answer = await self.core.create_namespaced_service_account_token("default", meta["namespace"], {"spec": spec})
        return str(answer.status.token)

    async def post(self, token: str | None, body: Any = REPORT, *, url: str | None = None) -> tuple[int, str]:
        """Send a report; return the code and the reason of the answer."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(url or self.url, json=body, ssl=self.context) as response,
        ):
            return response.status, (await response.json()).get("reason", "")


@pytest.fixture
async def reporter(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun, kube: KubeClient, core: client.CoreV1Api
) -> Reporter:
    """Rank 0 of a run in training."""
    await run.apply()
    await kubelet.work(Stage.PREPARE)
    pod, _ = await kubelet.start(Stage.TRAIN)
    container = pod["spec"]["containers"][0]
    env = {each["name"]: each.get("value") for each in container["env"]}
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
    source = volumes["rft-token"]["projected"]["sources"][0]["serviceAccountToken"]
    assert env[ENV_PROGRESS_TOKEN] == f"{mounts['rft-token']}/{source['path']}"
    stored = await kube.get(kind="ConfigMap", namespace=run.namespace, name=f"{run.name}-run")
    context = ssl.create_default_context(cadata=stored["data"]["ca.crt"])
    return Reporter(core, pod, env[ENV_PROGRESS_URL] or "", source["audience"], context)


async def test_progress_is_shown_when_a_trainer_reports_with_the_token_of_its_pod(
    reporter: Reporter, run: LiveRun, operator: OperatorThread
) -> None:
    assert await reporter.post(await reporter.token()) == (200, "")
    status = await run.until(lambda status: status.progress, what="the progress")
    assert status.progress is not None
    shown = status.progress
    assert (shown.stage, shown.attempt, shown.percent, shown.step) == ("train", 1, 40, 20)
    assert (shown.display, shown.eta_seconds) == ("40%", 90)
    assert [(each.name, each.value) for each in shown.metrics] == [("loss", "1.25")]
    assert status.stage == "Training"
    assert (await operator.metrics()).total("rft_progress_reports_total", code="200") == 1


async def test_report_is_refused_when_the_token_or_the_body_is_not_the_trainers(
    reporter: Reporter, run: LiveRun, kube: KubeClient
) -> None:
    stranger = await kube.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "stranger", "namespace": run.namespace},
            "spec": {"containers": [{"name": "main", "image": "none"}]},
        }
    )
    good = await reporter.token()
    unknown = reporter.audience.replace("/demo/", "/ghost/")
    assert unknown != reporter.audience
    answers = {
        "no token": await reporter.post(None),
        "nonsense": await reporter.post("nonsense"),
        "another pod": await reporter.post(await reporter.token(pod=stranger)),
        "another audience": await reporter.post(await reporter.token(audience="https://kubernetes.default.svc")),
        "another run's audience": await reporter.post(await reporter.token(audience=unknown)),
        "unknown run": await reporter.post(
            await reporter.token(audience=unknown), url=reporter.url.replace("/demo/", "/ghost/")
        ),
        "bad body": await reporter.post(good, {"trainerStatus": {"progressPercentage": 140}}),
        "no JSON object": await reporter.post(good, []),
    }
    assert answers == {
        "no token": (403, "Forbidden"),
        "nonsense": (403, "Forbidden"),
        "another pod": (403, "Forbidden"),
        "another audience": (403, "Forbidden"),
        "another run's audience": (403, "Forbidden"),
        "unknown run": (404, "NotFound"),
        "bad body": (422, "Invalid"),
        "no JSON object": (422, "Invalid"),
    }
    assert (await run.status()).progress is None


async def test_report_is_sent_elsewhere_when_the_operator_only_stands_by(
    reporter: Reporter, settings: Settings, operator: OperatorThread
) -> None:
    config = settings("operator-2")
    async with operating(config, until=STANDING_BY):
        url = reporter.url.replace(f":{operator.config.progress_port}/", f":{config.progress_port}/")
        assert await reporter.post(await reporter.token(), url=url) == (503, "ServiceUnavailable")
        assert await reporter.post(await reporter.token()) == (200, "")
