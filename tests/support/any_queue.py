"""Everything that can happen to a run, and Kueue beside: it lets Jobs in, takes their quota back, lets them in again.

What the witness holds the operator to is the same; above all that no more is spent than the limit, also when Kueue
starts a Job a second time and nobody is there to say whether the money is enough.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from support.any_order import FIRST, Run


class QueuedRun(Run):
    """One run whose GPU Jobs wait in a queue."""

    more: dict[str, Any] = {"scheduling": {"queueName": "team-a"}}

    @rule()
    def gang_starts(self) -> None:
        """Whatever waits for quota gets it, and then a node and an image."""
        self.world.admit()
        self.world.work()
        super().gang_starts()

    @rule()
    def kueue_admits(self) -> None:
        """There is quota for what waits."""
        self.world.admit()
        self.world.tick()
        self.world.work()

    @rule(first=FIRST, seconds=st.sampled_from((0, 1, 40, 400)))
    def kueue_evicts(self, first: str, seconds: int) -> None:
        """Somebody else gets the quota, and gives it back after a while."""
        self._first(first)
        self._evict()
        self.world.work()
        self.world.advance(seconds)

    @rule(
        first=FIRST,
        ran=st.sampled_from((0, 200, 500)),
        drained=st.sampled_from((True, True, False)),
        seconds=st.sampled_from((0, 400, 3_700)),
    )
    def kueue_evicts_and_admits_while_the_operator_is_down(
        self, first: str, ran: int, drained: bool, seconds: int
    ) -> None:
        """The Job is started a second time, and nobody has looked at the money."""
        self._first(first)
        self.world.advance(ran)
        self.world.kill_operator()
        self._evict()
        self.world.advance(100 if drained else 1)
        self.gang_starts()
        self.world.advance(seconds)
        self.world.start_operator()
        self.world.work()

    def _evict(self) -> None:
        self.reached["evicted while running"] += bool(self.world.held(self.world.uid))
        self.world.evict()
        self.world.tick()
