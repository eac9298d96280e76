"""What the CRD lets in, the API server takes on: no run waits for a child that is refused."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, config

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import Attempt
from rft_operator.domain.facts import Settings
from rft_operator.domain.manifests import (
    attempt_config_map,
    claim,
    run_config_map,
    score_network_policy,
    service,
    stage_job,
)
from rft_operator.domain.resolve import resolve
from rft_trainer.contract import Stage
from support.admission import Admission
from support.api_server import ApiServer
from support.builders import resource
from support.manifests import FULL, MINIMAL

SETTINGS = Settings(trainer_image="rft-trainer:test", progress_url="https://rft:8443", progress_ca="PEM")
RESTRICTED = "pod-security.kubernetes.io/"
LONG_KEY = f"{'a' * 63}.example.com/{'b' * 63}"
LONG_NAME = "a" * 253
LONGEST_SECONDS = 2_147_483_647


def volume(index: int, **source: Any) -> dict[str, Any]:
    return {"name": f"extra-{index}", "mountPath": f"/extra/{index}", **source}


EDGES: dict[str, dict[str, Any]] = {
    "long keys": {
        "scheduling": {"nodeSelector": {LONG_KEY: "c" * 63, "a": ""}, "tolerations": [{"operator": "Exists"}]},
        "podTemplate": {"labels": {LONG_KEY: "c" * 63}, "annotations": {LONG_KEY: "any text"}},
        "resources": {"gpuResource": LONG_KEY},
    },
    "long names": {
        "scheduling": {"priorityClassName": LONG_NAME},
        "storage": {"claimName": LONG_NAME},
        "podTemplate": {
            "imagePullSecrets": [{"name": LONG_NAME}],
            "env": [{"name": "A" * 128, "valueFrom": {"secretKeyRef": {"name": LONG_NAME, "key": ".a..b"}}}],
            "volumes": [
                volume(1, configMap={"name": LONG_NAME}),
                volume(2, secret={"secretName": LONG_NAME}),
                volume(3, persistentVolumeClaim={"claimName": LONG_NAME}),
            ],
        },
    },
    "much text": {
        "podTemplate": {
            "env": [{"name": f"A{index}", "value": "x" * 4_096} for index in range(64)],
            "annotations": {f"a{index}": "x" * 4_096 for index in range(32)},
        }
    },
    "small quantities": {
        "resources": {"cpu": "0.0001", "memory": "1m", "sharedMemory": "1m"},
        "storage": {"size": "0.0000000000000000000000000001"},
    },
    "large quantities": {
        "resources": {"cpu": "9" * 32, "memory": "99999999999Pi", "sharedMemory": "9" * 32},
        "storage": {"size": "99999999999Pi", "storageClassName": "a.b"},
    },
    "large gang": {
        "resources": {"nodes": 512, "gpusPerNode": 16},
        "training": {"globalBatchSize": 8_192},
        "checkpoint": {"graceSeconds": 7_200},
    },
    "one claim thrice": {
        "model": {"uri": "pvc://data/model"},
        "dataset": {"uri": "pvc://data/rows.jsonl"},
        "storage": {"claimName": "data"},
        "publish": {"uri": "pvc://data/models/published"},
        "podTemplate": {"volumes": [volume(1, persistentVolumeClaim={"claimName": "data", "readOnly": False})]},
    },
    "no evaluation": {"evaluation": None},
    "tiny judge": {"evaluation": {"codeExecution": {"cpu": "0.0001", "memory": "1m", "runtimeClassName": LONG_NAME}}},
}


@pytest.fixture(scope="module")
def api(server: ApiServer) -> Iterator[client.ApiClient]:
    """A client of the API server."""
    file = None if server.kubeconfig is None else str(server.kubeconfig)
    with config.new_client_from_config(config_file=file) as found:
        yield found


@pytest.fixture(scope="module")
def admission(api: client.ApiClient) -> Iterator[Admission]:
    """A namespace of the module's own."""
    core, name = client.CoreV1Api(api), f"t-{uuid.uuid4().hex[:10]}"
    core.create_namespace({"metadata": {"name": name}})
    yield Admission(api, name)
    core.delete_namespace(name)


def children(run: ReasoningFinetune) -> list[dict[str, Any]]:
    """Return everything the operator may make for a run, and the pods that the Job controller makes of it.

    The pods come without their classes of priority and runtime: whether there are any of that name is the cluster's
    affair.
    """
    snapshot = resolve(run, SETTINGS)
    stages = [stage for stage in Stage if reached(stage, run)]
    jobs = [stage_job(run, snapshot, SETTINGS, attempt=last_attempt(stage)) for stage in stages]
    pods = [pod_of(job) for job in jobs]
    config = attempt_config_map(run, snapshot, SETTINGS, stage=Stage.TRAIN, attempt=1)
    assert config is not None
    others = [claim(run), service(run), config, run_config_map(run, snapshot)]
    return [*jobs, *pods, *others, score_network_policy(run)]


def reached(stage: Stage, run: ReasoningFinetune) -> bool:
    if stage is Stage.PUBLISH:
        return run.spec.publish is not None
    return run.spec.evaluation is not None or stage not in (Stage.EVALUATE, Stage.SCORE)


def last_attempt(stage: Stage) -> Attempt:
    """Return the attempt with the highest number and the longest deadline."""
    start = "2026-01-01T00:00:00Z"
    return Attempt(stage=stage.value, number=100_000, start_time=start, deadline_seconds=LONGEST_SECONDS)


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    template = job["spec"]["template"]
    meta = {**template["metadata"], "name": f"{job['metadata']['name']}-511-abcde"}
    classes = ("priorityClassName", "runtimeClassName")
    spec = {name: value for name, value in template["spec"].items() if name not in classes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def create(api: client.ApiClient, child: dict[str, Any], namespace: str) -> None:
    """Create a child as a dry run."""
    core, batch = client.CoreV1Api(api), client.BatchV1Api(api)
    calls = {
        "Job": batch.create_namespaced_job,
        "Pod": core.create_namespaced_pod,
        "PersistentVolumeClaim": core.create_namespaced_persistent_volume_claim,
        "Service": core.create_namespaced_service,
        "ConfigMap": core.create_namespaced_config_map,
        "NetworkPolicy": client.NetworkingV1Api(api).create_namespaced_network_policy,
    }
    calls[child["kind"]](namespace, child, dry_run="All", field_validation="Strict")


@pytest.mark.parametrize("change", [*EDGES.values(), FULL, MINIMAL], ids=[*EDGES, "every field", "required fields"])
def test_children_are_taken_when_the_crd_lets_the_run_in(
    api: client.ApiClient, admission: Admission, change: dict[str, Any]
) -> None:
    manifest = resource("n" * 40, **change) if change not in (FULL, MINIMAL) else {**resource("full"), "spec": change}
    stored = admission.create(manifest)
    assert isinstance(stored, dict), stored
    for child in children(ReasoningFinetune.parse(stored)):
        create(api, child, admission.namespace)


@pytest.mark.parametrize("change", [{}, FULL], ids=["defaults", "every field"])
def test_pods_are_admitted_when_their_namespace_enforces_restricted(
    api: client.ApiClient, admission: Admission, change: dict[str, Any]
) -> None:
    manifest = {**resource("full"), "spec": change} if change else resource("plain")
    run = ReasoningFinetune.parse(accepted_by(admission, manifest))
    core, name = client.CoreV1Api(api), f"t-{uuid.uuid4().hex[:10]}"
    core.create_namespace({"metadata": {"name": name, "labels": {f"{RESTRICTED}enforce": "restricted"}}})
    try:
        pods = [child for child in children(run) if child["kind"] == "Pod"]
        assert pods
        for pod in pods:
            create(api, pod, name)
        privileged = copy.deepcopy(pods[0])
        privileged["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        with pytest.raises(client.ApiException, match="PodSecurity"):
            create(api, privileged, name)
    finally:
        core.delete_namespace(name)


def accepted_by(admission: Admission, manifest: dict[str, Any]) -> dict[str, Any]:
    stored = admission.create(manifest)
    assert isinstance(stored, dict), stored
    return stored
