"""Giving the model away, once it is trained and evaluated.

Invariant: publishing can fail and loses nothing by it. The model is on the volume, the run ends as Complete, the
condition Published says why it is not published; no GPU is held, and nothing is charged.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.spec import Spec
from rft_operator.api.status import AttemptOutcome, ConditionType, Failure
from rft_operator.domain.draft import Draft
from rft_operator.domain.gang import Gang
from rft_operator.domain.pauses import MAX_BACKOFF_SECONDS
from rft_operator.domain.stops import PUBLISH_CHANGED, Stop
from rft_operator.domain.timestamps import epoch
from rft_trainer.contract import ENV_PUBLISH_PRIVATE, ENV_PUBLISH_URI, ENV_RUN_COST, PUBLISH_DIRECTORY, Stage
from rft_trainer.stage_results import PublishSummary

TRIES = 3
"""Failures after which it is given up."""
PUBLISH_SECONDS = 14_400
"""Bound of one try; the next goes on where it was."""
VOLUME = "rft-publish"
_CLAIM = "pvc://"
_UNITS = ("B", "kB", "MB", "GB", "TB")


class PublishStep(Enum):
    """What is to be done about publishing now."""

    START = "start"
    WAIT = "wait"
    NONE = "none"


def publish_step(draft: Draft) -> PublishStep:
    """Return whether to try, to wait for the next try, or to leave it."""
    if draft.spec.publish is None or draft.holds(ConditionType.PUBLISHED):
        return PublishStep.NONE
    failed = [each for each in draft.attempts_of(Stage.PUBLISH) if each.outcome is AttemptOutcome.FAILED]
    if not failed:
        return PublishStep.START
    last = failed[-1]
    if len(failed) >= TRIES or last.reason == "BadInput" or last.end_time is None:
        return PublishStep.NONE
    pause = draft.view.settings.restart_backoff_seconds * 2 ** (len(failed) - 1)
    due = epoch(last.end_time) + min(MAX_BACKOFF_SECONDS, pause)
    if draft.now < due:
        draft.wake(due)
        return PublishStep.WAIT
    return PublishStep.START


def target_of(spec: Spec) -> str:
    """Return what is to be published and where to, as a Job's annotation says it; empty: nothing."""
    return json.dumps(spec.publish.to_wire(), sort_keys=True) if spec.publish is not None else ""


def publish_stop(draft: Draft, gang: Gang) -> Stop | None:
    """Return why a try must be ended: ``spec.publish`` was edited, which may be done until the run is complete."""
    if gang.stage is not Stage.PUBLISH:
        return None
    if draft.spec.publish is None:
        return Stop(reason=PUBLISH_CHANGED, message="spec.publish was removed: nothing is published any more.")
    begun = gang.job.publishes if gang.job is not None else None
    if begun is None or begun == target_of(draft.spec):
        return None
    return Stop(reason=PUBLISH_CHANGED, message="spec.publish was changed: the next try is of what it asks for now.")


def tell_published(draft: Draft, summary: PublishSummary) -> None:
    """Say where the model is."""
    where = summary.uri + (f"@{summary.revision}" if summary.revision is not None else "")
    message = f"{where}: {summary.files} files, {_size(summary.bytes)}."
    draft.set_condition(ConditionType.PUBLISHED, True, "Published", message)
    draft.emit("Normal", "Published", message)


def tell_not_published(draft: Draft, reason: str, message: str) -> None:
    """Say why it is not published; what the run is worth is not touched."""
    draft.update(last_failure=Failure(reason=reason, message=message[:2_048], time=draft.now_text))
    draft.set_condition(ConditionType.PUBLISHED, False, reason, message)
    draft.emit("Warning", "PublishFailed", f"{message} The model is on the run's volume.")


def publish_claims(spec: Spec) -> list[str]:
    """Return the claim that the model is published to, if it is one."""
    if spec.publish is None or not spec.publish.uri.startswith(_CLAIM):
        return []
    return [spec.publish.uri.removeprefix(_CLAIM).split("/", 1)[0]]


def publish_mounts(spec: Spec, stage: Stage) -> list[dict[str, Any]]:
    """Return where the stage Publish writes to; no other stage can."""
    if stage is not Stage.PUBLISH:
        return []
    return [{"name": VOLUME, "mountPath": PUBLISH_DIRECTORY} for _ in publish_claims(spec)]


def publish_volumes(spec: Spec, stage: Stage) -> list[dict[str, Any]]:
    """Return the volume behind it."""
    if stage is not Stage.PUBLISH:
        return []
    return [{"name": VOLUME, "persistentVolumeClaim": {"claimName": claim}} for claim in publish_claims(spec)]


def publish_environment(resource: ReasoningFinetune) -> list[dict[str, Any]]:
    """Return what only the operator knows: the target as it is now, and the bill."""
    publish, status = resource.spec.publish, resource.status
    assert publish is not None
    cost = {
        "spentUSD": status.cost.spent_usd,
        "gpuHours": status.usage.gpu_hours,
        "byStage": [
            {"stage": each.stage, "gpuSeconds": each.gpu_seconds, "spentUSD": each.spent_usd}
            for each in status.usage.by_stage
        ],
    }
    values = {
        ENV_PUBLISH_URI: publish.uri,
        ENV_PUBLISH_PRIVATE: "true" if publish.private else "false",
        ENV_RUN_COST: json.dumps(cost, sort_keys=True),
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def _size(count: int) -> str:
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{count} B"
