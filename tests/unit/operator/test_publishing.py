"""The model is given away when all is done; that this fails costs nothing but itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rft_operator.api.status import Attempt
from rft_operator.domain.facts import FINALIZER, Settings
from rft_operator.domain.manifests import references, stage_job
from rft_operator.domain.pauses import MAX_BACKOFF_SECONDS
from rft_operator.domain.resolve import resolve
from rft_trainer.contract import ExitCode, Outcome, Stage
from rft_trainer.stage_results import PublishSummary, StageResult
from support.builders import NAME, NAMESPACE
from support.stage import World

HUB = {"uri": "hf://team/s1", "secretRef": {"name": "hub-write"}}


def world_of(**spec: Any) -> World:
    world = World(publish=HUB, **spec)
    world.kube.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub-write", "namespace": NAMESPACE}})
    return world


async def to_publishing(world: World) -> None:
    await world.to_training()
    world.complete(Stage.TRAIN)
    await world.after(1)
    if world.run.spec.evaluation is not None:
        world.run_pods(Stage.EVALUATE)
        await world.after(100)
        world.complete(Stage.EVALUATE)
        await world.settle()


async def fail_once(world: World, attempt: int, *, exit_code: int = 1, error: str = "the hub is down") -> None:
    world.run_pods(Stage.PUBLISH, attempt)
    await world.after(5)
    result = StageResult(stage=Stage.PUBLISH, outcome=Outcome.FAILED, error=error)
    world.finish_pods(Stage.PUBLISH, attempt, exit_code=exit_code, result=result)
    await world.settle()


@pytest.mark.parametrize("evaluation", [{}, {"evaluation": None}], ids=["evaluated", "only trained"])
async def test_model_is_published_after_everything_else_and_for_nothing(evaluation: dict[str, Any]) -> None:
    world = world_of(**evaluation)
    await to_publishing(world)
    assert world.condition("Complete").status != "True"
    spent = world.status.cost.spent_usd
    world.run_pods(Stage.PUBLISH)
    await world.after(1_000)
    assert world.status.stage == "Publishing"
    assert await world.settle() == 0, "an upload causes no write"
    world.complete(Stage.PUBLISH)
    await world.settle()
    assert world.status.stage == "Complete"
    assert world.condition("Published").status == "True"
    assert world.condition("Published").message == "hf://team/s1@c0ffee: 14 files, 15.2 GB."
    assert world.status.cost.spent_usd == spent
    assert not world.status.ledger.open
    assert "Published" in world.reasons()


async def test_run_is_complete_and_says_that_it_is_not_published_when_every_try_fails() -> None:
    world = world_of(retries={"maxRestarts": 0})
    await to_publishing(world)
    for attempt in (1, 2, 3):
        await fail_once(world, attempt)
        await world.after(400)
    assert world.status.stage == "Complete"
    assert world.condition("Complete").message.endswith("It is not published: see the condition Published.")
    assert world.condition("Published").status == "False"
    assert "the hub is down" in world.condition("Published").message
    assert world.status.evaluation is not None
    assert world.status.restarts.toward_limit == 0
    assert [each.number for each in world.status.attempts if each.stage == "publish"] == [1, 2, 3]
    assert world.reasons().count("PublishFailed") == 3


async def test_next_try_waits_longer_each_time() -> None:
    world = world_of()
    await to_publishing(world)
    await fail_once(world, 1)
    assert world.job_gone(Stage.PUBLISH, 2)
    assert world.condition("Complete").status != "True"
    await world.after(world.settings.restart_backoff_seconds)
    await fail_once(world, 2)
    await world.after(world.settings.restart_backoff_seconds)
    assert world.job_gone(Stage.PUBLISH, 3)
    await world.after(world.settings.restart_backoff_seconds)
    assert not world.job_gone(Stage.PUBLISH, 3)


async def test_publishing_is_given_up_at_once_when_the_target_is_wrong() -> None:
    world = world_of()
    await to_publishing(world)
    await fail_once(world, 1, exit_code=ExitCode.BAD_INPUT, error="hf://team/s1: the hub refuses")
    assert world.status.stage == "Complete"
    assert world.condition("Published").reason == "BadInput"
    assert "the hub refuses" in world.condition("Published").message


async def test_publishing_goes_on_with_the_target_of_now_when_it_was_suspended() -> None:
    world = world_of()
    await to_publishing(world)
    world.run_pods(Stage.PUBLISH)
    await world.after(5)
    world.edit(suspend=True)
    await world.settle()
    world.finish_pods(Stage.PUBLISH, exit_code=143)
    await world.after(60)
    assert world.condition("Suspended").status == "True"
    world.edit(suspend=False, publish={**HUB, "uri": "hf://team/better-name"})
    await world.settle()
    assert "hf://team/better-name" in json.dumps(world.job(Stage.PUBLISH, 2))
    world.run_pods(Stage.PUBLISH, 2)
    await world.after(5)
    world.complete(Stage.PUBLISH, 2)
    await world.settle()
    assert world.condition("Published").status == "True"


async def edited_while_publishing() -> World:
    """Another address is asked for while a pod publishes to the first one."""
    world = world_of()
    await to_publishing(world)
    world.run_pods(Stage.PUBLISH)
    await world.after(5)
    world.edit(publish={**HUB, "uri": "hf://team/better-name"})
    return world


async def test_an_edit_while_the_model_is_published_is_what_the_run_ends_with() -> None:
    world = await edited_while_publishing()
    await world.settle()
    assert world.job_gone(Stage.PUBLISH)
    assert "hf://team/better-name" in json.dumps(world.job(Stage.PUBLISH, 2))
    world.run_pods(Stage.PUBLISH, 2)
    await world.after(5)
    summary = PublishSummary(uri="hf://team/better-name", files=14, bytes=1_000)
    result = StageResult(stage=Stage.PUBLISH, outcome=Outcome.COMPLETED, publish=summary)
    world.finish_pods(Stage.PUBLISH, 2, result=result)
    await world.settle()
    assert world.condition("Published").message.startswith("hf://team/better-name: ")
    assert world.status.stage == "Complete"


async def test_an_edit_that_is_seen_with_the_end_of_a_publication_is_not_lost() -> None:
    world = await edited_while_publishing()
    world.complete(Stage.PUBLISH)
    await world.settle()
    assert world.condition("Published").status != "True"
    assert "hf://team/better-name" in json.dumps(world.job(Stage.PUBLISH, 2))


@pytest.mark.parametrize("running", [True, False], ids=["published", "about to be"])
async def test_a_run_that_is_to_publish_nothing_any_more_is_complete(running: bool) -> None:
    world = world_of()
    await to_publishing(world)
    if running:
        world.run_pods(Stage.PUBLISH)
        await world.after(5)
    else:
        world.kube.remove("Job", NAMESPACE, f"{NAME}-publish-1")
    world.edit(publish=None)
    await world.settle()
    if running:
        world.finish_pods(Stage.PUBLISH, exit_code=143)
        await world.settle()
    assert world.status.stage == "Complete"
    assert world.condition("Published").status == "Unknown"
    assert "PublishFailed" not in world.reasons()


async def test_a_lost_pod_does_not_count_as_a_failed_try() -> None:
    world = world_of()
    await to_publishing(world)
    gone = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
    for attempt in range(1, 6):
        world.run_pods(Stage.PUBLISH, attempt)
        await world.after(5)
        world.finish_pods(Stage.PUBLISH, attempt, exit_code=137)
        for pod in world.pods(Stage.PUBLISH, attempt):
            world.kube.patch(
                "Pod", NAMESPACE, pod["metadata"]["name"], lambda obj: obj["status"]["conditions"].extend(gone)
            )
        await world.settle()
        await world.after(MAX_BACKOFF_SECONDS)
    assert world.condition("Complete").status != "True"
    assert not world.job_gone(Stage.PUBLISH, 6)


def publish_job(publish: dict[str, Any], **spec: Any) -> dict[str, Any]:
    finetune = World(publish=publish, **spec).run
    settings = Settings(trainer_image="trainer:1", progress_url="https://rft:8443", progress_ca="PEM")
    attempt = Attempt(stage="publish", number=1, start_time="2026-01-01T00:00:00Z", deadline_seconds=14_400)
    return stage_job(finetune, resolve(finetune, settings), settings, attempt=attempt)


def environment(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    names = [each["name"] for each in container["env"]]
    assert len(set(names)) == len(names)
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def test_the_pod_has_the_token_that_writes_and_the_bill_and_no_gpu() -> None:
    job = publish_job(
        HUB,
        model={"uri": "hf://team/base", "secretRef": {"name": "hub-read"}},
        podTemplate={"env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]},
        scheduling={"queueName": "team-queue"},
    )
    found = environment(job)
    assert found["HF_TOKEN"] == {"secretKeyRef": {"name": "hub-write", "key": "token"}}
    assert found["RFT_PUBLISH_URI"] == "hf://team/s1"
    assert found["RFT_PUBLISH_PRIVATE"] == "true"
    assert found["HTTPS_PROXY"] == "http://proxy:3128"
    assert set(json.loads(found["RFT_RUN_COST"])) == {"spentUSD", "gpuHours", "byStage"}
    pod = job["spec"]["template"]["spec"]
    assert "limits" not in pod["containers"][0]["resources"]
    assert FINALIZER not in job["spec"]["template"]["metadata"].get("finalizers", ())
    assert "suspend" not in job["spec"], "it waits in no queue for GPUs"
    assert pod["activeDeadlineSeconds"] == 14_400


def test_the_pod_only_reads_the_runs_volume_and_writes_to_the_claim_it_publishes_to() -> None:
    job = publish_job({"uri": "pvc://models/team/s1"})
    (container,) = job["spec"]["template"]["spec"]["containers"]
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    assert mounts["/rft/data"]["readOnly"] is True
    assert "readOnly" not in mounts["/rft/publish"]
    volumes = {each["name"]: each for each in job["spec"]["template"]["spec"]["volumes"]}
    assert volumes["rft-publish"]["persistentVolumeClaim"] == {"claimName": "models"}
    assert "HF_TOKEN" not in environment(job)


def test_what_publishing_needs_is_looked_for_before_the_run_starts() -> None:
    assert ("Secret", "hub-write") in references(World(publish=HUB).run.spec)
    assert ("PersistentVolumeClaim", "models") in references(World(publish={"uri": "pvc://models/s1"}).run.spec)


async def test_nothing_is_left_when_a_run_is_deleted_while_it_is_published() -> None:
    world = world_of()
    await to_publishing(world)
    world.run_pods(Stage.PUBLISH)
    await world.after(5)
    await world.kube.delete(kind="ReasoningFinetune", namespace=NAMESPACE, name=NAME)
    await world.settle_deleted()
    assert world.job_gone(Stage.PUBLISH)
