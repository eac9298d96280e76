"""The limit under floating prices, whatever an admin does to the catalogue while the gang runs and while it stops."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.timestamps import rfc3339
from rft_trainer.contract import Stage
from support.stage import World

LIMIT_USD = 10
GRACE_SECONDS = 60
"""Of the builders' spec."""
LOOK_SECONDS = 10
"""Between two looks of the operator; its slack for noticing is more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What an admin does to the catalogue some seconds after the last time."""

    after: int
    dollars: int
    begins: int | None
    """Seconds from the edit until the new price holds; below 0: dated back; None: no effectiveFrom."""
    node: str | None
    """A node object that goes with it."""


EDITS = st.lists(
    st.builds(
        Edit,
        after=st.integers(1, 1_500),
        dollars=st.sampled_from((1, 3, 8, 40, 300)),
        begins=st.sampled_from((None, -4_000, 5, 60, 120, 900)),
        node=st.sampled_from((None, None, "node-1")),
    ),
    min_size=1,
    max_size=8,
)


def catalogue(first: int, edit: Edit, *, now: int) -> PriceCatalogue:
    """Return the catalogue after an edit: the old price and what is added, or one price in its place."""
    match = "match: {instanceType: rft-local}"
    old = f"- {{name: old, {match}, usdPerHour: {first}}}"
    begins = "" if edit.begins is None else f", effectiveFrom: '{rfc3339(now + edit.begins)}'"
    new = f"- {{name: new, {match}, usdPerHour: {edit.dollars}{begins}}}"
    rows = [new] if edit.begins is None else [old, new]
    found, problems = PriceCatalogue.parse("\n".join(["version: 1", "prices:", *rows]))
    assert not problems
    return found


async def live(edits: list[Edit]) -> World:
    """A gang trains until the money ends, and takes all of its grace to stop; edits go on meanwhile."""
    world = World(
        budget={"usdPerGpuHour": None, "pricePolicy": "floating", "limitUSD": LIMIT_USD},
        evaluation=None,
        timeouts={"startupSeconds": 86_400},
    )
    first = 4
    world.catalogue = catalogue(first, Edit(after=0, dollars=first, begins=None, node=None), now=world.now)
    await world.to_training()
    waiting, due, stopped_at = list(edits), world.now + edits[0].after, None
    while world.status.ledger.open and (waiting or stopped_at is not None):
        world.now += LOOK_SECONDS
        if waiting and (world.now >= due or stopped_at is not None):
            edit = waiting.pop(0)
            world.catalogue = catalogue(first, edit, now=world.now)
            first, due = edit.dollars, world.now + (waiting[0].after if waiting else 0)
            if edit.node is not None and ("Node", "", edit.node) in world.kube.objects and stopped_at is not None:
                world.kube.remove("Node", "", edit.node)
        if stopped_at is not None and world.now >= stopped_at + GRACE_SECONDS:
            world.drain(Stage.TRAIN)
        await world.settle()
        if stopped_at is None and world.status.attempts[-1].stop_reason is not None:
            assert world.status.attempts[-1].stop_reason == "BudgetExhausted"
            stopped_at = world.now
    return world


@settings(max_examples=25)
@given(EDITS)
def test_limit_holds_when_the_catalogue_is_edited_in_any_way_while_the_gang_runs_and_stops(edits: list[Edit]) -> None:
    world = asyncio.run(live(edits))
    assert world.status.cost.spent_micro_usd <= LIMIT_USD * 1_000_000
    assert float(world.status.cost.overshoot_usd) == 0


def test_rise_that_ends_the_run_is_met_when_it_comes_with_every_kind_of_notice() -> None:
    for begins in (None, -4_000, 5, 60, 120, 900):
        world = asyncio.run(live([Edit(after=1_000, dollars=300, begins=begins, node=None)] * 2))
        assert float(world.status.cost.overshoot_usd) == 0
        assert [attempt.stop_reason for attempt in world.status.attempts] == [None, "BudgetExhausted"]
