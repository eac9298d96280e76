"""The contract between the operator and the pods it starts: files, exit codes, labels of progress.

What a stage says at its end is in :mod:`rft_trainer.stage_results`, what it reports on the way in
:mod:`rft_trainer.progress_report`. Both sides import these models, so neither can drift. Invariant: nothing in the
three imports torch, kopf or kubernetes, and every file carries a ``version``, so an old pod and a new operator can tell
each other apart.

Layout inside a pod (docs/architecture.md)::

    /rft/config   read-only: run.json, deepspeed.json, hostfile (training only), ca.crt
    /rft/data     the volume; everything of one run lies under RunConfig.data_directory
    /rft/run      emptyDir: stop file, heartbeats, progress.json, result.json
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

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
    DIVERGED = 80
    """The training left the finite numbers: another attempt from the same checkpoint would again."""


class Outcome(StrEnum):
    """How a stage ended, as its own process says it."""

    COMPLETED = "completed"
    DRAINED = "drained"
    FAILED = "failed"


class Contract(BaseModel):
    """What both sides read: frozen, and without a field that one of them does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSource(Contract):
    """Where the base model comes from: ``hf://``, ``pvc://``, ``file://`` or ``init://<preset>``."""

    uri: str
    revision: str | None = None


EndOfTurn = Literal["template", "im_end", "endoftext"]


class DatasetSource(Contract):
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


class LoraConfig(Contract):
    """An adapter of low rank beside the frozen weights of the linear layers."""

    rank: int
    alpha: int
    """The adapter's output is scaled by alpha / rank."""
    dropout: float
    target_modules: tuple[str, ...]
    """Names of the layers that get one; empty means all linear layers but the output layer."""


class TrainingConfig(Contract):
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


class CheckpointConfig(Contract):
    """When to save and how many to keep."""

    every_minutes: int
    every_steps: int | None = None
    keep_last: int
    resume: Literal["latest", "never"]


class Benchmark(Contract):
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


class BudgetForcing(Contract):
    """How long the models may think, and how often they are made to think again; each combination is a setting."""

    waits: tuple[int, ...]
    max_thinking_tokens: int
    sweep_thinking_tokens: tuple[int, ...] = ()
    """Smaller budgets that are measured too."""


PromptStyle = Literal["format", "bare", "boxed", "boxed-last", "sky-t1", "skythought"]
"""How a question is put: as rows of the training format are; alone; after or before the wish for a box; with Sky-T1's
system prompt and a box; with that prompt and the words that SkyThought's own evaluation has for each benchmark."""
Engine = Literal["transformers", "vllm"]
EvaluationPrecision = Literal["auto", "bf16", "fp32"]


class EvaluationConfig(Contract):
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


class RunConfig(Contract):
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
    pending_seconds: int = 3_600
    """So long a training gang may wait for its last node and that node's image."""
    startup_seconds: int
    """Bound on the rendezvous of a training gang that is there, and again on loading the model."""
    stall_seconds: int = 900
    """After so long without a step the operator ends the attempt; the trainer itself sees a hang a little earlier."""
