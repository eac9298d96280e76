"""Raising a run's limit: what the new limit is, and what the difference buys.

Invariant: a top-up never lowers a limit, and one that cannot buy anything is refused with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import ConditionType
from rft_operator.domain.bill import SECONDS_PER_HOUR, bill
from rft_operator.domain.budget import grace_seconds, stage_gpus, stop_bound_seconds
from rft_operator.domain.conclusions import WANT_OF_MONEY
from rft_operator.domain.draft import condition_of, has_failed, is_true
from rft_operator.domain.money import MICRO, micro_of_text, micro_usd, usd_display, usd_text
from rft_operator.errors import Refused
from rft_trainer.contract import Stage

LARGEST_MICRO_USD = 999_999_999 * MICRO


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """What is asked for: a new limit, or so much more."""

    micro_usd: int
    is_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TopUp:
    """A limit before and after."""

    before_micro_usd: int
    after_micro_usd: int
    spent_micro_usd: int
    reserve_micro_usd: int
    micro_usd_per_gpu_hour: int | None
    """None while no price is known."""
    gpus: int
    """GPUs of the gang that the money is for: training, or the evaluation where the model is trained."""
    is_trained: bool
    """No training is left to pay for."""
    stop_bound_seconds: int
    forecast_micro_usd: int | None

    @property
    def added_micro_usd(self) -> int:
        """Return the difference."""
        return self.after_micro_usd - self.before_micro_usd

    @property
    def bought_gpu_seconds(self) -> int | None:
        """Return what the difference buys."""
        if not self.micro_usd_per_gpu_hour:
            return None
        return self.added_micro_usd * SECONDS_PER_HOUR // self.micro_usd_per_gpu_hour

    def training_seconds(self, limit_micro_usd: int) -> int | None:
        """Return for how long the whole gang can still train under a limit, its stop and the reserve taken off."""
        if not self.micro_usd_per_gpu_hour or not self.gpus or self.is_trained:
            return None
        left = limit_micro_usd - self.reserve_micro_usd - self.spent_micro_usd
        return max(0, left * SECONDS_PER_HOUR // (self.gpus * self.micro_usd_per_gpu_hour) - self.stop_bound_seconds)


def parse_amount(text: str) -> Amount:
    """Read ``120``, ``"120.50"`` (a new limit) or ``+20`` (so much more); raises Refused."""
    asked = text.strip()
    try:
        found = micro_usd(asked.removeprefix("+").removeprefix("$"))
    except ValueError as error:
        msg = f"{text!r} is no amount; write a new limit such as 120 or 120.50, or +20 for twenty dollars more"
        raise Refused(msg) from error
    return Amount(micro_usd=found, is_more=asked.startswith("+"))


def top_up(run: ReasoningFinetune, amount: Amount, *, now: int) -> TopUp:
    """Return the new limit of a run; raises Refused."""
    before = micro_usd(run.spec.budget.limit_usd)
    after = before + amount.micro_usd if amount.is_more else amount.micro_usd
    where = f"{run.metadata.namespace}/{run.metadata.name}"
    if after < before or (amount.is_more and not amount.micro_usd):
        raise Refused(
            f"the limit of {where} is {usd_display(before)}, and a top-up only raises it: write more than that, or +N. "
            "To spend less lower spec.budget.limitUSD in the file and apply it"
        )
    if after > LARGEST_MICRO_USD:
        raise Refused(f"the limit of {where} would be {usd_display(after)}; the largest is $999999999")
    if why := _buys_nothing(run):
        raise Refused(f"{where} {why}: a higher limit buys nothing")
    ended_at = run.status.cost.ended_at_limit_usd
    if has_failed(run.status) and ended_at is not None and before < after <= micro_of_text(ended_at):
        raise Refused(
            f"{where} failed when it might spend {usd_display(micro_of_text(ended_at))}: only a limit above that takes "
            "it up again"
        )
    cost, spec, checkpoint = run.status.cost, run.spec, run.status.checkpoint
    given = spec.budget.usd_per_gpu_hour
    price = micro_usd(given) if given is not None else None
    is_trained = is_true(run.status, ConditionType.TRAINED)
    grace = grace_seconds(spec, Stage.TRAIN, save_seconds=checkpoint.save_seconds if checkpoint else None)
    return TopUp(
        before_micro_usd=before,
        after_micro_usd=after,
        spent_micro_usd=bill(run.status.ledger, now=now).spent_micro_usd,
        reserve_micro_usd=micro_of_text(cost.reserve_usd) if cost.reserve_usd is not None else 0,
        micro_usd_per_gpu_hour=micro_of_text(cost.usd_per_gpu_hour) if cost.usd_per_gpu_hour is not None else price,
        gpus=stage_gpus(spec, Stage.EVALUATE if is_trained else Stage.TRAIN),
        is_trained=is_trained,
        stop_bound_seconds=stop_bound_seconds(grace),
        forecast_micro_usd=micro_of_text(cost.forecast_usd) if cost.forecast_usd is not None else None,
    )


def _buys_nothing(run: ReasoningFinetune) -> str | None:
    if run.metadata.deletion_timestamp is not None:
        return "is being deleted"
    if is_true(run.status, ConditionType.COMPLETE):
        return "is complete"
    failed = condition_of(run.status, ConditionType.FAILED)
    if has_failed(run.status) and failed is not None and failed.reason not in WANT_OF_MONEY:
        return f"has failed for another reason than money ({failed.reason})"
    return None


def limit_value(micro: int) -> int | str:
    """Return a limit as a user would write it: a whole number, or a decimal as text."""
    return micro // MICRO if micro % MICRO == 0 else usd_text(micro).rstrip("0")
