"""What a rank holds in its GPU's memory, and a node in its own, part by part.

Model states follow DeepSpeed's own ``estimate_zero2/3_model_states_mem_needs`` (deepspeed 0.19, stage_1_and_2.py and
stage3.py): per parameter 2 bytes of weights, 4 of fp32 gradients (stage 2: 2 more), 12 of fp32 weights and Adam's
moments, spread over the ranks as the stage says; on the host half as much again for pinning and fragments. Activations
are those of a decoder layer by its tensors: 8 bytes per MLP width and 20 per hidden width and token. Logits are the
trainer's, which computes the loss in chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

from rft_operator.domain.architectures import ModelShape
from rft_operator.domain.estimate_data import Sequences
from rft_operator.domain.estimate_gpu import GpuShape
from rft_trainer.contract import TrainingConfig

GIB = 2**30
CONTEXT_BYTES = 3 * GIB
"""CUDA context, NCCL's buffers, libraries."""
USABLE_PERCENT = 92
"""The rest is lost in the allocator's fragments."""
CHUNK_LOGITS = 2**26
"""Logits the trainer holds at once (rft_trainer.train.loss)."""
SMALLEST_CHUNK_TOKENS = 128
LOGIT_BYTES = 14
"""A logit in bf16 and three times in fp32: itself, its softmax, its gradient."""
MASK_BYTES = 3
"""A pair of positions of a packed sequence: a boolean, and the number that attention adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """The ranks, one per GPU."""

    nodes: int
    gpus_per_node: int

    @property
    def ranks(self) -> int:
        """Return the number of ranks."""
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuMemory:
    """Bytes on one GPU at the fullest moment."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    usable: int

    @property
    def total(self) -> int:
        """Return the sum of the parts."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """Bytes in one node's memory."""

    weights: int
    gradients: int
    optimizer: int
    loading: int
    """What loading the model needs beyond the parts above: it is over before they are filled."""
    usable: int | None
    """What the pod may use; None if the spec does not say."""

    @property
    def total(self) -> int:
        """Return the sum of the parts."""
        return self.weights + self.gradients + self.optimizer + self.loading


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Both memories, and whether they are enough."""

    gpu: GpuMemory
    host: HostMemory

    @property
    def fits_gpu(self) -> bool:
        """Return whether the GPU's memory is enough."""
        return self.gpu.total <= self.gpu.usable

    @property
    def fits_host(self) -> bool:
        """Return whether the pod's memory is enough, as far as it is known."""
        return self.host.usable is None or self.host.total <= self.host.usable

    @property
    def fits(self) -> bool:
        """Return whether both are enough."""
        return self.fits_gpu and self.fits_host


def number_bytes(training: TrainingConfig) -> int:
    """Return the bytes of a weight or an activation."""
    return 2 if training.precision == "bf16" else 4


def memory(
    model: ModelShape,
    training: TrainingConfig,
    gang: Gang,
    *,
    data: Sequences,
    gpu: GpuShape,
    host_bytes: int | None,
) -> Memory:
    """Return what training needs at its fullest: all ranks on the longest row."""
    weights, gradients, optimizer = _gpu_states(model, training, gang)
    return Memory(
        gpu=GpuMemory(
            weights=weights,
            gradients=gradients,
            optimizer=optimizer,
            activations=_activations(model, training, longest=data.longest),
            logits=_logits(model, training, longest=data.longest),
            usable=gpu.memory_bytes * USABLE_PERCENT // 100 - CONTEXT_BYTES,
        ),
        host=_host(model, training, gang, host_bytes=host_bytes),
    )


def trained_parameters(model: ModelShape, training: TrainingConfig) -> int:
    """Return the parameters that have gradients, optimizer states and a place in a checkpoint."""
    return _adapters(model, training) or model.parameters


def _adapters(model: ModelShape, training: TrainingConfig) -> int:
    lora = training.lora
    return 0 if lora is None else model.adapter_parameters(rank=lora.rank, layers=lora.target_modules)


def _gpu_states(model: ModelShape, training: TrainingConfig, gang: Gang) -> tuple[int, int, int]:
    """Return the bytes of weights, gradients and optimizer on one GPU; frozen weights have neither of the latter."""
    number, ranks, adapters = number_bytes(training), gang.ranks, _adapters(model, training)
    parameters, trained = model.parameters + adapters, adapters or model.parameters
    offloaded = training.offload != "none"
    optimizer = 0 if offloaded else 12 * trained // ranks
    if training.zero_stage == 3:
        # The largest tensor is held whole while it is used, and its gradient until it is spread.
        gathered = number * model.largest_tensor
        weights = gathered + (0 if training.offload == "all" else number * parameters // ranks)
        spread = min(gathered, number * trained)
        return weights, spread + (0 if offloaded else 4 * trained // ranks), optimizer
    whole = number * parameters
    if training.zero_stage == 2:
        return whole, 0 if offloaded else (number + 4) * trained // ranks, optimizer
    return whole, number * trained + (0 if offloaded else 4 * trained // ranks), optimizer


def _activations(model: ModelShape, training: TrainingConfig, *, longest: int) -> int:
    number, tokens = number_bytes(training), training.micro_batch_size * longest
    layer = tokens * (8 * model.intermediate + 20 * model.hidden) * number // 2
    mask = MASK_BYTES * training.micro_batch_size * longest * longest if training.packing else 0
    if training.gradient_checkpointing:
        return number * model.layers * model.hidden * tokens + layer + mask
    return model.layers * layer + mask


def _logits(model: ModelShape, training: TrainingConfig, *, longest: int) -> int:
    chunk = max(SMALLEST_CHUNK_TOKENS, CHUNK_LOGITS // model.vocabulary)
    return LOGIT_BYTES * model.vocabulary * min(chunk, training.micro_batch_size * longest)


def _host(model: ModelShape, training: TrainingConfig, gang: Gang, *, host_bytes: int | None) -> HostMemory:
    adapters = _adapters(model, training)
    share = (model.parameters + adapters) * 3 // (2 * gang.nodes)
    trained = (adapters or model.parameters) * 3 // (2 * gang.nodes)
    offloaded = training.offload != "none"
    weights = number_bytes(training) * share if training.offload == "all" else 0
    gradients, optimizer = (4 * trained, 12 * trained) if offloaded else (0, 0)
    if training.zero_stage == 3:
        loading = 2 * number_bytes(training) * model.largest_tensor * gang.gpus_per_node * 3 // 2
    else:
        # Every rank builds the whole model in the node's memory before it goes to its GPU.
        loading = number_bytes(training) * model.parameters * gang.gpus_per_node
    return HostMemory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        loading=max(0, loading - weights - gradients - optimizer),
        usable=host_bytes,
    )
