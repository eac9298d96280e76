"""What keeps a run from starting, in words, and that it starts by itself once the obstacle is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rft_operator.api.status import ConditionType, DisplayStage
from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import Stage
from support.kubelet import Kubelet
from support.live_run import LiveRun
from support.operator_thread import OperatorThread, Settings, operating, sweeps


def secret(namespace: str, name: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"token": "t"}}


def config_map(namespace: str, name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}


def claim(namespace: str, name: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}


def write_prices(file: Path, *, instance_type: str) -> None:
    entry = f'{{name: fake-gpus, match: {{instanceType: {instance_type}}}, usdPerHour: "2.95"}}'
    file.write_text(f"version: 1\nprices: [{entry}]\n", encoding="utf-8")


async def test_run_names_what_is_missing_and_starts_by_itself_when_it_is_created(
    operator: OperatorThread, kubelet: Kubelet, kube: KubeClient, run: LiveRun
) -> None:
    key = {"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "token"}}}
    volume = {"name": "settings", "mountPath": "/settings", "configMap": {"name": "trainer-settings"}}
    await run.apply(storage={"claimName": "corpus"}, podTemplate={"env": [key], "volumes": [volume]})
    missing = {
        "ClaimNotFound": claim(run.namespace, "corpus"),
        "SecretNotFound": secret(run.namespace, "wandb"),
        "ConfigMapNotFound": config_map(run.namespace, "trainer-settings"),
    }
    for reason, manifest in missing.items():
        found = await run.until_condition(ConditionType.ACCEPTED, "False", reason=reason)
        assert f"{manifest['kind']} {manifest['metadata']['name']!r} does not exist" in found.message
        assert (await run.status()).stage is DisplayStage.PENDING
        assert await run.children("Job") == []
        await kube.create(manifest)
    await run.until_condition(ConditionType.ACCEPTED)
    (pod,) = await kubelet.bound(Stage.PREPARE)
    volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
    assert volumes["rft-data"]["persistentVolumeClaim"]["claimName"] == "corpus"
    assert volumes["settings"]["configMap"]["name"] == "trainer-settings"
    warned = [event.reason for event in await run.events_until("Accepted") if event.type == "Warning"]
    assert warned == list(missing)


async def test_run_takes_nothing_over_from_a_namesake_and_starts_when_what_it_left_is_gone(
    operator: OperatorThread, kubelet: Kubelet, kube: KubeClient, run: LiveRun
) -> None:
    labels = {"app.kubernetes.io/managed-by": "rft-operator", "rft.dev/finetune": run.name}
    orphan = config_map(run.namespace, f"{run.name}-run")
    orphan["metadata"]["labels"] = labels
    kept = claim(run.namespace, f"{run.name}-data")
    kept["metadata"]["labels"] = labels
    await kube.create({**orphan, "data": {"run.json": "{}"}})
    before = await kube.create(kept)
    await run.apply()
    found = await run.until_condition(ConditionType.ACCEPTED, "False", reason="WaitingForCleanup")
    assert "demo-run" in found.message
    assert "demo-data" not in found.message
    assert await run.children("Job") == []
    await kube.delete(kind="ConfigMap", namespace=run.namespace, name="demo-run")
    await kubelet.work(Stage.PREPARE)
    await run.until_condition(ConditionType.PREPARED)
    (data,) = await run.children("PersistentVolumeClaim")
    assert data["metadata"]["uid"] == before["metadata"]["uid"]


async def test_run_starts_by_itself_when_its_price_is_written_into_the_file(
    settings: Settings, kubelet: Kubelet, run: LiveRun, prices: Path
) -> None:
    write_prices(prices, instance_type="another-type")
    async with operating(settings()):
        await run.apply(budget={"usdPerGpuHour": None})
        found = await run.until_condition(ConditionType.ACCEPTED, "False", reason="PriceUnknown")
        assert all(node in found.message for node in kubelet.nodes)
        assert await run.children("Job") == []
        write_prices(prices, instance_type="rft-local")
        found = await run.until_condition(ConditionType.ACCEPTED)
        assert "Price $2.95 per GPU-hour (fake-gpus)" in found.message
        await kubelet.work(Stage.PREPARE)
        await kubelet.start(Stage.TRAIN)
        status = await run.until(lambda status: len(status.ledger.open) == 2, what="the meter to run")
    metered = {(each.micro_usd_per_gpu_hour, each.price_source) for each in status.ledger.open}
    assert metered == {(2_950_000, "fake-gpus")}


async def test_run_is_never_written_when_another_controller_manages_it(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun
) -> None:
    began = (await operator.metrics()).writes()
    await run.apply(managedBy="kueue.x-k8s.io/multikueue")
    before = await run.raw()

    await sweeps(operator)
    assert await run.raw() == before
    assert "status" not in before
    assert await run.events() == []
    assert await run.leftovers() == ["ReasoningFinetune demo"]
    assert (await operator.metrics()).writes() == began
