"""Histories of pods for the ledger's property tests, and an oracle that counts their money second by second.

The oracle shares no arithmetic with the ledger: it walks over every second of every pod, asks a table what a GPU cost
in that second, and adds up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from rft_operator.domain.facts import NodeFacts, PodFacts, PodPhase
from rft_operator.domain.timestamps import rfc3339
from rft_trainer.contract import Stage

T0 = 1_800_000_000
NODES = ("a", "b")
ENDS = ("written", "finished", "vanished", "node gone")
"""What is known of a pod's end: the phase's write, only its container's end, nothing, or that its node is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLife:
    """What really happens to a pod."""

    uid: str
    stage: Stage
    node: str
    gpus: int
    created: int
    bound: int
    started: int
    end: int
    ending: str

    def view(self, now: int, released: set[str]) -> PodFacts | None:
        """Return what the API server shows at an instant; None if there is no such pod."""
        if now < self.created or (self.ending == "vanished" and now >= self.end):
            return None
        pod = PodFacts(
            uid=self.uid,
            namespace="team",
            name=self.uid,
            finetune="demo",
            stage=self.stage,
            attempt=1,
            rank=0,
            resource_version=str(now),
            phase=PodPhase.PENDING,
            created_at=self.created,
            gpus=self.gpus,
            has_finalizer=self.uid not in released,
        )
        if now < self.bound:
            return pod
        started = self.started if now >= self.started else None
        phase = PodPhase.RUNNING if started is not None else PodPhase.PENDING
        pod = replace(pod, node=self.node, scheduled_at=self.bound, started_at=started, phase=phase)
        if now < self.end or self.ending == "node gone":
            return pod
        if self.ending == "written":
            return replace(pod, phase=PodPhase.FAILED, phase_written_at=self.end, finished_at=self.end - 1)
        return replace(pod, phase=PodPhase.FAILED, finished_at=self.end - 1)


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Micro-dollars per GPU-hour of each node: (from, price), the first one from the beginning of time."""

    rows: dict[str, tuple[tuple[int, int], ...]]

    def price(self, node: str, at: int) -> int:
        """Return what a GPU costs in the second that begins at ``at``."""
        return [price for since, price in self.rows[node] if since <= at][-1]

    def catalogue(self) -> str:
        """Return the table as an admin writes it."""
        lines = ["version: 1", "prices:"]
        for node, rows in self.rows.items():
            for index, (since, price) in enumerate(rows):
                dollars = f"{price // 1_000_000}.{price % 1_000_000:06d}"
                lines.append(f"- {{name: {node}{index}, match: {{labels: {{name: {node}}}}}, usdPerHour: '{dollars}',")
                lines.append(f"   effectiveFrom: '{rfc3339(since)}'}}")
        return "\n".join(lines)

    def doubled(self) -> PriceTable:
        """Return the table with every price doubled."""
        return PriceTable(
            {node: tuple((since, 2 * price) for since, price in rows) for node, rows in self.rows.items()}
        )


def facts_of(node: str) -> NodeFacts:
    """Return a node that answers."""
    return NodeFacts(name=node, labels={"name": node}, gpus={"nvidia.com/gpu": 8}, ready=True)


def oracle(
    lives: Sequence[PodLife], prices: PriceTable, *, floating: bool, ends: dict[str, int]
) -> dict[str, tuple[int, int]]:
    """Return GPU-seconds and micro-dollar-seconds by stage, counted one second at a time.

    ``ends`` gives the end of pods that nothing proves: when it was noticed.
    """
    sums: dict[str, tuple[int, int]] = {}
    for life in lives:
        seconds = amount = 0
        for second in range(life.bound, max(life.bound, ends.get(life.uid, life.end))):
            seconds += life.gpus
            amount += life.gpus * prices.price(life.node, second if floating else life.bound)
        before = sums.get(life.stage.value, (0, 0))
        sums[life.stage.value] = before[0] + seconds, before[1] + amount
    return {stage: pair for stage, pair in sums.items() if pair[0]}


@st.composite
def pod_lives(draw: st.DrawFn) -> list[PodLife]:
    """Draw some pods' lives."""
    lives = []
    for number in range(draw(st.integers(1, 6))):
        created = T0 + draw(st.integers(0, 300))
        bound = created + draw(st.integers(0, 120))
        started = bound + draw(st.integers(0, 90))
        lives.append(
            PodLife(
                uid=f"p{number}",
                stage=draw(st.sampled_from([Stage.TRAIN, Stage.EVALUATE])),
                node=draw(st.sampled_from(NODES)),
                gpus=draw(st.integers(0, 16)),
                created=created,
                bound=bound,
                started=started,
                end=bound + draw(st.integers(0, 900)),
                ending=draw(st.sampled_from(ENDS)),
            )
        )
    return lives


@st.composite
def price_tables(draw: st.DrawFn, *, most_steps: int = 5) -> PriceTable:
    """Draw a history of prices for each node."""
    price = st.integers(1, 60_000_000)

    def history() -> tuple[tuple[int, int], ...]:
        steps = sorted(draw(st.sets(st.integers(1, 1_200), max_size=most_steps)))
        return ((T0 - 10_000, draw(price)), *((T0 + step, draw(price)) for step in steps))

    return PriceTable({node: history() for node in NODES})
