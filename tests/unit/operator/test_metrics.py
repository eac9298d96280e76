"""What Prometheus sees of the runs: read from the ledger on record, gone with the run, never labelled by pod."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from rft_operator import metrics_reference
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.domain.facts import NodeFacts
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.timestamps import epoch
from rft_operator.metrics import Metrics
from rft_operator.run_metrics import SETTLED_SECONDS, RunCollector
from rft_operator.runtime.budget_cache import BudgetCache
from rft_operator.team_metrics import TeamCollector
from support.builders import NAME, NAMESPACE
from support.objects import stored_run
from support.team import team_budget

NOW = epoch("2026-01-01T01:00:00Z")
PRICE = 3_600_000
"""Micro-dollars of a GPU-hour: 1,000 of a GPU-second."""


def entry(uid: str, *, stage: str = "train", gpus: int = 1, start: str = "00:59:00", end: str | None = None) -> Any:
    fields = {
        "uid": uid,
        "pod": f"pod-{uid}",
        "stage": stage,
        "attempt": 1,
        "node": "node-1",
        "gpus": gpus,
        "microUSDPerGpuHour": PRICE,
        "priceSource": "spec",
        "startTime": f"2026-01-01T{start}Z",
    }
    return fields if end is None else {**fields, "endTime": f"2026-01-01T{end}Z", "endBasis": "phaseWritten"}


def run(name: str = NAME, *, resources: dict[str, Any] | None = None, **status: Any) -> ReasoningFinetune:
    raw = stored_run(name=name, status=status)
    raw["spec"]["resources"] |= resources or {}
    return ReasoningFinetune.parse(raw)


class Scraped:
    """A registry with the collector alone."""

    def __init__(self, *runs: ReasoningFinetune) -> None:
        self.runs = list(runs)
        self.now = NOW
        self.registry = CollectorRegistry()
        self.nodes: list[NodeFacts] = []
        self.catalogue = PriceCatalogue()
        self.registry.register(
            RunCollector(
                resources=lambda: self.runs,
                nodes=lambda: self.nodes,
                catalogue=lambda: self.catalogue,
                now=lambda: self.now,
            )
        )

    def value(self, name: str, finetune: str = NAME, **labels: str) -> float | None:
        if "phase" in labels:
            labels = {"gpu_product": "", "capacity_type": "", **labels}
        return self.registry.get_sample_value(name, {"namespace": NAMESPACE, "finetune": finetune, **labels})


def test_money_and_time_are_the_sum_of_totals_closed_and_open_entries() -> None:
    ledger = {
        "totals": [
            {"stage": "train", "gpuSeconds": 110, "amount": str(100 * PRICE + 10 * 2 * PRICE)},
            {"stage": "evaluate", "gpuSeconds": 7, "amount": str(7 * PRICE)},
        ],
        "uncounted": [entry("a", start="00:00:00", end="00:00:30")],
        "open": [entry("b", gpus=2)],
    }
    it = Scraped(run(ledger=ledger))
    assert it.value("reasoning_finetune_gpu_seconds_total", phase="train") == 110 + 30 + 2 * (60 - SETTLED_SECONDS)
    assert it.value("reasoning_finetune_gpu_seconds_total", phase="evaluate") == 7
    assert it.value("reasoning_finetune_cost_usd_total", phase="train") == pytest.approx(0.250)
    assert it.value("reasoning_finetune_spent_usd") == pytest.approx(0.277)
    assert it.value("reasoning_finetune_cost_usd_total", phase="evaluate") == pytest.approx(0.007)


def test_open_entries_run_on_between_status_writes() -> None:
    it = Scraped(run(ledger={"open": [entry("b")]}))
    before = it.value("reasoning_finetune_gpu_seconds_total", phase="train")
    it.now += 15
    assert it.value("reasoning_finetune_gpu_seconds_total", phase="train") == (before or 0) + 15


def test_limit_stage_and_progress_are_shown() -> None:
    progress = {
        "stage": "train",
        "attempt": 1,
        "percent": 40,
        "display": "40%",
        "lastReportTime": "2026-01-01T00:00:00Z",
        "lastAdvanceTime": "2026-01-01T00:00:00Z",
    }
    it = Scraped(run(stage="Training", progress=progress))
    assert it.value("reasoning_finetune_budget_usd") == 10
    assert it.value("reasoning_finetune_stage", stage="Training") == 1
    assert it.value("reasoning_finetune_progress_ratio") == pytest.approx(0.4)


def test_series_of_a_deleted_run_vanish() -> None:
    it = Scraped(run(), run("other"))
    assert it.value("reasoning_finetune_budget_usd", "other") == 10
    it.runs.pop()
    assert it.value("reasoning_finetune_budget_usd", "other") is None
    assert it.value("reasoning_finetune_budget_usd") == 10


def test_new_run_has_a_limit_and_has_spent_nothing() -> None:
    text = generate_latest(Scraped(run()).registry).decode()
    values = {line.split("{")[0]: line.rsplit(" ")[-1] for line in text.splitlines() if not line.startswith("#")}
    assert values.pop("reasoning_finetune_budget_usd") == "10.0"
    assert "reasoning_finetune_spent_usd" in values
    assert set(values.values()) == {"0.0"}


def test_labels_never_carry_a_pod_or_a_uid() -> None:
    text = generate_latest(Scraped(run(ledger={"open": [entry("b")]})).registry).decode()
    for word in ("pod-b", 'uid="', "node-1"):
        assert word not in text


def test_registration_computes_nothing() -> None:
    def never() -> list[ReasoningFinetune]:
        raise AssertionError("asked for the runs")

    CollectorRegistry().register(RunCollector(resources=never, nodes=list, catalogue=PriceCatalogue, now=lambda: NOW))


def test_two_operators_fit_into_one_process() -> None:
    one, two = Metrics(), Metrics()
    one.status_writes.inc()
    assert two.registry.get_sample_value("rft_status_writes_total") == 0


def test_every_series_is_in_the_reference_and_nothing_else() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", page, flags=re.MULTILINE))
    metrics = Metrics()
    it = Scraped(run())
    teams = TeamCollector(BudgetCache(), now=lambda: NOW).collect()
    families = [*metrics.registry.collect(), *it.registry.collect(), *teams]
    exported = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert documented == exported


def test_page_of_the_series_names_their_labels() -> None:
    rows = metrics_reference.page().splitlines()
    (row,) = [each for each in rows if "`rft_api_requests_total`" in each]
    assert "`verb`, `kind`, `code`" in row
    (row,) = [each for each in rows if "`reasoning_finetune_idle_gpu_seconds_total`" in each]
    assert "| counter | `reason` |" in row


def test_charges_by_kind_add_up_to_the_bill_at_every_instant() -> None:
    it = Scraped(
        run(ledger={"uncounted": [entry("a", start="00:00:00", end="00:00:30")], "open": [entry("b", gpus=2)]})
    )
    for _ in range(3):
        it.now += 7
        charged = [it.value("reasoning_finetune_charged_usd", phase=stage) or 0 for stage in ("train", "evaluate")]
        assert sum(charged) == pytest.approx(it.value("reasoning_finetune_spent_usd"), abs=1e-6)
    assert it.value("reasoning_finetune_rate_usd_per_hour") == pytest.approx(2 * 3.6)


def test_waste_is_shown_in_dollars_by_reason() -> None:
    waste = [{"reason": "lostWork", "gpuSeconds": 10, "spentUSD": "0.010000"}]
    it = Scraped(run(usage={"waste": waste}))
    assert it.value("reasoning_finetune_waste_usd", reason="lost_work") == pytest.approx(0.01)


def reported(stage: str = "train", **metrics: str) -> dict[str, Any]:
    return {
        "stage": stage,
        "attempt": 1,
        "percent": 40,
        "display": "40%",
        "metrics": [{"name": name, "value": value} for name, value in metrics.items()],
        "lastReportTime": "2026-01-01T00:00:00Z",
        "lastAdvanceTime": "2026-01-01T00:00:00Z",
    }


def training(number: int = 1, **change: Any) -> dict[str, Any]:
    return {"stage": "train", "number": number, "startTime": "2026-01-01T00:00:00Z", **change}


def test_speed_and_loss_are_what_the_trainer_reported() -> None:
    progress = reported(loss="0.71", tokens_per_second="12345.6", epoch="1.5")
    it = Scraped(run(progress=progress, attempts=[training()]))
    assert it.value("reasoning_finetune_loss") == 0.71
    assert it.value("reasoning_finetune_tokens_per_second") == 12_345.6


ENDED: dict[str, Any] = {"endTime": "2026-01-01T00:30:00Z", "outcome": "Succeeded"}


@pytest.mark.parametrize(
    ("progress", "attempt"),
    [
        (reported("evaluate", loss="0.71"), training()),
        (reported(loss="much"), training()),
        (reported(), training()),
        (reported(loss="0.71"), training(2)),
        (reported(loss="0.71"), training(**ENDED)),
    ],
    ids=["of another stage", "no number", "nothing", "of the former attempt", "training is done"],
)
def test_loss_is_absent_when_none_was_reported_of_the_training_that_runs(
    progress: dict[str, Any], attempt: dict[str, Any]
) -> None:
    it = Scraped(run(progress=progress, attempts=[attempt]))
    assert it.value("reasoning_finetune_loss") is None
    assert it.value("reasoning_finetune_progress_ratio") == pytest.approx(0.4)


def test_steps_that_are_done_again_count_again() -> None:
    progress = {
        "stage": "train",
        "attempt": 2,
        "step": 430,
        "percent": 43,
        "display": "43%",
        "lastReportTime": "2026-01-01T00:50:00Z",
        "lastAdvanceTime": "2026-01-01T00:50:00Z",
    }
    lost = {"stage": "train", "number": 1, "startTime": "2026-01-01T00:00:00Z", "endTime": "2026-01-01T00:30:00Z"}
    goes_on = {"stage": "train", "number": 2, "startTime": "2026-01-01T00:31:00Z", "startStep": 400}
    it = Scraped(run(attempts=[{**lost, "endStep": 500}, goes_on]))
    assert it.value("reasoning_finetune_train_steps_total") == 500
    it.runs = [run(attempts=[{**lost, "endStep": 500}, goes_on], progress=progress)]
    assert it.value("reasoning_finetune_train_steps_total") == 530
    it.runs = [run(attempts=[goes_on], progress=progress)]
    assert it.value("reasoning_finetune_train_steps_total") == 430


def test_steps_count_once_when_the_attempt_that_did_the_last_ones_reported_nothing() -> None:
    shown = {"percent": 100, "display": "100%", "step": 50, "totalSteps": 50}
    times = {"lastReportTime": "2026-01-01T00:10:00Z", "lastAdvanceTime": "2026-01-01T00:10:00Z"}
    broke = {"number": 1, "startTime": "2026-01-01T00:00:00Z", "endTime": "2026-01-01T00:30:00Z", "endStep": 20}
    done = {"number": 2, "startTime": "2026-01-01T00:31:00Z", "endTime": "2026-01-01T00:40:00Z", "endStep": 50}
    attempts = [{"stage": "train", **broke}, {"stage": "train", "startStep": 20, **done}]
    it = Scraped(run(attempts=attempts, progress={"stage": "train", "attempt": 1, **shown, **times}))
    assert it.value("reasoning_finetune_train_steps_total") == 50


def test_time_of_the_newest_checkpoint_is_shown() -> None:
    it = Scraped(run(checkpoint={"step": 20, "time": "2026-01-01T00:30:00Z"}))
    assert it.value("reasoning_finetune_checkpoint_timestamp_seconds") == epoch("2026-01-01T00:30:00Z")


def test_pool_counts_the_gpus_of_all_nodes_by_kind_and_names_no_node() -> None:
    it = Scraped(run(resources={"gpuResource": "amd.com/gpu"}))
    h100 = {"nvidia.com/gpu.product": "H100", "karpenter.sh/capacity-type": "spot"}
    it.nodes = [
        NodeFacts(name="a", labels=h100, gpus={"nvidia.com/gpu": 8, "hugepages/x": 3}, ready=True),
        NodeFacts(name="b", labels=h100, gpus={"nvidia.com/gpu": 8}, ready=False),
        NodeFacts(name="c", labels={}, gpus={"amd.com/gpu": 4}, ready=True),
        NodeFacts(name="d", labels={}, gpus={}, ready=True),
    ]
    text = generate_latest(it.registry).decode()
    sizes = {line for line in text.splitlines() if line.startswith("reasoning_finetune_pool_gpus{")}
    assert sizes == {
        'reasoning_finetune_pool_gpus{capacity_type="spot",gpu_product="H100"} 16.0',
        'reasoning_finetune_pool_gpus{capacity_type="",gpu_product=""} 4.0',
    }


def team_sample(found: TeamCollector, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(found)
    wanted = {"namespace": NAMESPACE, "budget": "team", **labels}
    return registry.get_sample_value(f"reasoning_finetune_team_{name}", wanted)


def team(now: int = NOW, shown: bool = True, **spec: Any) -> TeamCollector:
    raw = team_budget(limitUSD=100, **spec)
    raw["metadata"] |= {"uid": "u", "resourceVersion": "1"}
    reservation = {"uid": "r", "name": NAME, "reservedMicroUSD": 30_000_000, "spentMicroUSD": 10_000_000}
    raw["status"] = {
        "windowStart": "2026-01-01T00:00:00Z",
        "reservedUSD": "20.000000",
        "spentUSD": "10.000000",
        "reservations": [reservation],
    }
    cache = BudgetCache()
    cache.put(raw)
    return TeamCollector(cache, now=lambda: now, shown=lambda: shown)


def test_team_shows_what_each_run_may_still_spend_and_when_its_window_ends() -> None:
    found = team(window="day")
    assert team_sample(found, "budget_usd") == 100
    assert team_sample(found, "reservation_usd", finetune=NAME) == 20
    assert team_sample(found, "window_start_timestamp_seconds") == epoch("2026-01-01T00:00:00Z")
    assert team_sample(found, "window_end_timestamp_seconds") == epoch("2026-01-02T00:00:00Z")


def test_team_budget_without_windows_has_no_end() -> None:
    assert team_sample(team(), "window_end_timestamp_seconds") is None


def test_standby_shows_no_team() -> None:
    assert team_sample(team(shown=False), "budget_usd") is None


def test_gpus_are_shown_by_product_and_a_counter_does_not_step_back_when_a_pod_has_just_ended() -> None:
    it = Scraped(run(ledger={"open": [entry("b", gpus=8)]}))
    it.nodes = [NodeFacts(name="node-1", labels={"nvidia.com/gpu.product": "H100"}, gpus={}, ready=True)]
    held = it.value("reasoning_finetune_gpus_allocated", gpu_product="H100", capacity_type="")
    assert held == 8
    before = it.value("reasoning_finetune_gpu_seconds_total", phase="train") or 0
    it.runs = [run(ledger={"uncounted": [entry("b", gpus=8, end="00:59:55")]})]
    it.now += 1
    assert (it.value("reasoning_finetune_gpu_seconds_total", phase="train") or 0) >= before


def test_gpus_are_held_as_the_kind_that_they_are_charged_as_when_their_node_is_gone() -> None:
    it = Scraped(run(ledger={"open": [{**entry("b", gpus=8), "gpuProduct": "H100", "capacityType": "spot"}]}))
    kind = {"gpu_product": "H100", "capacity_type": "spot"}
    assert it.value("reasoning_finetune_gpus_allocated", **kind) == 8
    assert (it.value("reasoning_finetune_charged_usd", phase="train", **kind) or 0) > 0


def test_age_of_a_price_and_what_is_kept_back_are_shown() -> None:
    status: dict[str, Any] = {
        "cost": {"reserveUSD": "3.00", "forecastUSD": "9.50", "usdPerGpuHour": "3.60", "priceSource": "spec"},
        "attempts": [
            {"stage": "train", "number": 1, "startTime": "2026-01-01T00:58:00Z", "gpus": 2, "graceSeconds": 300}
            | {"deadlineSeconds": 3_000}
        ],
        "ledger": {"open": [entry("b", gpus=2)]},
    }
    it = Scraped(run(**status))
    it.catalogue, _ = PriceCatalogue.parse(
        "version: 1\nprices: [{name: a, match: {zone: z}, usdPerHour: 3, asOf: 2026-01-01}]"
    )
    assert it.value("reasoning_finetune_reserved_usd", purpose="evaluation") == 3
    assert it.value("reasoning_finetune_reserved_usd", purpose="checkpoint") == pytest.approx(2 * 3.6 * 300 / 3_600)
    assert it.value("reasoning_finetune_forecast_usd") == 9.5
    assert it.value("reasoning_finetune_stop_timestamp_seconds", kind="hard") == epoch("2026-01-01T00:59:00Z") + 3_000
    asof = it.registry.get_sample_value("reasoning_finetune_price_asof_timestamp_seconds", {"source": "a"})
    assert asof == epoch("2026-01-01T00:00:00Z")


def test_age_of_a_price_is_not_shown_when_a_later_entry_has_replaced_it() -> None:
    it = Scraped(run())
    rows = [
        "{name: old, match: {zone: z}, usdPerHour: 3, asOf: 2025-01-01}",
        "{name: held, match: {zone: z}, usdPerHour: 4, asOf: 2025-12-01, effectiveFrom: 2025-12-01T00:00:00Z}",
        "{name: announced, match: {zone: z}, usdPerHour: 5, asOf: 2025-12-31, effectiveFrom: 2026-06-01T00:00:00Z}",
    ]
    it.catalogue, problems = PriceCatalogue.parse(f"version: 1\nprices: [{', '.join(rows)}]")
    assert not problems
    shown = {
        name: it.registry.get_sample_value("reasoning_finetune_price_asof_timestamp_seconds", {"source": name})
        for name in ("old", "held", "announced")
    }
    assert shown == {"old": None, "held": epoch("2025-12-01T00:00:00Z"), "announced": epoch("2025-12-31T00:00:00Z")}


def test_stop_for_the_budget_is_no_stage_that_reached_its_own_deadline() -> None:
    def attempt(stage: str, number: int, reason: str) -> dict[str, Any]:
        times = {"startTime": "2026-01-01T00:00:00Z", "endTime": "2026-01-01T00:10:00Z"}
        return {"stage": stage, "number": number, "reason": reason, **times}

    it = Scraped(
        run(
            attempts=[
                attempt("train", 1, "DeadlineExceeded"),
                attempt("train", 2, "BudgetExhausted"),
                attempt("evaluate", 1, "DeadlineExceeded"),
                attempt("evaluate", 2, "BudgetExhausted"),
                attempt("score", 1, "DeadlineExceeded"),
            ]
        )
    )
    stops = {
        kind: it.value("reasoning_finetune_budget_stops_total", kind=kind) for kind in ("soft", "hard", "deadline")
    }
    assert stops == {"soft": 1, "hard": 1, "deadline": 1}


def test_nothing_is_kept_for_an_evaluation_when_the_run_is_over() -> None:
    at = "2026-01-01T00:59:00Z"
    ended = {"type": "Failed", "status": "True", "reason": "BudgetExhausted", "message": "", "lastTransitionTime": at}
    it = Scraped(run(cost={"reserveUSD": "3.00"}, conditions=[ended]))
    assert it.value("reasoning_finetune_reserved_usd", purpose="evaluation") == 0


def test_hard_stop_is_that_of_the_running_gang_beside_a_lost_pod_of_a_former_one() -> None:
    attempts = [
        {"stage": "train", "number": 1, "startTime": "2026-01-01T00:10:00Z", "endTime": "2026-01-01T00:40:00Z"},
        {"stage": "train", "number": 2, "startTime": "2026-01-01T00:41:00Z", "deadlineSeconds": 3_000},
    ]
    lost, running = entry("lost", start="00:10:30"), {**entry("b", start="00:42:00"), "attempt": 2}
    it = Scraped(run(attempts=attempts, ledger={"open": [lost, running]}))
    assert it.value("reasoning_finetune_stop_timestamp_seconds", kind="hard") == epoch("2026-01-01T00:42:00Z") + 3_000
