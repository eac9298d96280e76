"""The dashboard of the operator: does it lead, is it quick, does anything fail, can its money be trusted."""

from __future__ import annotations

from rft_monitoring.board import Board, Choice, Section
from rft_monitoring.panels import THIRD, Query, bars, lines, tile

JOB = 'job=~"$job"'
REPLICA = f'{JOB}, instance=~"$instance"'
RATE = "[$__rate_interval]"
QUANTILES = ("0.5", "0.99")


def rates(name: str, by: str) -> str:
    """Return events per second by a label."""
    return f"sum by ({by}) (rate({name}{{{REPLICA}}}{RATE}))"


def quantiles(name: str, by: str = "") -> tuple[Query, ...]:
    """Return median and 99th percentile of a histogram."""
    labels = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return tuple(
        Query(
            expr=f"histogram_quantile({each}, sum by ({labels}) (rate({name}_bucket{{{REPLICA}}}{RATE})))",
            legend=f"{legend}{'median' if each == '0.5' else '99 %'}",
        )
        for each in QUANTILES
    )


CALLS = quantiles("rft_api_request_duration_seconds", "verb")[1].expr
HOLDING = f"sum by (namespace, finetune) (reasoning_finetune_gpus_allocated{{{JOB}}}) > 0"
LEDGER_AGE = (
    "max(time() - (max by (namespace, finetune) "
    f"(reasoning_finetune_ledger_reconcile_timestamp_seconds{{{JOB}}}) and on (namespace, finetune) ({HOLDING})))"
)
FAILED = f'sum(rate(rft_reconciles_total{{{REPLICA}, result=~"error|crash"}}{RATE})) or vector(0)'

STATE = (
    tile(
        "Replicas that lead",
        "Must be 1: one replica works, the others stand by.",
        Query(expr=f"sum(rft_leader{{{JOB}}})"),
        unit="short",
        steps=((None, "red"), (1, "green"), (2, "red")),
    ),
    tile(
        "Runs that wait",
        "Runs in the queue for a look.",
        Query(expr=f"sum(rft_queue_depth{{{REPLICA}}})"),
        unit="short",
        steps=((None, "text"), (100, "orange")),
    ),
    tile(
        "Age of the ledger",
        "The oldest ledger on record of a run that holds GPUs. It is written once a minute.",
        Query(expr=LEDGER_AGE),
        unit="s",
        decimals=0,
        steps=((None, "text"), (120, "red")),
        otherwise="nothing held",
    ),
    tile(
        "Clock offset",
        "How far the API server's clock, which money is counted by, is ahead of the operator's.",
        Query(expr=f"max(reasoning_finetune_clock_offset_seconds{{{REPLICA}}})"),
        unit="s",
        decimals=1,
        steps=((None, "text"), (2, "orange")),
    ),
    tile(
        "Age of the last sweep",
        "Since everything was last listed, which repairs what a watch lost.",
        Query(expr=f"time() - max(rft_last_sweep_timestamp_seconds{{{REPLICA}}})"),
        unit="s",
        decimals=0,
    ),
    tile(
        "Prices that cannot be used",
        "Entries of the price catalogue that are wrong; the log names them.",
        Query(expr=f"max(rft_price_catalogue_problems{{{REPLICA}}})"),
        unit="short",
        steps=((None, "green"), (1, "red")),
    ),
)
WORK = (
    lines(
        "Looks at runs",
        "Reconciles per second by result. Conflicts are ordinary; errors are refused or lost calls.",
        Query(expr=rates("rft_reconciles_total", "result"), legend="{{result}}"),
        unit="ops",
        size=THIRD,
    ),
    lines(
        "Time of a look",
        "How long a reconcile takes.",
        *quantiles("rft_reconcile_duration_seconds"),
        unit="s",
        size=THIRD,
    ),
    lines(
        "Failed looks",
        "Reconciles per second that ended with an error.",
        Query(expr=FAILED, legend="failed"),
        unit="ops",
        most=1,
        size=THIRD,
    ),
    lines(
        "Wait in the queue",
        "From the wish for a look to the look.",
        *quantiles("rft_queue_wait_seconds"),
        unit="s",
        size=THIRD,
    ),
    lines(
        "Length of the queue",
        "Runs that wait for a look.",
        Query(expr=f"sum(rft_queue_depth{{{REPLICA}}})", legend="runs"),
        unit="short",
        most=10,
        size=THIRD,
    ),
    lines(
        "Lag of the event loop",
        "How late the event loop is; above a second the operator is starved of CPU.",
        Query(expr=f"max by (instance) (rft_event_loop_lag_seconds{{{REPLICA}}})", legend="{{instance}}"),
        unit="s",
        size=THIRD,
    ),
)
SERVER = (
    lines(
        "Calls to the API server",
        "Requests per second by answer.",
        Query(expr=rates("rft_api_requests_total", "code"), legend="{{code}}"),
        unit="reqps",
        size=THIRD,
    ),
    lines(
        "Time of a call",
        "How long calls to the API server take, 99 %.",
        Query(expr=CALLS, legend="{{verb}}"),
        unit="s",
        size=THIRD,
    ),
    lines(
        "Watch events",
        "Events per second by kind.",
        Query(expr=rates("rft_watch_events_total", "kind"), legend="{{kind}}"),
        unit="ops",
        size=THIRD,
    ),
    lines(
        "Writes of status",
        "Writes per second; an idle run is never written.",
        Query(expr=f"sum(rate(rft_status_writes_total{{{REPLICA}}}{RATE}))", legend="writes"),
        unit="wps",
        size=THIRD,
    ),
    lines(
        "Reports of trainers",
        "Progress reports per second by answer.",
        Query(expr=rates("rft_progress_reports_total", "code"), legend="{{code}}"),
        unit="reqps",
        size=THIRD,
    ),
    bars(
        "Runs by stage",
        "Where the runs stand.",
        Query(
            expr=f"sum by (stage) (max by (namespace, finetune, stage) (reasoning_finetune_stage{{{JOB}}}))",
            legend="{{stage}}",
        ),
        unit="short",
    ),
)
LEDGER = (
    lines(
        "Age of the ledger, over time",
        "The oldest ledger on record of a run that holds GPUs; the alert fires at two minutes.",
        Query(expr=LEDGER_AGE, legend="oldest"),
        unit="s",
        size=THIRD,
    ),
    lines(
        "Clock offset, over time",
        "API server's clock less the operator's, in whole seconds.",
        Query(expr=f"max by (instance) (reasoning_finetune_clock_offset_seconds{{{REPLICA}}})", legend="{{instance}}"),
        unit="s",
        size=THIRD,
        least=None,
    ),
    bars(
        "GPU-seconds in doubt, last hour",
        "Charged though the end is estimated, or after the last proof that the GPUs were held.",
        Query(
            expr=f"sum(increase(reasoning_finetune_ledger_estimated_gpu_seconds_total{{{JOB}}}[1h]))",
            legend="estimated",
        ),
        Query(
            expr=f"sum(increase(reasoning_finetune_ledger_disputed_gpu_seconds_total{{{JOB}}}[1h]))", legend="disputed"
        ),
        unit="s",
        decimals=0,
    ),
)

BOARD = Board(
    uid="rft-operator",
    title="Finetune operator",
    description="Health of the Reasoning Finetune Operator.",
    since="now-3h",
    choices=(
        Choice(name="job", query="label_values(rft_leader, job)"),
        Choice(name="instance", query=f"label_values(rft_leader{{{JOB}}}, instance)"),
    ),
    sections=(
        Section(title="State", panels=STATE),
        Section(title="Work", panels=WORK),
        Section(title="API server and trainers", panels=SERVER),
        Section(title="Ledger", panels=LEDGER),
    ),
)
