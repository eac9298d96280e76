"""The effective values of a run: recipe, defaults, image; decided once, kept in the ConfigMap ``<name>-run``.

Invariant: what is in the snapshot never changes; an admin's later edit of defaults or images does not reach a run
that has started.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rft_operator.api.choices import EndOfTurn, Method, Offload, Precision, Recipe
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.spec import Spec
from rft_operator.api.training import Lora, Training
from rft_operator.domain.architectures import known_model
from rft_operator.domain.evaluation import evaluation_config
from rft_operator.domain.facts import Settings
from rft_operator.domain.recipes import END_OF_TURN, effective
from rft_operator.errors import InvalidResource
from rft_trainer.contract import (
    DATA_DIRECTORY,
    CheckpointConfig,
    DatasetSource,
    LoraConfig,
    ModelSource,
    RunConfig,
    TrainingConfig,
)

RUN_KEY = "run.json"
DEEPSPEED_KEY = "deepspeed.json"
OPERATOR_KEY = "operator.json"
CA_KEY = "ca.crt"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSnapshot:
    """Everything the pods of a run are made from."""

    config: RunConfig
    deepspeed: Mapping[str, Any]
    image: str
    image_pull_policy: str
    progress_ca: str | None = None
    """PEM of the authority of the progress server when the run started; None: there was none."""


def resolve(resource: ReasoningFinetune, settings: Settings) -> RunSnapshot:
    """Return the effective values; raises InvalidResource where the parts do not fit together."""
    spec, meta = resource.spec, resource.metadata
    training = effective(spec.training, spec.recipe)
    check_parts(spec, training)
    config = training_config(training)
    try:
        run = RunConfig(
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            data_directory=data_directory(resource),
            nodes=spec.resources.nodes,
            gpus_per_node=spec.resources.gpus_per_node,
            model=ModelSource(uri=spec.model.uri, revision=spec.model.revision),
            dataset=DatasetSource(
                uri=spec.dataset.uri,
                revision=spec.dataset.revision,
                split=spec.dataset.split,
                format=spec.dataset.format.value,
                max_samples=spec.dataset.max_samples,
                eos=_end_of_turn(spec).value,
                overlong=spec.dataset.overlong.value,
            ),
            training=config,
            checkpoint=CheckpointConfig(
                every_minutes=spec.checkpoint.every_minutes,
                every_steps=spec.checkpoint.every_steps,
                keep_last=spec.checkpoint.keep_last,
                resume=spec.checkpoint.resume.value,
            ),
            evaluation=(
                evaluation_config(spec.evaluation, model_uri=spec.model.uri) if spec.evaluation is not None else None
            ),
            pending_seconds=spec.timeouts.pending_seconds,
            startup_seconds=spec.timeouts.startup_seconds,
            stall_seconds=spec.timeouts.stall_seconds,
        )
    except ValidationError as error:
        raise InvalidResource("InvalidSpec", str(error)) from error
    return RunSnapshot(
        config=run,
        deepspeed=_deepspeed(config, ranks=_ranks(spec), sizes=_sizes_of_recipe(spec)),
        image=spec.pod_template.image or settings.trainer_image,
        image_pull_policy=settings.image_pull_policy,
        progress_ca=settings.progress_ca,
    )


def data_directory(resource: ReasoningFinetune) -> str:
    """Return where everything of a run lies on its volume; a namesake to come has another place."""
    return f"{DATA_DIRECTORY}/{resource.metadata.name}-{resource.metadata.uid[:8]}"


def _end_of_turn(spec: Spec) -> EndOfTurn:
    if spec.dataset.eos is not None:
        return spec.dataset.eos
    return END_OF_TURN[spec.recipe] if spec.recipe is not None else EndOfTurn.TEMPLATE


def _sizes_of_recipe(spec: Spec) -> dict[str, int]:
    """Return what Sky-T1's ``"auto"`` sizes of ZeRO-3 became in transformers; elsewhere DeepSpeed's own are used."""
    model = known_model(spec.model.uri) if spec.recipe is Recipe.SKY_T1 else None
    if model is None:
        return {}
    return {
        "reduce_bucket_size": model.hidden * model.hidden,
        "stage3_prefetch_bucket_size": 9 * model.hidden * model.hidden // 10,
        "stage3_param_persistence_threshold": 10 * model.hidden,
    }


def _ranks(spec: Spec) -> int:
    return spec.resources.nodes * spec.resources.gpus_per_node


def check_parts(spec: Spec, training: Training) -> None:
    """Raise InvalidResource where fields contradict each other once the recipe and the defaults are applied."""
    ranks, micro = _ranks(spec), training.micro_batch_size or 1
    batch = training.global_batch_size or 0
    if batch % (ranks * micro):
        raise InvalidResource(
            "InvalidSpec",
            f"training.globalBatchSize is {batch}, which {ranks} GPUs with microBatchSize {micro} cannot share evenly: "
            f"make it a multiple of {ranks * micro}.",
        )
    if training.deepspeed.offload is Offload.ALL and training.deepspeed.zero_stage != 3:
        raise InvalidResource(
            "InvalidSpec",
            f"training.deepspeed.offload is all with zeroStage {training.deepspeed.zero_stage}: parameters can only "
            "be offloaded in stage 3; set zeroStage: 3 or offload: optimizer.",
        )
    secrets = {ref.name for ref in (spec.model.secret_ref, spec.dataset.secret_ref) if ref is not None}
    if len(secrets) > 1:
        raise InvalidResource(
            "InvalidSpec",
            f"model.secretRef and dataset.secretRef name different Secrets ({', '.join(sorted(secrets))}): the hub "
            "takes one token; name the same Secret in both, or only in one.",
        )


def training_config(it: Training) -> TrainingConfig:
    """Return effective training values in the trainer's form."""
    # `effective` has filled every field; the assertions only tell the type checker so.
    assert it.schedule is not None and it.precision is not None and it.deepspeed.offload is not None  # noqa: PT018
    return TrainingConfig.model_validate(
        {
            "lora": _lora(it),
            "epochs": it.epochs,
            "max_steps": it.max_steps,
            "learning_rate": float(it.learning_rate or 0),
            "warmup_ratio": float(it.warmup_ratio or 0),
            "weight_decay": float(it.weight_decay or 0),
            "adam_betas": (float(it.adam_beta1 or 0), float(it.adam_beta2 or 0)),
            "max_gradient_norm": float(it.max_gradient_norm or 0),
            "schedule": it.schedule.value,
            "global_batch_size": it.global_batch_size,
            "micro_batch_size": it.micro_batch_size,
            "max_sequence_length": it.max_sequence_length,
            "packing": it.packing,
            "precision": it.precision.value,
            "gradient_checkpointing": it.gradient_checkpointing,
            "seed": it.seed,
            "zero_stage": it.deepspeed.zero_stage,
            "offload": it.deepspeed.offload.value,
        }
    )


def _lora(it: Training) -> LoraConfig | None:
    if it.method is not Method.LORA:
        return None
    lora = it.lora or Lora()
    return LoraConfig(
        rank=lora.rank, alpha=lora.alpha, dropout=float(lora.dropout), target_modules=tuple(lora.target_modules)
    )


def _deepspeed(it: TrainingConfig, *, ranks: int, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return DeepSpeed's JSON; the ZeRO-3 values are those of Sky-T1's ds_z3_offload_config.json."""
    zero: dict[str, Any] = {"stage": it.zero_stage, "overlap_comm": True, "contiguous_gradients": True}
    if it.zero_stage == 3:
        zero |= {
            "sub_group_size": 1_000_000_000,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
            "stage3_gather_16bit_weights_on_model_save": True,
            **sizes,
        }
    if it.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if it.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_batch_size": it.global_batch_size,
        "train_micro_batch_size_per_gpu": it.micro_batch_size,
        "gradient_accumulation_steps": it.global_batch_size // (it.micro_batch_size * ranks),
        "gradient_clipping": it.max_gradient_norm,
        "bf16": {"enabled": it.precision == Precision.BF16.value},
        "zero_optimization": zero,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": it.learning_rate,
                "betas": list(it.adam_betas),
                "weight_decay": it.weight_decay,
                # Without offload the plain torch optimizer needs no compiler in the image.
                "torch_adam": it.offload == "none",
            },
        },
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }


def snapshot_data(snapshot: RunSnapshot) -> dict[str, str]:
    """Return the ConfigMap's data."""
    data = {
        RUN_KEY: snapshot.config.model_dump_json(indent=1),
        DEEPSPEED_KEY: json.dumps(snapshot.deepspeed, indent=1),
        OPERATOR_KEY: json.dumps({"image": snapshot.image, "imagePullPolicy": snapshot.image_pull_policy}, indent=1),
    }
    return {**data, CA_KEY: snapshot.progress_ca} if snapshot.progress_ca is not None else data


def read_snapshot(data: Mapping[str, str]) -> RunSnapshot:
    """Read what :func:`snapshot_data` wrote; raises InvalidResource if somebody replaced it with nonsense."""
    try:
        operator = json.loads(data[OPERATOR_KEY])
        return RunSnapshot(
            config=RunConfig.model_validate_json(data[RUN_KEY]),
            deepspeed=json.loads(data[DEEPSPEED_KEY]),
            image=operator["image"],
            image_pull_policy=operator["imagePullPolicy"],
            progress_ca=data.get(CA_KEY),
        )
    except (KeyError, ValueError) as error:
        raise InvalidResource("SnapshotUnreadable", f"The run's ConfigMap cannot be read: {error}") from error
