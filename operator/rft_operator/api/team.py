"""``FinetuneBudget``: dollars that several runs of a namespace share.

Invariant: only the operator's budget reconciler writes ``status``, under resourceVersion; what it reserves for runs and
what they have spent is never more than the limit, but for what ran before the budget (condition OverCommitted).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, field_validator

from rft_operator.api.base import ApiModel, BigCounter, StatusModel, Timestamp
from rft_operator.api.resource import ObjectMeta
from rft_operator.api.status import ConditionStatus, DecimalText, Message, Name, Reason
from rft_operator.api.texts import Currency, LabelKey, LabelValue, Money, text

MAX_RESERVATIONS = 1_024


class Window(StrEnum):
    """How often a team budget begins anew, in UTC."""

    NONE = "none"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class SelectorOperator(StrEnum):
    """How an expression compares a label."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class SelectorExpression(ApiModel):
    """One condition on the labels of a run."""

    key: LabelKey
    """Label key."""
    operator: SelectorOperator
    """In, NotIn, Exists or DoesNotExist; NotIn also holds where the label is absent."""
    values: Annotated[list[LabelValue], Field(max_length=32)] = Field(default_factory=list)
    """Values of In and NotIn."""


class Selector(ApiModel):
    """Which runs share the budget; all conditions must hold."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = Field(default_factory=dict)
    """Labels a run must carry."""
    match_expressions: Annotated[list[SelectorExpression], Field(max_length=16)] = Field(default_factory=list)
    """Conditions on the labels of a run."""


class TeamSpec(ApiModel):
    """Dollars that several runs share."""

    limit_usd: Money = Field(alias="limitUSD")
    """Never spend more in a window. A whole number or a quoted decimal, in US dollars; 0 lets no run start."""
    currency: Currency = "USD"
    """Only USD: the price catalogue is in US dollars, and nothing is converted."""
    selector: Selector | None = None
    """Runs that share it; absent means all of the namespace. A run that has a reservation keeps it until its end."""
    window: Window = Window.NONE
    """The budget begins anew each day, week (on Monday) or month, in UTC; none: never by itself."""
    reset_time: Timestamp | None = None
    """Nothing that was spent before this instant counts any more; an instant to come is waited for."""
    warn_at_percent: Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(max_length=8)] = Field(
        default_factory=lambda: [50, 80]
    )
    """Events are emitted when so many percent of the limit are spent, once in a window."""

    @field_validator("reset_time")
    @classmethod
    def _in_capitals(cls, value: str | None) -> str | None:
        """The API server takes ``t`` and ``z`` too, Python does not; raises ValueError for what is no instant."""
        if value is not None:
            datetime.fromisoformat(value.upper())
        return value and value.upper()


class Reservation(StatusModel):
    """Dollars of this window that one run may spend, or has spent."""

    uid: Annotated[str, text(64, minimum=1)]
    """UID of the run."""
    name: Name
    """Name of the run."""
    reserved_micro_usd: BigCounter = Field(alias="reservedMicroUSD")
    """What the run may spend in this window, what it has spent already included."""
    spent_micro_usd: BigCounter = Field(default=0, alias="spentMicroUSD")
    """What it has spent in this window."""
    spent_before_micro_usd: BigCounter = Field(default=0, alias="spentBeforeMicroUSD")
    """Its bill when this window began."""
    started: bool = False
    """GPU pods of it may exist or have existed."""
    settled: bool = False
    """It is over and its bill is final: it may spend nothing more."""
    observed_generation: BigCounter = 1
    """Generation of the run's spec that the reservation speaks of."""


class TeamConditionType(StrEnum):
    """All condition types of a team budget."""

    READY = "Ready"
    EXHAUSTED = "Exhausted"
    OVER_COMMITTED = "OverCommitted"


class TeamCondition(StatusModel):
    """A Kubernetes condition."""

    type: TeamConditionType
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


class TeamDisplay(StatusModel):
    """The amounts in cents, for the columns."""

    reserved: Annotated[str, text(24)] = ""
    """As reservedUSD."""
    spent: Annotated[str, text(24)] = ""
    """As spentUSD."""
    free: Annotated[str, text(24)] = ""
    """As freeUSD."""


class TeamStatus(StatusModel):
    """What is promised, what is spent, what is free. The limit is the sum of the three."""

    observed_generation: BigCounter | None = None
    """Generation of the spec this status speaks of."""
    window_start: Timestamp | None = None
    """Only what was spent since then counts."""
    limit_usd: DecimalText | None = Field(default=None, alias="limitUSD")
    """The limit that is in force."""
    reserved_usd: DecimalText = Field(default="0.000000", alias="reservedUSD")
    """Promised to runs and not spent yet."""
    spent_usd: DecimalText = Field(default="0.000000", alias="spentUSD")
    """Spent in this window, by runs that are gone too."""
    free_usd: DecimalText = Field(default="0.000000", alias="freeUSD")
    """Neither promised nor spent; never below 0 (condition OverCommitted)."""
    display: TeamDisplay = Field(default_factory=TeamDisplay)
    """The same in cents."""
    closed_micro_usd: BigCounter = Field(default=0, alias="closedMicroUSD")
    """What runs that are gone have spent in this window."""
    reservations: Annotated[list[Reservation], Field(max_length=MAX_RESERVATIONS)] = Field(default_factory=list)
    """One per run that exists and shares the budget."""
    warned_at_percent: Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(max_length=16)] = Field(
        default_factory=list
    )
    """Thresholds of warnAtPercent that were announced in this window."""
    metered_until: Timestamp | None = None
    """The instant the sums speak of while runs hold GPUs; it is refreshed at most once a minute."""
    conditions: Annotated[list[TeamCondition], Field(max_length=8)] = Field(default_factory=list)
    """The state, condition by condition."""


class FinetuneBudget(StatusModel):
    """A FinetuneBudget: metadata, spec and status."""

    metadata: ObjectMeta
    spec: TeamSpec
    status: TeamStatus = Field(default_factory=TeamStatus)

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> FinetuneBudget:
        """Read an API server object; raises pydantic.ValidationError for one the CRD would refuse."""
        return cls.model_validate(
            {"metadata": raw["metadata"], "spec": raw.get("spec", {}), "status": raw.get("status") or {}}
        )
