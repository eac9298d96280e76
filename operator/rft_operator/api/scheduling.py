"""``spec.resources`` and ``spec.scheduling``: how many GPUs, and where.

Invariant: all that a pod may ask of a node is named here, so that every GPU is counted and paid for.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rft_operator.api.base import ApiModel, Seconds
from rft_operator.api.choices import Gang, TaintEffect, TolerationOperator
from rft_operator.api.texts import (
    DnsLabel,
    DnsSubdomain,
    ExtraResource,
    GpuResource,
    LabelKey,
    LabelValue,
    Quantity,
)


class Resources(ApiModel):
    """The GPU gang that trains."""

    nodes: Annotated[int, Field(ge=1, le=512)] = 1
    """Machines in the gang."""
    gpus_per_node: Annotated[int, Field(ge=1, le=16)] = 8
    """GPUs on each machine; each GPU is one rank."""
    gpu_resource: GpuResource = "nvidia.com/gpu"
    """Extended resource that stands for a GPU."""
    cpu: Quantity | None = None
    """CPU of each training pod (request and limit)."""
    memory: Quantity | None = None
    """Memory of each training pod (request and limit)."""
    shared_memory: Quantity = "16Gi"
    """Size limit of /dev/shm."""
    extra_resources: Annotated[dict[ExtraResource, Quantity], Field(max_length=8)] = Field(default_factory=dict)
    """What else each training pod requests, and is limited to: network devices (rdma/hca_shared_devices_a: 1,
    vpc.amazonaws.com/efa: 4) and huge pages (hugepages-2Mi: 5Gi). GPUs are gpusPerNode's, so that they are paid for."""


class Toleration(ApiModel):
    """A Kubernetes toleration."""

    key: LabelKey | None = None
    """Taint key; absent with operator Exists tolerates everything."""
    operator: TolerationOperator = TolerationOperator.EQUAL
    """Exists or Equal."""
    value: LabelValue | None = None
    """Taint value for operator Equal."""
    effect: TaintEffect | None = None
    """NoSchedule, PreferNoSchedule or NoExecute; absent means all."""
    toleration_seconds: Seconds | None = None
    """How long a NoExecute taint is tolerated."""


class Topology(ApiModel):
    """How near to each other the ranks of a gang are placed; exactly one of the two."""

    required: LabelKey | None = None
    """Node label whose value all ranks must share, such as cloud.provider.com/topology-rack."""
    preferred: LabelKey | None = None
    """Node label whose value the ranks share if there is room, else the next wider one of Kueue's Topology."""


class CpuPods(ApiModel):
    """Where the pods without GPUs (Prepare, Score, Publish) may run."""

    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] | None = None
    """Labels their node must carry. Default: the region, zone, architecture and system that nodeSelector names, and
    nodes without GPUs are preferred."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] | None = None
    """Their tolerations; an empty list keeps them off tainted nodes. Default: those of the GPU pods, and of the taint
    that is named as gpuResource is."""


class Scheduling(ApiModel):
    """Where the GPU pods may run, and who lets them."""

    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = Field(default_factory=dict)
    """Labels a GPU node must carry; they also choose the price before a pod is bound."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = Field(default_factory=list)
    """Tolerations of the GPU pods."""
    cpu_pods: CpuPods | None = None
    """Where the pods without GPUs may run; absent means that they follow the GPU pods where they must."""
    priority_class_name: DnsSubdomain | None = None
    """PriorityClass of the GPU pods."""
    scheduler_name: DnsSubdomain | None = None
    """Scheduler of the GPU pods; absent means the cluster's default, or volcano with gang: volcano."""
    queue_name: DnsLabel | None = None
    """Kueue LocalQueue in the resource's namespace: the GPU Jobs are created suspended, and Kueue starts each of them
    when there is quota for its whole gang. What Kueue preempts saves a checkpoint and uses up no restart."""
    queue_priority_class_name: DnsLabel | None = None
    """Kueue WorkloadPriorityClass: the place in the queue, which need not be the pods' priority."""
    topology: Topology | None = None
    """Placement by Kueue's topology-aware scheduling; needs queueName."""
    gang: Gang = Gang.NONE
    """none: Kueue's quota, or timeouts.pendingSeconds, keeps a part of the gang from waiting for the rest for ever.
    volcano: the Volcano scheduler binds all ranks or none."""
