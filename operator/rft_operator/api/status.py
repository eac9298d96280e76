"""``status`` of a ReasoningFinetune: what happened, what it cost, what it is worth.

Invariant: nothing here changes on an idle reconcile, so an idle resource causes no write. Control flow reads
``attempts``, ``ledger`` and ``conditions``, never ``stage``, which is text for people.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, field_validator

from rft_operator.api.base import BigCounter, Counter, StatusModel, Timestamp
from rft_operator.api.ledger import Ledger, WasteReason
from rft_operator.api.scores import EvaluationStatus
from rft_operator.api.texts import text

MAX_ATTEMPTS_KEPT = 32

Name = Annotated[str, text(253)]
Reason = Annotated[str, text(64, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", minimum=1)]
Message = Annotated[str, text(2_048)]
DecimalText = Annotated[str, text(32)]


class DisplayStage(StrEnum):
    """Where the run stands, in a word for people; no control flow reads it."""

    PENDING = "Pending"
    QUEUED = "Queued"
    PREPARING = "Preparing"
    STARTING = "Starting"
    TRAINING = "Training"
    STOPPING = "Stopping"
    RESTARTING = "Restarting"
    EVALUATING = "Evaluating"
    SCORING = "Scoring"
    PUBLISHING = "Publishing"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"
    DELETING = "Deleting"


class ConditionType(StrEnum):
    """All condition types; each is written from the first sight of a resource."""

    ACCEPTED = "Accepted"
    PREPARED = "Prepared"
    TRAINED = "Trained"
    SCHEDULED = "Scheduled"
    RUNNING = "Running"
    PROGRESSING = "Progressing"
    CHECKPOINT_VALID = "CheckpointValid"
    WITHIN_BUDGET = "WithinBudget"
    BUDGET_AT_RISK = "BudgetAtRisk"
    SUSPENDED = "Suspended"
    EVALUATED = "Evaluated"
    PUBLISHED = "Published"
    COMPLETE = "Complete"
    FAILED = "Failed"


class ConditionStatus(StrEnum):
    """As in every Kubernetes condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(StatusModel):
    """A Kubernetes condition."""

    type: ConditionType
    """Type of the condition."""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: BigCounter | None = None
    """Generation of the spec that the condition speaks of."""
    last_transition_time: Timestamp
    """When the status last changed."""
    reason: Reason
    """A word for machines."""
    message: Message = ""
    """A sentence for people."""


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "Succeeded"
    DRAINED = "Drained"
    FAILED = "Failed"


class Attempt(StatusModel):
    """One try of one stage; written before its first pod exists (write-ahead)."""

    stage: Annotated[str, text(16, pattern=r"^(prepare|train|evaluate|score|publish)$")]
    """prepare, train, evaluate, score or publish."""
    number: Annotated[int, Field(ge=1, le=100_000)]
    """Counts from 1 within the stage; part of the Job's name."""
    start_time: Timestamp
    """When the attempt was decided."""
    end_time: Timestamp | None = None
    """When its last pod ended; absent while it runs."""
    outcome: AttemptOutcome | None = None
    """How it ended."""
    reason: Reason | None = None
    """Why it ended."""
    message: Message | None = None
    """The same in a sentence: pod, container, node, exit code, last words."""
    gpus: Annotated[int, Field(ge=0, le=16_384)] | None = None
    """GPUs it holds when all its pods are bound."""
    grace_seconds: Counter | None = None
    """Time its pods have to save when they are stopped: checkpoint.graceSeconds, or more if saves took longer."""
    deadline_seconds: Counter | None = None
    """activeDeadlineSeconds of its pods: the kubelet ends them then, even if everything else is down."""
    worst_case_usd: DecimalText | None = Field(default=None, alias="worstCaseUSD")
    """What it can cost at most, decided before its first pod exists: deadline, grace and slack at the dearest price."""
    bound_time: Timestamp | None = None
    """When its first pod was bound to a node: paid for from then on."""
    running_time: Timestamp | None = None
    """When the container of its last rank started."""
    first_step_time: Timestamp | None = None
    """When it first reported a step of its own; what was paid before is its start-up."""
    last_checkpoint_time: Timestamp | None = None
    """Its newest checkpoint when it ended; what came after is lost work."""
    start_step: Counter | None = None
    """Optimizer step it resumed from."""
    end_step: Counter | None = None
    """Last step it reported."""
    counted: bool | None = None
    """Whether it used up one of retries.maxRestarts."""
    stop_reason: Reason | None = None
    """Set when the operator asked it to stop: why."""


class Restarts(StatusModel):
    """Counters over the whole life."""

    total: Counter = 0
    """Training attempts after the first."""
    toward_limit: Counter = 0
    """Those that count against retries.maxRestarts."""
    resumes: Counter = 0
    """Attempts that continued from a checkpoint."""


class PodCounts(StatusModel):
    """Pods of the current attempt."""

    desired: Counter = 0
    """Pods the attempt wants."""
    scheduled: Counter = 0
    """Bound to a node."""
    running: Counter = 0
    """Running."""
    ready: Counter = 0
    """Ready."""
    failed: Counter = 0
    """Failed."""
    display: Annotated[str, text(16)] = ""
    """ready/desired, for the NODES column."""


class ProgressMetric(StatusModel):
    """A value the trainer reports, as text."""

    name: Annotated[str, text(64, minimum=1)]
    """Name, for example loss."""
    value: Annotated[str, text(64)]
    """Value as text."""


class Progress(StatusModel):
    """The newest report of the running stage."""

    stage: Annotated[str, text(16)]
    """Stage the report speaks of."""
    attempt: Counter
    """Attempt the report speaks of."""
    percent: Annotated[int, Field(ge=0, le=100)]
    """Share of the stage's work that is done."""
    display: Annotated[str, text(8)]
    """The same with a percent sign, for the PROGRESS column."""
    step: Counter | None = None
    """Optimizer step."""
    total_steps: Counter | None = None
    """Steps of the whole training."""
    eta_seconds: Counter | None = None
    """Seconds the stage still needs, as the trainer estimates."""
    metrics: Annotated[list[ProgressMetric], Field(max_length=32)] = Field(default_factory=list)
    """loss, tokens_per_second and whatever else was reported."""
    last_report_time: Timestamp
    """When this report was taken over."""
    last_advance_time: Timestamp
    """When the step last went up: what stallSeconds counts from."""


class CheckpointStatus(StatusModel):
    """The newest complete checkpoint."""

    step: Counter
    """Optimizer step."""
    time: Timestamp
    """When it was complete."""
    path: Annotated[str, text(1_024)] | None = None
    """Folder on the volume."""
    save_seconds: DecimalText | None = None
    """Measured duration of the last save."""


class StageUsage(StatusModel):
    """GPU time of a stage."""

    stage: Annotated[str, text(16)]
    """prepare, train or evaluate."""
    gpu_seconds: BigCounter
    """GPU-seconds held."""
    spent_usd: DecimalText = Field(default="0.000000", alias="spentUSD")
    """What they cost, rounded up to the micro-dollar."""


class WasteUsage(StatusModel):
    """GPU time that was paid for and trained or evaluated nothing."""

    reason: WasteReason
    """pull, backOff, gangWait, lostWork, terminating or nodeLost."""
    gpu_seconds: BigCounter
    """GPU-seconds."""
    spent_usd: DecimalText = Field(default="0.000000", alias="spentUSD")
    """What they cost, rounded up to the micro-dollar."""


class Usage(StatusModel):
    """GPU time over the life of the resource, all attempts together."""

    gpu_seconds: BigCounter = 0
    """Sum of GPUs x seconds from scheduled to terminal."""
    gpu_hours: DecimalText = "0.000"
    """The same in hours, for the GPU-H column."""
    by_stage: Annotated[list[StageUsage], Field(max_length=8)] = Field(default_factory=list)
    """Split by stage."""
    waste: Annotated[list[WasteUsage], Field(max_length=8)] = Field(default_factory=list)
    """Share of it that trained and evaluated nothing, by reason."""
    estimated_gpu_seconds: BigCounter = 0
    """Share of it whose end no timestamp of the cluster proves; it errs high."""
    disputed_gpu_seconds: BigCounter = 0
    """Share of it that was charged after the last proof that the GPUs were held."""
    metered_until: Timestamp | None = None
    """The instant this sum speaks of while pods hold GPUs; it is refreshed at most once a minute."""


class Cost(StatusModel):
    """Money over the life of the resource."""

    currency: Annotated[str, text(3)] = "USD"
    """Always USD."""
    spent_usd: DecimalText = Field(default="0.000000", alias="spentUSD")
    """Spent so far, rounded up to the micro-dollar."""
    spent_micro_usd: BigCounter = Field(default=0, alias="spentMicroUSD")
    """The same as an integer."""
    display: Annotated[str, text(24)] = "$0.00"
    """The same in cents, for the SPENT column."""
    rate_usd_per_hour: DecimalText = Field(default="0.00", alias="rateUSDPerHour")
    """What the pods that hold GPUs now cost per hour."""
    usd_per_gpu_hour: DecimalText | None = Field(default=None, alias="usdPerGpuHour")
    """Price of a GPU-hour of this run's pool."""
    price_source: Annotated[str, text(128)] | None = None
    """spec, or the catalogue's entry."""
    reserve_usd: DecimalText | None = Field(default=None, alias="reserveUSD")
    """Kept back for the evaluation."""
    remaining_usd: DecimalText | None = Field(default=None, alias="remainingUSD")
    """limitUSD less spent."""
    forecast_usd: DecimalText | None = Field(default=None, alias="forecastUSD")
    """What the run will have cost at its end if it goes on as it does now, evaluation included."""
    overshoot_usd: DecimalText = Field(default="0.000000", alias="overshootUSD")
    """Spent beyond limitUSD; above 0 only if GPUs could not be taken back from a node that does not answer."""
    ended_at_limit_usd: DecimalText | None = Field(default=None, alias="endedAtLimitUSD")
    """What the run might spend when it failed for want of money; only a higher limitUSD takes it up again."""
    stop_time: Timestamp | None = None
    """When the stop line is reached if nothing changes."""
    warned_at_percent: Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(max_length=16)] = Field(
        default_factory=list
    )
    """Thresholds of budget.warnAtPercent that were announced."""
    forecast_warned_at_percent: Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(max_length=16)] = Field(
        default_factory=list
    )
    """Thresholds of which it was announced that the forecast reaches them; 100 is the limit itself."""


class Failure(StatusModel):
    """The last thing that went wrong."""

    reason: Reason
    """A word for machines."""
    message: Message
    """A sentence for people."""
    time: Timestamp
    """When."""
    pod: Name | None = None
    """Pod."""
    node: Name | None = None
    """Node."""
    exit_code: Annotated[int, Field(ge=-1, le=255)] | None = None
    """Exit code of the container."""


class Status(StatusModel):
    """What happened, what it cost, what it is worth."""

    observed_generation: BigCounter | None = None
    """Generation of the spec this status speaks of."""
    stage: DisplayStage | None = None
    """Where the run stands, for people."""
    start_time: Timestamp | None = None
    """When the run was accepted; most of the spec is fixed from here on."""
    completion_time: Timestamp | None = None
    """When it completed or failed."""
    conditions: Annotated[list[Condition], Field(max_length=16)] = Field(default_factory=list)
    """The state, condition by condition."""
    attempts: Annotated[list[Attempt], Field(max_length=MAX_ATTEMPTS_KEPT)] = Field(default_factory=list)
    """The newest attempts, oldest first."""
    restarts: Restarts = Field(default_factory=Restarts)
    """Counters."""
    pods: PodCounts | None = None
    """Pods of the current attempt."""
    progress: Progress | None = None
    """Newest report."""
    checkpoint: CheckpointStatus | None = None
    """Newest complete checkpoint."""
    usage: Usage = Field(default_factory=Usage)
    """GPU time."""
    cost: Cost = Field(default_factory=Cost)
    """Money."""
    evaluation: EvaluationStatus | None = None
    """Scores."""
    last_failure: Failure | None = None
    """The last thing that went wrong."""
    ledger: Ledger = Field(default_factory=Ledger)
    """The bill."""

    @field_validator("conditions", mode="before")
    @classmethod
    def _known_conditions(cls, raw: object) -> object:
        """Leave out what a newer operator has to say, so that an older one can go on after a rollback."""
        known = {each.value for each in ConditionType}
        if not isinstance(raw, list):
            return raw
        named = [(each.get("type") if isinstance(each, dict) else None, each) for each in raw]
        return [each for name, each in named if not isinstance(name, str) or name in known]
