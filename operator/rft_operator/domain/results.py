"""What a stage says of itself, taken over into status: summaries, checkpoint, scores, progress.

Invariant: numbers come from the trainer's own result and reports only; nothing is derived from exit codes.
"""

from __future__ import annotations

from datetime import datetime

from rft_operator.api.status import (
    Attempt,
    CheckpointStatus,
    ConditionStatus,
    ConditionType,
    Progress,
    ProgressMetric,
)
from rft_operator.domain.draft import Draft
from rft_operator.domain.facts import Report
from rft_operator.domain.publishing import tell_published
from rft_operator.domain.scores import take_scores
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_trainer.contract import Outcome, Stage
from rft_trainer.progress_report import MetricName
from rft_trainer.stage_results import EvaluateSummary, PrepareSummary, StageResult, TrainSummary

LARGEST = 2_147_483_647
ANSWERS_WAIT = "ScoringPending"
"""Reason of Evaluated=False between the stages Evaluate and Score, also where a bound has ended the former."""


def is_complete(result: StageResult) -> bool:
    """Return whether a stage did all of its work and says what came of it.

    A word of success without its numbers is none: a later stage, or a user, would build on what is not known.
    """
    if result.outcome is not Outcome.COMPLETED:
        return False
    if result.stage is Stage.PREPARE:
        return result.prepare is not None
    if result.stage is Stage.TRAIN:
        return result.train is not None and result.train.step >= result.train.total_steps
    if result.stage is Stage.PUBLISH:
        return result.publish is not None
    if result.evaluate is None:
        return False
    if result.stage is Stage.SCORE:  # of a part there may be nothing to post, and still all of it was scored
        return bool(result.evaluate.scores) or result.evaluate.stopped is not None
    return bool(result.evaluate.scores) or result.evaluate.pending > 0


def take_over(draft: Draft, result: StageResult) -> None:
    """Write a stage's summaries and, when it completed, the stage's condition."""
    done = is_complete(result)
    if result.prepare is not None and done:
        it = result.prepare
        message = f"{it.rows} rows{_dropped(it)}, {it.tokens} tokens, {it.steps} steps{_room(it)}."
        draft.set_condition(ConditionType.PREPARED, True, "Succeeded", message)
        draft.emit("Normal", "Prepared", message)
    if result.train is not None:
        _take_checkpoint(draft, result.train)
        if done:
            loss = f", loss {result.train.loss:.4f}" if result.train.loss is not None else ""
            message = f"{result.train.step} steps, {result.train.tokens} tokens{loss}."
            draft.set_condition(ConditionType.TRAINED, True, "Succeeded", message)
            draft.emit("Normal", "Trained", message)
    if result.evaluate is not None and done:
        if result.stage is Stage.EVALUATE and result.evaluate.pending:
            take_answers(draft, result.evaluate, given="All questions are answered")
        else:
            take_scores(draft, result.evaluate)
    if result.publish is not None and done:
        tell_published(draft, result.publish)
    if done:
        _tell_all_done(draft, result)


def _tell_all_done(draft: Draft, result: StageResult) -> None:
    """Show all of a completed stage as done: its last report may be older, or may never have come."""
    progress = draft.status.progress
    if progress is None or progress.stage != result.stage.value:
        return
    update = {"percent": 100, "display": "100%", "eta_seconds": 0}
    if result.train is not None:
        update |= {"step": result.train.step, "total_steps": result.train.total_steps}
    draft.update(progress=progress.model_copy(update=update))


def answers_wait(draft: Draft) -> bool:
    """Return whether no more is asked, and programs among the answers wait to be run: no GPU is needed for it."""
    found = draft.condition(ConditionType.EVALUATED)
    return found is not None and (found.status, found.reason) == (ConditionStatus.FALSE, ANSWERS_WAIT)


def take_answers(draft: Draft, summary: EvaluateSummary, *, given: str) -> None:
    """Put on record that programs wait; ``given`` says how much was answered, or why no more was."""
    message = f"{given}; {summary.pending} answers are programs, which a pod without GPU runs."
    draft.set_condition(ConditionType.EVALUATED, False, ANSWERS_WAIT, message)
    draft.emit("Normal", "Answered", message)


def _dropped(it: PrepareSummary) -> str:
    parts = {
        "too long": it.too_long_rows,
        "without an answer": it.unanswered_rows,
        "held out for the evaluation": it.held_out_rows,
    }
    named = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
    return f" ({it.dropped_rows} dropped{f': {named}' if named else ''})"


def _room(it: PrepareSummary) -> str:
    """Say how full sequences are and how much padding ranks will compute; a summary of an older trainer has neither."""
    if it.fill is None or it.padding_share is None:
        return ""
    return f"; {it.sequences} sequences, {100 * it.fill:.0f} % filled, {100 * it.padding_share:.0f} % padding"


def _take_checkpoint(draft: Draft, summary: TrainSummary) -> None:
    if summary.checkpoint_step is None:
        return
    old = draft.status.checkpoint
    seconds = summary.checkpoint_seconds
    new_step = old is None or summary.checkpoint_step != old.step
    draft.update(
        checkpoint=CheckpointStatus(
            step=summary.checkpoint_step,
            time=draft.now_text if new_step or old is None else old.time,
            path=summary.checkpoint_path,
            save_seconds=f"{seconds:.2f}" if seconds is not None else (old.save_seconds if old else None),
        )
    )
    _mark_checkpoint(draft)


def _mark_checkpoint(draft: Draft) -> None:
    checkpoint = draft.status.checkpoint
    if checkpoint is not None:
        draft.set_condition(ConditionType.CHECKPOINT_VALID, True, "Saved", f"Step {checkpoint.step}.")


def take_report(draft: Draft, attempt: Attempt) -> None:
    """Write the newest report of the open attempt, when it says enough new to be worth a write.

    At least one percent, the first step or what comes before it, another step of the checkpoint, or
    ``progress_write_seconds`` since the last write; and what says that the training does not hang, before it would
    count as if it did.
    """
    report = draft.view.report
    if report is None or report.stage.value != attempt.stage or report.attempt != attempt.number:
        return
    old = draft.status.progress
    same = old is not None and (old.stage, old.attempt) == (attempt.stage, attempt.number)
    new = _progress(report, attempt, old if same else None)
    _take_reported_checkpoint(draft, report)
    if same and old is not None:
        due = epoch(old.last_report_time) + draft.view.settings.progress_write_seconds
        if _is_alive(new, old):
            due = min(due, epoch(old.last_advance_time) + draft.spec.timeouts.stall_seconds)
        begins = not old.step and (bool(new.step) or _phase(new) != _phase(old))
        if new.percent == old.percent and not begins and draft.now < due:
            return
        if new.model_copy(update={"last_report_time": old.last_report_time}) == old:
            return
    draft.update(progress=new)


def _is_alive(new: Progress, old: Progress) -> bool:
    """Return whether a report says something that ``timeouts.stallSeconds`` is counted anew or otherwise from."""
    return (new.last_advance_time, _phase(new)) != (old.last_advance_time, _phase(old))


def _phase(progress: Progress) -> str | None:
    return next((each.value for each in progress.metrics if each.name == MetricName.PHASE), None)


def _progress(report: Report, attempt: Attempt, old: Progress | None) -> Progress:
    metrics = dict(report.metrics)
    step, total = _whole(metrics.get(MetricName.STEP)), _whole(metrics.get(MetricName.TOTAL_STEPS))
    percent = report.percent
    if percent is None:
        percent = min(100, 100 * step // total) if step is not None and total else 0
    advanced = old is None or (step or 0) > (old.step or 0) or percent > old.percent
    received = rfc3339(report.received_at)
    hidden = {MetricName.STEP, MetricName.TOTAL_STEPS}
    return Progress(
        stage=attempt.stage,
        attempt=attempt.number,
        percent=percent,
        display=f"{percent}%",
        step=step,
        total_steps=total,
        eta_seconds=report.eta_seconds,
        metrics=[ProgressMetric(name=name, value=value) for name, value in report.metrics[:32] if name not in hidden],
        last_report_time=received,
        last_advance_time=received if advanced or old is None else old.last_advance_time,
    )


def _take_reported_checkpoint(draft: Draft, report: Report) -> None:
    metrics = dict(report.metrics)
    step = _whole(metrics.get(MetricName.CHECKPOINT_STEP))
    old = draft.status.checkpoint
    if step is None or step <= 0 or (old is not None and old.step == step):
        return
    seconds = metrics.get(MetricName.CHECKPOINT_SECONDS)
    draft.update(
        checkpoint=CheckpointStatus(
            step=step,
            time=_instant(metrics.get(MetricName.CHECKPOINT_TIME), latest=report.received_at),
            path=old.path if old else None,
            save_seconds=_seconds(seconds),
        )
    )
    _mark_checkpoint(draft)


def _number(text: str | None) -> float | None:
    """Return a reported number, if status can hold it: reports are the trainer's words, not to be trusted."""
    try:
        number = float(text) if text is not None else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number <= LARGEST else None


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return int(number) if number is not None else None


def _seconds(text: str | None) -> str | None:
    number = _number(text)
    return f"{number:.2f}" if number is not None else None


def _instant(text: str | None, *, latest: int) -> str:
    """Return a reported instant within the day before ``latest``; anything else is a clock that never ran."""
    try:
        reported = int(datetime.fromisoformat(text).timestamp()) if text else latest
    except (ValueError, OverflowError):
        reported = latest
    return rfc3339(reported if latest - 86_400 <= reported <= latest else latest)
