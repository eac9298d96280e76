"""What the pods of a run ask of a cluster for its GPUs: queue, gang, placement, devices."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import Attempt
from rft_operator.domain.facts import Settings
from rft_operator.domain.manifests import stage_job
from rft_operator.domain.observe import digest_job, digest_pod
from rft_operator.domain.resolve import resolve
from rft_trainer.contract import Stage
from support.builders import resource

SETTINGS = Settings(trainer_image="rft-trainer:test")
VOLCANO_MINIMUM = "scheduling.volcano.sh/group-min-member"


def job(stage: Stage, **change: Any) -> dict[str, Any]:
    raw = resource(**change)
    raw["metadata"] |= {"uid": "u", "resourceVersion": "1", "generation": 1}
    run = ReasoningFinetune.parse(raw)
    attempt = Attempt(stage=stage.value, number=1, start_time="2026-01-01T00:00:00Z", deadline_seconds=600)
    return stage_job(run, resolve(run, SETTINGS), SETTINGS, attempt=attempt)


def pod(stage: Stage, **change: Any) -> dict[str, Any]:
    template: dict[str, Any] = job(stage, **change)["spec"]["template"]
    return template


@pytest.mark.parametrize("which", ["required", "preferred"])
def test_topology_is_asked_of_kueue_by_an_annotation_of_the_gpu_pods(which: str) -> None:
    scheduling = {"queueName": "a", "topology": {which: "example.com/rack"}}
    annotations = pod(Stage.TRAIN, scheduling=scheduling)["metadata"]["annotations"]
    kueue = {key: value for key, value in annotations.items() if key.startswith("kueue")}
    assert kueue == {f"kueue.x-k8s.io/podset-{which}-topology": "example.com/rack"}
    assert not any(
        key.startswith("kueue") for key in pod(Stage.PREPARE, scheduling=scheduling)["metadata"]["annotations"]
    )


def test_volcano_binds_the_whole_gang_or_nothing_when_it_is_asked_to() -> None:
    made = job(Stage.TRAIN, scheduling={"gang": "volcano"})
    assert made["metadata"]["annotations"] == {VOLCANO_MINIMUM: "2"}
    assert made["spec"]["template"]["spec"]["schedulerName"] == "volcano"
    assert job(Stage.EVALUATE, scheduling={"gang": "volcano"})["metadata"]["annotations"] == {VOLCANO_MINIMUM: "1"}
    prepare = job(Stage.PREPARE, scheduling={"gang": "volcano"})
    assert ("annotations" in prepare["metadata"], "schedulerName" in prepare["spec"]["template"]["spec"]) == (
        False,
        False,
    )


def test_gpu_pods_are_given_to_the_scheduler_that_the_spec_names() -> None:
    assert pod(Stage.EVALUATE, scheduling={"schedulerName": "kai"})["spec"]["schedulerName"] == "kai"
    assert "schedulerName" not in pod(Stage.TRAIN)["spec"]


def test_devices_are_requested_and_limited_for_the_ranks_alone() -> None:
    devices = {"rdma/hca": 1, "hugepages-2Mi": "5Gi"}
    asked = pod(Stage.TRAIN, resources={"extraResources": devices})["spec"]["containers"][0]["resources"]
    for each in (asked["requests"], asked["limits"]):
        assert each.items() >= {("rdma/hca", "1"), ("hugepages-2Mi", "5Gi"), ("nvidia.com/gpu", "1")}
    evaluation = pod(Stage.EVALUATE, resources={"extraResources": devices})["spec"]["containers"][0]["resources"]
    assert "rdma/hca" not in evaluation["requests"]


def test_pod_that_only_waits_for_gates_is_not_called_unschedulable() -> None:
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gates"}
    raw = _stored(status={"phase": "Pending", "conditions": [gated]}, gates=["rft.dev/budget", "example.com/other"])
    facts = digest_pod(raw)
    assert facts is not None
    assert (facts.gated, facts.unschedulable_message) == (True, None)
    other = digest_pod(_stored(status={}, gates=["example.com/other"]))
    assert other is not None
    assert not other.gated


def test_job_tells_its_queue_and_since_when_it_may_run() -> None:
    raw = job(Stage.TRAIN, scheduling={"queueName": "team-a"})
    raw["metadata"]["uid"] = "j"
    waiting = digest_job(raw)
    assert waiting is not None
    assert (waiting.queue, waiting.suspended, waiting.started_at) == ("team-a", True, None)
    raw["spec"]["suspend"] = False
    raw["status"] = {"startTime": "1970-01-01T00:01:00Z"}
    running = digest_job(raw)
    assert running is not None
    assert (running.suspended, running.started_at) == (False, 60)


def _stored(*, status: dict[str, Any], gates: list[str]) -> dict[str, Any]:
    template = pod(Stage.TRAIN)
    meta = {**template["metadata"], "name": "demo-train-1-0-x", "namespace": "team", "uid": "p"}
    spec = {**template["spec"], "schedulingGates": [{"name": each} for each in gates]}
    return {"metadata": meta, "spec": spec, "status": status}
