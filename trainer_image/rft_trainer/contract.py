"""The contract between the operator and the pods it starts: files, exit codes, labels of progress.

Both sides import these models, so neither can drift. Invariant: nothing here imports torch, kopf or
kubernetes, and every file carries a ``version``, so an old pod and a new operator can tell each other apart.

Layout inside a pod (docs/architecture.md)::

    /rft/config   read-only: run.json, deepspeed.json, hostfile (training only), ca.crt
    /rft/data     the volume; everything of one run lies under RunConfig.data_directory
    /rft/run      emptyDir: stop file, heartbeats, progress.json, result.json
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

CONFIG_DIRECTORY = "/rft/config"
DATA_DIRECTORY = "/rft/data"
RUN_DIRECTORY = "/rft/run"
CLAIMS_DIRECTORY = "/rft/claims"
"""``pvc://claim/path`` is mounted read-only at ``/rft/claims/<claim>``."""
TERMINATION_MESSAGE_PATH = "/dev/termination-log"
TERMINATION_MESSAGE_LIMIT_BYTES = 2_900
"""The kubelet shares 12 KiB among a pod's containers; four containers leave 3,072 bytes each."""
RENDEZVOUS_PORT = 29500

ENV_STAGE = "RFT_STAGE"
ENV_ATTEMPT = "RFT_ATTEMPT"
ENV_NODE_RANK = "JOB_COMPLETION_INDEX"
ENV_PROGRESS_URL = "KUBEFLOW_TRAINER_SERVER_URL"
ENV_PROGRESS_CA_CERT = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
ENV_PROGRESS_TOKEN = "KUBEFLOW_TRAINER_SERVER_TOKEN"  # noqa: S105 - the name of a variable


class Stage(StrEnum):
    """A part of a run's life that has pods of its own; also the value of the label ``rft.dev/stage``."""

    PREPARE = "prepare"
    TRAIN = "train"
    EVALUATE = "evaluate"


class ExitCode(IntEnum):
    """What a pod's exit code says; any other code is judged by Kubernetes' reason."""

    DONE = 0
    DRAINED = 75
    """Stopped on request, a checkpoint of the current step is saved."""
    DRAINED_WITHOUT_CHECKPOINT = 76
    STALLED = 77
    """Hung: a rank gave no sign of life for too long; the stacks of all ranks are on the volume."""
    BAD_INPUT = 78
    """Bad configuration or data: another attempt cannot help."""
    RENDEZVOUS_FAILED = 79


class Outcome(StrEnum):
    """How a stage ended, as its own process says it."""

    COMPLETED = "completed"
    DRAINED = "drained"
    FAILED = "failed"


class _Contract(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSource(_Contract):
    """Where the base model comes from: ``hf://``, ``pvc://``, ``file://`` or ``init://<preset>``."""

    uri: str
    revision: str | None = None


EndOfTurn = Literal["template", "im_end", "endoftext"]


class DatasetSource(_Contract):
    """Where the training rows come from: ``hf://``, ``pvc://``, ``file://`` or ``gym://<task>?key=value``."""

    uri: str
    split: str = "train"
    format: Literal["sky-t1", "s1", "messages", "prompt-completion"]
    max_samples: int | None = None
    eos: EndOfTurn = "template"
    """What the last turn of a row ends with; template: what the model's chat template puts there."""
    overlong: Literal["drop", "fail"] = "drop"
    """What becomes of rows longer than the maximum sequence length; they are never cut."""


class LoraConfig(_Contract):
    """An adapter of low rank beside the frozen weights of the linear layers."""

    rank: int
    alpha: int
    """The adapter's output is scaled by alpha / rank."""
    dropout: float
    target_modules: tuple[str, ...]
    """Names of the layers that get one; empty means all linear layers but the output layer."""


class TrainingConfig(_Contract):
    """The recipe, resolved: presets and defaults are already applied."""

    lora: LoraConfig | None = None
    """Absent: all weights are trained."""
    epochs: int
    max_steps: int | None = None
    learning_rate: float
    warmup_ratio: float
    weight_decay: float
    adam_betas: tuple[float, float]
    max_gradient_norm: float
    schedule: Literal["cosine", "linear", "constant"]
    global_batch_size: int
    micro_batch_size: int
    """Rows a rank holds at once; global batch = micro batch x ranks x accumulation."""
    max_sequence_length: int
    packing: bool
    precision: Literal["bf16", "fp32"]
    gradient_checkpointing: bool
    seed: int
    zero_stage: Literal[1, 2, 3]
    offload: Literal["none", "optimizer", "all"]


class CheckpointConfig(_Contract):
    """When to save and how many to keep."""

    every_minutes: int
    every_steps: int | None = None
    keep_last: int
    resume: Literal["latest", "never"]


class Benchmark(_Contract):
    """One benchmark of the evaluation; rows are JSONL ``{id, problem, answer, scorer?}`` or a gym task."""

    name: str
    uri: str
    limit: int | None = None
    samples: int = 1
    temperature: float = 0.0
    max_tokens: int


class BudgetForcing(_Contract):
    """How long the models may think, and how often they are made to think again; one setting for each of ``waits``."""

    waits: tuple[int, ...]
    max_thinking_tokens: int


class EvaluationConfig(_Contract):
    """What to measure after training."""

    benchmarks: tuple[Benchmark, ...]
    baseline: Literal["measure", "none"]
    batch_size: int
    max_seconds: int
    budget_forcing: BudgetForcing | None = None
    """Absent: a model thinks for as long as it likes within an answer's tokens."""


class RunConfig(_Contract):
    """``/rft/config/run.json``: the effective values of one finetune, resolved once, immutable after."""

    version: Literal[1] = 1
    namespace: str
    name: str
    uid: str
    data_directory: str
    """Absolute; unique to the resource's uid, so a recreated resource never resumes a stranger's run."""
    nodes: int
    gpus_per_node: int
    model: ModelSource
    dataset: DatasetSource
    training: TrainingConfig
    checkpoint: CheckpointConfig
    evaluation: EvaluationConfig | None
    startup_seconds: int
    """Bound on the rendezvous of a training gang, and again on loading the model."""
    stall_seconds: int = 900
    """After so long without a step the operator ends the attempt; the trainer itself sees a hang a little earlier."""


ShortText = Annotated[str, StringConstraints(max_length=1_024)]


# Bounds of the resource's status: what a pod says outside of them is no result, and must not stop the operator.
Whole = Annotated[int, Field(ge=0, le=2_147_483_647)]
Label = Annotated[str, StringConstraints(max_length=40)]
Share = Annotated[float, Field(ge=0, le=1)]


class StageResult(_Contract):
    """``result.json`` and the termination message: what a stage says of itself when it ends.

    Success is read from here, never from exit code 0 alone.
    """

    version: Literal[1] = 1
    stage: Stage
    outcome: Outcome
    error: ShortText | None = None
    prepare: PrepareSummary | None = None
    train: TrainSummary | None = None
    evaluate: EvaluateSummary | None = None


class PrepareSummary(_Contract):
    """What the Prepare stage found."""

    rows: int
    dropped_rows: int
    """Rows that are not trained on: all of the three below; dropped whole, never cut."""
    too_long_rows: int = 0
    """Rows longer than the maximum sequence length."""
    unanswered_rows: int = 0
    """Rows without an answer."""
    held_out_rows: int = 0
    """Rows whose question a benchmark asks."""
    sequences: int = 0
    """What a batch is made of: rows, or packed rows."""
    longest_row_tokens: int = 0
    fill: Share | None = None
    """Share of the maximum sequence length that a sequence has, on average."""
    padding_share: Share | None = None
    """Share of padding in what the ranks compute in one epoch."""
    tokens: int
    target_tokens: int
    steps: int
    """Optimiser steps the whole training takes."""
    parameters: int
    dataset_sha256: str


class TrainSummary(_Contract):
    """Where training stands when its process ends."""

    step: Whole
    total_steps: Whole
    tokens: int
    loss: float | None = None
    checkpoint_step: Whole | None = None
    checkpoint_path: ShortText | None = None
    checkpoint_seconds: Annotated[float, Field(ge=0, le=2_147_483_647)] | None = None
    """Measured duration of the last save: the budget's bound for a stop."""
    checkpoint_count: int = 0
    export_path: str | None = None


Verdict = Literal["Improved", "Regressed", "Inconclusive"]


class Score(_Contract):
    """One benchmark's score: ``value`` and ``stderr`` in 0..1; the standard error is over questions."""

    benchmark: Label
    metric: Label
    value: Share
    stderr: Share
    questions: Whole
    samples: Whole
    no_answer: Whole = 0
    """Answers that could not be found or read, or were cut by the token limit."""
    interval: tuple[Share, Share] | None = None
    """Of 95 %."""
    baseline: Share | None = None
    baseline_stderr: Share | None = None
    wins: Whole | None = None
    """Questions answered better than by the baseline."""
    losses: Whole | None = None
    p_value: Share | None = None
    """Of no difference to the baseline, adjusted for the number of benchmarks."""
    verdict: Verdict | None = None


class EvaluateSummary(_Contract):
    """Scores in the order of the benchmarks asked for."""

    scores: Annotated[tuple[Score, ...], Field(max_length=16)]
    artifacts: ShortText | None = None


StageResult.model_rebuild()


class Metric(BaseModel):
    """A named value of the progress report; the value is text, as in Kubeflow Trainer's contract."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    value: Annotated[str, StringConstraints(max_length=64)]


class TrainerStatus(BaseModel):
    """Body of a progress report: Kubeflow Trainer's wire contract (KEP-2779), unchanged."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    last_updated_time: str = Field(alias="lastUpdatedTime")
    progress_percentage: int | None = Field(default=None, ge=0, le=100, alias="progressPercentage")
    estimated_remaining_seconds: Whole | None = Field(default=None, alias="estimatedRemainingSeconds")
    metrics: Annotated[tuple[Metric, ...], Field(max_length=256)] = ()


class ProgressReport(BaseModel):
    """The envelope of a POST; an absent ``trainerStatus`` changes nothing."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    trainer_status: TrainerStatus | None = Field(default=None, alias="trainerStatus")


class MetricName(StrEnum):
    """Names our own trainer reports under; the operator reads the steps and the checkpoint from them."""

    STEP = "step"
    TOTAL_STEPS = "total_steps"
    EPOCH = "epoch"
    LOSS = "loss"
    LEARNING_RATE = "learning_rate"
    GRADIENT_NORM = "gradient_norm"
    LOSS_MAX = "loss_max"
    """Of all ranks the highest mean loss of a rank's own rows."""
    TOKENS_PER_SECOND = "tokens_per_second"
    """Without padding."""
    MFU = "mfu"
    """Share of the GPUs' peak that the model's arithmetic uses; absent where the peak is unknown."""
    PADDING_SHARE = "padding_share"
    """Of the positions computed, those that are padding."""
    SLOW_RANK = "slow_rank"
    """The rank that takes much longer than the others for the same work; absent when none does."""
    SLOW_RATIO = "slow_ratio"
    """How much longer it takes than the median rank."""
    CHECKPOINT_AGE_SECONDS = "checkpoint_age_seconds"
    CHECKPOINT_STEP = "checkpoint_step"
    CHECKPOINT_SECONDS = "checkpoint_seconds"
    CHECKPOINT_TIME = "checkpoint_time"
    """RFC 3339, the moment the newest complete checkpoint was marked complete."""
    PHASE = "phase"
