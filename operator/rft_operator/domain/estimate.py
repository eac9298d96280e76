"""Memory, time and cost of a run before it starts.

Invariant: a function of the spec and of what is known of model, data, price and GPU; nothing is looked up here, so
``rft plan`` and the operator get the same answer. Seconds, GPU-seconds and micro-dollars are integers, rounded up. The
model, its sources and its calibration: docs/planning.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rft_operator.api.spec import Spec
from rft_operator.domain.architectures import ModelShape
from rft_operator.domain.bill import SECONDS_PER_HOUR
from rft_operator.domain.budget import evaluation_reserve, grace_seconds, stop_bound_seconds
from rft_operator.domain.estimate_data import DataShape, Sequences, sequences
from rft_operator.domain.estimate_gpu import GpuShape
from rft_operator.domain.estimate_memory import Gang, Memory, memory, number_bytes, trained_parameters
from rft_operator.domain.estimate_speed import StepTime, step_time
from rft_operator.domain.evaluation import evaluation_config
from rft_operator.domain.money import micro_usd
from rft_operator.domain.quantities import quantity_floor
from rft_operator.domain.rates import Rate
from rft_operator.domain.recipes import effective
from rft_operator.domain.resolve import check_parts, training_config
from rft_trainer.contract import Stage, TrainingConfig
from rft_trainer.steps import total_steps

LOW_FACTOR = 0.85
"""Of a step whose micro-batches are ordered by length: the low end."""
HIGH_FACTOR = 2.0
"""Of the expected step: the high end. The widest miss known is s1 on 8 GPUs, which were short of memory."""
START_SECONDS = 60
"""Processes, rendezvous, first kernels. Assumed; pulling the image is not in it."""
STORAGE_BYTES_PER_SECOND = 2_000_000_000
"""What a node reads from and writes to the volume. Assumed."""
SAVED_BYTES_PER_TEN_PARAMETERS = 123
"""A DeepSpeed checkpoint: 12.3 bytes a trained parameter, measured on a small model under ZeRO-3; no frozen ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A figure with what it may be at best and at worst."""

    low: int
    expected: int
    high: int

    def times(self, factor: int) -> Span:
        """Return the figure multiplied."""
        return Span(low=self.low * factor, expected=self.expected * factor, high=self.high * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """What training costs, and what the budget allows for it."""

    rate: Rate
    micro_usd: Span
    """Training alone, from the first bound pod to the exported model."""
    reserve_micro_usd: int
    limit_micro_usd: int
    stop_bound_seconds: int
    training_seconds: int | None
    """Training that is not over by then is stopped, so that the evaluation is paid; None if the GPUs are free."""
    training_micro_usd: int
    """What training may spend until then."""
    needed_micro_usd: int
    """The least limit that the expected training, its stop and the evaluation fit into."""

    @property
    def sufficient(self) -> bool:
        """Return whether the expected training ends in time for the evaluation."""
        return self.limit_micro_usd >= self.needed_micro_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """All that is known of a run before it starts."""

    training: TrainingConfig
    gang: Gang
    data: Sequences
    steps: int
    tokens: int
    step: StepTime
    start_seconds: int
    save_seconds: int
    saves: int
    export_seconds: int
    seconds: Span
    gpu_seconds: Span
    memory: Memory
    money: Money | None
    """None where no price is known."""

    @property
    def works(self) -> bool:
        """Return whether the run fits into the memory and, as far as its price is known, into the budget."""
        return self.memory.fits and (self.money is None or self.money.sufficient)


def estimate(spec: Spec, *, facts: ModelShape, data: DataShape, rate: Rate | None, gpu: GpuShape) -> Estimate:
    """Return the estimate of a run; raises InvalidResource where the spec contradicts itself or trains on nothing."""
    effective_training = effective(spec.training, spec.recipe)
    check_parts(spec, effective_training)
    if spec.evaluation is not None:
        evaluation_config(spec.evaluation, model_uri=spec.model.uri)
    training = training_config(effective_training)
    gang = Gang(nodes=spec.resources.nodes, gpus_per_node=spec.resources.gpus_per_node)
    seen = sequences(data, limit=training.max_sequence_length, packing=training.packing)
    steps = total_steps(training, sequences=seen.count)
    step = step_time(facts, training, gang, data=seen, gpu=gpu)
    weight_bytes = number_bytes(training) * facts.parameters
    start = START_SECONDS + math.ceil(weight_bytes / STORAGE_BYTES_PER_SECOND)
    saved = trained_parameters(facts, training) * SAVED_BYTES_PER_TEN_PARAMETERS
    save = math.ceil(saved / (10 * gang.nodes * STORAGE_BYTES_PER_SECOND))
    export = math.ceil(weight_bytes / STORAGE_BYTES_PER_SECOND)

    def whole(step_seconds: float) -> int:
        stepping = math.ceil(steps * step_seconds)
        return start + stepping + _saves(spec, steps=steps, seconds=stepping) * save + export

    seconds = Span(
        low=whole(step.ordered * LOW_FACTOR), expected=whole(step.total), high=whole(step.total * HIGH_FACTOR)
    )
    gpu_seconds = seconds.times(gang.ranks)
    return Estimate(
        training=training,
        gang=gang,
        data=seen,
        steps=steps,
        tokens=round(steps * training.global_batch_size * seen.mean),
        step=step,
        start_seconds=start,
        save_seconds=save,
        saves=_saves(spec, steps=steps, seconds=math.ceil(steps * step.total)),
        export_seconds=export,
        seconds=seconds,
        gpu_seconds=gpu_seconds,
        memory=memory(facts, training, gang, data=seen, gpu=gpu, host_bytes=quantity_floor(spec.resources.memory)),
        money=None if rate is None else _money(spec, rate=rate, gang=gang, seconds=seconds, save_seconds=save),
    )


def _saves(spec: Spec, *, steps: int, seconds: int) -> int:
    """Return the checkpoints of a training: those that fall due on the way, and the last."""
    by_time = seconds // (60 * spec.checkpoint.every_minutes)
    by_steps = (steps - 1) // spec.checkpoint.every_steps if spec.checkpoint.every_steps is not None else 0
    return max(by_time, by_steps) + 1


def _money(spec: Spec, *, rate: Rate, gang: Gang, seconds: Span, save_seconds: int) -> Money:
    hourly = gang.ranks * rate.micro_usd_per_gpu_hour
    reserve = evaluation_reserve(spec, rate=rate)
    limit = micro_usd(spec.budget.limit_usd)
    bound = stop_bound_seconds(grace_seconds(spec, Stage.TRAIN, save_seconds=str(save_seconds)))
    left = max(0, (limit - reserve) * SECONDS_PER_HOUR - hourly * bound)
    return Money(
        rate=rate,
        micro_usd=Span(
            low=_micro_usd(seconds.low * hourly),
            expected=_micro_usd(seconds.expected * hourly),
            high=_micro_usd(seconds.high * hourly),
        ),
        reserve_micro_usd=reserve,
        limit_micro_usd=limit,
        stop_bound_seconds=bound,
        training_seconds=left // hourly if hourly else None,
        training_micro_usd=left // SECONDS_PER_HOUR,
        needed_micro_usd=reserve + _micro_usd((seconds.expected + bound) * hourly),
    )


def _micro_usd(amount: int) -> int:
    """Divide once and round up once (docs/metering.md M12)."""
    return -(-amount // SECONDS_PER_HOUR)
