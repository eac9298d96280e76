"""The dashboard of teams: who spends what, what is promised, and which GPUs are paid for or idle."""

from __future__ import annotations

from rft_monitoring.board import Board, Choice, Section
from rft_monitoring.panels import HALF, THIRD, Column, Query, Size, bars, lines, run_table, tile

JOB = 'job=~"$job"'
TEAM = f'{JOB}, namespace=~"$namespace"'
BUDGET = f'{TEAM}, budget=~"$budget"'
BY_RUN = "max by (namespace, finetune)"
BY_BUDGET = "max by (namespace, budget)"
BY_KIND = "max by (namespace, finetune, phase, gpu_product, capacity_type)"
FULL = Size(width=24, height=9)


def series(name: str) -> str:
    """Return the selector of a series of the runs in the chosen namespaces."""
    return f"reasoning_finetune_{name}{{{TEAM}}}"


def team(name: str) -> str:
    """Return the selector of a series of the chosen team budgets, one value for each."""
    return f"{BY_BUDGET} (reasoning_finetune_team_{name}{{{BUDGET}}})"


def named(expr: str, label: str) -> str:
    """Return an expression whose empty values of a label are called what they are."""
    return f'label_replace({expr}, "{label}", "not labelled", "{label}", "")'


HELD = f"sum(max by (namespace, finetune, gpu_product, capacity_type) ({series('gpus_allocated')}))"
HELD_BY_RUN = (
    "sum by (namespace, finetune) "
    f"(max by (namespace, finetune, gpu_product, capacity_type) ({series('gpus_allocated')}))"
)
POOL = f"sum(max by (gpu_product, capacity_type) (reasoning_finetune_pool_gpus{{{JOB}}}))"
EVERY_HELD = (
    "sum(max by (namespace, finetune, gpu_product, capacity_type) "
    f"(reasoning_finetune_gpus_allocated{{{JOB}}})) or vector(0)"
)
STEPPING = f"{BY_RUN} (increase({series('train_steps_total')}[20m])) > 0"
RATE = f"sum({BY_RUN} ({series('rate_usd_per_hour')}))"
SPENT_BY_NAMESPACE = f"sum by (namespace) ({BY_RUN} ({series('spent_usd')}))"
BY_CAPACITY = named(f"sum by (capacity_type) ({BY_KIND} ({series('charged_usd')}))", "capacity_type")
LEFT = f"{team('budget_usd')} - {team('spent_usd')}"
PACE = (
    f"{team('budget_usd')} * ({team('window_end_timestamp_seconds')} - time()) "
    f"/ ({team('window_end_timestamp_seconds')} - {team('window_start_timestamp_seconds')})"
)

TOTALS = (
    tile(
        "Spent by the runs that exist",
        "Dollars of all runs in the chosen namespaces, over their whole lives.",
        Query(expr=f"sum({BY_RUN} ({series('spent_usd')}))"),
        unit="currencyUSD",
        decimals=2,
    ),
    tile(
        "Cost per hour",
        "What the pods that hold GPUs now cost per hour.",
        Query(expr=RATE),
        unit="currencyUSD",
        decimals=2,
    ),
    tile(
        "GPUs held",
        "GPUs that runs in the chosen namespaces hold now.",
        Query(expr=f"{HELD} or vector(0)"),
        unit="short",
    ),
    tile(
        "GPUs idle",
        "Allocatable GPUs of the cluster that no run of this operator holds; other workloads may.",
        Query(expr=f"{POOL} - ({EVERY_HELD})"),
        unit="short",
    ),
    tile(
        "Waste",
        "Dollars that trained and evaluated nothing.",
        Query(expr=f"sum(max by (namespace, finetune, reason) ({series('waste_usd')})) or vector(0)"),
        unit="currencyUSD",
        decimals=2,
    ),
    tile(
        "Beyond the limit",
        "Dollars spent beyond limits; above 0 only if a node that does not answer keeps its GPUs.",
        Query(expr=f"sum({BY_RUN} ({series('overshoot_usd')}))"),
        unit="currencyUSD",
        decimals=2,
        steps=((None, "green"), (0.000001, "red")),
    ),
)
SPEND = (
    run_table(
        "Runs",
        "Every run, the dearest first.",
        (
            Column(name="Spent", expr=f"{BY_RUN} ({series('spent_usd')})", unit="currencyUSD"),
            Column(name="Limit", expr=f"{BY_RUN} ({series('budget_usd')})", unit="currencyUSD"),
            Column(name="Forecast", expr=f"{BY_RUN} ({series('forecast_usd')})", unit="currencyUSD"),
            Column(name="Per hour", expr=f"{BY_RUN} ({series('rate_usd_per_hour')})", unit="currencyUSD"),
            Column(
                name="Waste",
                expr=f"sum by (namespace, finetune) (max by (namespace, finetune, reason) ({series('waste_usd')}))",
                unit="currencyUSD",
            ),
            Column(name="GPUs", expr=HELD_BY_RUN, unit="short"),
            Column(name="Progress", expr=f"{BY_RUN} ({series('progress_ratio')})", unit="percentunit"),
        ),
        keys=("namespace", "finetune"),
        size=FULL,
    ),
    lines(
        "Spend by namespace",
        "Dollars spent by the runs that exist.",
        Query(expr=SPENT_BY_NAMESPACE, legend="{{namespace}}"),
        unit="currencyUSD",
        stacked=True,
    ),
    lines(
        "Cost per hour by namespace",
        "What the pods that hold GPUs cost per hour.",
        Query(expr=f"sum by (namespace) ({BY_RUN} ({series('rate_usd_per_hour')}))", legend="{{namespace}}"),
        unit="currencyUSD",
        stacked=True,
    ),
)
BUDGETS = (
    run_table(
        "Reservations",
        "The limit of each team budget in its window: what is spent, what is promised to runs, and what is free.",
        (
            Column(name="Spent", expr=team("spent_usd"), unit="currencyUSD"),
            Column(name="Promised", expr=team("reserved_usd"), unit="currencyUSD"),
            Column(name="Free", expr=f"clamp_min({LEFT} - {team('reserved_usd')}, 0)", unit="currencyUSD"),
            Column(name="Limit", expr=team("budget_usd"), unit="currencyUSD"),
        ),
        keys=("namespace", "budget"),
        size=Size(width=24, height=5),
    ),
    lines(
        "Burn-down of the window",
        "What is left of each team budget, against an even pace to the end of its window. "
        "A line below its pace runs out early.",
        Query(expr=LEFT, legend="{{namespace}}/{{budget}} left"),
        Query(expr=PACE, legend="{{namespace}}/{{budget}} even pace", dashed=True),
        unit="currencyUSD",
        size=HALF,
    ),
    bars(
        "Promised to runs",
        "What each run may still spend of its team's budget in this window.",
        Query(
            expr=f"max by (namespace, finetune) (reasoning_finetune_team_reservation_usd{{{BUDGET}}})",
            legend="{{namespace}}/{{finetune}}",
        ),
        unit="currencyUSD",
        size=HALF,
        decimals=2,
        otherwise="nothing",
    ),
)
GPUS = (
    lines(
        "GPUs of the pool",
        "GPUs that runs of this operator hold, and those of the cluster that they do not.",
        Query(expr=EVERY_HELD, legend="held"),
        Query(expr=f"{POOL} - ({EVERY_HELD})", legend="idle"),
        unit="short",
        size=THIRD,
        stacked=True,
    ),
    bars(
        "Held without a step",
        "GPUs that a run holds though it made no optimizer step for 20 minutes; stages other than training make none.",
        Query(
            expr=f"({HELD_BY_RUN} unless on (namespace, finetune) ({STEPPING})) or 0 * {HELD_BY_RUN}",
            legend="{{namespace}}/{{finetune}}",
        ),
        unit="short",
        otherwise="none held",
    ),
    bars(
        "Spot and on-demand",
        "Dollars charged by capacity type, as the nodes' labels name it.",
        Query(expr=BY_CAPACITY, legend="{{capacity_type}}"),
        unit="currencyUSD",
        decimals=2,
    ),
)

BOARD = Board(
    uid="rft-team",
    title="Finetunes of teams",
    description="Spend by namespace and run, team budgets, and use of the GPU pool.",
    since="now-24h",
    choices=(
        Choice(name="job", query="label_values(rft_leader, job)"),
        Choice(name="namespace", query=f"label_values(reasoning_finetune_budget_usd{{{JOB}}}, namespace)"),
        Choice(name="budget", query=f"label_values(reasoning_finetune_team_budget_usd{{{TEAM}}}, budget)"),
    ),
    sections=(
        Section(title="Now", panels=TOTALS),
        Section(title="Spend", panels=SPEND),
        Section(title="Team budgets", panels=BUDGETS),
        Section(title="GPUs", panels=GPUS),
    ),
)
