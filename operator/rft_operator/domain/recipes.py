"""Training values of published runs, and the defaults when no recipe is named.

Every value of the two runs with its source: docs/recipes.md, which a test holds against this file. A recipe names also
the values that are defaults here, so that a new default never changes a recipe.
"""

from __future__ import annotations

from rft_operator.api.choices import EndOfTurn, Offload, Precision, Recipe, Schedule
from rft_operator.api.training import DeepSpeed, Training

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
        max_gradient_norm="1.0",
        global_batch_size=96,
        micro_batch_size=1,
        max_sequence_length=16_384,
        packing=False,
        precision=Precision.BF16,
        gradient_checkpointing=True,
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
        max_gradient_norm="1.0",
        global_batch_size=16,
        micro_batch_size=1,
        max_sequence_length=32_768,
        packing=False,
        precision=Precision.BF16,
        gradient_checkpointing=True,
        deepspeed=DeepSpeed(zero_stage=3, offload=Offload.NONE),
    ),
}

END_OF_TURN = {Recipe.SKY_T1: EndOfTurn.ENDOFTEXT, Recipe.S1: EndOfTurn.IM_END}
"""What a recipe's rows end with where ``dataset.eos`` says nothing."""


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
