"""Time and money: what must hold between two estimates, whatever the figures are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_operator.api.spec import Spec
from rft_operator.domain.architectures import KNOWN, ModelShape, known_model
from rft_operator.domain.bill import Bill
from rft_operator.domain.budget import (
    LONGEST_DEADLINE_SECONDS,
    Terms,
    admit,
    evaluation_reserve,
    pod_deadline_seconds,
)
from rft_operator.domain.estimate import Estimate, Money, estimate
from rft_operator.domain.estimate_data import DataShape
from rft_operator.domain.estimate_gpu import ASSUMED, GPUS
from rft_operator.domain.rates import Rate
from rft_operator.errors import InvalidResource
from rft_trainer.contract import Stage
from support.builders import merged

MODEL = known_model("hf://Qwen/Qwen2.5-7B")
DATA = DataShape(rows=10_000, mean_tokens=4_000)
BASE: dict[str, Any] = {
    "model": {"uri": "hf://Qwen/Qwen2.5-7B"},
    "dataset": {"uri": "hf://any/rows", "format": "messages"},
    "training": {"epochs": 4, "globalBatchSize": 256},
    "resources": {"nodes": 1, "gpusPerNode": 8},
    "budget": {"limitUSD": 1_000},
    "evaluation": {"maxSeconds": 3_600, "benchmarks": [{"name": "sums", "uri": "pvc://any/rows.jsonl"}]},
}
layouts = st.fixed_dictionaries(
    {
        "training": st.fixed_dictionaries(
            {
                "epochs": st.integers(1, 8),
                "microBatchSize": st.sampled_from([1, 2]),
                "gradientCheckpointing": st.booleans(),
                "packing": st.booleans(),
                "deepspeed": st.sampled_from(
                    [
                        {"zeroStage": stage, "offload": offload}
                        for stage in (1, 2, 3)
                        for offload in ("none", "optimizer")
                    ]
                    + [{"zeroStage": 3, "offload": "all"}]
                ),
            }
        ),
        "resources": st.fixed_dictionaries(
            {"nodes": st.sampled_from([1, 2, 4]), "gpusPerNode": st.sampled_from([4, 8])}
        ),
    }
)
models = st.sampled_from([shape for _, shape in KNOWN])


def asked(
    change: dict[str, Any], *, rate: int | None = 3_600_000, model: ModelShape | None = MODEL, data: DataShape = DATA
) -> Estimate:
    assert model is not None
    spec = Spec.model_validate(merged(BASE, change))
    price = None if rate is None else Rate(micro_usd_per_gpu_hour=rate, source="test")
    return estimate(spec, facts=model, data=data, rate=price, gpu=ASSUMED)


def money(found: Estimate) -> Money:
    assert found.money is not None
    return found.money


@given(layout=layouts, model=models)
def test_low_is_at_most_expected_and_expected_at_most_high(layout: dict[str, Any], model: ModelShape) -> None:
    found = asked(layout, model=model)
    spent = money(found)
    for span in (found.seconds, found.gpu_seconds, spent.micro_usd):
        assert 0 < span.low <= span.expected <= span.high
    assert found.gpu_seconds.expected == found.seconds.expected * found.gang.ranks
    assert all(
        value >= 0
        for value in (found.step.compute, found.step.waiting, found.step.communication, found.step.host_copies)
    )


@given(layout=layouts, rate=st.integers(1, 100_000_000))
def test_twice_the_price_is_twice_the_dollars_and_changes_no_second(layout: dict[str, Any], rate: int) -> None:
    once, twice = asked(layout, rate=rate), asked(layout, rate=2 * rate)
    assert once.seconds == twice.seconds
    assert (
        2 * money(once).micro_usd.expected - 1 <= money(twice).micro_usd.expected <= 2 * money(once).micro_usd.expected
    )


@given(layout=layouts, rate=st.integers(1, 100_000_000))
def test_dollars_are_gpu_seconds_times_the_price_rounded_up_once(layout: dict[str, Any], rate: int) -> None:
    found = asked(layout, rate=rate)
    assert money(found).micro_usd.expected == -(-found.gpu_seconds.expected * rate // 3_600)


@given(layout=layouts)
def test_half_the_epochs_are_half_the_steps_and_the_same_memory(layout: dict[str, Any]) -> None:
    epochs = layout["training"]["epochs"]
    whole = asked(merged(layout, {"training": {"epochs": 2 * epochs}}))
    half = asked(layout)
    assert half.steps == pytest.approx(whole.steps / 2, abs=1)
    assert half.tokens == pytest.approx(whole.tokens / 2, abs=0.5 * half.tokens / half.steps + 1)
    assert half.memory == whole.memory
    assert half.seconds.expected < whole.seconds.expected


@given(layout=layouts)
def test_twice_the_nodes_make_no_step_slower_and_no_gpu_fuller(layout: dict[str, Any]) -> None:
    nodes = layout["resources"]["nodes"]
    one, two = asked(layout), asked(merged(layout, {"resources": {"nodes": 2 * nodes}}))

    # The network between nodes may be slower than within one, so computation alone must gain.
    def work(found: Estimate) -> float:
        return found.step.compute + found.step.waiting + found.step.optimizer + found.step.host_copies

    assert work(two) <= work(one) * (1 + 1e-9)
    assert two.memory.gpu.total <= one.memory.gpu.total
    assert two.tokens == one.tokens


@given(layout=layouts, more=st.integers(1, 3))
def test_more_rows_take_longer(layout: dict[str, Any], more: int) -> None:
    many = DataShape(rows=DATA.rows * (1 + more), mean_tokens=DATA.mean_tokens)
    assert asked(layout, data=many).steps > asked(layout).steps


@given(layout=layouts)
def test_offload_takes_memory_from_the_gpu_to_the_host_and_costs_time(layout: dict[str, Any]) -> None:
    stage = layout["training"]["deepspeed"]["zeroStage"]
    kept, offloaded = (
        asked(merged(layout, {"training": {"deepspeed": {"zeroStage": stage, "offload": offload}}}))
        for offload in ("none", "optimizer")
    )
    assert offloaded.memory.gpu.total < kept.memory.gpu.total
    assert offloaded.memory.host.total >= kept.memory.host.total
    assert offloaded.step.total > kept.step.total


def test_max_steps_end_the_training_early() -> None:
    assert asked({"training": {"maxSteps": 7}}).steps == 7


def test_faster_gpu_is_faster() -> None:
    assert MODEL is not None
    spec = Spec.model_validate(BASE)
    times = [
        estimate(spec, facts=MODEL, data=DATA, rate=None, gpu=GPUS[name]).seconds.expected
        for name in ("NVIDIA-L4", "NVIDIA-A100-SXM4-80GB", "NVIDIA-H100-80GB-HBM3", "NVIDIA-B200")
    ]
    assert times == sorted(times, reverse=True)


def test_recomputation_costs_a_third_more_computation() -> None:
    with_it, without = (asked({"training": {"gradientCheckpointing": on}}).step.compute for on in (True, False))
    assert with_it == pytest.approx(without * 4 / 3)


def adapted(change: dict[str, Any] | None = None) -> tuple[Estimate, Estimate]:
    """All weights, and adapters of 7B: the parameters of the former, of the latter."""
    full = asked(change or {})
    return full, asked(merged(change or {}, {"training": {"method": "lora", "lora": {"rank": 16}}}))


FULL, ADAPTERS = 7_615_616_512, 40_370_176
"""Parameters of Qwen2.5-7B, and of adapters of rank 16 on all of its linear layers."""


def test_checkpoint_is_that_of_the_adapters_when_weights_are_frozen() -> None:
    full, adapters = adapted()
    assert full.save_seconds == -(-FULL * 123 // (10 * 2_000_000_000)) == 47
    assert adapters.save_seconds == 1
    assert adapters.export_seconds == full.export_seconds, "the export is the merged model"


def test_frozen_weights_cost_a_quarter_less_computation_with_recomputation() -> None:
    full, adapters = adapted()
    assert 0.75 * full.step.compute < adapters.step.compute < 0.8 * full.step.compute, "attention is done in full"


@pytest.mark.parametrize(
    ("stage", "gathered", "spread"),
    [(1, ADAPTERS, ADAPTERS), (2, ADAPTERS, 32 * ADAPTERS), (3, 64 * FULL, 32 * ADAPTERS)],
)
def test_gradients_of_the_adapters_alone_are_collected(stage: int, gathered: int, spread: int) -> None:
    full, adapters = adapted({"training": {"deepspeed": {"zeroStage": stage}}})
    whole = {1: 2 * FULL, 2: 33 * FULL, 3: 96 * FULL}[stage]
    assert adapters.step.communication / full.step.communication == pytest.approx((gathered + spread) / whole)


def test_gradients_and_updates_of_the_adapters_alone_go_to_the_host() -> None:
    full, adapters = adapted({"training": {"deepspeed": {"zeroStage": 3, "offload": "optimizer"}}})
    for part in ("host_copies", "optimizer"):
        assert getattr(adapters.step, part) / getattr(full.step, part) == pytest.approx(ADAPTERS / FULL)


def test_one_gpu_has_no_collectives() -> None:
    assert asked({"resources": {"gpusPerNode": 1}}).step.communication == 0


def test_network_between_nodes_bounds_the_collectives() -> None:
    slow = asked({"resources": {"nodes": 8, "gpusPerNode": 1}}).step.communication
    fast = asked({"resources": {"nodes": 1, "gpusPerNode": 8}}).step.communication
    assert slow > 5 * fast


def test_checkpoints_are_counted_by_time_and_by_steps_and_one_at_the_end() -> None:
    rare = asked({"checkpoint": {"everyMinutes": 1_440}})
    often = asked({"checkpoint": {"everyMinutes": 1_440, "everySteps": 10}})
    assert rare.saves == 1
    assert often.saves == (often.steps - 1) // 10 + 1
    assert often.seconds.expected - rare.seconds.expected == (often.saves - 1) * often.save_seconds
    assert asked({"checkpoint": {"everyMinutes": 5}}).saves > 10


@given(layout=layouts, rate=st.integers(0, 20_000_000), limit=st.integers(1, 5_000))
def test_latest_end_of_training_is_the_deadline_that_the_operator_gives_its_pods(
    layout: dict[str, Any], rate: int, limit: int
) -> None:
    found = asked(merged(layout, {"budget": {"limitUSD": limit}}), rate=rate)
    spent = money(found)
    spec = Spec.model_validate(merged(BASE, layout))
    terms = Terms(
        spec=spec,
        stage=Stage.TRAIN,
        rate=spent.rate,
        limit_micro_usd=limit * 1_000_000,
        reserve_micro_usd=spent.reserve_micro_usd,
        grace=spent.stop_bound_seconds - 30,
    )
    if spent.training_seconds is None:
        assert rate == 0
    elif spent.training_seconds > 0:
        last = min(spent.training_seconds, LONGEST_DEADLINE_SECONDS)
        assert last == pod_deadline_seconds(terms, Bill(by_kind={}, rate=0))
    if spent.sufficient:
        assert admit(terms, Bill(by_kind={}, rate=0)).ok


@given(layout=layouts, rate=st.integers(1, 20_000_000))
def test_limit_that_is_needed_suffices_and_one_micro_dollar_less_does_not(layout: dict[str, Any], rate: int) -> None:
    needed = money(asked(layout, rate=rate)).needed_micro_usd

    def with_limit(micro: int) -> Money:
        return money(
            asked(merged(layout, {"budget": {"limitUSD": f"{micro // 10**6}.{micro % 10**6:06d}"}}), rate=rate)
        )

    assert with_limit(needed).sufficient
    assert not with_limit(needed - 1).sufficient


def test_training_stops_in_time_for_the_evaluation() -> None:
    found = asked({})
    spent = money(found)
    assert spent.reserve_micro_usd == evaluation_reserve(Spec.model_validate(BASE), rate=spent.rate)
    stop = -(-8 * spent.rate.micro_usd_per_gpu_hour * spent.stop_bound_seconds // 3_600)
    assert spent.training_micro_usd + stop + spent.reserve_micro_usd <= spent.limit_micro_usd
    assert money(asked({"evaluation": None})).training_micro_usd > spent.training_micro_usd


def test_measured_save_lengthens_the_stop_when_it_is_longer_than_the_grace() -> None:
    large = known_model("hf://Qwen/Qwen2.5-72B")
    short, long = (asked({"checkpoint": {"graceSeconds": seconds}}, model=large) for seconds in (60, 3_600))
    assert money(short).stop_bound_seconds == pytest.approx(1.5 * short.save_seconds + 30, abs=1)
    assert money(long).stop_bound_seconds == 3_630


def test_run_without_a_price_has_time_but_no_money() -> None:
    found = asked({}, rate=None)
    assert found.money is None
    assert found.works
    assert found.seconds == asked({}).seconds


def test_free_gpus_need_no_end() -> None:
    spent = money(asked({}, rate=0))
    assert spent.training_seconds is None
    assert spent.sufficient
    assert spent.micro_usd.high == 0


def test_spec_that_contradicts_itself_is_refused_with_field_and_value() -> None:
    with pytest.raises(InvalidResource, match="globalBatchSize is 250"):
        asked({"training": {"globalBatchSize": 250}})
