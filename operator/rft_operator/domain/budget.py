"""The limit in dollars, enforced while the run is running (docs/metering.md E1 to E6).

Invariant: at every instant in which the operator lets GPU pods run,
``spent + rate x stop bound + reserve <= limit``, where the stop bound is the longest a stop can take: the grace in
which the ranks save a checkpoint, and what detection and the kubelet add. All amounts are integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rft_operator.api.spec import Spec
from rft_operator.domain.ledger import SECONDS_PER_HOUR, Bill
from rft_operator.domain.money import micro_usd, usd_display
from rft_operator.domain.prices import Rate
from rft_trainer.contract import Stage

STOP_SLACK_SECONDS = 30
"""Beyond the grace: noticing, deleting, the kubelet's signal, its phase write (0 to 2 s measured), two truncations."""
EVALUATION_GRACE_SECONDS = 30
"""An evaluation has nothing to save."""
MINIMUM_USEFUL_SECONDS = 60
"""A stage that could run for less is not started."""


def grace_seconds(spec: Spec, stage: Stage) -> int:
    """Return how long a pod of a stage may take to stop."""
    return spec.checkpoint.grace_seconds if stage is Stage.TRAIN else EVALUATION_GRACE_SECONDS


def stop_bound_seconds(spec: Spec, stage: Stage) -> int:
    """Return the longest time from reaching the stop line to the last GPU-second charged."""
    return grace_seconds(spec, stage) + STOP_SLACK_SECONDS


def stage_gpus(spec: Spec, stage: Stage) -> int:
    """Return the GPUs a stage holds at once."""
    if stage is Stage.TRAIN:
        return spec.resources.nodes * spec.resources.gpus_per_node
    if stage is Stage.EVALUATE and spec.evaluation is not None:
        return spec.evaluation.gpus
    return 0


def evaluation_reserve(spec: Spec, *, rate: Rate) -> int:
    """Return the micro-dollars kept back for the evaluation (E5)."""
    if spec.evaluation is None:
        return 0
    if spec.budget.evaluation_reserve_usd is not None:
        return micro_usd(spec.budget.evaluation_reserve_usd)
    seconds = spec.evaluation.max_seconds + stop_bound_seconds(spec, Stage.EVALUATE)
    return -(-spec.evaluation.gpus * rate.micro_usd_per_gpu_hour * seconds // SECONDS_PER_HOUR)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """Where a running stage stands against its stop line."""

    stop_at: int | None
    """Epoch second at which the stage must be stopped; None while it holds no GPU."""
    past_stop_line: bool


def assess(
    bill: Bill, *, limit_micro_usd: int, reserve_micro_usd: int, unbound_rate: int, bound_seconds: int, now: int
) -> BudgetState:
    """Return the stop line of a stage (E1).

    ``unbound_rate`` is micro-dollars per hour of the stage's GPUs that are not bound yet: they may be at any moment,
    on top of all that holds GPUs now. A stage that waits for its GPUs is past the line when it could not stop in time
    once it has them.
    """
    rate = bill.rate + unbound_rate
    left = (limit_micro_usd - reserve_micro_usd) * SECONDS_PER_HOUR - bill.amount - rate * bound_seconds
    if rate == 0:
        return BudgetState(stop_at=None, past_stop_line=False)
    if left < rate:
        return BudgetState(stop_at=now, past_stop_line=True)
    return BudgetState(stop_at=now + left // rate if bill.rate else None, past_stop_line=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Whether the money is enough to start a stage, in words."""

    ok: bool
    message: str


def admit(
    spec: Spec, *, rate: Rate, bill: Bill, limit_micro_usd: int, reserve_micro_usd: int, stage: Stage
) -> Admission:
    """Return whether a stage may start: it must be able to do something useful and to stop in time (E2).

    What holds GPUs already (pods of lost nodes) goes on costing meanwhile.
    """
    gpus = stage_gpus(spec, stage)
    kept = 0 if stage is Stage.EVALUATE else reserve_micro_usd
    seconds = MINIMUM_USEFUL_SECONDS + stop_bound_seconds(spec, stage)
    needed = -(-(gpus * rate.micro_usd_per_gpu_hour + bill.rate) * seconds // SECONDS_PER_HOUR)
    left = limit_micro_usd - bill.spent_micro_usd
    numbers = (
        f"limit {usd_display(limit_micro_usd)}, spent {usd_display(bill.spent_micro_usd)}, kept for the evaluation "
        f"{usd_display(kept)}; {gpus} GPUs at {usd_display(rate.micro_usd_per_gpu_hour)} per GPU-hour need at least "
        f"{usd_display(needed)} to start and to stop in time"
    )
    if left >= kept + needed:
        return Admission(ok=True, message=f"The budget is enough: {numbers}.")
    missing = usd_display(kept + needed - left)
    return Admission(
        ok=False,
        message=f"The budget is {missing} short: {numbers}. Raise budget.limitUSD, or lower evaluation.maxSeconds.",
    )


def pod_deadline_seconds(
    spec: Spec, *, rate: Rate, bill: Bill, limit_micro_usd: int, reserve_micro_usd: int, stage: Stage
) -> int:
    """Return activeDeadlineSeconds of a stage's GPU pods: the limit holds with the operator down (E3).

    At the deadline the kubelet sends SIGTERM and gives the full grace, so both come off the affordable time. What
    holds GPUs already (pods of lost nodes) spends the same money.
    """
    gpus = stage_gpus(spec, stage)
    hourly = max(1, gpus * rate.micro_usd_per_gpu_hour + bill.rate)
    kept = 0 if stage is Stage.EVALUATE else reserve_micro_usd
    affordable = ((limit_micro_usd - kept) * SECONDS_PER_HOUR - bill.amount) // hourly
    deadline = affordable - stop_bound_seconds(spec, stage)
    if stage is Stage.EVALUATE and spec.evaluation is not None:
        deadline = min(deadline, spec.evaluation.max_seconds)
    return int(max(1, min(deadline, 2_147_483_647)))


def thresholds_crossed(spec: Spec, *, spent_micro_usd: int, already: Sequence[int]) -> tuple[int, ...]:
    """Return the thresholds of budget.warnAtPercent that were passed and not yet announced, ascending (E6)."""
    limit = micro_usd(spec.budget.limit_usd)
    return tuple(
        percent
        for percent in sorted(set(spec.budget.warn_at_percent) - set(already))
        if spent_micro_usd * 100 >= limit * percent
    )
