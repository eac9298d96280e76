"""How long an optimizer step takes, from what it has to compute and to move.

One model for all runs, with no factor of its own for any: docs/planning.md says what each term is, where its figure is
from, which ones are fitted, and how far the model is from runs whose times are published.

    step = accumulation x (longest micro-batch of all ranks + collectives + copies to the host) + optimizer + fixed

Ranks move in lockstep under ZeRO, so each micro-step takes as long as its longest micro-batch. ``waiting`` is that of
micro-batches in random order, as the published runs had them; ``ordered_waiting`` that of micro-batches ordered by
length within a step, as this trainer does. The latter has not been measured on GPUs: it counts for the low end alone.

Weights that are frozen beside adapters are multiplied with, but get no gradient: that product is not made, and its
collectives, its copies and its update are those of the adapters alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from rft_operator.domain.architectures import ModelShape
from rft_operator.domain.estimate_data import Sequences
from rft_operator.domain.estimate_gpu import GpuShape
from rft_operator.domain.estimate_memory import Gang, number_bytes, trained_parameters
from rft_trainer.contract import TrainingConfig

MATMUL_EFFICIENCY = 0.50
"""Share of the peak in matrix products and what runs between them. MosaicML's table of FSDP runs (llm-foundry
scripts/train/benchmarking, H100 bf16, 7B to 70B, recomputation) has 0.40 to 0.59, collectives included."""
ATTENTION_EFFICIENCY = 0.35
"""FlashAttention-2 on an H100 (FlashAttention-3 paper, abstract)."""
NETWORK_EFFICIENCY = 0.80
"""Share of the network's rate that collectives get."""
CPU_ADAM_PARAMETERS_PER_SECOND = 1_000_000_000
"""Per node. Fitted between 0.5e9 (LLaMA-7B on 8 x A800, 2 x Xeon 8358: 31.2 s a step with offload, 14.4 s without;
gist chenyaofo/d4cd6a20) and 1.3e9 (DeepSpeed pull request 7474: 2.38 s for a whole step of Qwen2.5-3B)."""
LAYER_SECONDS = 0.001
"""Launching the kernels of one pass over one layer: a floor that only small models feel. Assumed."""
STEP_SECONDS = 0.05
"""Data, gradient norm, agreement of the ranks, report. Assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of one optimizer step by what they are spent on."""

    compute: float
    """The mean row, on every rank."""
    waiting: float
    ordered_waiting: float
    communication: float
    host_copies: float
    optimizer: float
    fixed: float = STEP_SECONDS

    @property
    def _busy(self) -> float:
        return self.compute + self.communication + self.host_copies + self.optimizer + self.fixed

    @property
    def total(self) -> float:
        """Return the step's time with micro-batches in random order."""
        return self._busy + self.waiting

    @property
    def ordered(self) -> float:
        """Return the step's time with micro-batches ordered by length."""
        return self._busy + self.ordered_waiting


def step_time(model: ModelShape, training: TrainingConfig, gang: Gang, *, data: Sequences, gpu: GpuShape) -> StepTime:
    """Return the usual step's time."""
    micro, at_once = training.micro_batch_size, gang.ranks * training.micro_batch_size
    accumulation = max(1, training.global_batch_size // at_once)
    floor = LAYER_SECONDS * model.layers * _passes(training)

    def micro_batch(length: float) -> float:
        row = _row_seconds(model, training, length=length, packed=data.packed, gpu=gpu)
        return max(floor, micro * row)

    mean = accumulation * data.mean_of(micro_batch)
    random = accumulation * data.mean_of_longest(micro_batch, of=at_once)
    ordered = data.mean_of_longest(micro_batch, of=training.global_batch_size) + sum(
        micro_batch(data.ranked(index * at_once, of=training.global_batch_size)) for index in range(1, accumulation)
    )
    return StepTime(
        compute=mean,
        waiting=max(0.0, random - mean),
        ordered_waiting=min(max(0.0, random - mean), max(0.0, ordered - mean)),
        communication=_communication(model, training, gang, accumulation=accumulation, gpu=gpu),
        host_copies=_host_copies(model, training, gang, accumulation=accumulation, gpu=gpu),
        optimizer=_optimizer(model, training, gang),
    )


def _passes(training: TrainingConfig) -> int:
    """Return how often a layer's work is done: forward, twice that backward, and once more to recompute."""
    return 4 if training.gradient_checkpointing else 3


def _optimizer(model: ModelShape, training: TrainingConfig, gang: Gang) -> float:
    if training.offload == "none":
        return 0.0
    return trained_parameters(model, training) / gang.nodes / CPU_ADAM_PARAMETERS_PER_SECOND


def _row_seconds(model: ModelShape, training: TrainingConfig, *, length: float, packed: bool, gpu: GpuShape) -> float:
    """Return the time of forward, backward and recomputation of one row."""
    peak = gpu.bf16_flops if training.precision == "bf16" else gpu.fp32_flops
    products = 2 * model.multiplied_parameters * length / MATMUL_EFFICIENCY
    # Causal attention skips half of the pairs; the mask of a packed sequence lets it skip nothing.
    pairs = 4 if packed else 2
    attention = pairs * length * length * model.hidden * model.layers / ATTENTION_EFFICIENCY
    passes = _passes(training)
    without_gradients = 0 if training.lora is None else 1  # half of the backward pass
    return ((passes - without_gradients) * products + passes * attention) / peak


def _communication(
    model: ModelShape, training: TrainingConfig, gang: Gang, *, accumulation: int, gpu: GpuShape
) -> float:
    """Return the time of the collectives of a step, none of it hidden behind computation.

    Stage 3 gathers the weights forward and backward and spreads the gradients in each micro-step; stage 2 spreads the
    gradients in each and gathers the weights once a step; stage 1 does both once.
    """
    if gang.ranks == 1:
        return 0.0
    others = number_bytes(training) * (gang.ranks - 1) / gang.ranks
    gathered = {3: 2 * accumulation * model.parameters}.get(training.zero_stage, trained_parameters(model, training))
    spread = (1 if training.zero_stage == 1 else accumulation) * trained_parameters(model, training)
    bandwidth = float(gpu.peer_bandwidth) if gang.gpus_per_node > 1 else float("inf")
    if gang.nodes > 1:
        bandwidth = min(bandwidth, gang.gpus_per_node * gpu.network_bandwidth * NETWORK_EFFICIENCY)
    return others * (gathered + spread) / bandwidth


def _host_copies(model: ModelShape, training: TrainingConfig, gang: Gang, *, accumulation: int, gpu: GpuShape) -> float:
    """Return the time of the copies between GPU and host: each rank copies its own share.

    DeepSpeed adds gradients up in the host's memory by way of the GPU: there and back in each micro-step (stage3.py,
    ``partition_grads``). Weights that are offloaded come to the GPU forward and backward; those that are not come once,
    after the update. At the end of a step the gradients go down in fp32.
    """
    if training.offload == "none":
        return 0.0
    number = number_bytes(training)
    trained = trained_parameters(model, training)
    gradients = trained * (2 * number * accumulation + 4)
    weights = 2 * number * accumulation * model.parameters if training.offload == "all" else number * trained
    return (gradients + weights) / gang.ranks / gpu.host_bandwidth
