"""One life of a run, lived again with a fault at every single write: the ledger is the same to the last byte.

The cluster's part is a script, so its timestamps do not depend on the operator's luck. In each repetition exactly one
write fails, or the operator dies before or after it, or its watches lose, repeat and reorder what they report.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pytest

from rft_operator.errors import Conflict, KubeError, Unavailable
from rft_trainer.contract import Stage
from support.fake_kube import FakeKube
from support.stage import WATCHED, World

T = TypeVar("T")


class Killed(BaseException):
    """The operator's process is gone: nothing in it may catch this."""


FAULTS: Mapping[str, Callable[[], BaseException]] = {
    "killed": Killed,
    "409": lambda: Conflict("the object has been modified", status=409),
    "429": lambda: Unavailable("too many requests", status=429, retry_after_seconds=1),
    "500": lambda: Unavailable("internal error", status=500),
    "time-out": lambda: Unavailable("time-out"),
}


class FaultyKube(FakeKube):
    """Fails one write, before or after its effect."""

    at = -1
    error: Callable[[], BaseException] = Killed
    after = False
    armed = False

    def _create(self, manifest: Mapping[str, Any]) -> Any:
        # Two lives are compared: a uid must not depend on how many objects were made before.
        named = {
            **manifest,
            "metadata": {"uid": f"{manifest['kind']}-{manifest['metadata']['name']}", **manifest["metadata"]},
        }
        return super()._create(named)

    def _faulty(self, write: Callable[[], T]) -> T:
        self.writes += 1
        hit = self.armed and self.writes == self.at
        if hit and not self.after:
            raise self.error()
        result = write()
        if hit:
            raise self.error()
        return result


class Life(World):
    """A run whose operator may die, and whose watches may lie."""

    kube_type = FaultyKube
    kube: FaultyKube

    def __init__(self, *, luck: random.Random | None = None, **spec: Any) -> None:
        self.luck = luck
        self.late: list[tuple[str, str, Mapping[str, Any]]] = []
        self.reported: dict[str, Any] = {}
        super().__init__(**spec)

    def restart_operator(self) -> None:
        super().restart_operator()
        if self.reported:  # the trainer posts again
            super().report(**self.reported)

    def report(self, **said: Any) -> None:
        self.reported = {"saved_at": self.now, **said}
        super().report(**self.reported)

    def _watch(self, kind: str, type_: str, obj: Mapping[str, Any]) -> None:
        if self.luck is None or kind not in WATCHED:
            super()._watch(kind, type_, obj)
            return
        chance = self.luck.random()
        if chance < 0.3:
            return
        if chance < 0.6:
            self.late.append((kind, type_, obj))
            return
        super()._watch(kind, type_, obj)
        if chance < 0.8:
            super()._watch(kind, type_, obj)

    async def settle(self, most: int = 20) -> int:
        if self.luck is not None:
            for _ in range(4):  # with what the watches say; a conflict over what they lost waits for a sweep
                with contextlib.suppress(KubeError, Killed):
                    await self.reconciler.reconcile(self.key)
            self.luck.shuffle(self.late)
            for event in self.late:
                super()._watch(*event)
            self.late.clear()
            self.restart_operator()  # as a sweep: what the watches lost is listed
            self.luck, luck = None, self.luck
            await self._settle(most)
            self.luck = luck
            return 0
        return await self._settle(most)

    async def _settle(self, most: int) -> int:
        while True:
            try:
                return await super().settle(most)
            except Killed:
                self.restart_operator()


async def live(world: Life) -> list[Any]:
    """Fail, resume, be suspended, train to the end, be evaluated; return the ledgers on the way."""
    ledgers = []

    async def after(seconds: int) -> None:
        await world.after(seconds)
        ledgers.append(world.status.ledger)

    await world.settle()
    world.run_pods(Stage.PREPARE)
    await after(5)
    world.complete(Stage.PREPARE)
    await after(1)
    world.run_pods(Stage.TRAIN)
    await after(100)
    world.report(step=10, checkpoint=10)
    await after(50)
    world.reported = {}
    world.finish_pods(Stage.TRAIN, exit_code=1)
    await after(1)
    await after(30)
    world.run_pods(Stage.TRAIN, 2)
    await after(100)
    world.edit(suspend=True)
    await after(1)
    world.drain(Stage.TRAIN, 2)
    await after(20)
    world.edit(suspend=False)
    await after(1)
    world.run_pods(Stage.TRAIN, 3)
    await after(200)
    world.complete(Stage.TRAIN, 3)
    await after(1)
    world.run_pods(Stage.EVALUATE)
    await after(60)
    world.complete(Stage.EVALUATE)
    await after(1)
    return ledgers


@pytest.fixture(scope="module")
def undisturbed() -> tuple[list[Any], Life]:
    """The life in which nothing fails, lived once; the ledgers on its way."""
    world = Life()
    return asyncio.run(live(world)), world


async def test_script_is_a_whole_life(undisturbed: tuple[list[Any], Life]) -> None:
    ledgers, world = undisturbed
    assert world.condition("Complete").status == "True"
    assert [attempt.outcome.value for attempt in world.status.attempts if attempt.stage == "train"] == [
        "Failed",
        "Drained",
        "Succeeded",
    ]
    # 150, 101 and 200 s of two GPUs, 60 of one.
    assert world.status.usage.gpu_seconds == 2 * (150 + 101 + 200) + 60
    assert not ledgers[-1].open


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("faults", [("killed",), ("409", "429", "500", "time-out")], ids=["killed", "refused"])
async def test_ledger_is_identical_when_any_one_write_fails(
    undisturbed: tuple[list[Any], Life], faults: tuple[str, ...], after: bool
) -> None:
    wanted, reference = undisturbed
    writes = reference.kube.writes
    assert writes > 40
    for at in range(1, writes + 1):
        world, fault = Life(), faults[at % len(faults)]
        world.kube.at, world.kube.error, world.kube.after, world.kube.armed = at, FAULTS[fault], after, True
        found = await live(world)
        assert found == wanted, f"{fault} at write {at} of {writes}"
        assert world.status.cost.spent_micro_usd == reference.status.cost.spent_micro_usd
        assert world.kube.writes >= at


@pytest.mark.parametrize("seed", range(40))
async def test_ledger_is_identical_when_watches_lose_repeat_and_reorder_and_a_write_fails(
    undisturbed: tuple[list[Any], Life], seed: int
) -> None:
    wanted, reference = undisturbed
    luck = random.Random(seed)
    world = Life(luck=luck)
    world.kube.at, world.kube.after = luck.randint(1, reference.kube.writes), luck.random() < 0.5
    world.kube.error, world.kube.armed = FAULTS[luck.choice(sorted(FAULTS))], True
    assert await live(world) == wanted
