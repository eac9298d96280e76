"""The dashboard of one run: what it costs, what it will cost, when it stops, and what it is worth."""

from __future__ import annotations

from rft_monitoring.board import Board, Choice, Section
from rft_monitoring.panels import HALF, THIRD, Query, Size, bars, lines, tile

JOB = 'job=~"$job"'
RUN = f'{JOB}, namespace="$namespace", finetune="$finetune"'
WIDE = Size(width=16, height=9)
NARROW = Size(width=8, height=9)
QUARTER = Size(width=6, height=8)
DAY_SECONDS = 86_400


def series(name: str, more: str = "") -> str:
    """Return the selector of a series of the chosen run."""
    return f"reasoning_finetune_{name}{{{RUN}{more}}}"


SPENT = f"max({series('spent_usd')})"
LIMIT = f"max({series('budget_usd')})"
RESERVED = f"sum(max by (purpose) ({series('reserved_usd')}))"
RATE = f"max({series('rate_usd_per_hour')})"
PRICE = f"max by (source) ({series('price_usd_per_gpu_hour')})"
ASOF = f"max by (source) (reasoning_finetune_price_asof_timestamp_seconds{{{JOB}}})"
SOFT = ', kind="soft"'
TRAINING = series("stage", ', stage="Training"')
PACE = f"max(({series('budget_usd')} and on (namespace, finetune) {TRAINING}) * {series('progress_ratio')})"
BETWEEN_SAVES = series("stage", ', stage=~"Starting|Training|Stopping|Restarting"')
AT_RISK = f"max(time() - {series('checkpoint_timestamp_seconds')} and on (namespace, finetune) {BETWEEN_SAVES})"
DOLLARS_PER_THOUSAND_TOKENS = f"1000 * {RATE} / 3600 / (max({series('tokens_per_second')}) > 0)"

MONEY = (
    tile(
        "Spent",
        "Dollars spent at this instant, all stages and attempts together.",
        Query(expr=SPENT),
        unit="currencyUSD",
        decimals=2,
    ),
    tile(
        "Limit",
        "budget.limitUSD: training, retries and evaluation together never cost more.",
        Query(expr=LIMIT),
        unit="currencyUSD",
        decimals=2,
    ),
    tile(
        "Reserve",
        "What training may not touch: the evaluation, the last save, the time it takes to stop.",
        Query(expr=RESERVED),
        unit="currencyUSD",
        decimals=2,
    ),
    tile(
        "Remaining",
        "The limit less what is spent; the reserve is part of it.",
        Query(expr=f"{LIMIT} - {SPENT}"),
        unit="currencyUSD",
        decimals=2,
        steps=((None, "red"), (0.01, "text")),
    ),
    tile(
        "Forecast",
        "Dollars at the end if the run goes on as now, evaluation included. Above the limit, training is "
        "stopped with a checkpoint before it is done.",
        Query(expr=f"max({series('forecast_usd')})"),
        unit="currencyUSD",
        decimals=2,
        otherwise="not running",
    ),
    tile(
        "Time to soft stop",
        "Until the operator stops training with a checkpoint if nothing changes.",
        Query(expr=f"min({series('stop_timestamp_seconds', SOFT)}) - time()"),
        unit="s",
        decimals=1,
        steps=((None, "red"), (600, "orange"), (1_800, "text")),
        otherwise="not running",
    ),
    tile(
        "Cost per hour",
        "What the pods that hold GPUs now cost per hour.",
        Query(expr=RATE),
        unit="currencyUSD",
        decimals=2,
    ),
    tile(
        "Price of a GPU-hour",
        "The dearest price at which the run's next GPU may be bound, and where it comes from.",
        Query(expr=PRICE, legend="{{source}}"),
        unit="currencyUSD",
        decimals=2,
    ),
    tile(
        "Age of the price",
        "How old the catalogue's entry is (asOf). Prices that budget.usdPerGpuHour gives have none.",
        Query(expr=f"time() - ({ASOF} and on (source) {PRICE})"),
        unit="s",
        decimals=0,
        steps=((None, "text"), (30 * DAY_SECONDS, "orange"), (90 * DAY_SECONDS, "red")),
        otherwise="given by the run",
    ),
    tile(
        "Cost of 1,000 tokens",
        "Dollars per 1,000 trained tokens at the present speed and price.",
        Query(expr=DOLLARS_PER_THOUSAND_TOKENS),
        unit="currencyUSD",
        decimals=5,
        otherwise="not training",
    ),
    tile(
        "Speed",
        "Tokens trained per second, without padding, as the trainer reports.",
        Query(expr=f"max({series('tokens_per_second')})"),
        unit="short",
        decimals=1,
        otherwise="not training",
    ),
    tile(
        "Progress of the stage",
        "Share of the running stage's work that is done.",
        Query(
            expr=f"max by (stage) ({series('stage')}) * on () group_left () max({series('progress_ratio')})",
            legend="{{stage}}",
        ),
        unit="percentunit",
        decimals=0,
        otherwise="none yet",
    ),
)
PLAN = (
    lines(
        "Spend against plan",
        "Spent so far, against the pace: the limit times the progress of training. Spend above the "
        "pace means that the money ends before the training does. Training is stopped, with a checkpoint, where the "
        "spend would cross the stop line: the limit less the reserve.",
        Query(expr=SPENT, legend="spent", colour="blue"),
        Query(expr=PACE, legend="pace of the plan", filled=False, colour="green"),
        Query(expr=f"max({series('forecast_usd')})", legend="forecast at the end", filled=False, colour="purple"),
        Query(expr=f"{LIMIT} - {RESERVED}", legend="stop line", dashed=True, colour="orange"),
        Query(expr=LIMIT, legend="limit", dashed=True, colour="red"),
        unit="currencyUSD",
        size=WIDE,
    ),
    bars(
        "Cost by stage",
        "Dollars charged to each stage; together they are what is spent.",
        Query(
            expr=f"sum by (phase) (max by (phase, gpu_product, capacity_type) ({series('charged_usd')}))",
            legend="{{phase}}",
        ),
        unit="currencyUSD",
        size=NARROW,
        decimals=2,
    ),
    lines(
        "Cost per hour, over time",
        "What the pods that hold GPUs cost per hour.",
        Query(expr=RATE, legend="per hour"),
        unit="currencyUSD",
        size=THIRD,
    ),
    lines(
        "GPUs held",
        "GPUs that pods of the run hold, by kind.",
        Query(
            expr=f"max by (gpu_product, capacity_type) ({series('gpus_allocated')})",
            legend="{{gpu_product}} {{capacity_type}}",
        ),
        unit="short",
        size=THIRD,
    ),
    bars(
        "Waste by reason",
        "Dollars that trained and evaluated nothing: image pulls, waiting for the gang, work after the "
        "last checkpoint, ending, lost nodes. At most a minute old.",
        Query(expr=f"max by (reason) ({series('waste_usd')})", legend="{{reason}}"),
        unit="currencyUSD",
        decimals=2,
    ),
)
MODEL = (
    lines(
        "Training loss",
        "Loss as the trainer reports it.",
        Query(expr=f"max({series('loss')})", legend="loss"),
        unit="short",
        size=THIRD,
        least=None,
    ),
    lines(
        "Speed, over time",
        "Tokens trained per second, without padding.",
        Query(expr=f"max({series('tokens_per_second')})", legend="tokens per second"),
        unit="short",
        size=THIRD,
    ),
    lines(
        "Cost of 1,000 tokens, over time",
        "Dollars per 1,000 trained tokens; it rises with the price and falls with the speed.",
        Query(expr=DOLLARS_PER_THOUSAND_TOKENS, legend="per 1,000 tokens"),
        unit="currencyUSD",
        size=THIRD,
    ),
    lines(
        "Steps per minute",
        "Optimizer steps per minute; 0 while training has stopped or hangs.",
        Query(expr=f"60 * max(rate({series('train_steps_total')}[$__rate_interval]))", legend="steps"),
        unit="short",
        size=QUARTER,
    ),
    lines(
        "Work at risk",
        "Age of the newest complete checkpoint: what a lost node would cost while training runs.",
        Query(expr=AT_RISK, legend="age of the checkpoint"),
        unit="s",
        size=QUARTER,
    ),
    bars(
        "Score",
        "Score of each benchmark, 0 to 100 %, of the trained model and of the base model under the same protocol.",
        Query(expr=f"max by (benchmark, metric) ({series('score')})", legend="{{benchmark}} {{metric}} trained"),
        Query(expr=f"max by (benchmark, metric) ({series('baseline_score')})", legend="{{benchmark}} {{metric}} base"),
        unit="percentunit",
        size=HALF,
        most=1,
        decimals=1,
        otherwise="not evaluated",
    ),
)

BOARD = Board(
    uid="rft-run",
    title="Finetune run",
    description="Money, speed and score of one ReasoningFinetune.",
    since="now-6h",
    choices=(
        Choice(name="job", query="label_values(rft_leader, job)"),
        Choice(
            name="namespace", query=f"label_values(reasoning_finetune_budget_usd{{{JOB}}}, namespace)", several=False
        ),
        Choice(
            name="finetune",
            query=f'label_values(reasoning_finetune_budget_usd{{{JOB}, namespace="$namespace"}}, finetune)',
            several=False,
        ),
    ),
    sections=(
        Section(title="Money", panels=MONEY),
        Section(title="Plan and waste", panels=PLAN),
        Section(title="Training and score", panels=MODEL),
    ),
)
