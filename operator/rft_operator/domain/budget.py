"""The limit in dollars, enforced while the run is running (docs/metering.md E1 to E6).

Invariant: at every instant in which the operator lets GPU pods run,
``spent + rate x stop bound + reserve <= limit``, where the stop bound is the longest a stop can take: the grace in
which the ranks save a checkpoint, and what detection and the kubelet add. All amounts are integers. The exceptions
are those of E10: a node that does not answer (nobody can take its GPUs back, BudgetAtRisk), and a pod that was made
before a rise that nobody announced, and bound after it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rft_operator.api.spec import Spec
from rft_operator.domain.bill import SECONDS_PER_HOUR, Bill
from rft_operator.domain.money import micro_usd, usd_display
from rft_operator.domain.rates import Rate
from rft_operator.domain.schedule import Schedule, amount_of
from rft_trainer.contract import Stage

CPU_STAGES = frozenset({Stage.PREPARE, Stage.SCORE, Stage.PUBLISH})
"""They hold no GPU: nothing is charged, and no money is asked for."""
STOP_SLACK_SECONDS = 30
"""Beyond the grace: noticing, deleting, the kubelet's signal, its phase write (0 to 2 s measured), two truncations."""
LONGEST_GRACE_SECONDS = 7_200
EVALUATION_GRACE_SECONDS = 30
"""An evaluation has nothing to save."""
LONGEST_DEADLINE_SECONDS = 2_147_483_647
"""The API server's bound of activeDeadlineSeconds."""
RAISE = "Raise budget.limitUSD."
"""What helps a run whose own limit is what is short."""
MINIMUM_USEFUL_SECONDS = 60
"""A stage that could run for less is not started."""


def grace_seconds(spec: Spec, stage: Stage, *, save_seconds: str | None = None) -> int:
    """Return how long a pod of a stage may take to stop: half as long again as the last save took, and at least what
    the spec says (E4).

    ``save_seconds`` is the measured duration of the newest checkpoint; it is the trainer's word, so it is bounded.
    """
    if stage is not Stage.TRAIN:
        return EVALUATION_GRACE_SECONDS
    measured = math.ceil(float(save_seconds) * 1.5) if save_seconds is not None else 0
    return max(spec.checkpoint.grace_seconds, min(measured, LONGEST_GRACE_SECONDS))


def stop_bound_seconds(grace: int) -> int:
    """Return the longest time from reaching the stop line to the last GPU-second charged."""
    return grace + STOP_SLACK_SECONDS


def stage_gpus(spec: Spec, stage: Stage) -> int:
    """Return the GPUs a stage holds at once."""
    if stage is Stage.TRAIN:
        return spec.resources.nodes * spec.resources.gpus_per_node
    if stage is Stage.EVALUATE and spec.evaluation is not None:
        return spec.evaluation.gpus
    return 0


def evaluation_reserve(spec: Spec, *, rate: Rate) -> int:
    """Return the micro-dollars kept back for the evaluation (E5), and never less than lets it start."""
    if spec.evaluation is None:
        return 0
    hourly, bound = spec.evaluation.gpus * rate.micro_usd_per_gpu_hour, stop_bound_seconds(EVALUATION_GRACE_SECONDS)
    if spec.budget.evaluation_reserve_usd is not None:
        least = -(-hourly * (MINIMUM_USEFUL_SECONDS + bound) // SECONDS_PER_HOUR)
        return max(micro_usd(spec.budget.evaluation_reserve_usd), least)
    return -(-hourly * (spec.evaluation.max_seconds + bound) // SECONDS_PER_HOUR)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """Where a running stage stands against its stop line."""

    stop_at: int | None
    """Epoch second at which the stage must be stopped; None while it holds no GPU, or if the money lasts for ever."""
    past_stop_line: bool


def assess(
    bill: Bill, *, limit_micro_usd: int, reserve_micro_usd: int, schedule: Schedule, bound_seconds: int
) -> BudgetState:
    """Return the stop line of a stage (E1).

    ``schedule`` is the rate from now on of all that holds GPUs and of the stage's GPUs that are not bound yet: they may
    be at any moment. A stage that waits for its GPUs is past the line when it could not stop in time once it has them.
    Money that outlasts every deadline has no line: its instant may be in no calendar.
    """
    left = amount_of(limit_micro_usd - reserve_micro_usd) - bill.amount
    lasts = schedule.lasts(left) if left >= 0 else 0  # nothing lasts for ever where nothing is paid
    if lasts is None or lasts > LONGEST_DEADLINE_SECONDS:
        return BudgetState(stop_at=None, past_stop_line=False)
    seconds = lasts - bound_seconds
    if seconds < 1:
        return BudgetState(stop_at=schedule.now, past_stop_line=True)
    return BudgetState(stop_at=schedule.now + seconds if bill.rate else None, past_stop_line=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Whether the money is enough to start a stage, in words."""

    ok: bool
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one stage may spend, and how."""

    spec: Spec
    stage: Stage
    rate: Rate
    """The dearest price its pods may be bound at now."""
    schedule: Schedule | None = None
    """Micro-dollars per GPU-hour from the latest start on; None: as ``rate``."""
    limit_micro_usd: int
    reserve_micro_usd: int
    """Kept back for the evaluation; the evaluation itself keeps nothing back."""
    grace: int
    """Seconds its pods get to stop."""
    startup: int = 0
    """Seconds from its first bound pod to its first step."""

    @property
    def gpus(self) -> int:
        """Return the GPUs of the whole gang."""
        return stage_gpus(self.spec, self.stage)

    @property
    def kept_micro_usd(self) -> int:
        """Return what the stage must leave."""
        return 0 if self.stage is Stage.EVALUATE else self.reserve_micro_usd

    def ahead(self, bill: Bill) -> Schedule:
        """Return what the gang costs per hour, and what holds GPUs already (pods of lost nodes)."""
        per_gpu = self.schedule or Schedule.flat(0, self.rate.micro_usd_per_gpu_hour)
        return per_gpu.times(self.gpus).plus(Schedule.flat(per_gpu.now, bill.rate))


def admit(terms: Terms, bill: Bill) -> Admission:
    """Return whether a stage may start: it must be able to start up, do something useful and stop in time (E2)."""
    seconds = terms.startup + MINIMUM_USEFUL_SECONDS + stop_bound_seconds(terms.grace)
    start = f"to start (about {terms.startup} s)" if terms.startup else "to start"
    needed = -(-terms.ahead(bill).cost(seconds) // SECONDS_PER_HOUR)
    left = terms.limit_micro_usd - bill.spent_micro_usd
    kept = terms.kept_micro_usd
    numbers = (
        f"limit {usd_display(terms.limit_micro_usd)}, spent {usd_display(bill.spent_micro_usd)}, kept for the "
        f"evaluation {usd_display(kept)}; {terms.gpus} GPUs at {usd_display(terms.rate.micro_usd_per_gpu_hour)} per "
        f"GPU-hour need at least {usd_display(needed)} {start} and to stop in time"
    )
    if left >= kept + needed:
        return Admission(ok=True, message=f"The budget is enough: {numbers}.")
    missing = usd_display(kept + needed - left)
    return Admission(
        ok=False,
        message=f"The budget is {missing} short: {numbers}. {RAISE}",
    )


def pod_deadline_seconds(terms: Terms, bill: Bill) -> int:
    """Return activeDeadlineSeconds of a stage's GPU pods: the limit holds with the operator down (E3).

    At the deadline the kubelet sends SIGTERM and gives the full grace, so both come off the affordable time. What
    holds GPUs already (pods of lost nodes) spends the same money.
    """
    left = amount_of(terms.limit_micro_usd - terms.kept_micro_usd) - bill.amount
    affordable = terms.ahead(bill).lasts(left) if left >= 0 else 0
    deadline = (LONGEST_DEADLINE_SECONDS if affordable is None else affordable) - stop_bound_seconds(terms.grace)
    if terms.stage is Stage.EVALUATE and terms.spec.evaluation is not None:
        deadline = min(deadline, terms.spec.evaluation.max_seconds)
    return int(max(1, min(deadline, LONGEST_DEADLINE_SECONDS)))


def worst_case_micro_usd(terms: Terms, *, deadline_seconds: int) -> int:
    """Return what an attempt can cost at most: it runs to its deadline, and takes as long as it may to stop."""
    seconds = deadline_seconds + stop_bound_seconds(terms.grace)
    per_gpu = terms.schedule or Schedule.flat(0, terms.rate.micro_usd_per_gpu_hour)
    return -(-per_gpu.times(terms.gpus).cost(seconds) // SECONDS_PER_HOUR)


def forecast_micro_usd(bill: Bill, *, ahead: Schedule, eta_seconds: int, reserve_micro_usd: int) -> int:
    """Return what the run will have cost: spent, the stage's rest at the rates that are known, and the reserve (E6)."""
    return -(-(bill.amount + ahead.cost(eta_seconds)) // SECONDS_PER_HOUR) + reserve_micro_usd


def thresholds_crossed(
    spec: Spec, *, limit_micro_usd: int, spent_micro_usd: int, already: Sequence[int]
) -> tuple[int, ...]:
    """Return the thresholds of budget.warnAtPercent that were passed and not yet announced, ascending (E6)."""
    return tuple(
        percent
        for percent in sorted(set(spec.budget.warn_at_percent) - set(already))
        if spent_micro_usd * 100 >= limit_micro_usd * percent
    )
