"""Resource and snapshot to child objects: what is sent to the API server by server-side apply.

Invariant: names are deterministic, so applying twice makes one object; every child but a retained claim is owned by
the resource, so that garbage collection removes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rft_operator.api import API_VERSION, KIND
from rft_operator.api.choices import Gang
from rft_operator.api.overlay import ExtraVolume
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.spec import Spec
from rft_operator.api.status import Attempt
from rft_operator.domain.benchmark_volumes import row_config_maps
from rft_operator.domain.budget import CPU_STAGES
from rft_operator.domain.config_volume import attempt_data
from rft_operator.domain.facts import (
    LABEL_ATTEMPT,
    LABEL_FINETUNE,
    LABEL_MANAGED_BY,
    LABEL_QUEUE,
    LABEL_STAGE,
    MANAGED_BY,
    Settings,
    child_name,
)
from rft_operator.domain.observe import ANNOTATION_PUBLISH
from rft_operator.domain.pods import pod_template, source_claims
from rft_operator.domain.publishing import publish_claims, target_of
from rft_operator.domain.resolve import RunSnapshot, snapshot_data
from rft_operator.domain.score_pod import score_pod_template
from rft_trainer.contract import Stage

Manifest = dict[str, Any]
LABEL_QUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"
VOLCANO_MINIMUM = "scheduling.volcano.sh/group-min-member"
"""Volcano makes a PodGroup for the pods of a Job by itself; this says how many must be bound at once."""


def _metadata(
    resource: ReasoningFinetune, name: str, *, labels: Mapping[str, str] | None = None, owned: bool = True
) -> Manifest:
    meta: Manifest = {
        "name": name,
        "namespace": resource.metadata.namespace,
        "labels": {
            LABEL_MANAGED_BY: MANAGED_BY,
            LABEL_FINETUNE: resource.metadata.name,
            **(labels or {}),
        },
    }
    if owned:
        meta["ownerReferences"] = [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": resource.metadata.name,
                "uid": resource.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    return meta


def run_config_map(resource: ReasoningFinetune, snapshot: RunSnapshot) -> Manifest:
    """Return ``<name>-run``: the immutable effective values, and the progress server's authority."""
    return _config_map(resource, child_name(resource.metadata.name, "run"), data=snapshot_data(snapshot))


def _config_map(
    resource: ReasoningFinetune, name: str, *, data: Mapping[str, str], labels: Mapping[str, str] | None = None
) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(resource, name, labels=labels),
        "immutable": True,
        "data": dict(data),
    }


def claim(resource: ReasoningFinetune) -> Manifest:
    """Return ``<name>-data``; a retained claim has no owner, so it outlives the resource."""
    storage = resource.spec.storage
    spec: Manifest = {
        "accessModes": ["ReadWriteMany" if resource.spec.resources.nodes > 1 else "ReadWriteOnce"],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(resource, child_name(resource.metadata.name, "data"), owned=not storage.retain),
        "spec": spec,
    }


def service(resource: ReasoningFinetune) -> Manifest:
    """Return ``<name>-train``: the headless Service that gives each rank a name before it is ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(resource, child_name(resource.metadata.name, "train")),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {LABEL_FINETUNE: resource.metadata.name, LABEL_STAGE: Stage.TRAIN.value},
        },
    }


def attempt_config_map(
    resource: ReasoningFinetune, snapshot: RunSnapshot, settings: Settings, *, stage: Stage, attempt: int
) -> Manifest | None:
    """Return ``<name>-<stage>-<N>``: what this attempt reads beside the run's values; None: nothing."""
    if stage is Stage.SCORE:  # it reports to nobody
        return None
    data = attempt_data(resource, snapshot, settings, stage=stage, attempt=attempt)
    name = child_name(resource.metadata.name, stage.value, attempt)
    labels = {LABEL_STAGE: stage.value, LABEL_ATTEMPT: str(attempt)}
    return _config_map(resource, name, data=data, labels=labels) if data else None


def stage_job(resource: ReasoningFinetune, snapshot: RunSnapshot, settings: Settings, *, attempt: Attempt) -> Manifest:
    """Return the Job of one attempt of a stage.

    ``backoffLimit: 0``: a rank that fails ends the attempt. ``podReplacementPolicy: Failed``: no replacement is
    made, and charged, beside a pod that still terminates. A GPU Job that has a queue is created suspended.
    """
    stage = Stage(attempt.stage)
    labels = {LABEL_STAGE: stage.value, LABEL_ATTEMPT: str(attempt.number)}
    on_gpus = stage not in CPU_STAGES
    pods = resource.spec.resources.nodes if stage is Stage.TRAIN else 1
    template = score_pod_template if stage is Stage.SCORE else pod_template
    spec: Manifest = {
        "parallelism": pods,
        "completions": pods,
        "completionMode": "Indexed" if stage is Stage.TRAIN else "NonIndexed",
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "template": template(resource, snapshot, settings, attempt=attempt),
    }
    scheduling, annotations = resource.spec.scheduling, {}
    if on_gpus and scheduling.queue_name is not None:
        spec["suspend"] = True
        labels |= _queue_labels(scheduling.queue_name, priority_class=scheduling.queue_priority_class_name)
    if on_gpus and scheduling.gang is Gang.VOLCANO:
        annotations[VOLCANO_MINIMUM] = str(pods)
    if stage is Stage.PUBLISH:
        annotations[ANNOTATION_PUBLISH] = target_of(resource.spec)
    metadata = _metadata(resource, child_name(resource.metadata.name, stage.value, attempt.number), labels=labels)
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def score_network_policy(resource: ReasoningFinetune) -> Manifest:
    """Return ``<name>-score``: pods that run what a model wrote reach nobody, and nobody reaches them."""
    name = resource.metadata.name
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(resource, child_name(name, "score"), labels={LABEL_STAGE: Stage.SCORE.value}),
        "spec": {
            "podSelector": {"matchLabels": {LABEL_FINETUNE: name, LABEL_STAGE: Stage.SCORE.value}},
            "policyTypes": ["Ingress", "Egress"],
        },
    }


def _queue_labels(queue: str, *, priority_class: str | None) -> dict[str, str]:
    return {LABEL_QUEUE: queue, **({LABEL_QUEUE_PRIORITY: priority_class} if priority_class is not None else {})}


def references(spec: Spec) -> tuple[tuple[str, str], ...]:
    """Return (kind, name) of every object in the resource's namespace that the spec refers to."""
    overlay = spec.pod_template
    found = [("Secret", ref.name) for ref in (spec.model.secret_ref, spec.dataset.secret_ref) if ref is not None]
    if spec.publish is not None and spec.publish.secret_ref is not None:
        found.append(("Secret", spec.publish.secret_ref.name))
    found += [("PersistentVolumeClaim", claim) for claim in publish_claims(spec)]
    if spec.storage.claim_name is not None:
        found.append(("PersistentVolumeClaim", spec.storage.claim_name))
    found += [("PersistentVolumeClaim", claim) for claim in source_claims(spec)]
    found += [("ConfigMap", name) for name in row_config_maps(spec)]
    found += [("Secret", each.value_from.secret_key_ref.name) for each in overlay.env if each.value_from is not None]
    found += [reference for volume in overlay.volumes for reference in _volume_references(volume)]
    found += [("Secret", each.name) for each in overlay.image_pull_secrets]
    return tuple(dict.fromkeys(found))


def _volume_references(volume: ExtraVolume) -> Iterator[tuple[str, str]]:
    if volume.config_map is not None:
        yield "ConfigMap", volume.config_map.name
    if volume.secret is not None:
        yield "Secret", volume.secret.secret_name
    if volume.persistent_volume_claim is not None:
        yield "PersistentVolumeClaim", volume.persistent_volume_claim.claim_name
