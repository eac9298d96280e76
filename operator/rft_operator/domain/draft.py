"""A plan while it is being made.

Invariant: the draft lives inside one call of ``plan``; what leaves it is frozen. Decisions that need something
on record read ``recorded`` (the status as read), never ``status`` (the status being written).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rft_operator.api.spec import Spec
from rft_operator.api.status import Attempt, Condition, ConditionStatus, ConditionType, Status
from rft_operator.domain.actions import Action, Emit, Plan
from rft_operator.domain.timestamps import rfc3339
from rft_operator.domain.view import View
from rft_trainer.contract import Stage

MESSAGE_LIMIT = 2_048
CONDITION_ORDER = {type_: index for index, type_ in enumerate(ConditionType)}


@dataclass(slots=True)
class Draft:
    """The view, the instant, and what was decided so far."""

    view: View
    now: int
    status: Status
    actions: list[Action] = field(default_factory=list)
    events: list[Emit] = field(default_factory=list)
    wake_at: list[int] = field(default_factory=list)
    claims_gpus: bool = False

    @property
    def spec(self) -> Spec:
        """Return the resource's spec."""
        return self.view.resource.spec

    @property
    def recorded(self) -> Status:
        """Return the status as read: what survives a crash right now."""
        return self.view.resource.status

    @property
    def now_text(self) -> str:
        """Return ``now`` as RFC 3339."""
        return rfc3339(self.now)

    def update(self, **fields: Any) -> None:
        """Replace fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def emit(self, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Announce something, once the status that records it is written."""
        self.events.append(Emit(type=type_, reason=reason, message=message[:1_024]))

    def wake(self, at: int) -> None:
        """Look again at ``at`` (epoch seconds) even if nothing happens."""
        self.wake_at.append(at)

    def condition(self, type_: ConditionType) -> Condition | None:
        """Return a condition of the status being written."""
        return condition_of(self.status, type_)

    def holds(self, type_: ConditionType) -> bool:
        """Return whether a condition is True."""
        return is_true(self.status, type_)

    def set_condition(
        self, type_: ConditionType, status: ConditionStatus | bool, reason: str, message: str = ""
    ) -> None:
        """Set a condition; the transition time moves only when the status does, compared with the one on record."""
        if isinstance(status, bool):
            status = ConditionStatus.TRUE if status else ConditionStatus.FALSE
        old = self.condition(type_)
        found = (old, condition_of(self.recorded, type_))
        same = next((each for each in found if each is not None and each.status is status), None)
        new = Condition(
            type=type_,
            status=status,
            reason=reason,
            message=message[:MESSAGE_LIMIT],
            observed_generation=self.view.resource.metadata.generation,
            last_transition_time=same.last_transition_time if same is not None else self.now_text,
        )
        if new == old:
            return
        others = [each for each in self.status.conditions if each.type is not type_]
        self.update(conditions=sorted([*others, new], key=lambda each: CONDITION_ORDER[each.type]))

    def observe_generation(self) -> None:
        """Say that this look is at the spec as it is: conditions that an edit does not change hold for it, too.

        `kubectl wait` takes none that speaks of an older generation, and would wait for ever for one that is True.
        """
        seen = self.view.resource.metadata.generation
        known = self.status.conditions
        if any(each.observed_generation != seen for each in known):
            known = [each.model_copy(update={"observed_generation": seen}) for each in known]
        self.update(observed_generation=seen, conditions=known)

    def attempts_of(self, stage: Stage) -> list[Attempt]:
        """Return the kept attempts of a stage, oldest first."""
        return [attempt for attempt in self.status.attempts if attempt.stage == stage]

    def replace_attempt(self, attempt: Attempt) -> None:
        """Put a changed attempt in the place of its former self."""
        self.update(
            attempts=[
                attempt if (each.stage, each.number) == (attempt.stage, attempt.number) else each
                for each in self.status.attempts
            ]
        )

    def open_attempt(self) -> Attempt | None:
        """Return the attempt that has not ended; there is at most one."""
        return next((attempt for attempt in self.status.attempts if attempt.end_time is None), None)

    def finish(self) -> Plan:
        """Freeze the plan."""
        delay = max(0, min(self.wake_at) - self.now) if self.wake_at else None
        return Plan(
            status=self.status,
            actions=tuple(self.actions),
            events=tuple(self.events),
            requeue_after_seconds=delay,
            claims_gpus=self.claims_gpus,
        )


def condition_of(status: Status, type_: ConditionType) -> Condition | None:
    """Return a condition of a status, or None."""
    return next((each for each in status.conditions if each.type is type_), None)


def is_true(status: Status, type_: ConditionType) -> bool:
    """Return whether a condition of a status is True."""
    found = condition_of(status, type_)
    return found is not None and found.status is ConditionStatus.TRUE


def has_failed(status: Status) -> bool:
    """Return whether a run failed for good."""
    return is_true(status, ConditionType.FAILED)


def is_over(status: Status) -> bool:
    """Return whether a run completed or failed."""
    return is_true(status, ConditionType.COMPLETE) or has_failed(status)


def finished(draft: Draft) -> bool:
    """Return whether the run completed or failed."""
    return is_over(draft.status)
