"""Training values of published runs, and the defaults when no recipe is named.

Sources: SkyThought ``qwen2_full_sft.yaml`` with ``ds_z3_offload_config.json`` (Sky-T1-32B-Preview), and
``train/sft_slurm.sh`` of simplescaling/s1 (s1-32B).
"""

from __future__ import annotations

from rft_operator.api.spec import DeepSpeed, Offload, Precision, Recipe, Schedule, Training

DEFAULTS = Training(
    epochs=3,
    learning_rate="1e-5",
    schedule=Schedule.COSINE,
    warmup_ratio="0.1",
    weight_decay="0",
    adam_beta1="0.9",
    adam_beta2="0.999",
    max_gradient_norm="1.0",
    global_batch_size=96,
    micro_batch_size=1,
    max_sequence_length=16_384,
    packing=False,
    precision=Precision.BF16,
    gradient_checkpointing=True,
    deepspeed=DeepSpeed(zero_stage=3, offload=Offload.NONE),
)

RECIPES = {
    Recipe.SKY_T1: Training(
        epochs=3,
        learning_rate="1e-5",
        schedule=Schedule.COSINE,
        warmup_ratio="0.1",
        weight_decay="0",
        adam_beta1="0.9",
        adam_beta2="0.999",
        global_batch_size=96,
        max_sequence_length=16_384,
        deepspeed=DeepSpeed(zero_stage=3, offload=Offload.ALL),
    ),
    Recipe.S1: Training(
        epochs=5,
        learning_rate="1e-5",
        schedule=Schedule.COSINE,
        warmup_ratio="0.05",
        weight_decay="1e-4",
        adam_beta1="0.9",
        adam_beta2="0.95",
        global_batch_size=16,
        max_sequence_length=32_768,
        deepspeed=DeepSpeed(zero_stage=3, offload=Offload.NONE),
    ),
}


def effective(training: Training, recipe: Recipe | None) -> Training:
    """Return the training values: the user's fields win over the recipe's, those over the defaults."""
    layers = [DEFAULTS, RECIPES[recipe] if recipe is not None else Training(), training]
    fields: dict[str, object] = {}
    deepspeed: dict[str, object] = {}
    for layer in layers:
        given = layer.model_dump(exclude_none=True, exclude_unset=True)
        deepspeed |= given.pop("deepspeed", {})
        fields |= given
    return Training.model_validate({**fields, "deepspeed": deepspeed, "seed": training.seed})
