"""Runs that do not fit this operator's models: they spend nothing more, their bill is closed, they can be deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from rft_operator.api import KIND
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.domain.facts import FINALIZER, Key
from rft_operator.domain.partial import MENDS, read_partly
from rft_operator.domain.unread import merged
from rft_operator.errors import Rejected
from rft_operator.runtime.kube_client import map_error
from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE
from support.objects import stored_run
from support.stage import World
from support.team import DOLLAR, TeamWorld, team_budget

Change = Callable[[dict[str, Any]], object]
ONE_GPU: dict[str, Any] = {"evaluation": None, "budget": {"limitUSD": 10, "usdPerGpuHour": "3.60"}}


def raw_of(world: World) -> dict[str, Any]:
    return world.kube.objects[KIND, NAMESPACE, world.key.name]


def status_of(world: World) -> Any:
    return read_partly(raw_of(world)).resource.status


def condition(world: World, type_: str) -> tuple[str, str]:
    found = next(each for each in raw_of(world)["status"]["conditions"] if each["type"] == type_)
    return found["status"], found["reason"]


def spoil(world: World, change: Change) -> None:
    def write(obj: dict[str, Any]) -> None:
        change(obj)

    world.kube.patch(KIND, NAMESPACE, world.key.name, write)


def colour(obj: dict[str, Any]) -> None:
    obj["spec"]["colour"] = "red"


def lose_the_ledger(obj: dict[str, Any]) -> None:
    obj["status"]["ledger"] = {"open": "many"}


def refuse_status(world: World, error: Exception) -> None:
    async def refuse(**_: Any) -> dict[str, Any]:
        raise error

    world.kube.apply_status = refuse  # type: ignore[method-assign]


# -- what can be read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"colour": "red"}, "spec.colour is 'red': this operator does not know the field"),
        ({"training": {"method": "dpo"}}, "spec.training.method is 'dpo': Input should be 'full' or 'lora'"),
        ({"budget": {"limitUSD": "lots"}}, "spec.budget.limitUSD is 'lots': Value error, must be dollars"),
        ({"budget": None}, "spec.budget is None: Input should be a valid dictionary"),
        ({"model": {}}, "spec.model.uri is absent: Field required"),
        (
            {"evaluation": {"benchmarks": [{"name": "A b"}, {"foo": 1}, 3]}},
            "spec.evaluation.benchmarks[1].name is absent: Field required",
        ),
        ({"podTemplate": {"env": [{"name": "A", "value": ["secret"]}]}}, "spec.podTemplate.env[0].value is not shown"),
    ],
)
def test_reading_names_field_and_value_of_what_it_leaves_out(spec: Mapping[str, Any], words: str) -> None:
    raw = stored_run()
    found = read_partly({**raw, "spec": {**raw["spec"], **spec}})
    assert words in found.words
    assert "secret" not in found.words
    assert ReasoningFinetune.model_validate(found.resource.model_dump()) == found.resource


@pytest.mark.parametrize("spec", [None, [], "text", {}, {str(number): 0 for number in range(MENDS + 1)}])
def test_reading_yields_a_stand_in_whatever_the_spec_is(spec: object) -> None:
    found = read_partly({**stored_run(), "spec": spec})
    assert found.resource.metadata.name == NAME
    assert found.problems


@pytest.mark.parametrize(
    ("status", "known"),
    [
        ({"stage": "Dreaming"}, True),
        ({"ledger": {"open": [{"uid": "x"}]}}, False),
        ({"ledger": "lost"}, False),
        ({"conditions": [{"type": ["not", "a", "word"]}]}, True),
        (["not", "a", "map"], False),
    ],
)
def test_bill_is_known_only_where_the_whole_ledger_can_be_read(status: object, known: bool) -> None:
    assert read_partly(stored_run(status=status)).ledger_known is known


def test_limit_that_cannot_be_read_is_taken_from_the_money_on_record() -> None:
    raw = stored_run(status={"cost": {"spentMicroUSD": 3_000_000, "remainingUSD": "7.00"}})
    found = read_partly({**raw, "spec": {**raw["spec"], "budget": {"limitUSD": "lots"}}})
    assert found.resource.spec.budget.limit_usd == "10.000000"


def test_run_that_cannot_be_read_is_never_thrown_away_by_its_time_to_live() -> None:
    raw = stored_run()
    found = read_partly({**raw, "spec": {**raw["spec"], "ttlSecondsAfterFinished": 1, "colour": "red"}})
    assert found.resource.spec.ttl_seconds_after_finished is None


def test_writing_keeps_what_was_not_understood() -> None:
    raw = {
        "stage": "Training",
        "novel": {"a": 1},
        "conditions": [{"type": "Novel", "status": "True"}, {"type": []}, {"type": "Progressing", "status": "True"}],
        "attempts": [{"stage": "distill", "number": 1}, {"stage": "train", "number": 1, "novel": 2}],
        "cost": {"novel": 1, "spentUSD": "1", "stopTime": "soon"},
        "pods": {"desired": 1},
    }
    after = {
        "stage": "Suspended",
        "conditions": [{"type": "Progressing", "status": "False"}, {"type": "Suspended", "status": "True"}],
        "attempts": [{"stage": "train", "number": 1, "endTime": "now"}],
        "cost": {"spentUSD": "2"},
    }
    before = {
        "stage": "Training",
        "conditions": [{"type": "Progressing", "status": "True"}],
        "attempts": [{"stage": "train", "number": 1}],
        "cost": {"spentUSD": "1", "stopTime": "soon"},
        "pods": {"desired": 1},
    }
    assert merged(raw, before=before, after=after) == {
        "stage": "Suspended",
        "novel": {"a": 1},
        "conditions": [
            {"type": "Novel", "status": "True"},
            {"type": []},
            {"type": "Progressing", "status": "False"},
            {"type": "Suspended", "status": "True"},
        ],
        "attempts": [
            {"stage": "distill", "number": 1},
            {"stage": "train", "number": 1, "novel": 2, "endTime": "now"},
        ],
        "cost": {"novel": 1, "spentUSD": "2"},
    }


# -- the run --------------------------------------------------------------------------------------------------


async def test_new_run_that_cannot_be_read_is_refused_once_with_field_and_remedy() -> None:
    world = World()
    spoil(world, colour)
    await world.settle()
    assert condition(world, "Accepted") == ("False", "Unreadable")
    ((type_, reason, message),) = world.kube.events
    assert (type_, reason) == ("Warning", "Unreadable")
    assert "spec.colour is 'red'" in message
    assert "kubectl edit rft" in message
    world.restart_operator()
    assert await world.settle() == 0
    assert len(world.kube.events) == 1
    assert not world.kube.find("Job")


async def test_run_of_another_controller_is_left_alone_although_it_cannot_be_read() -> None:
    world = World(managedBy="example.com/other")
    spoil(world, colour)
    assert await world.settle() == 0
    assert not world.kube.events


async def test_training_that_cannot_be_read_any_more_is_stopped_with_a_checkpoint_and_billed() -> None:
    world = World(**ONE_GPU)
    await world.to_training_at_once()
    spoil(world, colour)
    world.now += 100
    await world.settle()
    assert world.job_gone(Stage.TRAIN)
    assert condition(world, "Progressing") == ("False", "Unreadable")
    world.drain(Stage.TRAIN)
    await world.settle()
    status = status_of(world)
    assert condition(world, "Suspended") == ("True", "Unreadable")
    assert (status.ledger.open, status.ledger.uncounted) == ([], [])
    assert status.cost.spent_micro_usd == 2 * 100 * 1_000
    assert status.checkpoint.step == 20
    assert not [pod for pod in world.pods(Stage.TRAIN) if FINALIZER in pod["metadata"]["finalizers"]]
    assert world.reasons().count("Unreadable") == 2, "the warning, and the stop of the attempt"
    world.now += 1_000
    assert await world.settle() == 0


async def test_run_goes_on_from_its_checkpoint_when_it_can_be_read_again() -> None:
    world = World(**ONE_GPU)
    await world.to_training_at_once()
    spoil(world, colour)
    await world.settle()
    world.drain(Stage.TRAIN)
    await world.settle()
    spoil(world, lambda obj: obj["spec"].pop("colour"))
    await world.settle()
    second = world.status.attempts[-1]
    assert (second.number, second.start_step, second.end_time) == (2, 20, None)
    assert world.status.restarts.toward_limit == 0
    assert world.condition("Suspended").status == "False"


async def test_attempt_of_a_newer_operator_stays_on_record() -> None:
    world = World(**ONE_GPU)
    await world.to_training_at_once()
    novel = {"stage": "distill", "number": 1, "startTime": "2026-01-01T00:00:00Z"}
    spoil(world, lambda obj: obj["status"]["attempts"].append(novel))
    world.kube.apply_status = accept_anything(world)  # type: ignore[method-assign]
    await world.settle()
    assert novel in raw_of(world)["status"]["attempts"]
    assert raw_of(world)["status"]["attempts"][1]["stopReason"] == "Unreadable"


def accept_anything(world: World) -> Callable[..., Any]:
    """An API server whose CRD knows more than this operator."""

    async def write(*, namespace: str, name: str, status: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        world.kube.writes += 1
        world.kube.patch(KIND, namespace, name, lambda obj: obj.update(status=dict(status)))
        return world.kube.objects[KIND, namespace, name]

    return write


async def test_jobs_end_and_the_pods_keep_the_bill_where_no_status_is_taken() -> None:
    world = World(**ONE_GPU)
    await world.to_training_at_once()
    spoil(world, colour)
    refuse_status(world, Rejected("status.stage: unsupported value", status=422))
    await world.settle()
    world.drain(Stage.TRAIN)
    await world.settle()
    assert world.job_gone(Stage.TRAIN)
    assert all(FINALIZER in pod["metadata"]["finalizers"] for pod in world.pods(Stage.TRAIN))
    assert world.reasons().count("Unreadable") == 1
    world.now += 1_000
    assert await world.settle() == 0


@pytest.mark.parametrize("deleted", [False, True])
async def test_right_that_is_missing_is_no_reason_to_give_up_the_bill(deleted: bool) -> None:
    world = World(**ONE_GPU)
    await world.to_training_at_once()
    spoil(world, colour)
    refuse_status(world, map_error(403, b'{"message": "status is forbidden"}', what="patch", headers={}))
    if deleted:
        world.kube.remove(KIND, NAMESPACE, NAME)
    for _ in range(2):
        with pytest.raises(Rejected):
            await world.reconciler.reconcile(world.key)
        world.drain(Stage.TRAIN)
    assert world.job_gone(Stage.TRAIN), "no GPU is held meanwhile"
    assert all(FINALIZER in pod["metadata"]["finalizers"] for pod in world.pods(Stage.TRAIN))
    assert FINALIZER in raw_of(world)["metadata"]["finalizers"]
    assert ("Warning", "Refused", "patch: 403: status is forbidden") in world.kube.events


@pytest.mark.parametrize("ledger", [True, False], ids=["ledger read", "ledger lost"])
async def test_run_that_cannot_be_read_is_deleted_with_all_its_pods(ledger: bool) -> None:
    world = World(**ONE_GPU)
    await world.to_training_at_once()
    spoil(world, colour)
    if not ledger:
        spoil(world, lose_the_ledger)
    world.now += 100
    world.kube.remove(KIND, NAMESPACE, NAME)
    await world.reconciler.reconcile(world.key)
    world.drain(Stage.TRAIN)
    await world.settle_deleted()
    (message,) = [message for _, reason, message in world.kube.events if reason == "Deleted"]
    assert ("$0.20 in all" in message) is ledger
    assert ("could not be closed" in message) is not ledger


async def test_run_is_deleted_although_no_status_is_taken_of_it() -> None:
    world = World(**ONE_GPU)
    await world.to_training_at_once()
    spoil(world, colour)
    refuse_status(world, Rejected("spec.colour: unknown", status=422))
    world.kube.remove(KIND, NAMESPACE, NAME)
    await world.reconciler.reconcile(world.key)
    world.drain(Stage.TRAIN)
    await world.settle_deleted()


async def test_finished_run_that_cannot_be_read_is_told_of_and_left_as_it_is() -> None:
    world = World(**ONE_GPU)
    await world.to_training_at_once()
    world.complete(Stage.TRAIN)
    await world.settle()
    spoil(world, colour)
    await world.settle()
    assert condition(world, "Complete")[0] == "True"
    assert condition(world, "Progressing")[1] != "Unreadable"
    assert status_of(world).stage == "Complete"
    assert await world.settle() == 0
    assert world.reasons().count("Unreadable") == 1


# -- the team -------------------------------------------------------------------------------------------------


def reserved(world: TeamWorld, name: str) -> tuple[int, int] | None:
    found = [each for each in world.budget().status.reservations if each.name == name]
    return (found[0].reserved_micro_usd, found[0].spent_micro_usd) if found else None


@pytest.mark.parametrize("ledger", [True, False], ids=["ledger read", "ledger lost"])
async def test_run_that_cannot_be_read_keeps_its_reservation_and_its_team_goes_on(ledger: bool) -> None:
    world = TeamWorld(team_budget(limitUSD=25), **ONE_GPU)
    await world.at("a").to_training_at_once()
    spoil(world, colour)
    if not ledger:
        spoil(world, lose_the_ledger)
    world.apply("c", **{**ONE_GPU, "budget": {"limitUSD": 5}})
    world.names = ("a", "b", "c")
    await world.settle()
    assert reserved(world, "a") is not None
    assert (reserved(world, "a") or (0, 0))[0] == 10 * DOLLAR
    assert reserved(world, "c") == (5 * DOLLAR, 0)
    (ready,) = [each for each in world.budget().status.conditions if each.type == "Ready"]
    assert "a cannot be read" in ready.message
    assert await world.settle() == 0


async def test_spending_of_a_run_that_cannot_be_read_is_booked_from_its_ledger() -> None:
    world = TeamWorld(team_budget(limitUSD=25), **ONE_GPU)
    await world.at("a").to_training_at_once()
    spoil(world, colour)
    world.now += 100
    await world.settle()
    world.drain(Stage.TRAIN)
    await world.settle()
    assert reserved(world, "a") == (10 * DOLLAR, status_of(world).cost.spent_micro_usd)
    assert status_of(world).cost.spent_micro_usd > 0


async def test_run_that_cannot_be_read_is_granted_nothing_new() -> None:
    world = TeamWorld(team_budget(limitUSD=100), **ONE_GPU)
    await world.settle()
    spoil(world.at("a"), lambda obj: obj["spec"].update(colour="red", budget={"limitUSD": 50}))
    await world.settle()
    assert reserved(world, "a") == (10 * DOLLAR, 0)


@pytest.mark.parametrize("ledger", [True, False], ids=["ledger read", "ledger lost"])
async def test_deleted_run_is_booked_with_its_bill_or_with_all_that_it_could_have_spent(ledger: bool) -> None:
    world = TeamWorld(team_budget(limitUSD=25), **ONE_GPU)
    await world.at("a").to_training_at_once()
    spoil(world, colour)
    if not ledger:
        spoil(world, lose_the_ledger)
    world.now += 100
    world.kube.remove(KIND, NAMESPACE, "a")
    await world.reconciler.reconcile(Key(NAMESPACE, "a"))
    world.drain(Stage.TRAIN)
    for _ in range(5):
        await world.settle()
        world.now += 5
    assert (KIND, NAMESPACE, "a") not in world.kube.objects
    spent = world.budget().status.closed_micro_usd + sum((reserved(world, "a") or (0, 0))[:1])
    assert (spent < DOLLAR) is ledger
    assert ledger or spent == 10 * DOLLAR
