"""``spec.model``, ``spec.dataset`` and ``spec.training``: what is taught to whom, and how.

Invariant: as in :mod:`rft_operator.api.spec`, what a recipe may set has no schema default.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rft_operator.api.base import ApiModel
from rft_operator.api.choices import DatasetFormat, EndOfTurn, Method, Offload, Overlong, Precision, Schedule
from rft_operator.api.texts import (
    Decimal,
    DnsSubdomain,
    ModelUri,
    SecretKey,
    SourceUri,
    SplitName,
    text,
)


class SecretReference(ApiModel):
    """A Secret in the resource's own namespace."""

    name: DnsSubdomain
    """Name of the Secret."""
    key: SecretKey = "token"
    """Key that holds the hub token."""


class Model(ApiModel):
    """The base model."""

    uri: ModelUri
    """hf://org/name, pvc://claim/path, file:///path, or init://tiny-qwen2 (random weights, for demos)."""
    revision: Annotated[str, text(128, minimum=1)] | None = None
    """Branch, tag or commit of a hub model."""
    secret_ref: SecretReference | None = None
    """Secret with the hub token for a private or gated model."""


class Dataset(ApiModel):
    """The training rows."""

    uri: SourceUri
    """hf://org/name, pvc://claim/path, file:///path, or gym://task?option=value (seeded generator)."""
    revision: Annotated[str, text(128, minimum=1)] | None = None
    """Branch, tag or commit of a hub dataset."""
    split: SplitName = "train"
    """Split of a dataset whose files are named for splits; a generator (gym://) has none."""
    format: DatasetFormat
    """sky-t1: {system, conversations: [{from, value}]}; s1: {question, thinking_trajectories, attempt}; messages:
    {messages: [{role, content}]}; prompt-completion: {prompt, completion}. Rows of gym:// are rendered as s1."""
    eos: EndOfTurn | None = None
    """Mark that ends a row: template is that of the model's own chat template, im_end is <|im_end|> and a line break,
    endoftext is <|endoftext|>. Default that of the recipe (sky-t1: endoftext, s1: im_end), else template."""
    overlong: Overlong = Overlong.DROP
    """What becomes of rows longer than training.maxSequenceLength, which are never cut: drop them whole and count
    them, or fail before any GPU is held."""
    max_samples: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Use the first so many rows; for gym:// the number of rows to generate."""
    secret_ref: SecretReference | None = None
    """Secret with the hub token for a private dataset."""


class DeepSpeed(ApiModel):
    """How DeepSpeed spreads the model over the GPUs."""

    zero_stage: Annotated[int, Field(ge=1, le=3)] | None = None
    """ZeRO stage: 1 shards the optimizer, 2 also the gradients, 3 also the parameters. Default 3."""
    offload: Offload | None = None
    """Move the optimizer state, or everything, to host memory. Default none."""


class Lora(ApiModel):
    """Adapters of low rank: only they are trained and checkpointed; the trained model has them merged."""

    rank: Annotated[int, Field(ge=1, le=1_024)] = 16
    """Rank of an adapter."""
    alpha: Annotated[int, Field(ge=1, le=4_096)] = 32
    """An adapter's output is scaled by alpha / rank."""
    dropout: Decimal = "0"
    """Share of an adapter's inputs that is dropped in training, as text."""
    target_modules: Annotated[list[Annotated[str, text(128, minimum=1)]], Field(max_length=32)] = Field(
        default_factory=list
    )
    """Names of the layers that get an adapter, such as q_proj; empty means all linear layers but the output layer."""


class Training(ApiModel):
    """The training recipe; what is absent comes from the recipe preset, then from the defaults."""

    method: Method | None = None
    """full trains all weights, lora trains adapters only. Default full."""
    lora: Lora | None = None
    """The adapters of method lora; absent means their defaults."""
    epochs: Annotated[int, Field(ge=1, le=1_000)] | None = None
    """Passes over the dataset. Default 3."""
    max_steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Stop after so many optimizer steps even if epochs are left."""
    learning_rate: Decimal | None = None
    """Peak learning rate as text, for example "1e-5". Default "1e-5"."""
    schedule: Schedule | None = None
    """Decay of the learning rate. Default cosine."""
    warmup_ratio: Decimal | None = None
    """Share of all steps in which the learning rate rises. Default "0.1"."""
    weight_decay: Decimal | None = None
    """AdamW weight decay. Default "0"."""
    adam_beta1: Decimal | None = None
    """AdamW beta 1. Default "0.9"."""
    adam_beta2: Decimal | None = None
    """AdamW beta 2. Default "0.999"."""
    max_gradient_norm: Decimal | None = None
    """Gradient clipping. Default "1.0"."""
    global_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Sequences in one optimizer step over all GPUs. Default 96."""
    micro_batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Sequences a GPU holds at once. Default 1."""
    max_sequence_length: Annotated[int, Field(ge=16, le=4_194_304)] | None = None
    """Longest sequence in tokens; dataset.overlong says what becomes of longer rows. Default 16384."""
    packing: bool | None = None
    """Put several rows into one sequence, with attention kept apart; globalBatchSize then counts sequences of several
    rows. Default false."""
    precision: Precision | None = None
    """bf16 or fp32. Default bf16."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass to save memory. Default true."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 42
    """Seed of data order and random weights; a generator (gym://) has a seed of its own in its URI."""
    deepspeed: DeepSpeed = Field(default_factory=DeepSpeed)
    """DeepSpeed options."""
