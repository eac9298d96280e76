"""Publishing under a running operator: after everything else, with a token, for nothing."""

from __future__ import annotations

from rft_operator.api.status import ConditionType
from rft_operator.domain.facts import FINALIZER
from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import ExitCode, Stage
from support.kubelet import Kubelet
from support.live_run import LiveRun
from support.operator_thread import OperatorThread, idle
from support.pod_history import PodHistory

PUBLISH = {"uri": "hf://team/s1", "secretRef": {"name": "hub-write"}}


async def secret(kube: KubeClient, namespace: str) -> None:
    metadata = {"name": "hub-write", "namespace": namespace}
    await kube.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": "none"}})


async def test_model_is_published_by_a_pod_of_its_own_and_the_run_is_complete(
    operator: OperatorThread, kube: KubeClient, kubelet: Kubelet, run: LiveRun, history: PodHistory
) -> None:
    await secret(kube, run.namespace)
    await run.apply(publish=PUBLISH)
    await kubelet.work(Stage.PREPARE)
    await kubelet.work(Stage.TRAIN, Stage.EVALUATE, seconds=1)
    (pod,) = await kubelet.start(Stage.PUBLISH)
    assert FINALIZER not in pod["metadata"].get("finalizers", ())
    environment = {each["name"]: each for each in pod["spec"]["containers"][0]["env"]}
    assert environment["HF_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "hub-write"
    assert environment["RFT_PUBLISH_URI"]["value"] == "hf://team/s1"
    await run.until(lambda status: status.stage == "Publishing", what="the stage Publish")
    await kubelet.complete(Stage.PUBLISH)
    await run.until_condition(ConditionType.COMPLETE)
    published = await run.until_condition(ConditionType.PUBLISHED)
    assert published.message == "hf://team/s1@c0ffee: 14 files, 15.2 GB."
    assert [each.stage for each in history.gpu_time(run.namespace)] == ["train", "train", "evaluate"]
    assert "Published" in [event.reason for event in await run.events_until("Complete")]
    await run.controllers_rest()
    await idle(operator, run)


async def test_run_is_complete_when_its_model_cannot_be_published(
    operator: OperatorThread, kube: KubeClient, kubelet: Kubelet, run: LiveRun
) -> None:
    await secret(kube, run.namespace)
    await run.apply(publish=PUBLISH, evaluation=None)
    await kubelet.work(Stage.PREPARE, Stage.TRAIN)
    for pod in await kubelet.start(Stage.PUBLISH):
        await kubelet.end(pod, exit_code=ExitCode.BAD_INPUT)
    await run.until_condition(ConditionType.COMPLETE)
    await run.until_condition(ConditionType.PUBLISHED, "False", reason="BadInput")
    assert "PublishFailed" in [event.reason for event in await run.events_until("Complete")]
