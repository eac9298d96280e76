"""What the operator knows of the cluster, as frozen values.

Raw API objects are digested into these facts when they enter the cache (``domain.observe``), so that nothing
behind the cache ever sees a raw dict, and 1,000 runs fit into little memory. All instants are whole seconds
since the epoch on the API server's clock unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from rft_trainer.contract import Stage

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "rft-operator"
LABEL_FINETUNE = "rft.dev/finetune"
LABEL_STAGE = "rft.dev/stage"
LABEL_ATTEMPT = "rft.dev/attempt"
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
"""Of a Job: Kueue keeps it suspended until its LocalQueue of this name has quota for all of its pods."""
TRAINER_CONTAINER = "trainer"
"""The one container of our pods; more of them are put there by webhooks and policies."""
STILL_STARTING = frozenset({"ContainerCreating", "PodInitializing"})
"""Reasons of a waiting container that say no more than that it waits."""
GATE = "rft.dev/budget"
"""Scheduling gate of the GPU pods of queued Jobs: no pod is bound before the operator has looked at the money again.

Kueue may start a Job hours after it was made, and once more after it was preempted; the operator may be down then."""
PASSED_SECONDS = 1
"""The shortest activeDeadlineSeconds there is: of a pod that is to end now."""
FINALIZER = "rft.dev/ledger"
"""On every GPU pod until its bill is closed, and on the resource while such pods may exist."""


class Key(NamedTuple):
    """Identity of a resource: what the work queue and the cache go by."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def child_name(finetune: str, part: str, number: int | None = None) -> str:
    """Return the name of a child, for example ``demo-train-2``."""
    return f"{finetune}-{part}" if number is None else f"{finetune}-{part}-{number}"


class ChildKind(StrEnum):
    """Kinds that a run creates; the value is the Kubernetes kind."""

    CONFIG_MAP = "ConfigMap"
    SERVICE = "Service"
    CLAIM = "PersistentVolumeClaim"
    JOB = "Job"
    POD = "Pod"


class PodPhase(StrEnum):
    """As Kubernetes writes it."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """One pod of a run."""

    uid: str
    namespace: str
    name: str
    finetune: str
    stage: Stage
    attempt: int
    rank: int
    resource_version: str
    phase: PodPhase
    created_at: int
    orphaned: bool = False
    """No object owns it: its Job was deleted without it, so that nobody would end it."""
    run_uid: str = ""
    """UID of the run it was made for; empty of one that an older operator made."""
    node: str | None = None
    gpus: int = 0
    """GPUs as the scheduler reserves them: max(sum(app) + sum(sidecars), largest init step) (docs/metering.md M2)."""
    scheduled_at: int | None = None
    """PodScheduled=True (M3)."""
    started_at: int | None = None
    """First container start, on the node's clock: pull time ends here."""
    finished_at: int | None = None
    """Latest container end, on the node's clock."""
    phase_written_at: int | None = None
    """managedFields time of the write of a terminal phase (M4)."""
    deleted_at: int | None = None
    """deletionTimestamp."""
    deletion_requested_at: int | None = None
    """deletionTimestamp less the grace that it includes."""
    bound_when_created: bool = False
    """It was created on its node; there was no scheduling to take the start from."""
    acknowledged_at: int | None = None
    """status.startTime: the kubelet took it over; activeDeadlineSeconds counts from here."""
    deadline_seconds: int | None = None
    """activeDeadlineSeconds."""
    ready: bool = False
    has_finalizer: bool = False
    finalizers: tuple[str, ...] = ()
    waiting_reason: str | None = None
    """Of the container that holds the others up, a sidecar or an init step too: ImagePullBackOff, ..."""
    waiting_container: str | None = None
    """Its name."""
    waiting_message: str | None = None
    unschedulable_message: str | None = None
    """Message of PodScheduled=False, unless gates are all that it waits for."""
    gated: bool = False
    """It waits for our consent."""
    resource_claims: tuple[str, ...] = ()
    """Names of devices it claims beside its GPUs (dynamic resource allocation); ours claim none by themselves."""
    terminated_reason: str | None = None
    """Of the trainer's container: OOMKilled, Error, Completed, ..."""
    exit_code: int | None = None
    termination_message: str | None = None
    pod_reason: str | None = None
    """status.reason: Evicted, DeadlineExceeded, NodeLost, ..."""
    pod_message: str | None = None
    disruption_reason: str | None = None
    """Reason of DisruptionTarget=True: PreemptionByScheduler, DeletionByTaintManager, ..."""

    @property
    def terminal(self) -> bool:
        """Whether no container of it runs or will run."""
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)

    @property
    def bindable(self) -> bool:
        """Whether it waits for a node; one that is deleted before it is bound never gets one, nor an end."""
        return self.scheduled_at is None and not self.terminal and self.deleted_at is None and not self.doomed

    @property
    def doomed(self) -> bool:
        """Whether nobody owns it and it can do nothing any more: a kubelet that gets it will end it at once."""
        return self.orphaned and self.scheduled_at is None and self.deadline_seconds == PASSED_SECONDS

    @property
    def holds_node(self) -> bool:
        """Whether its containers run or may run on a node."""
        return self.scheduled_at is not None and not self.terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """One Job of a run (one attempt of a stage)."""

    uid: str
    namespace: str
    name: str
    finetune: str
    stage: Stage
    attempt: int
    resource_version: str
    created_at: int
    parallelism: int
    owner_uid: str = ""
    """UID of the resource that owns it: children of a deleted namesake are never adopted."""
    queue: str | None = None
    """Kueue LocalQueue that its label names."""
    publishes: str | None = None
    """What it was made to publish, and where to (``publishing.target_of``); None: it publishes nothing."""
    suspended: bool = False
    """spec.suspend: it makes no pods, and those it made are being ended."""
    started_at: int | None = None
    """status.startTime: when it last stopped being suspended, or when its controller took it over."""
    complete: bool = False
    failed: bool = False
    failed_reason: str | None = None
    failed_message: str | None = None
    deleted_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFacts:
    """A Service, ConfigMap or claim of a run."""

    kind: ChildKind
    uid: str
    namespace: str
    name: str
    finetune: str
    resource_version: str
    owner_uid: str = ""
    """Empty for a retained claim, which has no owner."""
    deleted_at: int | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    """Of the run's ConfigMap only: the snapshot of effective values."""
    shared: bool = True
    """Of a claim: pods on several nodes can have it at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """A node: what its GPUs cost, and whether its kubelet answers."""

    name: str
    labels: Mapping[str, str]
    gpus: Mapping[str, int]
    """Allocatable extended resources by name."""
    ready: bool
    not_ready_since: int | None = None
    silent_since: int | None = None
    """Since when the control plane has heard nothing of its kubelet (Ready is Unknown)."""
    unschedulable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Children:
    """Everything of one run that exists in the cluster."""

    pods: tuple[PodFacts, ...] = ()
    jobs: tuple[JobFacts, ...] = ()
    objects: tuple[ObjectFacts, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The newest progress report of a run, held in memory between status writes."""

    stage: Stage
    attempt: int
    received_at: int
    percent: int | None
    eta_seconds: int | None
    metrics: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The operator's own settings that manifests and plans depend on."""

    trainer_image: str
    image_pull_policy: str = "IfNotPresent"
    progress_url: str | None = None
    """Base URL of the progress server, for example https://rft-operator.rft-system.svc:8443."""
    progress_ca: str | None = None
    """PEM of the authority that signed the progress server's certificate."""
    service_account: str = "default"
    """Account whose projected token the pods report with; it needs no rights."""
    progress_write_seconds: int = 60
    """A progress change of less than one percent waits so long before it is written."""
    node_lost_seconds: int = 30
    """A pod on a node that is not ready for so long counts as lost."""
    restart_backoff_seconds: int = 10
    """Pause before the first restart that counts; doubles each time, at most 5 minutes."""
    expected_startup_seconds: int = 0
    """From the first bound pod to the first step of a training that has measured none; image pulls take longest."""
    namespace_pod_security_user: int = 65_532
    """uid and gid of the pods."""
