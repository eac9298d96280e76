"""Where pods without GPUs may run: near the volume, off GPU nodes where others are, on them where none are."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import Attempt
from rft_operator.domain.facts import Settings
from rft_operator.domain.manifests import stage_job
from rft_operator.domain.resolve import resolve
from rft_trainer.contract import Stage
from support.builders import resource
from support.objects import stored_run

GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
MINE = {"key": "team", "operator": "Equal", "value": "research", "effect": "NoSchedule"}
ZONE = "topology.kubernetes.io/zone"
TYPE = "node.kubernetes.io/instance-type"
CPU_STAGES = [Stage.PREPARE, Stage.SCORE, Stage.PUBLISH]
SETTINGS = Settings(trainer_image="trainer")


def pod(stage: Stage = Stage.PREPARE, **scheduling: Any) -> dict[str, Any]:
    publish = {"uri": "pvc://models/mine"} if stage is Stage.PUBLISH else None
    raw = resource(scheduling=scheduling, publish=publish)
    run = ReasoningFinetune.parse({**stored_run(), "spec": raw["spec"]})
    attempt = Attempt(stage=stage.value, number=1, start_time="2026-01-01T00:00:00Z")
    job = stage_job(run, resolve(run, SETTINGS), SETTINGS, attempt=attempt)
    found: dict[str, Any] = job["spec"]["template"]["spec"]
    return found


def avoided(found: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    preferred = found["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    (terms) = [each["preference"]["matchExpressions"] for each in preferred]
    return [(each["key"], each["operator"], each["values"]) for (each,) in terms]


@pytest.mark.parametrize("stage", CPU_STAGES)
def test_pod_without_gpus_tolerates_what_gpu_pods_do_and_the_taint_of_gpu_nodes(stage: Stage) -> None:
    assert pod(stage, tolerations=[MINE])["tolerations"] == [MINE, GPU_TAINT]


@pytest.mark.parametrize("own", [{"operator": "Exists"}, {**GPU_TAINT, "effect": "NoExecute"}])
def test_taint_of_gpu_nodes_is_tolerated_once(own: dict[str, Any]) -> None:
    assert pod(tolerations=[own])["tolerations"] == [own]


@pytest.mark.parametrize("stage", CPU_STAGES)
def test_pod_without_gpus_obeys_labels_of_place_and_no_label_of_a_device(stage: Stage) -> None:
    found = pod(stage, nodeSelector={ZONE: "z1", TYPE: "p5", "kubernetes.io/arch": "amd64"})
    assert found["nodeSelector"] == {ZONE: "z1", "kubernetes.io/arch": "amd64"}
    assert avoided(found) == [("nvidia.com/gpu.present", "NotIn", ["true"]), (TYPE, "NotIn", ["p5"])]


def test_pod_without_gpus_goes_where_the_spec_says_and_nowhere_else() -> None:
    given = {"nodeSelector": {"pool": "cpu"}, "tolerations": [MINE]}
    found = pod(nodeSelector={ZONE: "z1"}, tolerations=[GPU_TAINT], cpuPods=given)
    assert (found["nodeSelector"], found["tolerations"]) == ({"pool": "cpu"}, [MINE])
    assert "affinity" not in found


def test_empty_list_keeps_pods_without_gpus_off_tainted_nodes() -> None:
    found = pod(tolerations=[MINE], cpuPods={"tolerations": []})
    assert "tolerations" not in found
    assert avoided(found)


def test_gpu_pod_takes_nothing_of_what_is_said_of_the_others() -> None:
    found = pod(Stage.EVALUATE, nodeSelector={TYPE: "p5"}, cpuPods={"nodeSelector": {"pool": "cpu"}})
    assert found["nodeSelector"] == {TYPE: "p5"}
    assert "tolerations" not in found
    assert "affinity" not in found
