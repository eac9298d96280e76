"""A run that this operator cannot read, on a real API server: another version's CRD let it in."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from rft_operator.api import KIND
from rft_operator.api.status import ConditionType
from rft_operator.domain.facts import FINALIZER
from rft_operator.domain.partial import read_partly
from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import Stage
from support.api_server import CRD, ApiServer, install_crds
from support.kubelet import Kubelet
from support.live_run import LiveRun
from support.operator_thread import OperatorThread, idle
from support.polling import eventually
from support.side import GARBAGE_SECONDS
from support.team import team_budget


@contextlib.contextmanager
def crd_of_another_version(server: ApiServer) -> Iterator[None]:
    """Serve a CRD that knows one method of training more, and lets it be changed at any time."""
    found = json.loads(server.kubectl("get", "crd", CRD, "-o", "json").stdout)
    schema = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema.pop("x-kubernetes-validations")
    method = schema["properties"]["spec"]["properties"]["training"]["properties"]["method"]
    method["enum"] = [*method["enum"], "dpo"]
    server.kubectl("replace", "-f", "-", manifest=found)
    try:
        yield
    finally:
        install_crds(server)


async def make_unreadable(server: ApiServer, run: LiveRun) -> None:
    patch = json.dumps({"spec": {"training": {"method": "dpo"}}})

    async def taken() -> bool:
        done = server.kubectl("patch", "rft", run.name, "-n", run.namespace, "--type=merge", "-p", patch, check=False)
        return done.returncode == 0

    with crd_of_another_version(server):
        await eventually(taken, what="the other version's CRD to be served", every_seconds=0.2)


async def condition(run: LiveRun, type_: ConditionType) -> dict[str, Any]:
    conditions = ((await run.raw()).get("status") or {}).get("conditions", ())
    return next((each for each in conditions if each["type"] == type_), {"status": "", "reason": ""})


async def until_held(run: LiveRun) -> dict[str, Any]:
    async def held() -> dict[str, Any] | None:
        found = await condition(run, ConditionType.SUSPENDED)
        return found if (found["status"], found["reason"]) == ("True", "Unreadable") else None

    return await eventually(held, what="the run to be held")


async def test_run_that_cannot_be_read_is_stopped_billed_kept_idle_and_deleted(
    operator: OperatorThread, kubelet: Kubelet, kube: KubeClient, server: ApiServer, run: LiveRun
) -> None:
    await kube.create(team_budget(namespace=run.namespace))
    await run.apply()
    await kubelet.work(Stage.PREPARE)
    await kubelet.hold(await kubelet.start(Stage.TRAIN))
    await make_unreadable(server, run)
    found = await until_held(run)
    assert "spec.training.method is 'dpo'" in found["message"]
    status = read_partly(await run.raw()).resource.status
    assert status.checkpoint is not None
    assert status.cost.spent_micro_usd > 0

    async def released() -> bool:
        pods = await kube.list(kind="Pod", namespace=run.namespace)
        return not [pod for pod in pods if FINALIZER in (pod["metadata"].get("finalizers") or ())]

    await eventually(released, what="the pods to be let go")
    await idle(operator, run)
    warnings = [each for each in await run.events() if (each.type, each.reason) == ("Warning", "Unreadable")]
    assert [each.count for each in warnings] == [1]

    await run.delete()

    async def gone() -> bool:
        return not [each for each in await run.leftovers() if not each.startswith("PersistentVolumeClaim")]

    await eventually(gone, what="everything of the run to be gone", seconds=GARBAGE_SECONDS)
    assert not await kube.list(kind=KIND, namespace=run.namespace)
    deleted = [each for each in await run.events_until("Deleted") if each.reason == "Deleted"]
    assert "GPU-hours" in deleted[0].note
