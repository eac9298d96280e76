"""The progress server as trainers meet it: over TLS, with tokens that the API server issued."""

from __future__ import annotations

import pytest
from kubernetes.aio import client

from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import Stage
from support.kubelet import Kubelet
from support.live_run import LiveRun
from support.operator_process import STANDING_BY
from support.operator_thread import OperatorThread, Settings, operating
from support.reporter import Reporter


@pytest.fixture
async def reporter(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun, kube: KubeClient, core: client.CoreV1Api
) -> Reporter:
    """Rank 0 of a run in training."""
    await run.apply()
    await kubelet.work(Stage.PREPARE)
    pod, _ = await kubelet.start(Stage.TRAIN)
    return await Reporter.of(pod, kube=kube, core=core)


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
        "another pod": (503, "ServiceUnavailable"),
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
