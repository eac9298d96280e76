"""Where the pods of a run may be bound.

Invariant: pods without GPUs come to where the run's volume can be, also where every node is tainted for GPUs, and
leave GPU nodes to others as long as there are any others. A volume that is bound to a zone or a node draws its pods
there by itself (the PersistentVolume's nodeAffinity); the first pod decides where that is, so it obeys the labels of
place that the GPU pods obey.
"""

from __future__ import annotations

from typing import Any

from rft_operator.api.choices import Gang
from rft_operator.api.scheduling import Scheduling, Toleration
from rft_operator.api.spec import Spec
from rft_operator.domain.facts import GATE

Manifest = dict[str, Any]
VOLCANO = "volcano"
PLACES = frozenset(
    {
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "kubernetes.io/arch",
        "kubernetes.io/os",
    }
)
"""Labels that say where a node is and what runs on it, not which devices it has."""
WEIGHT = 50


def gpu_placement(spec: Spec) -> Manifest:
    """Return what the scheduler reads of a pod that holds GPUs."""
    it = spec.scheduling
    out: Manifest = {}
    if it.node_selector:
        out["nodeSelector"] = dict(it.node_selector)
    if it.tolerations:
        out["tolerations"] = _wire(it.tolerations)
    if it.priority_class_name is not None:
        out["priorityClassName"] = it.priority_class_name
    scheduler = it.scheduler_name or (VOLCANO if it.gang is Gang.VOLCANO else None)
    if scheduler is not None:
        out["schedulerName"] = scheduler
    if it.queue_name is not None:
        out["schedulingGates"] = [{"name": GATE}]
    return out


def cpu_placement(spec: Spec) -> Manifest:
    """Return what the scheduler reads of a pod without GPUs: what scheduling.cpuPods says, else what GPU pods imply."""
    given, scheduling = spec.scheduling.cpu_pods, spec.scheduling
    out: Manifest = {}
    selector = given.node_selector if given is not None else None
    if selector is None:
        selector = {key: value for key, value in scheduling.node_selector.items() if key in PLACES}
        out["affinity"] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": _away_from_gpus(spec)}}
    if selector:
        out["nodeSelector"] = dict(selector)
    tolerations = given.tolerations if given is not None else None
    if tolerations is None:
        out["tolerations"] = [*_wire(scheduling.tolerations), *_taint_of_gpus(scheduling, spec.resources.gpu_resource)]
    elif tolerations:
        out["tolerations"] = _wire(tolerations)
    return out


def _taint_of_gpus(scheduling: Scheduling, resource: str) -> list[Manifest]:
    """Return a toleration of the taint that clouds put on GPU nodes, which admission adds to GPU pods alone."""
    if any(each.key in (None, resource) for each in scheduling.tolerations):
        return []
    return [{"key": resource, "operator": "Exists", "effect": "NoSchedule"}]


def _away_from_gpus(spec: Spec) -> list[Manifest]:
    """Return preferences for nodes that are none of the GPU pool's."""
    present = f"{spec.resources.gpu_resource.split('/', 1)[0]}/gpu.present"  # of NVIDIA's gpu-feature-discovery
    wanted = [{"key": present, "operator": "NotIn", "values": ["true"]}]
    wanted += [
        {"key": key, "operator": "NotIn", "values": [value]}
        for key, value in sorted(spec.scheduling.node_selector.items())
        if key not in PLACES
    ]
    return [{"weight": WEIGHT, "preference": {"matchExpressions": [each]}} for each in wanted]


def _wire(tolerations: list[Toleration]) -> list[Manifest]:
    return [each.to_wire() for each in tolerations]
