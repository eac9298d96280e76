"""What happens before the operator is uninstalled where a run cannot be read."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from rft_operator.api import KIND
from rft_operator.client.api import UserApi
from rft_operator.domain.facts import FINALIZER
from rft_operator.errors import Unavailable
from rft_operator.uninstall import PATIENCE_SECONDS, Uninstall
from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE
from support.stage import World

ONE_GPU: dict[str, Any] = {"evaluation": None, "budget": {"limitUSD": 10, "usdPerGpuHour": "3.60"}}


class Elector:
    """A Lease that is taken at once, and held unless it is lost."""

    def __init__(self) -> None:
        self.lost = False

    async def take_over(self) -> None:
        return

    async def hold(self) -> None:
        if not self.lost:
            await asyncio.Event().wait()

    async def release(self) -> None:
        return


class Removal:
    """An uninstall in a fake cluster; each look at the clock lets the operator work and 10 s pass."""

    def __init__(self, world: World, *, drains: bool = True) -> None:
        self.world = world
        self.said: list[str] = []
        self.drains = drains
        self.looks = 0
        self.elector = Elector()
        self.work = Uninstall(
            cast(UserApi, world.kube),
            elector=self.elector,
            namespaces=[NAMESPACE],
            say=self.said.append,
            poll_seconds=0,
            monotonic=lambda: float(self.world.now),
        )

    async def keep(self) -> None:
        """Uninstall while the operator works."""
        task = asyncio.create_task(self.work.keep_runs())
        while not task.done():
            self.looks += 1
            assert self.looks < 50, f"it hangs; said was {self.said}"
            await self.world.settle()
            if self.drains and self.world.job_gone(Stage.TRAIN):
                self.world.drain(Stage.TRAIN)
            self.world.now += 10
            for _ in range(10):
                await asyncio.sleep(0)
        await task

    def held(self) -> list[str]:
        """Return what our finalizer holds."""
        things = [*self.world.kube.find(KIND), *self.world.kube.find("Pod")]
        return [each["kind"] for each in things if FINALIZER in (each["metadata"].get("finalizers") or ())]


async def training(**broken: Any) -> World:
    """Return a run whose ranks train, and which cannot be read any more."""
    world = World(**ONE_GPU)
    await world.to_training_at_once()

    def spoil(obj: dict[str, Any]) -> None:
        obj["spec"]["colour"] = "red"
        obj["status"] |= broken

    world.kube.patch(KIND, NAMESPACE, NAME, spoil)
    return world


async def test_run_that_cannot_be_read_is_waited_for_until_its_bill_is_closed_and_let_go() -> None:
    removal = Removal(await training())
    await removal.keep()
    assert removal.held() == []
    assert not any("passing over" in line for line in removal.said)


async def test_run_whose_bill_cannot_be_closed_is_passed_over_with_its_name_and_why() -> None:
    removal = Removal(await training(ledger="lost"))
    await removal.keep()
    (line,) = [line for line in removal.said if "passing over" in line]
    assert f"passing over {NAMESPACE}/{NAME}" in line
    assert "spec.colour is 'red'" in line
    assert FINALIZER in line
    assert sorted(removal.held()) == ["Pod", "Pod", KIND], "what keeps the bill stays"
    assert removal.looks * 10 > PATIENCE_SECONDS


async def test_run_that_cannot_be_read_is_never_passed_over_while_it_spends() -> None:
    removal = Removal(await training(ledger="lost"), drains=False)
    with pytest.raises(AssertionError, match="it hangs"):
        await removal.keep()
    assert not any("passing over" in line for line in removal.said)


async def test_uninstall_is_not_done_when_the_lease_was_lost_meanwhile() -> None:
    removal = Removal(await training())
    removal.elector.lost = True
    set_finalizers = removal.world.kube.set_finalizers

    async def slowly(**arguments: Any) -> Any:
        await asyncio.sleep(0)
        return await set_finalizers(**arguments)

    removal.world.kube.set_finalizers = slowly  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="an operator may have put finalizers back: do this step again"):
        await removal.keep()
    removal.elector.lost = False
    await removal.keep()
    assert removal.held() == []
