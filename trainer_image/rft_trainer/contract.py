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
CONFIG_MAPS_DIRECTORY = "/rft/configmaps"
"""``configmap://name/key`` is mounted read-only at ``/rft/configmaps/<name>/<key>``."""
BASELINES_DIRECTORY = "/rft/baselines"
"""What is known of the base model's answers: one file a key of :class:`BaseAnswers`; empty where nothing is."""
EVALUATION_FOLDER = "evaluation"
"""Of a run's data directory: answers and scores; all that the stage Score may write to."""
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

PUBLISH_DIRECTORY = "/rft/publish"
"""The claim of ``publish.uri: pvc://claim/path`` is mounted here, to be written to."""
ENV_PUBLISH_URI = "RFT_PUBLISH_URI"
ENV_PUBLISH_PRIVATE = "RFT_PUBLISH_PRIVATE"
ENV_RUN_COST = "RFT_RUN_COST"
"""JSON of ``spentUSD``, ``gpuHours`` and ``byStage``, as in the resource's status: only the operator knows the bill."""


class Stage(StrEnum):
    """A part of a run's life that has pods of its own; also the value of the label ``rft.dev/stage``."""

    PREPARE = "prepare"
    TRAIN = "train"
    EVALUATE = "evaluate"
    SCORE = "score"
    """Runs what the model wrote, where there is no GPU, no token and no network; then the scores are known."""
    PUBLISH = "publish"
    """Gives the model away with its card: no GPU, but a token."""


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
    revision: str | None = None
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
    """One benchmark of the evaluation; rows are JSONL ``{id, problem, answer, scorer?, choices?}`` or a gym task."""

    name: str
    uri: str
    limit: int | None = None
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    """Answers are drawn from the likeliest tokens that hold so much probability together; 1 is from all."""
    max_tokens: int
    scorer: str | None = None
    """Of rows that name none; absent: mathematics, or a letter where a row has choices."""
    published: float | None = None
    """The base model's published score, for baseline ``published``."""


class BudgetForcing(_Contract):
    """How long the models may think, and how often they are made to think again; each combination is a setting."""

    waits: tuple[int, ...]
    max_thinking_tokens: int
    sweep_thinking_tokens: tuple[int, ...] = ()
    """Smaller budgets that are measured too."""


PromptStyle = Literal["format", "bare", "boxed", "boxed-last", "sky-t1"]
"""How a question is put: as rows of the training format are; alone; after or before the wish for a box; with Sky-T1's
system prompt and a box."""
Engine = Literal["transformers", "vllm"]
EvaluationPrecision = Literal["auto", "bf16", "fp32"]


class EvaluationConfig(_Contract):
    """What to measure after training."""

    benchmarks: tuple[Benchmark, ...]
    baseline: Literal["measure", "published", "none"]
    batch_size: int
    max_seconds: int
    budget_forcing: BudgetForcing | None = None
    """Absent: a model thinks for as long as it likes within an answer's tokens."""
    preset: str | None = None
    """Where values came from that the user did not give; for the record alone."""
    prompt: PromptStyle = "format"
    seed: int = 42
    """Of sampled answers and of the order of choices; two evaluations with another seed are not the same exam."""
    engine: Engine = "transformers"
    precision: EvaluationPrecision = "auto"
    """Number format of the models; auto: bf16 on a GPU, fp32 elsewhere."""
    gpus: int = 1
    """GPUs that share a model; more than one needs vllm."""
    program_memory_mib: int | None = None
    """Memory of the pod that programs are run in, so that those which do not fit are refused before they are paid
    for."""


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
    publish: PublishSummary | None = None


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


Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32,64}$", max_length=64)]
Tokens = Annotated[float, Field(ge=0, le=2_147_483_647)]


class _Short(BaseModel):
    """Fields have short names in the termination message, which has little room, and their own everywhere else."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Score(_Short):
    """One benchmark's score: ``value`` and ``stderr`` in 0..1; the standard error is over questions."""

    benchmark: Label = Field(alias="b")
    metric: Label = Field(alias="m")
    value: Share = Field(alias="v")
    stderr: Share = Field(alias="se")
    questions: Whole = Field(alias="n")
    """Questions that the score is over."""
    samples: Whole = Field(alias="k")
    of_answers: Whole | None = Field(default=None, alias="of")
    """Of a partial score: so many answers were to be given, where it is over questions x samples."""
    no_answer: Whole = Field(default=0, alias="na")
    """Answers that could not be found or read."""
    capped: Whole = Field(default=0, alias="ca")
    """Answers whose thinking was ended at its budget or, where it had none, that the token limit cut."""
    thinking_tokens: Tokens | None = Field(default=None, alias="tt")
    """Mean of an answer; where thinking has no budget, of the whole answer."""
    interval: tuple[Share, Share] | None = Field(default=None, alias="ci")
    """Of 95 %."""
    baseline: Share | None = Field(default=None, alias="bv")
    baseline_stderr: Share | None = Field(default=None, alias="bs")
    comparison: Literal["paired", "published"] | None = Field(default=None, alias="cm")
    """Paired: the base model answered the same questions under the same protocol."""
    wins: Whole | None = Field(default=None, alias="w")
    """Questions answered better than by the baseline."""
    losses: Whole | None = Field(default=None, alias="l")
    p_value: Share | None = Field(default=None, alias="p")
    """Of no difference to the baseline, adjusted for the number of benchmarks."""
    verdict: Verdict | None = Field(default=None, alias="ve")


class Scaling(_Short):
    """What more thinking is worth on a benchmark (s1, section 3.2): the sweep's settings together."""

    benchmark: Label = Field(alias="b")
    control: Share = Field(alias="c")
    """Share of the settings that stayed within their budget of thinking tokens."""
    slope: Annotated[float, Field(ge=-1e6, le=1e6)] = Field(alias="s")
    """Percentage points per 1,000 thinking tokens, mean over pairs of settings."""
    performance: Share = Field(alias="v")
    """The best setting's score."""


class BaseAnswers(_Short):
    """How the base model answered a benchmark under one protocol: what a later run need not pay for again."""

    key: Hash = Field(alias="h")
    """Hash of model and protocol."""
    questions: Annotated[int, Field(ge=1, le=1_000_000)] = Field(alias="n")
    samples: Annotated[int, Field(ge=1, le=256)] = Field(alias="k")
    rights: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=8_192)] = Field(alias="r")
    """Right answers of each question, packed (rft_trainer.evaluate.base_answers)."""
    no_answer: Whole = Field(default=0, alias="na")
    capped: Whole = Field(default=0, alias="ca")
    thinking_tokens: Tokens | None = Field(default=None, alias="tt")


class KeptBaseAnswers(_Contract):
    """An entry of the ConfigMap that the operator keeps for runs of the same base model."""

    version: Literal[1] = 1
    measured_by: Label
    """Name of the run whose evaluation paid for it."""
    measured_at: Label
    answers: BaseAnswers


class EvaluateSummary(_Short):
    """Scores in the order of the benchmarks asked for."""

    scores: Annotated[tuple[Score, ...], Field(max_length=16)]
    artifacts: ShortText | None = None
    protocol: Hash | None = Field(default=None, alias="pr")
    """Of all that the scores depend on beside the model: scores of different protocols are not comparable."""
    stopped: Literal["deadline", "asked"] | None = None
    """Why not every question was answered: the time was used up, or a stop was asked for; the scores are over those
    questions that were."""
    scaling: Annotated[tuple[Scaling, ...], Field(max_length=16)] = Field(default=(), alias="sc")
    base_answers: Annotated[tuple[BaseAnswers, ...], Field(max_length=16)] = Field(default=(), alias="ba")
    pending: Whole = Field(default=0, alias="pe")
    """Answers that are programs and wait for the stage Score; there are no scores before it. With ``stopped`` they are
    not all that were asked for, and the scores will be partial."""


class PublishSummary(_Contract):
    """Where the model is now."""

    uri: ShortText
    revision: Annotated[str, StringConstraints(max_length=64)] | None = None
    """The hub's commit; a volume has none."""
    files: Whole
    bytes: Annotated[int, Field(ge=0)]


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
