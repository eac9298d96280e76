"""Memory, part by part: DeepSpeed's own figures for the states, the tensors of a layer for the rest."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.domain.architectures import known_model
from rft_operator.domain.estimate_data import DataShape
from rft_operator.domain.estimate_gpu import ASSUMED, GPUS
from rft_operator.domain.estimate_memory import CHUNK_LOGITS, GIB, GpuMemory, HostMemory, Memory
from support.builders import merged
from support.published_runs import of_spec

SPEC: dict[str, Any] = {
    "model": {"uri": "hf://Qwen/Qwen2.5-32B-Instruct"},
    "dataset": {"uri": "hf://any/rows", "format": "messages"},
    "training": {"globalBatchSize": 96, "maxSequenceLength": 16_384},
    "resources": {"nodes": 1, "gpusPerNode": 8},
    "budget": {"limitUSD": 1_000},
}
ROWS = DataShape(rows=1_000, mean_tokens=4_000)


def of(**change: Any) -> Memory:
    return of_spec(merged(SPEC, change), data=ROWS).memory


def layout(*, nodes: int = 1, stage: int = 3, offload: str = "none", **training: Any) -> Memory:
    return of(resources={"nodes": nodes}, training={"deepspeed": {"zeroStage": stage, "offload": offload}, **training})


def states(memory: Memory) -> float:
    return (memory.gpu.weights + memory.gpu.gradients + memory.gpu.optimizer) / GIB


@pytest.mark.parametrize(
    ("nodes", "offload", "gpu_gib", "host_gib"),
    [
        (1, "none", 71.6, 35),
        (1, "optimizer", 10.5, 732),
        (1, "all", 2.9, 824),
        (2, "none", 37.2, 35),
        (2, "optimizer", 6.7, 366),
    ],
)
def test_states_of_a_32b_model_are_those_of_deepspeeds_own_functions(
    nodes: int, offload: str, gpu_gib: float, host_gib: float
) -> None:
    found = layout(nodes=nodes, offload=offload)
    assert states(found) == pytest.approx(gpu_gib, abs=0.1)
    assert found.host.total / GIB == pytest.approx(host_gib, abs=1)


def test_stage_2_holds_whole_weights_and_shards_the_rest_as_deepspeed_says() -> None:
    model = known_model("hf://Qwen/Qwen2.5-32B")
    assert model is not None
    n = model.parameters
    found = layout(stage=2)
    assert states(found) * GIB == pytest.approx(2 * n + 18 * n / 8, abs=16)
    assert layout(stage=2, offload="optimizer").gpu.weights == 2 * n
    assert layout(stage=2, offload="optimizer").gpu.optimizer == 0


def test_higher_stages_need_less_of_a_gpu() -> None:
    first, second, third = (layout(stage=stage).gpu.total for stage in (1, 2, 3))
    assert first > second > third


@pytest.mark.parametrize(("layers", "adapters"), [([], 40_370_176), (["q_proj", "v_proj"], 5_046_272)])
def test_frozen_weights_have_neither_gradients_nor_optimizer_when_adapters_are_trained(
    layers: list[str], adapters: int
) -> None:
    """The counts are those that peft gives for Qwen2.5-7B at rank 16."""
    spec = {"model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"}}
    lora = {"method": "lora", "lora": {"rank": 16, "targetModules": layers}, "deepspeed": {"zeroStage": 2}}
    full, adapted = of(**spec, training={"deepspeed": {"zeroStage": 2}}), of(**spec, training=lora)
    assert adapted.gpu.optimizer == 12 * adapters // 8
    assert adapted.gpu.gradients == 6 * adapters // 8
    assert adapted.gpu.weights - full.gpu.weights == 2 * adapters
    assert adapted.gpu.activations == full.gpu.activations


@pytest.mark.parametrize(
    ("stage", "offload"), [(1, "none"), (2, "none"), (3, "none"), (1, "optimizer"), (3, "optimizer"), (3, "all")]
)
def test_adapters_need_less_memory_of_every_kind_than_full_training(stage: int, offload: str) -> None:
    full = layout(stage=stage, offload=offload)
    adapted = layout(stage=stage, offload=offload, method="lora")
    assert adapted.gpu.total < full.gpu.total
    assert adapted.host.weights + adapted.host.gradients + adapted.host.optimizer <= full.host.total


@pytest.mark.parametrize(
    ("nodes", "offload", "tokens", "fits"),
    [
        (1, "none", 1_024, False),
        (1, "none", 16_384, False),
        (1, "optimizer", 16_384, True),
        (1, "all", 16_384, True),
        (2, "none", 16_384, True),
        (2, "none", 40_960, False),
    ],
)
def test_32b_fits_80_gb_gpus_where_users_report_that_it_does(nodes: int, offload: str, tokens: int, fits: bool) -> None:
    found = of_spec(
        merged(
            SPEC,
            {
                "resources": {"nodes": nodes},
                "training": {"deepspeed": {"offload": offload}, "maxSequenceLength": tokens},
            },
        ),
        data=DataShape(rows=1_000, mean_tokens=500),
    )
    assert found.memory.fits_gpu is fits


@pytest.mark.parametrize(("memory", "fits"), [("700Gi", False), ("900Gi", True), ("1Ti", True), (None, True)])
def test_offload_needs_the_nodes_memory_as_far_as_the_spec_says_how_much_there_is(memory: str, fits: bool) -> None:
    found = of(training={"deepspeed": {"offload": "all"}}, resources={"memory": memory})
    assert found.fits is fits
    assert found.fits_gpu


def test_totals_are_the_sums_of_the_parts() -> None:
    gpu = GpuMemory(weights=1, gradients=2, optimizer=4, activations=8, logits=16, usable=30)
    host = HostMemory(weights=1, gradients=2, optimizer=4, loading=8, usable=15)
    assert (gpu.total, host.total) == (31, 15)
    assert not Memory(gpu=gpu, host=host).fits_gpu
    assert Memory(gpu=gpu, host=host).fits_host
    assert not Memory(gpu=gpu, host=host).fits


def test_activations_of_32b_are_those_of_its_tensors() -> None:
    for tokens, gib in ((8_192, 7.5), (16_384, 14.9), (32_768, 29.9)):
        found = of(training={"maxSequenceLength": tokens})
        assert found.gpu.activations / GIB == pytest.approx(gib, abs=0.1)


def test_activations_grow_with_the_micro_batch_and_without_recomputation() -> None:
    base, double = layout().gpu.activations, layout(microBatchSize=2).gpu.activations
    assert double == 2 * base
    assert layout(gradientCheckpointing=False).gpu.activations > 10 * base


def test_logits_are_held_in_the_trainers_chunks_whatever_the_length() -> None:
    from rft_trainer.train.loss import CHUNK_ELEMENTS

    assert CHUNK_LOGITS == CHUNK_ELEMENTS
    assert layout().gpu.logits == layout(maxSequenceLength=32_768).gpu.logits < GIB
    short = of_spec(SPEC, data=DataShape(rows=1_000, mean_tokens=100, longest_tokens=256))
    assert short.memory.gpu.logits < layout().gpu.logits


def test_packed_rows_need_a_mask() -> None:
    assert layout(packing=True).gpu.activations - layout().gpu.activations == 3 * 16_384**2


def test_longest_row_that_is_known_bounds_the_activations() -> None:
    short = DataShape(rows=1_000, mean_tokens=4_000, longest_tokens=8_192)
    assert of_spec(SPEC, data=short).memory.gpu.activations == layout(maxSequenceLength=8_192).gpu.activations


def test_fp32_doubles_weights_and_activations() -> None:
    single, half = layout(precision="fp32").gpu, layout().gpu
    assert single.activations == 2 * half.activations
    assert single.weights == pytest.approx(2 * half.weights, abs=2)
    assert single.optimizer == half.optimizer


def test_usable_memory_leaves_room_for_context_and_fragments() -> None:
    usable = of_spec(SPEC, data=ROWS, gpu=ASSUMED).memory.gpu.usable
    assert usable / GIB == pytest.approx(70.3, abs=0.1)
    assert of_spec(SPEC, data=ROWS, gpu=GPUS["NVIDIA-H200"]).memory.fits_gpu


def test_loading_counts_only_where_it_is_more_than_what_is_filled_later() -> None:
    assert layout().host.loading > 0
    assert layout(offload="optimizer").host.loading == 0
    model = known_model("hf://Qwen/Qwen2.5-32B")
    assert model is not None
    assert layout(stage=2).host.total == 8 * 2 * model.parameters
