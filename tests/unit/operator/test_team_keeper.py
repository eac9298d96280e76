"""The one writer of team budgets: what wakes it, whom it wakes, and that no failure makes it promise a dollar twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rft_operator.api import BUDGET_KIND, KIND
from rft_operator.domain.facts import FINALIZER, Key
from rft_operator.domain.team import settle
from rft_operator.errors import Unavailable
from rft_operator.runtime import queue, team
from rft_operator.runtime.budget_cache import BudgetCache
from rft_operator.runtime.queue import WorkQueue
from rft_operator.runtime.sweep import list_budgets
from rft_trainer.contract import Stage
from support.builders import NAMESPACE, node, resource
from support.fake_kube import FakeKube
from support.polling import eventually
from support.running import Operator
from support.stage import START
from support.team import DOLLAR, TeamWorld, team_budget

PLAIN: dict[str, Any] = {"evaluation": None, "budget": {"limitUSD": 10}}
DAY = 86_400


def stored(name: str = "team", *, version: int = 1, uid: str = "u", **spec: Any) -> dict[str, Any]:
    raw = team_budget(name, **spec)
    meta = {"uid": uid, "resourceVersion": str(version), "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {**raw, "metadata": {**raw["metadata"], **meta}}


def status_of(it: Operator, name: str = "team") -> Any:
    return it.kube.objects[BUDGET_KIND, NAMESPACE, name].get("status") or {}


def reason_of(it: Operator, name: str) -> str:
    conditions = (it.kube.objects[KIND, NAMESPACE, name].get("status") or {}).get("conditions", ())
    return next((each["reason"] for each in conditions if each["type"] == "Accepted"), "")


async def until_reason(it: Operator, name: str, reason: str) -> None:
    async def look() -> bool:
        return reason_of(it, name) == reason

    await eventually(look, what=f"{name} to be {reason}", every_seconds=0.005)


async def test_leader_lets_one_run_in_and_the_other_one_when_the_first_is_deleted() -> None:
    it = Operator()
    it.kube.put(node())
    it.kube.put(team_budget(limitUSD=15))
    async with it.leading():
        it.kube.put(resource("a", **PLAIN))
        await until_reason(it, "a", "Accepted")
        it.kube.put(resource("b", **PLAIN))
        await until_reason(it, "b", "TeamBudgetExhausted")
        it.kube.remove(KIND, NAMESPACE, "a")
        await until_reason(it, "b", "Accepted")
    assert [each["name"] for each in status_of(it)["reservations"]] == ["b"]
    assert it.sample("rft_reconciles_total", result="crash") == 0


async def test_waiting_run_is_woken_when_its_budget_is_deleted() -> None:
    it = Operator()
    it.kube.put(node())
    it.kube.put(team_budget(limitUSD=1))
    it.kube.put(resource("a", **PLAIN))
    async with it.leading():
        await until_reason(it, "a", "TeamBudgetExhausted")
        it.kube.remove(BUDGET_KIND, NAMESPACE, "team")
        await until_reason(it, "a", "Accepted")


async def test_budget_is_settled_again_when_somebody_else_wrote_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "BACKOFF_FIRST_SECONDS", 0.01)
    it = Operator()
    it.kube.put(node())
    it.kube.put(team_budget(limitUSD=1))
    it.kube.put(resource("a", **PLAIN))
    async with it.leading():
        await until_reason(it, "a", "TeamBudgetExhausted")
        it.kube.subscribers.clear()
        it.kube.patch(BUDGET_KIND, NAMESPACE, "team", lambda obj: obj["spec"].update(limitUSD=10))
        it.runtime.saw(KIND, "ADDED", it.kube.put(resource("late", **PLAIN)))
        await until_reason(it, "late", "TeamBudgetExhausted")
        it.kube.patch(KIND, NAMESPACE, "late", lambda obj: obj["spec"]["budget"].update(limitUSD=1))
        it.runtime.saw(KIND, "MODIFIED", it.kube.objects[KIND, NAMESPACE, "late"])

        async def settled() -> bool:
            return [each["name"] for each in status_of(it).get("reservations", ())] == ["a"]

        await eventually(settled, what="the older run to be granted", every_seconds=0.005)
    assert it.sample("rft_reconciles_total", result="conflict") >= 1


async def test_settling_is_repeated_when_the_api_server_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "BACKOFF_FIRST_SECONDS", 0.01)
    it = Operator()
    it.kube.put(node())
    it.kube.put(team_budget(limitUSD=15))
    writing, fails = it.kube.apply_status, [Unavailable("down", status=500), Unavailable("busy", status=429)]

    async def failing(**how: Any) -> Any:
        if how.get("kind") == BUDGET_KIND and fails:
            raise fails.pop()
        return await writing(**how)

    monkeypatch.setattr(it.kube, "apply_status", failing)
    async with it.leading():
        it.kube.put(resource("a", **PLAIN))
        await until_reason(it, "a", "Accepted")
    assert fails == []


async def refused_for_a_moment(*others: dict[str, Any]) -> tuple[TeamWorld, dict[str, Any]]:
    """Return a world with a run that had a reservation when its Secret went, and the Secret."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf", "namespace": NAMESPACE}}
    model = {"uri": "hf://org/m", "secretRef": {"name": "hf"}}
    world = TeamWorld(team_budget(limitUSD=15), *others, names=("a",), **PLAIN, model=model)
    world.kube.put(secret)
    await world.reconciler.reconcile(world.key)
    await world.keeper.settle(NAMESPACE)
    world.kube.remove("Secret", NAMESPACE, "hf")
    await world.reconciler.reconcile(world.key)
    return world, secret


@pytest.mark.parametrize("others", [(), (team_budget("all", limitUSD=5, selector={"matchLabels": {"team": "x"}}),)])
async def test_run_does_not_start_on_a_reservation_that_is_being_given_to_another_one(
    monkeypatch: pytest.MonkeyPatch, others: tuple[dict[str, Any], ...]
) -> None:
    world, secret = await refused_for_a_moment(*others)
    world.apply("b", **PLAIN)
    await world.reconciler.reconcile(Key(NAMESPACE, "b"))
    if others:  # is written, too, and before the other one
        world.kube.patch(BUDGET_KIND, NAMESPACE, "all", lambda obj: obj["spec"].update(limitUSD=6))
    world.kube.put(secret)
    writing = world.kube.apply_status

    async def slow(**how: Any) -> Any:
        for _ in range(3 if how.get("kind") == BUDGET_KIND else 0):
            await world.reconciler.reconcile(world.key)
        return await writing(**how)

    monkeypatch.setattr(world.kube, "apply_status", slow)
    await world.keeper.settle(NAMESPACE)
    world.names = ("a", "b")
    await world.settle()
    assert world.at("a").condition("Accepted").reason == "TeamBudgetExhausted"
    assert world.at("b").condition("Accepted").reason == "Accepted"
    assert world.promised() == 10 * DOLLAR


async def test_run_starts_on_its_reservation_when_taking_it_failed_and_it_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, secret = await refused_for_a_moment()
    with monkeypatch.context() as change:

        async def fails(**_: Any) -> Any:
            raise Unavailable("down", status=500)

        change.setattr(world.kube, "apply_status", fails)
        with pytest.raises(Unavailable):
            await world.keeper.settle(NAMESPACE)
    world.kube.put(secret)
    woken: list[Key] = []
    world.keeper._wake = woken.append
    for _ in range(2):
        await world.reconciler.reconcile(world.key)
    assert world.condition("Accepted").reason == "WaitingForTeamBudget"
    await world.keeper.settle(NAMESPACE)
    assert woken == [world.key], "nothing was written, so nothing else wakes it"
    await world.reconciler.reconcile(world.key)
    assert world.condition("Accepted").reason == "Accepted"


async def test_bug_in_settling_does_not_stop_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "BACKOFF_FIRST_SECONDS", 0.01)
    it = Operator()
    it.kube.put(node())
    it.kube.put(team_budget(limitUSD=15))
    bugs = [TypeError("a bug")]

    def buggy(*args: Any, **how: Any) -> Any:
        if bugs:
            raise bugs.pop()
        return settle(*args, **how)

    monkeypatch.setattr(team, "settle", buggy)
    async with it.leading():
        it.kube.put(resource("a", **PLAIN))
        await until_reason(it, "a", "Accepted")
    assert it.sample("rft_reconciles_total", result="crash") == 1


async def test_namespace_without_budgets_costs_nothing() -> None:
    it = Operator()
    it.kube.put(node())
    it.kube.put(team_budget(namespace="elsewhere"))
    async with it.leading():
        it.kube.put(resource("a", **PLAIN))
        await until_reason(it, "a", "Accepted")
        assert NAMESPACE not in it.runtime.team.queue._dirty
        assert NAMESPACE not in it.runtime.team.queue._batches
        assert it.runtime.team._runs == {}


async def test_run_that_the_watch_lost_is_asked_for_before_it_is_booked() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **PLAIN)
    await world.to_training()
    world.restart_operator()
    world.cache.drop({"kind": KIND, "metadata": {"namespace": NAMESPACE, "name": "a", "uid": "somebody else"}})
    world.cache._runs[Key(NAMESPACE, "a")].resource = None
    woken: list[Key] = []
    world.keeper._wake = woken.append
    await world.keeper.settle(NAMESPACE)
    assert world.cache._runs[Key(NAMESPACE, "a")].resource is not None
    assert Key(NAMESPACE, "a") in woken
    assert world.budget().status.closed_micro_usd == 0
    assert world.promised() == 10 * DOLLAR


async def test_run_that_is_there_but_was_seen_to_go_stops_the_settling() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **PLAIN)
    await world.to_training()
    raw = world.kube.objects[KIND, NAMESPACE, "a"]
    world.cache.drop(raw)
    with pytest.raises(Unavailable, match="was seen to go, and is still there"):
        await world.keeper.settle(NAMESPACE)
    assert world.promised() == 10 * DOLLAR


async def test_namesake_of_a_gone_run_does_not_keep_its_share() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **PLAIN)
    await world.settle()
    world.kube.subscribers.clear()
    raw = world.kube.objects[KIND, NAMESPACE, "a"]
    world.kube.remove(KIND, NAMESPACE, "a")
    world.cache.drop(raw)
    world.kube.put(resource("a", **PLAIN))
    await world.keeper.settle(NAMESPACE)
    assert world.promised() == 0


async def test_keeper_wants_to_be_woken_when_the_next_window_begins() -> None:
    world = TeamWorld(team_budget(window="day"), team_budget("other", window="month"), **PLAIN)
    await world.settle()
    assert await world.keeper.settle(NAMESPACE) == DAY - (world.now - START)
    plain = TeamWorld(team_budget(), **PLAIN)
    await plain.settle()
    assert await plain.keeper.settle(NAMESPACE) is None


async def test_only_runs_whose_terms_changed_are_woken() -> None:
    world = TeamWorld(team_budget(limitUSD=100), names=("a", "b", "c"), **PLAIN)
    await world.at("a").to_training()
    world.complete(Stage.TRAIN)
    await world.after(1)
    await world.at("b").to_training()
    await world.settle()
    woken: list[str] = []
    world.keeper._wake = lambda key: woken.append(key.name)
    await world.after(61)
    assert woken == [], "what runs have spent is nobody's business"
    world.apply("d", **PLAIN)
    await world.reconciler.reconcile(Key(NAMESPACE, "d"))
    await world.keeper.settle(NAMESPACE)
    assert sorted(woken) == ["b", "c", "d"], "a is over, and its record is the same"


async def test_finalizer_of_a_finished_run_comes_off_when_its_bill_is_booked() -> None:
    world = TeamWorld(team_budget(limitUSD=100), names=("a",), **PLAIN)
    await world.to_training()
    world.complete(Stage.TRAIN)
    for _ in range(8):
        await world.reconciler.reconcile(world.key)
    assert world.status.stage == "Complete"
    assert FINALIZER in world.run.metadata.finalizers
    await world.settle()
    assert FINALIZER not in world.run.metadata.finalizers


# -- what was seen ---------------------------------------------------------------------------------------------


def test_budget_never_goes_back_to_an_older_version() -> None:
    cache = BudgetCache()
    assert cache.put(stored(version=5, limitUSD=5)) is not None
    assert cache.put(stored(version=4, limitUSD=4)) is None
    assert cache.put(stored(version=5, limitUSD=6)) is None
    assert [each.spec.limit_usd for each in cache.of(NAMESPACE)] == [5]


def test_deleted_budget_never_comes_back() -> None:
    cache = BudgetCache()
    cache.put(stored())
    change = cache.drop(stored())
    assert change is not None
    assert (change.before is not None, change.after) == (True, None)
    assert cache.put(stored(version=9)) is None
    assert cache.drop(stored()) is None
    assert cache.namespaces() == ()


def test_namesake_of_a_deleted_budget_takes_its_place() -> None:
    cache = BudgetCache()
    cache.put(stored(version=5, uid="old"))
    change = cache.put(stored(version=6, uid="new"))
    assert change is not None
    assert change.before is None
    assert cache.drop(stored(uid="old")) is None
    assert len(cache.of(NAMESPACE)) == 1


def test_budget_that_cannot_be_read_is_known_by_name() -> None:
    cache = BudgetCache()
    cache.put(stored(version=1))
    cache.put(stored(version=2, limitUSD="lots"))
    assert cache.of(NAMESPACE) == ()
    assert cache.unreadable(NAMESPACE) == ("team",)
    assert cache.unreadable(NAMESPACE, holding="uid-of-a-run") == ()
    assert cache.raw(NAMESPACE, "team") is not None
    assert cache.raw(NAMESPACE, "other") is None


async def test_list_repairs_what_a_watch_lost() -> None:
    kube, cache = FakeKube(lambda: 0), BudgetCache()
    kube.put(team_budget("kept"))
    kube.put(team_budget("gone"))
    changes = await list_budgets(kube, cache, namespaces=())
    assert len([each for each in changes if each is not None]) == 2
    kube.remove(BUDGET_KIND, NAMESPACE, "gone")
    kube.put(team_budget("new"))
    await list_budgets(kube, cache, namespaces=(NAMESPACE,))
    assert [each.metadata.name for each in cache.of(NAMESPACE)] == ["kept", "new"]
    assert await list_budgets(kube, cache, namespaces=("elsewhere",)) != []
    assert cache.of(NAMESPACE) == ()


async def test_amounts_of_a_budget_are_shown_to_prometheus_and_go_with_it() -> None:
    it = Operator()
    it.kube.put(node())
    it.kube.put(team_budget(limitUSD="15.50"))
    labels = {"namespace": NAMESPACE, "budget": "team"}
    async with it.leading():
        it.kube.put(resource("a", **PLAIN))
        await until_reason(it, "a", "Accepted")
        assert it.sample("reasoning_finetune_team_budget_usd", **labels) == 15.5
        assert it.sample("reasoning_finetune_team_reserved_usd", **labels) == 10
        assert it.metrics.registry.get_sample_value("reasoning_finetune_team_spent_usd", labels) == 0
        it.kube.remove(BUDGET_KIND, NAMESPACE, "team")
        assert it.metrics.registry.get_sample_value("reasoning_finetune_team_budget_usd", labels) is None


async def test_timers_of_the_keeper_are_gone_when_the_lead_ends() -> None:
    it = Operator()
    it.kube.put(node())
    it.kube.put(team_budget(window="day"))
    keeper: WorkQueue[str] = it.runtime.team.queue

    async def timed() -> bool:
        return NAMESPACE in keeper._timers

    async with it.leading():
        await eventually(timed, what="the timer of the next window", every_seconds=0.005)
    await asyncio.sleep(0)
    assert not keeper._timers
