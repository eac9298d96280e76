"""What a higher limit is, and what it buys."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import Condition, ConditionStatus, ConditionType, Cost, Status
from rft_operator.cli.top_up import document, page
from rft_operator.domain.top_up import Amount, limit_value, parse_amount, top_up
from rft_operator.errors import Refused
from support.objects import stored_run

HOUR = 3_600


def run_with(status: Status | None = None, **metadata: Any) -> ReasoningFinetune:
    run = ReasoningFinetune.parse(stored_run(metadata=metadata))
    return run if status is None else run.model_copy(update={"status": status})


def failed(reason: str) -> Status:
    condition = Condition(
        type=ConditionType.FAILED,
        status=ConditionStatus.TRUE,
        reason=reason,
        last_transition_time="2026-01-01T00:00:00Z",
    )
    return Status(conditions=[condition])


@pytest.mark.parametrize(
    ("text", "micro", "is_more"),
    [("120", 120_000_000, False), ("$120.50", 120_500_000, False), ("+20", 20_000_000, True), (" +$.5 ", None, True)],
)
def test_amount_is_a_new_limit_or_so_much_more(text: str, micro: int | None, is_more: bool) -> None:
    if micro is None:
        with pytest.raises(Refused, match="is no amount"):
            parse_amount(text)
    else:
        assert parse_amount(text) == Amount(micro_usd=micro, is_more=is_more)


def test_difference_buys_gpu_hours_at_the_price_on_record() -> None:
    status = Status(cost=Cost(usd_per_gpu_hour="2.000000", reserve_usd="1.000000", forecast_usd="14.000000"))
    found = top_up(run_with(status), parse_amount("+6"), now=0)
    assert found.bought_gpu_seconds == 3 * HOUR
    # $10 less the reserve of $1 for two GPUs at $2: 2.25 h, less the stop of 60 + 30 s.
    assert found.training_seconds(found.before_micro_usd) == 9 * HOUR // 4 - 90
    assert found.training_seconds(found.after_micro_usd) == 15 * HOUR // 4 - 90
    assert found.forecast_micro_usd == 14_000_000


def test_price_of_the_spec_counts_before_anything_ran() -> None:
    assert top_up(run_with(), parse_amount("13.60"), now=0).bought_gpu_seconds == HOUR


def test_limit_that_is_the_same_already_changes_nothing() -> None:
    assert top_up(run_with(), parse_amount("10"), now=0).added_micro_usd == 0


@pytest.mark.parametrize("reason", ["BudgetExhausted", "EvaluationReserveExhausted"])
def test_run_that_failed_for_want_of_money_can_be_topped_up(reason: str) -> None:
    assert top_up(run_with(failed(reason)), parse_amount("+1"), now=0).added_micro_usd == 1_000_000


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (run_with(failed("BackoffLimitExceeded")), "failed for another reason than money .BackoffLimitExceeded."),
        (run_with(failed("EvaluationTimeExhausted")), "for another reason than money .EvaluationTimeExhausted."),
        (run_with(deletionTimestamp="2026-01-01T00:00:00Z"), "is being deleted"),
        (
            run_with(failed("x").model_copy(update={"conditions": [failed("x").conditions[0].model_copy(
                update={"type": ConditionType.COMPLETE})]})),
            "is complete",
        ),
    ],
)  # fmt: skip
def test_money_that_buys_nothing_is_refused(run: ReasoningFinetune, words: str) -> None:
    with pytest.raises(Refused, match=words):
        top_up(run, parse_amount("+1"), now=0)


@pytest.mark.parametrize(("micro", "value"), [(12_000_000, 12), (12_500_000, "12.5"), (1, "0.000001")])
def test_limit_is_written_as_a_user_would(micro: int, value: int | str) -> None:
    assert limit_value(micro) == value


def test_training_is_not_spoken_of_when_the_model_is_trained_and_its_evaluation_wants_money() -> None:
    trained = failed("x").conditions[0].model_copy(update={"type": ConditionType.TRAINED})
    short = failed("EvaluationReserveExhausted")
    status = short.model_copy(
        update={"conditions": [*short.conditions, trained], "cost": Cost(usd_per_gpu_hour="2.000000")}
    )
    found = top_up(run_with(status), parse_amount("+6"), now=0)
    words = page("team/demo", found, dry_run=False)
    assert "training" not in words
    assert "3.000 GPU-hours at $2.00, 3 h 0 min of 1 GPU\n" in words
    assert document(found)["trainingSeconds"] == {"before": None, "after": None}


def test_limit_that_takes_up_nothing_is_refused_when_it_was_lowered_after_the_run_failed() -> None:
    short = failed("BudgetExhausted")
    run = run_with(short.model_copy(update={"cost": Cost(ended_at_limit_usd="20.000000")}))
    with pytest.raises(Refused, match=r"might spend \$20.00: only a limit above that"):
        top_up(run, parse_amount("20"), now=0)
    assert top_up(run, parse_amount("20.01"), now=0).added_micro_usd == 10_010_000
