"""Raw API objects to facts: the only module that knows how Kubernetes spells things.

Invariant: digesting never fails for an object the API server can store; what is missing is absent in the facts.
An object that is not ours (its labels do not name a run) digests to None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rft_operator.domain.facts import (
    FINALIZER,
    GATE,
    LABEL_ATTEMPT,
    LABEL_FINETUNE,
    LABEL_QUEUE,
    LABEL_STAGE,
    STILL_STARTING,
    TRAINER_CONTAINER,
    ChildKind,
    JobFacts,
    NodeFacts,
    ObjectFacts,
    PodFacts,
    PodPhase,
    child_name,
)
from rft_operator.domain.timestamps import epoch
from rft_trainer.contract import Stage

Raw = Mapping[str, Any]

ANNOTATION_GPU_RESOURCE = "rft.dev/gpu-resource"
ANNOTATION_RUN_UID = "rft.dev/run-uid"
ANNOTATION_PUBLISH = "rft.dev/publish"
LABEL_RANK = "batch.kubernetes.io/job-completion-index"
DEFAULT_GPU_RESOURCE = "nvidia.com/gpu"
KIND = "ReasoningFinetune"
SHARED_MODES = frozenset({"ReadWriteMany", "ReadOnlyMany"})
LARGEST = 2_147_483_647
"""More GPUs than anybody has: what is more is somebody's joke, and must not spoil the status."""
_QUANTITY = re.compile(r"([0-9]+)(k|M|G|Ki|Mi|Gi)?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def _at(value: str | None) -> int | None:
    # The runtime writes year 1 for "never".
    if not value or value.startswith("0001-"):
        return None
    return epoch(value)


def _stage_and_attempt(labels: Mapping[str, str]) -> tuple[Stage, int] | None:
    try:
        return Stage(labels[LABEL_STAGE]), int(labels[LABEL_ATTEMPT])
    except (KeyError, ValueError):
        return None


def _digits(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def _count(quantity: object) -> int:
    """Return a quantity of a countable resource; the API server writes 1000 as ``1k``."""
    match = _QUANTITY.fullmatch(str(quantity))
    return int(match[1]) * _UNITS[match[2] or ""] if match is not None else 0


def _owner_uid(metadata: Raw) -> str:
    owners = [each for each in metadata.get("ownerReferences", ()) if each.get("kind") == KIND]
    return str(owners[0]["uid"]) if owners else ""


def _condition(status: Raw, type_: str) -> Raw | None:
    return next((each for each in status.get("conditions") or () if each.get("type") == type_), None)


def _holds(status: Raw, type_: str) -> Raw | None:
    found = _condition(status, type_)
    return found if found is not None and found.get("status") == "True" else None


def digest_pod(raw: Raw) -> PodFacts | None:
    """Return the facts of a pod of a run, or None for any other pod."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    where = _stage_and_attempt(labels)
    if where is None or LABEL_FINETUNE not in labels:
        return None
    phase = PodPhase(status.get("phase") or "Pending")
    terminal = phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)
    scheduled = _condition(status, "PodScheduled")
    bound = scheduled is not None and scheduled.get("status") == "True"
    statuses: Sequence[Raw] = status.get("containerStatuses") or ()
    created_at = _at(meta.get("creationTimestamp")) or 0
    node = spec.get("nodeName")
    scheduled_at = _at(scheduled.get("lastTransitionTime")) if bound and scheduled else None
    disruption = _holds(status, "DisruptionTarget")
    return PodFacts(
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        finetune=labels[LABEL_FINETUNE],
        stage=where[0],
        attempt=where[1],
        rank=_digits(labels.get(LABEL_RANK)),
        resource_version=meta.get("resourceVersion", ""),
        phase=phase,
        created_at=created_at,
        node=node,
        orphaned=not meta.get("ownerReferences"),
        run_uid=annotations.get(ANNOTATION_RUN_UID, ""),
        gpus=_gpus(spec, annotations.get(ANNOTATION_GPU_RESOURCE, DEFAULT_GPU_RESOURCE)),
        scheduled_at=scheduled_at if scheduled_at is not None or not node else created_at,
        phase_written_at=_phase_written_at(meta) if terminal else None,
        deleted_at=(deleted_at := _at(meta.get("deletionTimestamp"))),
        deletion_requested_at=(
            deleted_at - int(meta.get("deletionGracePeriodSeconds") or 0) if deleted_at is not None else None
        ),
        bound_when_created=scheduled_at is None and bool(node),
        acknowledged_at=_at(status.get("startTime")),
        deadline_seconds=spec.get("activeDeadlineSeconds"),
        ready=_holds(status, "Ready") is not None,
        has_finalizer=FINALIZER in (meta.get("finalizers") or ()),
        finalizers=tuple(meta.get("finalizers") or ()),
        unschedulable_message=_unschedulable(scheduled),
        gated=any(each.get("name") == GATE for each in spec.get("schedulingGates") or ()),
        resource_claims=tuple(each["name"] for each in spec.get("resourceClaims") or ()),
        pod_reason=status.get("reason"),
        pod_message=status.get("message"),
        disruption_reason=disruption.get("reason") if disruption is not None else None,
        **_containers(statuses, status.get("initContainerStatuses") or ()),
    )


def _unschedulable(scheduled: Raw | None) -> str | None:
    if scheduled is None or scheduled.get("status") == "True" or scheduled.get("reason") == "SchedulingGated":
        return None
    return scheduled.get("message")


def _containers(statuses: Sequence[Raw], init_statuses: Sequence[Raw]) -> dict[str, Any]:
    # Sidecars and init steps hold the GPUs too: the first of all starts and the last of all ends count.
    states = [each.get("state") or {} for each in (*statuses, *init_statuses)]
    starts = [_at((s.get("running") or s.get("terminated") or {}).get("startedAt")) for s in states]
    ends = [_at(s["terminated"].get("finishedAt")) for s in states if s.get("terminated")]
    waiting = _waiting((*statuses, *init_statuses))
    trainer: Raw = next((each for each in statuses if each.get("name") == TRAINER_CONTAINER), {})
    terminated: Raw = (trainer.get("state") or {}).get("terminated") or {}
    return {
        "started_at": min((start for start in starts if start is not None), default=None),
        "finished_at": max((end for end in ends if end is not None), default=None),
        "waiting_reason": waiting.get("reason"),
        "waiting_container": waiting.get("name"),
        "waiting_message": waiting.get("message"),
        "terminated_reason": terminated.get("reason"),
        "exit_code": terminated.get("exitCode"),
        "termination_message": terminated.get("message"),
    }


def _waiting(statuses: Sequence[Raw]) -> Raw:
    """Return name, reason and message of a waiting container: of the one that others wait for, where it says why.

    All that come later say PodInitializing.
    """
    found = [
        {**each["state"]["waiting"], "name": each.get("name")}
        for each in statuses
        if (each.get("state") or {}).get("waiting")
    ]
    telling = (each for each in found if each.get("reason") not in (None, *STILL_STARTING))
    return next(telling, found[0] if found else {})


def _phase_written_at(meta: Raw) -> int | None:
    times = [
        _at(entry.get("time"))
        for entry in meta.get("managedFields") or ()
        if "f:phase" in ((entry.get("fieldsV1") or {}).get("f:status") or {})
    ]
    return max((time for time in times if time is not None), default=None)


def _gpus(spec: Raw, resource: str) -> int:
    """Count GPUs as the scheduler reserves them: sidecars add up, init steps only raise the maximum (M2)."""

    def of(container: Raw) -> int:
        wanted = container.get("resources") or {}
        return _count((wanted.get("requests") or {}).get(resource, (wanted.get("limits") or {}).get(resource)))

    sidecars = peak = 0
    for container in spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            sidecars += of(container)
        else:
            peak = max(peak, sidecars + of(container))
    return min(LARGEST, max(peak, sidecars + sum(of(container) for container in spec.get("containers") or ())))


def digest_job(raw: Raw) -> JobFacts | None:
    """Return the facts of a Job of a run, or None for any other Job."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    labels = meta.get("labels") or {}
    where = _stage_and_attempt(labels)
    if where is None or LABEL_FINETUNE not in labels:
        return None
    failed = _holds(status, "Failed")
    return JobFacts(
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        finetune=labels[LABEL_FINETUNE],
        stage=where[0],
        attempt=where[1],
        resource_version=meta.get("resourceVersion", ""),
        created_at=_at(meta.get("creationTimestamp")) or 0,
        parallelism=int(spec.get("parallelism", 1)),
        owner_uid=_owner_uid(meta),
        queue=labels.get(LABEL_QUEUE),
        publishes=(meta.get("annotations") or {}).get(ANNOTATION_PUBLISH),
        suspended=bool(spec.get("suspend")),
        started_at=_at(status.get("startTime")),
        complete=_holds(status, "Complete") is not None,
        failed=failed is not None,
        failed_reason=failed.get("reason") if failed else None,
        failed_message=failed.get("message") if failed else None,
        deleted_at=_at(meta.get("deletionTimestamp")),
    )


def digest_object(raw: Raw) -> ObjectFacts | None:
    """Return the facts of a Service, ConfigMap or claim of a run, or None for any other."""
    meta = raw["metadata"]
    labels = meta.get("labels") or {}
    kind = ChildKind(raw["kind"])
    if LABEL_FINETUNE not in labels:
        return None
    is_snapshot = kind is ChildKind.CONFIG_MAP and meta["name"] == child_name(labels[LABEL_FINETUNE], "run")
    keep = is_snapshot and "run.json" in (raw.get("data") or {})
    return ObjectFacts(
        kind=kind,
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        finetune=labels[LABEL_FINETUNE],
        resource_version=meta.get("resourceVersion", ""),
        owner_uid=_owner_uid(meta),
        deleted_at=_at(meta.get("deletionTimestamp")),
        data=dict(raw["data"]) if keep else {},
        shared=kind is not ChildKind.CLAIM or can_be_shared(raw),
    )


def can_be_shared(claim: Raw) -> bool:
    """Return whether pods on several nodes can have a claim at once, as far as its access modes say."""
    modes = (claim.get("spec") or {}).get("accessModes") or ()
    return not modes or not SHARED_MODES.isdisjoint(modes)


def digest_node(raw: Raw) -> NodeFacts:
    """Return the facts of a node."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    ready = _condition(status, "Ready")
    is_ready = ready is not None and ready.get("status") == "True"
    not_ready_since = None if is_ready or ready is None else _at(ready.get("lastTransitionTime"))
    silent = ready is not None and ready.get("status") == "Unknown"
    gpus = {name: _count(value) for name, value in (status.get("allocatable") or {}).items() if "/" in name}
    return NodeFacts(
        name=meta["name"],
        labels=dict(meta.get("labels") or {}),
        gpus=gpus,
        ready=is_ready,
        not_ready_since=not_ready_since,
        silent_since=not_ready_since if silent else None,
        unschedulable=bool(spec.get("unschedulable")),
    )
