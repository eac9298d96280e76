"""The pod that runs programs which the models wrote (docs/code-execution.md).

Invariant: there is nothing in it to lose. No GPU, no token of the cluster or a hub, no environment or volume of the
user's, no network (``manifests.score_network_policy``), no way to write but to the evaluation's own folder, and bounds
on processor, memory, disk and time. What the user puts over other pods is left off, but for labels and pull secrets.
"""

from __future__ import annotations

from typing import Any

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import Attempt
from rft_operator.domain import baselines, benchmark_volumes
from rft_operator.domain.budget import EVALUATION_GRACE_SECONDS
from rft_operator.domain.facts import TRAINER_CONTAINER, Settings
from rft_operator.domain.placement import cpu_placement
from rft_operator.domain.pods import (
    ENV_GRACE_SECONDS,
    claim_mounts,
    claim_volumes,
    container_security,
    pod_metadata,
    pod_security,
    uri_claims,
)
from rft_operator.domain.program_memory import program_memory_mib
from rft_operator.domain.resolve import RUN_KEY, RunSnapshot
from rft_trainer.contract import (
    CONFIG_DIRECTORY,
    DATA_DIRECTORY,
    ENV_ATTEMPT,
    ENV_STAGE,
    EVALUATION_FOLDER,
    RUN_DIRECTORY,
    TERMINATION_MESSAGE_PATH,
    Stage,
)

Manifest = dict[str, Any]
SCRATCH = {"rft-run": "64Mi", "rft-tmp": "256Mi"}
"""Size limits of what the judge itself may write."""


def score_pod_template(
    resource: ReasoningFinetune, snapshot: RunSnapshot, settings: Settings, *, attempt: Attempt
) -> Manifest:
    """Return the pod template of an attempt of the stage Score."""
    spec = resource.spec
    assert spec.evaluation is not None
    overlay, execution = spec.pod_template, spec.evaluation.code_execution
    pod: Manifest = {
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "serviceAccountName": settings.service_account,
        "terminationGracePeriodSeconds": EVALUATION_GRACE_SECONDS,
        "activeDeadlineSeconds": attempt.deadline_seconds or execution.max_seconds,
        "securityContext": pod_security(settings),
        "containers": [_container(resource, snapshot, attempt=attempt.number)],
        "volumes": _volumes(resource),
        **cpu_placement(spec),
    }
    if overlay.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": each.name} for each in overlay.image_pull_secrets]
    if execution.runtime_class_name is not None:
        pod["runtimeClassName"] = execution.runtime_class_name
    return {"metadata": pod_metadata(resource, stage=Stage.SCORE, attempt=attempt.number), "spec": pod}


def _claims(resource: ReasoningFinetune) -> list[str]:
    """The claims that questions are read from; those of model and training rows are not needed."""
    evaluation = resource.spec.evaluation
    return uri_claims([each.uri or "" for each in evaluation.benchmarks] if evaluation is not None else [])


def _container(resource: ReasoningFinetune, snapshot: RunSnapshot, *, attempt: int) -> Manifest:
    assert resource.spec.evaluation is not None
    execution = resource.spec.evaluation.code_execution
    memory = execution.memory or f"{program_memory_mib(resource.spec.evaluation)}Mi"
    bounds = {"cpu": execution.cpu, "memory": memory, "ephemeral-storage": "1Gi"}
    answers = f"{snapshot.config.data_directory}/{EVALUATION_FOLDER}"
    folder = answers.removeprefix(f"{DATA_DIRECTORY}/")
    return {
        "name": TRAINER_CONTAINER,
        "image": snapshot.image,
        "imagePullPolicy": snapshot.image_pull_policy,
        "command": ["rft-launch", Stage.SCORE.value],
        "env": [
            {"name": ENV_STAGE, "value": Stage.SCORE.value},
            {"name": ENV_ATTEMPT, "value": str(attempt)},
            {"name": ENV_GRACE_SECONDS, "value": str(EVALUATION_GRACE_SECONDS)},
            {"name": "HF_HUB_OFFLINE", "value": "1"},
        ],
        "resources": {"requests": bounds, "limits": bounds},
        "securityContext": container_security(),
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "rft-config", "mountPath": CONFIG_DIRECTORY, "readOnly": True},
            {"name": "rft-data", "mountPath": DATA_DIRECTORY, "readOnly": True},
            {"name": "rft-data", "mountPath": answers, "subPath": folder},
            {"name": "rft-run", "mountPath": RUN_DIRECTORY},
            {"name": "rft-tmp", "mountPath": "/tmp"},  # noqa: S108 - in the container
            *claim_mounts(_claims(resource)),
            *benchmark_volumes.mounts(resource.spec, Stage.SCORE),
            *baselines.mounts(resource.spec, Stage.SCORE),
        ],
    }


def _volumes(resource: ReasoningFinetune) -> list[Manifest]:
    name = resource.metadata.name
    data = resource.spec.storage.claim_name or f"{name}-data"
    return [
        {"name": "rft-config", "configMap": {"name": f"{name}-run", "items": [{"key": RUN_KEY, "path": RUN_KEY}]}},
        {"name": "rft-data", "persistentVolumeClaim": {"claimName": data}},
        *({"name": volume, "emptyDir": {"sizeLimit": size}} for volume, size in SCRATCH.items()),
        *claim_volumes(_claims(resource)),
        *benchmark_volumes.volumes(resource.spec, Stage.SCORE),
        *baselines.volumes(resource.spec, Stage.SCORE),
    ]
