"""From one look at a run to what is to be done: the heart of the operator.

A run goes through Prepare, Train (attempt by attempt), Evaluate, and ends as Complete or Failed. Everything is
derived again from the view on each call; nothing is remembered between calls but what is on record in status.
Invariants: at most one attempt is open; what must survive a crash is on record before it is acted on; a view
that has not changed yields the same status and no action, so an idle run costs no write.
"""

from __future__ import annotations

from dataclasses import replace

from rft_operator.api.choices import OnExhausted
from rft_operator.api.status import Attempt, ConditionStatus, ConditionType, DisplayStage
from rft_operator.domain.accept import accept
from rft_operator.domain.actions import Apply, Plan, SetFinalizers
from rft_operator.domain.attempts import begin, budget_stop, open_gates, provide, stop_if_needed, stopped
from rft_operator.domain.budget import Admission, admit
from rft_operator.domain.conclusions import complete, conclude, fail
from rft_operator.domain.draft import Draft, finished
from rft_operator.domain.ending import delete, rest, revivable, revive
from rft_operator.domain.facts import FINALIZER, ChildKind, child_name
from rft_operator.domain.gang import Gang, ended, gang_of, others_alive
from rft_operator.domain.manifests import claim, run_config_map
from rft_operator.domain.money_state import Money, meter, terms_of
from rft_operator.domain.publishing import PublishStep, publish_step, publish_stop
from rft_operator.domain.release import end_orphans, release_pods, remove_strays
from rft_operator.domain.resolve import RunSnapshot, read_snapshot, resolve
from rft_operator.domain.results import answers_wait, take_report
from rft_operator.domain.scores import evaluation_is_over
from rft_operator.domain.show import first_sight, show_gang, show_progressing, show_unread_snapshot, stage_word
from rft_operator.domain.show_money import announce_money, show_money, show_no_price, show_price, show_risk
from rft_operator.domain.startup import remember_first_step, remember_start
from rft_operator.domain.stops import Stop, trouble_stop
from rft_operator.domain.team_money import ask_again, ask_no_more, in_a_team, show_team, start_is_known, unraised
from rft_operator.domain.view import View
from rft_operator.errors import InvalidResource
from rft_trainer.contract import Stage

Snapshot = RunSnapshot | InvalidResource
"""A run whose values cannot be read is tended as any other, but nothing new is made of it."""
CONTROLLER_NAME = "rft.dev/operator"
"""The value of spec.managedBy that names this operator."""


def plan(view: View, now: int) -> Plan:
    """Return what is to be done for one run; raises InvalidResource only for a spec the CRD would refuse."""
    resource = view.resource
    if resource.spec.managed_by not in (None, CONTROLLER_NAME):
        return Plan(status=None)
    draft = Draft(view=view, now=now, status=resource.status)
    draft.observe_generation()
    remember_start(draft)
    money = meter(draft)
    if resource.metadata.deletion_timestamp is not None:
        delete(draft, money)
    elif not finished(draft):
        _live(draft, money)
    elif revivable(draft) and money.rate is not None and _admission_ok(draft, money, _unpaid_stage(draft)):
        _go_on(draft, money)
    else:
        ask_no_more(draft)
        rest(draft, money)
    if resource.metadata.deletion_timestamp is None:
        remove_strays(draft)
    end_orphans(draft, every=resource.metadata.deletion_timestamp is not None)
    release_pods(draft)
    return draft.finish()


def _go_on(draft: Draft, money: Money) -> None:
    """Take up a run that failed for want of money and has enough now, once its team budgets have reserved it."""
    wait = unraised(draft)
    if wait is None:
        revive(draft)
        show_money(draft, money, stop_at=None)
    else:
        ask_again(draft, wait)
        rest(draft, money, may_expire=False)


def _live(draft: Draft, money: Money) -> None:
    if draft.recorded.start_time is None:
        accept(draft, money)
        first_sight(draft)
        if draft.status.start_time is None:
            draft.update(stage=DisplayStage.PENDING)
            return
    snapshot = _snapshot(draft)
    if isinstance(snapshot, RunSnapshot):
        _provide_common(draft, snapshot)
    attempt = draft.open_attempt()
    gang = gang_of(draft, attempt) if attempt is not None else None
    stop_at: int | None = None
    if attempt is not None and gang is not None:
        take_report(draft, attempt)
        attempt = remember_first_step(draft, attempt)
        stop_at = _tend(draft, attempt, gang, snapshot=snapshot, money=money)
    if draft.open_attempt() is None and not finished(draft):
        _advance(draft, money, snapshot)
    attempt = draft.open_attempt()
    gang = gang_of(draft, attempt) if attempt is not None else None
    show_gang(draft, gang)
    show_progressing(draft, attempt)
    if isinstance(snapshot, InvalidResource):
        show_unread_snapshot(draft, snapshot)
    announce_money(draft, money)
    show_risk(draft, money)
    show_team(draft)
    draft.update(stage=stage_word(draft, attempt, gang))
    show_money(draft, money, stop_at=stop_at)


def _tend(draft: Draft, attempt: Attempt, gang: Gang, *, snapshot: Snapshot, money: Money) -> int | None:
    """Bring the open attempt one step on; return when the stop line is reached."""
    stop_at: int | None = None
    stop: Stop | None = None
    if draft.spec.suspend:
        stop = Stop(reason="Suspended", message="spec.suspend is true: saving a checkpoint and releasing the GPUs.")
    if stop is None:
        stop, stop_at = budget_stop(draft, attempt, gang, money)
    if stop is None:
        stop = publish_stop(draft, gang)
    if stop is None and (gang.pods or gang.job is not None):
        stop = trouble_stop(draft, attempt, gang)
    if stop is None or gang.live or gang.job is not None:
        if not ended(draft, attempt, gang):
            attempt = stop_if_needed(draft, attempt, gang, stop=stop)
            if stop is None and attempt.stop_reason is None:
                if isinstance(snapshot, RunSnapshot):
                    provide(draft, attempt, gang, snapshot=snapshot, money=money)
                open_gates(draft, attempt, gang, money)
                show_price(draft, gang, money)
            return stop_at
    elif attempt.stop_reason is None:
        attempt = stopped(draft, attempt, stop)
    conclude(draft, attempt, gang)
    return None


def _advance(draft: Draft, money: Money, snapshot: Snapshot) -> None:
    """No attempt is open: begin the next one, wait, or end the run."""
    if others_alive(draft, None):
        return
    if draft.spec.suspend:
        lost = draft.status.ledger.open  # on nodes that do not answer: what else was alive is waited for above
        held = "GPUs are held only by nodes that do not answer (BudgetAtRisk)" if lost else "no GPU is held"
        draft.set_condition(ConditionType.SUSPENDED, True, "Requested", f"spec.suspend is true; {held}.")
        return
    _wanted_again(draft)
    stage = _next_stage(draft, money)
    if stage is None or isinstance(snapshot, InvalidResource):
        return
    draft.set_condition(ConditionType.SUSPENDED, False, "NotSuspended")
    begin(draft, stage, money)


def _wanted_again(draft: Draft) -> None:
    """Nobody asks for a pause any more; whether the money does is looked at next."""
    paused = draft.condition(ConditionType.SUSPENDED)
    if paused is not None and paused.status is ConditionStatus.TRUE and paused.reason != "BudgetExhausted":
        draft.set_condition(ConditionType.SUSPENDED, False, "NotSuspended")


def _next_stage(draft: Draft, money: Money) -> Stage | None:
    """Return the stage to run now, after ending or holding the run where money or work is at an end."""
    if not draft.holds(ConditionType.PREPARED):
        return Stage.PREPARE
    trained = draft.holds(ConditionType.TRAINED)
    if not trained:
        if _admission_ok(draft, money, Stage.TRAIN):
            _within_budget(draft)
            return Stage.TRAIN if _has_finalizer(draft) else None
        if not _budget_refused(draft, money, Stage.TRAIN):
            return None
    evaluation = draft.spec.evaluation
    wanted = evaluation is not None and not draft.holds(ConditionType.EVALUATED)
    if wanted and answers_wait(draft):
        return Stage.SCORE
    if wanted and (trained or (draft.status.checkpoint is not None and not evaluation_is_over(draft))):
        if _admission_ok(draft, money, Stage.EVALUATE):
            if trained:
                _within_budget(draft)
            return Stage.EVALUATE if _has_finalizer(draft) else None
        if trained and not _budget_refused(draft, money, Stage.EVALUATE):
            return None
        if trained:
            fail(draft, "EvaluationReserveExhausted", _admission(draft, money, Stage.EVALUATE).message)
            return None
    if not trained:
        fail(draft, "BudgetExhausted", _admission(draft, money, Stage.TRAIN).message)
    return _publish_or_complete(draft) if trained else None


def _publish_or_complete(draft: Draft) -> Stage | None:
    """Everything is trained and measured: give it away if that is asked for, and end."""
    step = publish_step(draft)
    if step is PublishStep.NONE:
        complete(draft)
    return Stage.PUBLISH if step is PublishStep.START else None


def _within_budget(draft: Draft) -> None:
    """The money is enough again; while it is, the reason says how much is spent (show_money)."""
    if not draft.holds(ConditionType.WITHIN_BUDGET):
        draft.set_condition(ConditionType.WITHIN_BUDGET, True, "WithinLimit")


def _admission_ok(draft: Draft, money: Money, stage: Stage) -> bool:
    if money.rate is None:
        show_no_price(draft)
        return False
    return _admission(draft, money, stage).ok


def _admission(draft: Draft, money: Money, stage: Stage) -> Admission:
    if money.rate is None:
        return Admission(ok=False, message="The pool has no known price.")
    found = admit(terms_of(draft, money, rate=money.rate, stage=stage), money.bill)
    return found if found.ok else replace(found, message=in_a_team(draft, found.message))


def _budget_refused(draft: Draft, money: Money, stage: Stage) -> bool:
    """Record that the money is at an end; return whether the run goes on to its end (onExhausted: stop)."""
    if money.rate is None:
        return False
    message = _admission(draft, money, stage).message
    draft.set_condition(ConditionType.WITHIN_BUDGET, False, "Exhausted", message)
    if draft.spec.budget.on_exhausted is OnExhausted.SUSPEND:
        draft.set_condition(ConditionType.SUSPENDED, True, "BudgetExhausted", message)
        return False
    return True


def _has_finalizer(draft: Draft) -> bool:
    """Put our finalizer on the resource before the first GPU pod; True once it is there and its team knows."""
    meta = draft.view.resource.metadata
    if FINALIZER in meta.finalizers:
        return start_is_known(draft)
    if draft.status == draft.recorded:
        draft.actions.append(
            SetFinalizers(
                kind="ReasoningFinetune",
                namespace=meta.namespace,
                name=meta.name,
                resource_version=meta.resource_version,
                finalizers=(*meta.finalizers, FINALIZER),
            )
        )
    # Our own write is no news: nobody but us would look again.
    draft.wake(draft.now)
    return False


def _snapshot(draft: Draft) -> Snapshot:
    """Return the run's effective values, or why nobody knows them: a newer operator wrote them, or somebody's hand."""
    try:
        return _effective_values(draft)
    except InvalidResource as error:
        return error


def _effective_values(draft: Draft) -> RunSnapshot:
    resource = draft.view.resource
    name = child_name(resource.metadata.name, "run")
    for each in draft.view.children.objects:
        if each.kind is ChildKind.CONFIG_MAP and each.name == name and each.data:
            return read_snapshot(each.data)
    return resolve(resource, draft.view.settings)


def _provide_common(draft: Draft, snapshot: RunSnapshot) -> None:
    """Create what all stages share: the run's ConfigMap and, with its first attempt on record, its claim.

    In a burst each new run gets its first child before any gets its second.
    """
    resource = draft.view.resource
    existing = {(each.kind, each.name) for each in draft.view.children.objects}
    name = resource.metadata.name
    if (ChildKind.CONFIG_MAP, child_name(name, "run")) not in existing:
        draft.actions.append(Apply(manifest=run_config_map(resource, snapshot)))
    wants_claim = draft.spec.storage.claim_name is None and bool(draft.recorded.attempts)
    if wants_claim and (ChildKind.CLAIM, child_name(name, "data")) not in existing:
        draft.actions.append(Apply(manifest=claim(resource)))


def _unpaid_stage(draft: Draft) -> Stage:
    return Stage.EVALUATE if draft.holds(ConditionType.TRAINED) else Stage.TRAIN
