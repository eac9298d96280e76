"""The pod of a stage: no privilege, no GPU the ledger does not see, and a deadline that the kubelet enforces.

Invariant: a pod that requests GPUs carries our finalizer, so that it cannot vanish before its bill is closed, and
``activeDeadlineSeconds``, so that the limit holds while the operator is down (docs/metering.md E3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rft_operator.api import GROUP, PLURAL, VERSION
from rft_operator.api.overlay import ExtraVolume
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.spec import Spec
from rft_operator.api.status import Attempt
from rft_operator.domain import baselines, benchmark_volumes
from rft_operator.domain.budget import grace_seconds, stage_gpus
from rft_operator.domain.config_volume import config_sources
from rft_operator.domain.facts import (
    FINALIZER,
    LABEL_ATTEMPT,
    LABEL_FINETUNE,
    LABEL_MANAGED_BY,
    LABEL_STAGE,
    MANAGED_BY,
    TRAINER_CONTAINER,
    Settings,
)
from rft_operator.domain.observe import ANNOTATION_GPU_RESOURCE, ANNOTATION_RUN_UID
from rft_operator.domain.placement import cpu_placement, gpu_placement
from rft_operator.domain.publishing import publish_environment, publish_mounts, publish_volumes
from rft_operator.domain.resolve import RunSnapshot
from rft_trainer.contract import (
    CLAIMS_DIRECTORY,
    CONFIG_DIRECTORY,
    DATA_DIRECTORY,
    ENV_ATTEMPT,
    ENV_PROGRESS_CA_CERT,
    ENV_PROGRESS_TOKEN,
    ENV_PROGRESS_URL,
    ENV_STAGE,
    RUN_DIRECTORY,
    TERMINATION_MESSAGE_PATH,
    Stage,
)

Manifest = dict[str, Any]
TOKEN_DIRECTORY = "/rft/token"  # noqa: S105 - a path
ENV_GRACE_SECONDS = "RFT_GRACE_SECONDS"
TOKEN_SECONDS = 3_600
REQUIRED_TOPOLOGY = "kueue.x-k8s.io/podset-required-topology"
PREFERRED_TOPOLOGY = "kueue.x-k8s.io/podset-preferred-topology"


def status_path(namespace: str, name: str) -> str:
    """Return the path of the progress endpoint of a run."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}/status"


def token_audience(namespace: str, name: str) -> str:
    """Return the audience of a run's token: it is good for reporting on this run and for nothing else."""
    return status_path(namespace, name).removeprefix("/apis/")


def pod_template(
    resource: ReasoningFinetune, snapshot: RunSnapshot, settings: Settings, *, attempt: Attempt
) -> Manifest:
    """Return the pod template of one attempt of a stage."""
    spec, overlay, name = resource.spec, resource.spec.pod_template, resource.metadata.name
    stage, number = Stage(attempt.stage), attempt.number
    gpus = stage_gpus(spec, stage)
    grace = attempt.grace_seconds if attempt.grace_seconds is not None else grace_seconds(spec, stage)
    metadata = pod_metadata(resource, stage=stage, attempt=number)
    if gpus:
        metadata["finalizers"] = [FINALIZER]
        metadata["annotations"] |= _topology(spec)
    pod: Manifest = {
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "serviceAccountName": settings.service_account,
        "terminationGracePeriodSeconds": grace,
        "securityContext": pod_security(settings),
        "containers": [_container(resource, snapshot, settings, stage=stage, attempt=number, grace=grace)],
        "volumes": _volumes(resource, snapshot, settings, stage=stage, attempt=number),
    }
    if overlay.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": each.name} for each in overlay.image_pull_secrets]
    if attempt.deadline_seconds is not None:
        pod["activeDeadlineSeconds"] = attempt.deadline_seconds
    if stage is Stage.TRAIN:
        pod["subdomain"] = f"{name}-train"
        if spec.resources.nodes > 1:
            pod["affinity"] = _spread(metadata["labels"])
    pod |= gpu_placement(spec) if gpus else cpu_placement(spec)
    return {"metadata": metadata, "spec": pod}


def pod_metadata(resource: ReasoningFinetune, *, stage: Stage, attempt: int) -> Manifest:
    """Return labels and annotations of every pod: the user's, and above them what the operator finds its pods by."""
    overlay = resource.spec.pod_template
    return {
        "labels": {
            **overlay.labels,
            LABEL_MANAGED_BY: MANAGED_BY,
            LABEL_FINETUNE: resource.metadata.name,
            LABEL_STAGE: stage.value,
            LABEL_ATTEMPT: str(attempt),
        },
        "annotations": {
            **overlay.annotations,
            ANNOTATION_GPU_RESOURCE: resource.spec.resources.gpu_resource,
            ANNOTATION_RUN_UID: resource.metadata.uid,
        },
    }


def pod_security(settings: Settings) -> Manifest:
    """Return the security context of every pod: no root, and the runtime's own filter of system calls."""
    user = settings.namespace_pod_security_user
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Return the security context of every container: no privilege, nothing to write to but volumes."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _spread(labels: Manifest) -> Manifest:
    """Prefer one pod of the gang per machine."""
    mine = {key: labels[key] for key in (LABEL_FINETUNE, LABEL_STAGE, LABEL_ATTEMPT)}
    term = {"labelSelector": {"matchLabels": mine}, "topologyKey": "kubernetes.io/hostname"}
    return {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]
        }
    }


def _topology(spec: Spec) -> Manifest:
    """Return what Kueue's topology-aware scheduling reads from the pod template."""
    wanted = spec.scheduling.topology
    if wanted is None:
        return {}
    labels = {REQUIRED_TOPOLOGY: wanted.required, PREFERRED_TOPOLOGY: wanted.preferred}
    return {name: label for name, label in labels.items() if label is not None}


def _container(
    resource: ReasoningFinetune, snapshot: RunSnapshot, settings: Settings, *, stage: Stage, attempt: int, grace: int
) -> Manifest:
    mounts = [
        {"name": "rft-config", "mountPath": CONFIG_DIRECTORY, "readOnly": True},
        {"name": "rft-data", "mountPath": DATA_DIRECTORY, **({"readOnly": True} if stage is Stage.PUBLISH else {})},
        {"name": "rft-run", "mountPath": RUN_DIRECTORY},
        {"name": "rft-tmp", "mountPath": "/tmp"},  # noqa: S108 - in the container
        {"name": "rft-shm", "mountPath": "/dev/shm"},  # noqa: S108 - in the container
    ]
    if settings.progress_url is not None:
        mounts.append({"name": "rft-token", "mountPath": TOKEN_DIRECTORY, "readOnly": True})
    mounts += claim_mounts(source_claims(resource.spec))
    mounts += benchmark_volumes.mounts(resource.spec, stage) + baselines.mounts(resource.spec, stage)
    mounts += publish_mounts(resource.spec, stage)
    mounts += [
        {"name": each.name, "mountPath": each.mount_path, "readOnly": _read_only(each)}
        for each in resource.spec.pod_template.volumes
    ]
    return {
        "name": TRAINER_CONTAINER,
        "image": snapshot.image,
        "imagePullPolicy": snapshot.image_pull_policy,
        "command": ["rft-launch", stage.value],
        "env": _env(resource, settings, stage=stage, attempt=attempt, grace=grace),
        "resources": _resources(resource.spec, stage),
        "securityContext": container_security(),
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def _env(resource: ReasoningFinetune, settings: Settings, *, stage: Stage, attempt: int, grace: int) -> list[Manifest]:
    spec, meta = resource.spec, resource.metadata
    env: list[Manifest] = [
        {"name": ENV_STAGE, "value": stage.value},
        {"name": ENV_ATTEMPT, "value": str(attempt)},
        {"name": ENV_GRACE_SECONDS, "value": str(grace)},
    ]
    if settings.progress_url is not None:
        url = settings.progress_url + status_path(meta.namespace, meta.name)
        env += [
            {"name": ENV_PROGRESS_URL, "value": url},
            {"name": ENV_PROGRESS_CA_CERT, "value": f"{CONFIG_DIRECTORY}/ca.crt"},
            {"name": ENV_PROGRESS_TOKEN, "value": f"{TOKEN_DIRECTORY}/token"},
        ]
    secret = spec.model.secret_ref or spec.dataset.secret_ref
    own = spec.pod_template.env
    if stage is Stage.PUBLISH and spec.publish is not None:
        env += publish_environment(resource)
        secret = spec.publish.secret_ref
        own = [each for each in own if secret is None or each.name != "HF_TOKEN"]
    if secret is not None:
        reference = {"secretKeyRef": {"name": secret.name, "key": secret.key}}
        env.append({"name": "HF_TOKEN", "valueFrom": reference})
    return env + [each.to_wire() for each in own]


def _resources(spec: Spec, stage: Stage) -> Manifest:
    """Return requests and limits; a limit is only set where the user named one, except for GPUs."""
    gpus = spec.resources.gpus_per_node if stage is Stage.TRAIN else stage_gpus(spec, stage)
    if not gpus:
        return {"requests": {"cpu": "500m", "memory": "1Gi"}}
    given = {
        key: value
        for key, value in (("cpu", spec.resources.cpu), ("memory", spec.resources.memory))
        if value is not None
    }
    if stage is Stage.TRAIN:
        given |= spec.resources.extra_resources
    counted = {spec.resources.gpu_resource: str(gpus)}
    return {"requests": {"cpu": "500m", "memory": "1Gi", **given, **counted}, "limits": {**given, **counted}}


def source_claims(spec: Spec) -> list[str]:
    """Return the claims that ``pvc://`` URIs of the model, the dataset and the benchmarks name."""
    benchmarks = spec.evaluation.benchmarks if spec.evaluation is not None else []
    return uri_claims([spec.model.uri, spec.dataset.uri, *(each.uri for each in benchmarks if each.uri is not None)])


def claim_mounts(claims: Sequence[str]) -> list[Manifest]:
    """Return where a container reads claims that ``pvc://`` URIs name."""
    return [
        {"name": f"rft-claim-{index}", "mountPath": f"{CLAIMS_DIRECTORY}/{claim}", "readOnly": True}
        for index, claim in enumerate(claims)
    ]


def claim_volumes(claims: Sequence[str]) -> list[Manifest]:
    """Return the volumes behind them."""
    return [
        {"name": f"rft-claim-{index}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for index, claim in enumerate(claims)
    ]


def uri_claims(uris: Sequence[str]) -> list[str]:
    """Return the claims that these URIs name, each once."""
    names = [uri.removeprefix("pvc://").split("/", 1)[0] for uri in uris if uri.startswith("pvc://")]
    return list(dict.fromkeys(names))


def _read_only(volume: ExtraVolume) -> bool:
    return volume.persistent_volume_claim is None or volume.persistent_volume_claim.read_only


def _volumes(
    resource: ReasoningFinetune, snapshot: RunSnapshot, settings: Settings, *, stage: Stage, attempt: int
) -> list[Manifest]:
    spec, name = resource.spec, resource.metadata.name
    sources = config_sources(resource, snapshot, settings, stage=stage, attempt=attempt)
    data = spec.storage.claim_name or f"{name}-data"
    volumes: list[Manifest] = [
        {"name": "rft-config", "projected": {"sources": sources}},
        {"name": "rft-data", "persistentVolumeClaim": {"claimName": data}},
        {"name": "rft-run", "emptyDir": {}},
        {"name": "rft-tmp", "emptyDir": {}},
        {"name": "rft-shm", "emptyDir": {"medium": "Memory", "sizeLimit": spec.resources.shared_memory}},
    ]
    if settings.progress_url is not None:
        token = {
            "audience": token_audience(resource.metadata.namespace, name),
            "expirationSeconds": TOKEN_SECONDS,
            "path": "token",
        }
        volumes.append({"name": "rft-token", "projected": {"sources": [{"serviceAccountToken": token}]}})
    volumes += claim_volumes(source_claims(spec))
    volumes += benchmark_volumes.volumes(spec, stage) + baselines.volumes(spec, stage) + publish_volumes(spec, stage)
    return volumes + [_extra(each) for each in spec.pod_template.volumes]


def _extra(volume: ExtraVolume) -> Manifest:
    out = volume.to_wire()
    del out["mountPath"]
    return out
