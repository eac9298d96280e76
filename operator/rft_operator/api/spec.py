"""``spec`` of a ReasoningFinetune: what the user asks for.

Invariant: a field that a recipe may set has no schema default, else the recipe could not know what the user
wrote; the defaults are applied with the recipe when the run starts (``domain.resolve``).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rft_operator.api.base import ApiModel, Counter
from rft_operator.api.choices import OnExhausted, OnStall, PricePolicy, Recipe, Resume
from rft_operator.api.evaluation import (
    Baseline,
    BenchmarkSpec,
    BudgetForcing,
    EvaluationEngine,
    EvaluationPreset,
)
from rft_operator.api.overlay import PodTemplate
from rft_operator.api.scheduling import Resources, Scheduling
from rft_operator.api.texts import (
    ControllerName,
    DnsSubdomain,
    Money,
    PositiveMoney,
    PublishUri,
    Quantity,
)
from rft_operator.api.training import Dataset, Model, SecretReference, Training


class Storage(ApiModel):
    """The volume for model, data, checkpoints and results."""

    claim_name: DnsSubdomain | None = None
    """An existing claim; absent means that <name>-data is created."""
    size: Quantity = "500Gi"
    """Size of the created claim; a claim of claimName has its own."""
    storage_class_name: DnsSubdomain | None = None
    """Storage class of the created claim; absent means the cluster's default."""
    retain: bool = True
    """Keep the created claim when the resource is deleted; a claim of claimName always stays."""


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
    """The gang may wait so long for its nodes and images, until the containers of all ranks run."""
    startup_seconds: Annotated[int, Field(ge=10, le=86_400)] = 1_800
    """The gang may take so long to its first step, once the containers of all ranks run."""
    stall_seconds: Annotated[int, Field(ge=10, le=86_400)] = 900
    """Training may go so long without a step."""
    prepare_seconds: Annotated[int, Field(ge=60, le=604_800)] = 86_400
    """Prepare may take so long, once its container runs; most of it is the download of model and data. The next
    attempt goes on where it was."""
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
    """Publishing, once the run is trained and evaluated; that it fails loses nothing. It may be changed until it is
    over and the run complete."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)
    """Overlay on the pods."""
    suspend: bool = False
    """Stop with a checkpoint and hold no GPU until this is false again."""
    ttl_seconds_after_finished: Counter | None = None
    """Delete the resource so long after it completed or failed."""
    managed_by: ControllerName | None = None
    """Another controller's name: this operator then leaves the resource alone."""
