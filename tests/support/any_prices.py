"""A run whose price floats, while an admin edits the catalogue in any way, beside everything else that can happen."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.timestamps import rfc3339
from support.any_order import FIRST, Run
from support.cluster import NODE_PRICES, Life
from support.machine import OperatedCluster
from support.witness import MICRO_PRICES


class RepricedCluster(OperatedCluster):
    """A cluster whose machines become dearer, never cheaper than at first: the witness's sums are then the least."""

    dearest = 1
    """Times the first prices, at most, of all that the catalogue ever said."""

    def _price_of(self, life: Life) -> tuple[int, int]:
        low, high = super()._price_of(life)
        return low, high * self.dearest

    def reprice(self, factor: int, *, begins: int | None) -> None:
        """Make every machine so many times as dear as at first: at once, from an instant, or as of a past one."""
        self.dearest = max(self.dearest, factor)
        rows = ["version: 1", "prices:"]
        for name in NODE_PRICES:
            match, cents = f"match: {{instanceType: {name}}}", MICRO_PRICES[name] // 10_000
            since = "" if begins is None else f", effectiveFrom: '{rfc3339(self.now + begins)}'"
            dear = f"- {{name: {name}-new, {match}, usdPerHour: '{_dollars(cents * factor)}'{since}}}"
            old = f"- {{name: {name}, {match}, usdPerHour: '{_dollars(cents)}'}}"
            rows += [dear] if begins is None else [old, dear]
        self.catalogue, problems = PriceCatalogue.parse("\n".join(rows))
        assert not problems
        self.pool_changed = self.dirty = True

    def has_moved(self) -> bool:
        """Nobody is woken for the date of a price while no GPU is held: whoever looks next names the new one, once."""
        return True


def _dollars(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


class FloatingRun(Run):
    """Beside the witness's own promises: nothing is spent beyond the limit but for the exceptions of rule E10."""

    more: dict[str, Any] = {"budget": {"pricePolicy": "floating"}}
    cluster = RepricedCluster

    def __init__(self) -> None:
        super().__init__()
        self.may_overshoot = False

    @rule(
        first=FIRST,
        factor=st.sampled_from((1, 2, 10)),
        begins=st.sampled_from((None, -4_000, 5, 60, 400, 4_000)),
    )
    def admin_edits_prices(self, first: str, factor: int, begins: int | None) -> None:
        self._first(first)
        world = self.world
        assert isinstance(world, RepricedCluster)
        runs = bool(world.running()) and not self.pods("unbound")
        self.may_overshoot = self.may_overshoot or not (world.quiet and runs)
        self.reached["repriced while running"] += runs and factor > 1
        world.reprice(factor, begins=begins)
        world.work()

    @invariant()
    def limit_holds(self) -> None:
        world = self.world
        lost = any((life.lost_since, life.vanished_at) != (None, None) for life in world.lives.values())
        if not world.quiet or self.may_overshoot or lost or world.limit_micro < world.highest_micro:
            return
        cost = world.known.get("cost") or {}
        assert float(cost.get("overshootUSD", 0)) == 0, f"beyond the limit: {cost}"
