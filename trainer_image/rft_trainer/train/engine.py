"""DeepSpeed's configuration and engine.

Invariant: what the recipe says (batch sizes, optimizer, precision, clipping) always comes from ``run.json``;
``deepspeed.json`` adds how ZeRO works, and may not contradict the recipe.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rft_trainer.contract import RunConfig, TrainingConfig
from rft_trainer.errors import BadInputError
from rft_trainer.files import read_json
from rft_trainer.paths import Layout, RunPaths
from rft_trainer.progress_report import LONG_PHASE_FACTOR
from rft_trainer.train.adapter import add_adapters
from rft_trainer.train.batch import keeps_rows_apart
from rft_trainer.train.decay import parameter_groups
from rft_trainer.train.kernels import Kernels, available, use_liger
from rft_trainer.train.loss import LossModel
from rft_trainer.train.plan import accumulation_steps
from rft_trainer.train.speed import Arithmetic, Stopwatch, arithmetic, peak_flops
from rft_trainer.train.weights import build_model

MINIMUM_TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Trainer:
    """The engine and what the loop needs to know about it."""

    engine: Any
    model: LossModel
    device: torch.device
    rank: int
    local_rank: int
    world_size: int
    accumulation: int
    zero3: bool
    settings: dict[str, Any]
    """DeepSpeed's effective configuration."""
    kernels: Kernels
    flat: bool
    """Whether the rows of a micro batch stand in one line, without padding."""
    stopwatch: Stopwatch
    arithmetic: Arithmetic
    peak_flops: int | None


def connect(config: RunConfig, *, local_rank: int) -> torch.device:
    """Join the process group: NCCL on GPUs, gloo on CPUs. Returns this rank's device."""
    import deepspeed

    # ranks wait in a collective for the one that converts or flushes a checkpoint; a hang is seen by its heartbeat
    longest = LONG_PHASE_FACTOR * max(config.startup_seconds, config.stall_seconds)
    timeout = datetime.timedelta(seconds=max(MINIMUM_TIMEOUT_SECONDS, longest))
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        deepspeed.init_distributed(dist_backend="nccl", timeout=timeout, verbose=False)
        return torch.device("cuda", local_rank)
    import deepspeed.ops

    # Else each rank tries a compiler on every op, and the first one compiles shared-memory collectives for a minute.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(dist_backend="gloo", timeout=timeout, verbose=False)
    torch.set_num_threads(1)
    return torch.device("cpu")


def deepspeed_config(
    config: RunConfig, base: dict[str, Any] | None, *, world_size: int, universal: bool
) -> dict[str, Any]:
    """The effective DeepSpeed configuration."""
    training = config.training
    base = {key: value for key, value in (base or {}).items() if key not in {"scheduler", "fp16"}}
    zero = _merged(_zero_defaults(training), base.get("zero_optimization", {}))
    if zero["stage"] != training.zero_stage:
        raise BadInputError(
            f"deepspeed.json: zero_optimization.stage={zero['stage']} contradicts zeroStage={training.zero_stage}"
        )
    # the optimizer that a compiler makes when training starts: without a GPU only where deepspeed.json insists on it
    wanted = torch.cuda.is_available() or base.get("zero_force_ds_cpu_optimizer", False)
    cpu_adam = training.offload != "none" and bool(wanted)
    optimizer = {
        "lr": training.learning_rate,
        "betas": list(training.adam_betas),
        "weight_decay": training.weight_decay,
        **({} if cpu_adam else {"torch_adam": True}),
    }
    return {
        **base,
        "train_batch_size": training.global_batch_size,
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps(training, world_size=world_size),
        "gradient_clipping": training.max_gradient_norm,
        "bf16": {"enabled": training.precision == "bf16"},
        "optimizer": {"type": "AdamW", "params": optimizer},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": cpu_adam,
        "checkpoint": {**base.get("checkpoint", {}), "load_universal": universal},
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def _merged(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What is given wins, also inside nested objects: an offload device does not take the memory's pinning away."""
    nested = {
        key: {**value, **given[key]}
        for key, value in defaults.items()
        if isinstance(value, dict) and isinstance(given.get(key), dict)
    }
    return {**defaults, **given, **nested}


def _zero_defaults(training: TrainingConfig) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": training.zero_stage, "contiguous_gradients": True, "overlap_comm": True}
    if training.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if training.offload == "all" and training.zero_stage == 3:
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return zero


def start(config: RunConfig, layout: Layout, *, device: torch.device, local_rank: int, universal: bool) -> Trainer:
    """Load the model and build the engine; all ranks call it together."""
    import torch.distributed as dist

    training, world_size = config.training, dist.get_world_size()
    base = read_json(layout.deepspeed_file)
    if layout.deepspeed_file.exists() and not isinstance(base, dict):
        raise BadInputError(f"{layout.deepspeed_file}: is not a JSON object")
    settings = deepspeed_config(config, base, world_size=world_size, universal=universal)
    kernels, stopwatch = available(training), Stopwatch(device)
    inner = _model(training, RunPaths.of(layout, config).model, settings=settings, kernels=kernels)
    counted = arithmetic(inner)
    model = LossModel(inner, stopwatch=stopwatch)
    return Trainer(
        engine=_initialise(model, settings),
        model=model,
        device=device,
        rank=dist.get_rank(),
        local_rank=local_rank,
        world_size=world_size,
        accumulation=int(settings["gradient_accumulation_steps"]),
        zero3=training.zero_stage == 3,
        settings=settings,
        kernels=kernels,
        flat=kernels.flash_attention and keeps_rows_apart(inner),
        stopwatch=stopwatch,
        arithmetic=counted,
        peak_flops=peak_flops(device, precision=training.precision),
    )


def _model(training: TrainingConfig, path: Path, *, settings: dict[str, Any], kernels: Kernels) -> Any:
    dtype = torch.bfloat16 if training.precision == "bf16" else torch.float32
    torch.manual_seed(training.seed)
    model = build_model(
        path,
        dtype=dtype,
        attention=kernels.attention,
        deepspeed_config=settings,
        zero3=training.zero_stage == 3,
    )
    if kernels.liger:
        use_liger(model)
    if training.lora is not None:
        add_adapters(model, training.lora)
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    return model


def _initialise(model: LossModel, settings: dict[str, Any]) -> Any:
    import deepspeed

    try:
        groups = parameter_groups(model, weight_decay=settings["optimizer"]["params"]["weight_decay"])
        engine, _, _, _ = deepspeed.initialize(model=model, config=settings, model_parameters=groups)
    except RuntimeError as error:
        if "cpu_adam" not in str(error):
            raise
        raise BadInputError(
            "training.deepspeed.offload: DeepSpeed could not compile its CPU optimizer; use the trainer's own image, "
            "which has it compiled, or one with g++ and Python's headers, or set offload: none"
        ) from error
    return engine
