"""``spec`` of a ReasoningFinetune: what the user asks for.

Invariant: a field that a recipe may set has no schema default, else the recipe could not know what the user
wrote; the defaults are applied with the recipe when the run starts (``domain.resolve``).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from rft_operator.api.base import ApiModel, Counter, Seconds
from rft_operator.api.evaluation import (
    Baseline,
    BenchmarkSpec,
    BudgetForcing,
    EvaluationEngine,
    EvaluationPreset,
)
from rft_operator.api.overlay import PodTemplate
from rft_operator.api.texts import (
    ControllerName,
    Decimal,
    DnsLabel,
    DnsSubdomain,
    ExtraResource,
    GpuResource,
    LabelKey,
    LabelValue,
    ModelUri,
    Money,
    PositiveMoney,
    PublishUri,
    Quantity,
    SecretKey,
    SourceUri,
    SplitName,
    text,
)


class Recipe(StrEnum):
    """Published runs whose training values can be taken over as a preset."""

    SKY_T1 = "sky-t1"
    S1 = "s1"


class DatasetFormat(StrEnum):
    """How the rows of the dataset are written."""

    SKY_T1 = "sky-t1"
    S1 = "s1"
    MESSAGES = "messages"
    PROMPT_COMPLETION = "prompt-completion"


class EndOfTurn(StrEnum):
    """The mark after the last trained token of a row."""

    TEMPLATE = "template"
    IM_END = "im_end"
    ENDOFTEXT = "endoftext"


class Overlong(StrEnum):
    """What becomes of rows that are longer than the maximum sequence length."""

    DROP = "drop"
    FAIL = "fail"


class Method(StrEnum):
    """Which weights are trained."""

    FULL = "full"
    LORA = "lora"


class Schedule(StrEnum):
    """Shape of the learning rate after the warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"


class Precision(StrEnum):
    """Number format of weights and activations."""

    BF16 = "bf16"
    FP32 = "fp32"


class Offload(StrEnum):
    """What DeepSpeed keeps in the host's memory instead of the GPU's."""

    NONE = "none"
    OPTIMIZER = "optimizer"
    ALL = "all"


class OnExhausted(StrEnum):
    """What happens at the budget's stop line, after the checkpoint."""

    STOP = "stop"
    SUSPEND = "suspend"


class PricePolicy(StrEnum):
    """Which price a pod that already runs is charged at when the catalogue changes."""

    LOCKED = "locked"
    FLOATING = "floating"


class OnStall(StrEnum):
    """What happens when no step is made for ``stallSeconds``."""

    RESTART = "restart"
    FAIL = "fail"


class Resume(StrEnum):
    """Where a new attempt starts."""

    LATEST = "latest"
    NEVER = "never"


class TolerationOperator(StrEnum):
    """How a toleration compares with a taint."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Gang(StrEnum):
    """Who keeps a part of the gang from holding GPUs while the rest waits for some."""

    NONE = "none"
    VOLCANO = "volcano"


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
    """Split of a hub dataset."""
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


class Resources(ApiModel):
    """The GPU gang that trains."""

    nodes: Annotated[int, Field(ge=1, le=512)] = 1
    """Machines in the gang."""
    gpus_per_node: Annotated[int, Field(ge=1, le=16)] = 8
    """GPUs on each machine; each GPU is one rank."""
    gpu_resource: GpuResource = "nvidia.com/gpu"
    """Extended resource that stands for a GPU."""
    cpu: Quantity | None = None
    """CPU of each training pod (request and limit)."""
    memory: Quantity | None = None
    """Memory of each training pod (request and limit)."""
    shared_memory: Quantity = "16Gi"
    """Size limit of /dev/shm."""
    extra_resources: Annotated[dict[ExtraResource, Quantity], Field(max_length=8)] = Field(default_factory=dict)
    """What else each training pod requests, and is limited to: network devices (rdma/hca_shared_devices_a: 1,
    vpc.amazonaws.com/efa: 4) and huge pages (hugepages-2Mi: 5Gi). GPUs are gpusPerNode's, so that they are paid for."""


class Toleration(ApiModel):
    """A Kubernetes toleration."""

    key: LabelKey | None = None
    """Taint key; absent with operator Exists tolerates everything."""
    operator: TolerationOperator = TolerationOperator.EQUAL
    """Exists or Equal."""
    value: LabelValue | None = None
    """Taint value for operator Equal."""
    effect: TaintEffect | None = None
    """NoSchedule, PreferNoSchedule or NoExecute; absent means all."""
    toleration_seconds: Seconds | None = None
    """How long a NoExecute taint is tolerated."""


class Topology(ApiModel):
    """How near to each other the ranks of a gang are placed; exactly one of the two."""

    required: LabelKey | None = None
    """Node label whose value all ranks must share, such as cloud.provider.com/topology-rack."""
    preferred: LabelKey | None = None
    """Node label whose value the ranks share if there is room, else the next wider one of Kueue's Topology."""


class CpuPods(ApiModel):
    """Where the pods without GPUs (Prepare, Score, Publish) may run."""

    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] | None = None
    """Labels their node must carry. Default: the region, zone, architecture and system that nodeSelector names, and
    nodes without GPUs are preferred."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] | None = None
    """Their tolerations; an empty list keeps them off tainted nodes. Default: those of the GPU pods, and of the taint
    that is named as gpuResource is."""


class Scheduling(ApiModel):
    """Where the GPU pods may run, and who lets them."""

    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = Field(default_factory=dict)
    """Labels a GPU node must carry; they also choose the price before a pod is bound."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = Field(default_factory=list)
    """Tolerations of the GPU pods."""
    cpu_pods: CpuPods | None = None
    """Where the pods without GPUs may run; absent means that they follow the GPU pods where they must."""
    priority_class_name: DnsSubdomain | None = None
    """PriorityClass of the GPU pods."""
    scheduler_name: DnsSubdomain | None = None
    """Scheduler of the GPU pods; absent means the cluster's default, or volcano with gang: volcano."""
    queue_name: DnsLabel | None = None
    """Kueue LocalQueue in the resource's namespace: the GPU Jobs are created suspended, and Kueue starts each of them
    when there is quota for its whole gang. What Kueue preempts saves a checkpoint and uses up no restart."""
    queue_priority_class_name: DnsLabel | None = None
    """Kueue WorkloadPriorityClass: the place in the queue, which need not be the pods' priority."""
    topology: Topology | None = None
    """Placement by Kueue's topology-aware scheduling; needs queueName."""
    gang: Gang = Gang.NONE
    """none: Kueue's quota, or timeouts.pendingSeconds, keeps a part of the gang from waiting for the rest for ever.
    volcano: the Volcano scheduler binds all ranks or none."""


class Storage(ApiModel):
    """The volume for model, data, checkpoints and results."""

    claim_name: DnsSubdomain | None = None
    """An existing claim; absent means that <name>-data is created."""
    size: Quantity = "500Gi"
    """Size of the created claim."""
    storage_class_name: DnsSubdomain | None = None
    """Storage class of the created claim; absent means the cluster's default."""
    retain: bool = True
    """Keep the created claim when the resource is deleted."""


class Budget(ApiModel):
    """The money of the run: training, retries and evaluation share it."""

    limit_usd: PositiveMoney = Field(alias="limitUSD")
    """Never spend more than this. A whole number or a quoted decimal, in US dollars."""
    usd_per_gpu_hour: PositiveMoney | None = Field(default=None, alias="usdPerGpuHour")
    """Price of one GPU-hour; absent means the admin's price catalogue decides by the node's labels."""
    price_policy: PricePolicy = PricePolicy.LOCKED
    """locked: a pod pays the price at which it was bound. floating: it follows the catalogue."""
    evaluation_reserve_usd: Money | None = Field(default=None, alias="evaluationReserveUSD")
    """Kept back for the evaluation; absent means evaluation GPUs x rate x evaluation.maxSeconds."""
    warn_at_percent: Annotated[list[Annotated[int, Field(ge=1, le=99)]], Field(max_length=8)] = Field(
        default_factory=lambda: [50, 80]
    )
    """Events are emitted when so many percent of the limit are spent."""
    on_exhausted: OnExhausted = OnExhausted.STOP
    """stop: save, evaluate what there is, end as Failed. suspend: save and wait for a higher limit."""


class Checkpoint(ApiModel):
    """Saves during training and before every stop."""

    every_minutes: Annotated[int, Field(ge=1, le=1_440)] = 30
    """Save at least this often."""
    every_steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Save also every so many steps."""
    keep_last: Annotated[int, Field(ge=1, le=100)] = 2
    """Complete checkpoints to keep."""
    grace_seconds: Annotated[int, Field(ge=10, le=7_200)] = 300
    """Time a stopping pod has to save; the budget counts with it."""
    resume: Resume = Resume.LATEST
    """Whether a new attempt continues from the newest complete checkpoint."""


class Timeouts(ApiModel):
    """Bounds after which a stage is given up."""

    pending_seconds: Annotated[int, Field(ge=10, le=604_800)] = 3_600
    """A pod may wait so long for a node or an image."""
    startup_seconds: Annotated[int, Field(ge=10, le=86_400)] = 1_800
    """The gang may take so long from the first bound pod to the first step."""
    stall_seconds: Annotated[int, Field(ge=10, le=86_400)] = 900
    """Training may go so long without a step."""
    on_stall: OnStall = OnStall.RESTART
    """restart from the last checkpoint, or fail."""


class Retries(ApiModel):
    """How often a failed attempt is repeated."""

    max_restarts: Annotated[int, Field(ge=0, le=100)] = 3
    """Failures that count; preemption and node loss do not."""


class CodeExecution(ApiModel):
    """The pod that runs programs which the models wrote: without GPU, token or network, bounded in all it uses."""

    cpu: Quantity = "2"
    """CPUs, request and limit; so many programs are tested at once."""
    memory: Quantity | None = None
    """Memory, request and limit. Default: what the programs that are tested at once may take (1 GiB each, of
    livecodebench 4), and what their judge takes. Where the tests of own rows have a larger memory_mib, set it."""
    max_seconds: Annotated[int, Field(ge=60, le=604_800)] = 3_600
    """After so long the pod is ended; the next attempt goes on where it was."""
    runtime_class_name: DnsSubdomain | None = None
    """RuntimeClass of the pod, such as gvisor: another kernel between the programs and the node."""


class Evaluation(ApiModel):
    """What is measured after training, with money kept back for it."""

    gpus: Annotated[int, Field(ge=1, le=16)] = 1
    """GPUs of the evaluation pod; more than one needs engine: vllm, which splits the model over them."""
    preset: EvaluationPreset | None = None
    """Prompt, sampling, number format and budget of thinking of a published run; explicit fields win over it."""
    benchmarks: Annotated[list[BenchmarkSpec], Field(min_length=1, max_length=16)]
    """Benchmarks, in order."""
    baseline: Baseline = Baseline.MEASURE
    """measure: the base model answers the same questions, unless an earlier run of this namespace has its answers.
    published: compare with a published score, marked as such. none: no comparison."""
    engine: EvaluationEngine = EvaluationEngine.TRANSFORMERS
    """transformers, or vllm where the trainer's image has it."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 42
    """Seed of sampled answers and of the order of choices; another seed is another exam."""
    batch_size: Annotated[int, Field(ge=1, le=4_096)] = 32
    """Questions answered at once."""
    max_seconds: Annotated[int, Field(ge=60, le=604_800)] = 3_600
    """Bound of the evaluation; the reserve pays for it."""
    budget_forcing: BudgetForcing | None = None
    """Set the length of the thinking from outside; absent means that a model thinks for as long as it likes."""
    code_execution: CodeExecution = Field(default_factory=CodeExecution)
    """How programs are run where a benchmark's scorer is code."""


class Publish(ApiModel):
    """Where the trained model is given away, with a card of its scores and costs."""

    uri: PublishUri
    """hf://organisation/name, or pvc://claim/path."""
    private: bool = True
    """Whether a repository that is made for it is private; one that exists stays as it is."""
    secret_ref: SecretReference | None = None
    """Secret with a hub token that may write to the organisation; needed for hf://."""


class Spec(ApiModel):
    """A reasoning model to train and evaluate within a budget."""

    recipe: Recipe | None = None
    """Preset of a published run; explicit fields win over it."""
    model: Model
    """The base model."""
    dataset: Dataset
    """The training rows."""
    training: Training = Field(default_factory=Training)
    """The training recipe."""
    resources: Resources = Field(default_factory=Resources)
    """The GPU gang that trains."""
    scheduling: Scheduling = Field(default_factory=Scheduling)
    """Where the GPU pods may run."""
    storage: Storage = Field(default_factory=Storage)
    """The volume of the run."""
    budget: Budget
    """The money of the run."""
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    """Saves."""
    timeouts: Timeouts = Field(default_factory=Timeouts)
    """Bounds."""
    retries: Retries = Field(default_factory=Retries)
    """Repeats."""
    evaluation: Evaluation | None = None
    """Evaluation; absent means that the run is complete after training."""
    publish: Publish | None = None
    """Publishing, once the run is trained and evaluated; that it fails loses nothing. It may be changed until then."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)
    """Overlay on the pods."""
    suspend: bool = False
    """Stop with a checkpoint and hold no GPU until this is false again."""
    ttl_seconds_after_finished: Counter | None = None
    """Delete the resource so long after it completed or failed."""
    managed_by: ControllerName | None = None
    """Another controller's name: this operator then leaves the resource alone."""
