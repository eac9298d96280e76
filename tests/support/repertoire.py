"""Everything the operator can do to the API server, in the lives of four runs of a team.

One is suspended twice, has its limit lowered, fails for good and is deleted when its time is over; one loses its
finalizer to an impatient user, so that the operator finds pods without a run; one loses its nodes; the
answers of one are programs.
"""

from __future__ import annotations

from typing import Any

from rft_operator.api import KIND
from rft_operator.api.status import ConditionType
from rft_operator.errors import Conflict, NotFound
from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import ExitCode, Stage
from support.kubelet import Kubelet
from support.live_run import LiveRun
from support.polling import eventually
from support.side import GARBAGE_SECONDS
from support.team import team_budget


async def live_every_kind_of_life(kube: KubeClient, kubelet: Kubelet, team: str) -> None:
    """Two runs that between them make the operator do everything it can do."""
    await kube.create(team_budget(namespace=team))
    ended, orphaned = LiveRun(kube, team, "ended"), LiveRun(kube, team, "orphaned")
    await ended.apply(ttlSecondsAfterFinished=1, evaluation=None, **await references(kube, team))
    await orphaned.apply(evaluation=None)
    for run in (ended, orphaned):
        await kubelet.work(Stage.PREPARE, run=run.name)
        await kubelet.start(Stage.TRAIN, run=run.name)
    await ended.edit(budget={"limitUSD": "5"})
    for attempt in (1, 2):  # twice, so that an Event repeats
        await ended.edit(suspend=True)
        await gone(kubelet, ended, attempt)
        await ended.edit(suspend=False)
        await kubelet.start(Stage.TRAIN, attempt + 1, run=ended.name)
    for pod in await kubelet.pods(Stage.TRAIN, 3, run=ended.name):
        await kubelet.end(pod, exit_code=ExitCode.BAD_INPUT)
    await eventually(lambda: deleted(ended), what="the operator to delete the run after its time to live")
    await eventually(lambda: robbed(orphaned), what="the run to be deleted by force")
    await gone(kubelet, orphaned, 1)
    await lose_its_nodes(LiveRun(kube, team, "lost"), kubelet)
    await run_programs(LiveRun(kube, team, "scored"), kubelet)


async def lose_its_nodes(run: LiveRun, kubelet: Kubelet) -> None:
    """The nodes of a run fall silent, so that their leases are read, and go, so that the nodes are."""
    await run.apply(evaluation=None)
    await kubelet.work(Stage.PREPARE, run=run.name)
    pods = await kubelet.start(Stage.TRAIN, run=run.name)
    await run.until(lambda status: len(status.ledger.open) == len(pods), what="the meter to run")
    for pod in pods:
        await kubelet.silence(pod["spec"]["nodeName"])
    await run.until(lambda status: all(each.disputed_since for each in status.ledger.open), what="a dispute")
    for pod in pods:
        await kubelet.remove_node(pod["spec"]["nodeName"])
    await run.until(lambda status: not status.ledger.open, what="the end of the bill")
    await run.delete()
    await eventually(lambda: deleted(run), what="the run to be gone", seconds=GARBAGE_SECONDS)


async def run_programs(run: LiveRun, kubelet: Kubelet) -> None:
    """The answers of a run are programs, which run where all traffic is denied."""
    await run.apply()
    await kubelet.work(Stage.PREPARE, Stage.TRAIN, run=run.name)
    await kubelet.answer(run=run.name)
    await kubelet.work(Stage.SCORE, run=run.name)
    await run.until_condition(ConditionType.COMPLETE)
    await run.delete()
    await eventually(lambda: deleted(run), what="the run to be gone", seconds=GARBAGE_SECONDS)


async def references(kube: KubeClient, team: str) -> dict[str, Any]:
    """Make one object of each kind that a run may refer to; return the spec that refers to them."""
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    for kind, name, content in (
        ("Secret", "hub", {"stringData": {"token": "none"}}),
        ("ConfigMap", "settings", {"data": {"key": "none"}}),
        ("PersistentVolumeClaim", "rows", {"spec": claim}),
    ):
        await kube.create({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": team}, **content})
    return {
        "model": {"uri": "hf://team/model", "secretRef": {"name": "hub"}},
        "dataset": {"uri": "pvc://rows/rows.jsonl", "format": "s1", "maxSamples": None},
        "podTemplate": {"volumes": [{"name": "s", "mountPath": "/s", "configMap": {"name": "settings"}}]},
    }


async def gone(kubelet: Kubelet, run: LiveRun, attempt: int) -> None:
    async def look() -> bool:
        return not await kubelet.pods(Stage.TRAIN, attempt, run=run.name)

    await eventually(look, what=f"the pods of {run.name} {attempt} to be released", seconds=GARBAGE_SECONDS)


async def robbed(run: LiveRun) -> bool:
    """Delete past the ledger's finalizer, as an impatient user does; False if somebody else wrote first."""
    version = (await run.raw())["metadata"]["resourceVersion"]
    try:
        await run.kube.set_finalizers(
            kind=KIND, namespace=run.namespace, name=run.name, finalizers=[], resource_version=version
        )
        await run.delete()
    except Conflict:
        return False
    return True


async def deleted(run: LiveRun) -> bool:
    try:
        await run.raw()
    except NotFound:
        return True
    return False
