"""The dashboards on a real Prometheus that scrapes a running operator: no panel is empty, and money is the ledger's.

One run is done, another one trains. Prometheus scrapes each second and takes the runs' own labels, as the chart's
PodMonitor does.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import client

from rft_operator.api.status import ConditionType, Status
from rft_operator.domain.money import MICRO
from rft_operator.domain.timestamps import epoch
from rft_operator.run_metrics import IDLE
from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import Stage
from support.dashboards import Target, dashboards, targets
from support.helm import CHART
from support.kubelet import PATCH, Kubelet, Pod
from support.live_run import LiveRun
from support.operator_thread import OperatorThread, Settings, operating
from support.polling import eventually
from support.prometheus import Prometheus, Series, configuration, promtool, serving
from support.reporter import Reporter
from support.team import team_budget

SCRAPE_SECONDS = 1
RATE_INTERVAL = "30s"
MICRO_USD_PER_GPU_HOUR = 3_600_000
DONE, LIVE = "done", "live"
PRICES = """\
version: 1
prices:
- {name: local, match: {instanceType: rft-local}, usdPerHour: "3.60", source: made up, asOf: "2026-01-01"}
"""
OF_A_DONE_RUN = {"Score"}
"""Panels that a run fills only after its training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A cluster with both runs, and what watches it."""

    prometheus: Prometheus
    operator: OperatorThread
    namespace: str
    done: LiveRun
    live: LiveRun
    kubelet: Kubelet

    def run_of(self, target: Target) -> str:
        return DONE if target.panel in OF_A_DONE_RUN else LIVE

    def filled(self, target: Target, *, run: str | None = None) -> str:
        return target.filled(
            rate_interval=RATE_INTERVAL,
            job="rft-operator",
            instance=".+",
            budget=".+",
            namespace=self.namespace,
            finetune=run or self.run_of(target),
        )

    async def panel(self, board: str, panel: str, *, run: str | None = None) -> list[list[Series]]:
        """Return the answers to a panel's queries; a scrape that fails on a busy machine leaves none for a moment."""
        found = [each for each in targets(*dashboards()) if (each.board, each.panel) == (board, panel)]

        async def look() -> list[list[Series]] | None:
            answers = [await self.prometheus.query(self.filled(each, run=run)) for each in found]
            return answers if answers[0] else None  # columns of what runs are empty when nothing does

        return await eventually(look, what=f"{board}, {panel}: an answer", every_seconds=0.25)

    async def one(self, board: str, panel: str, *, run: str | None = None) -> float:
        """Return the only value of a panel."""
        ((only,),) = await self.panel(board, panel, run=run)
        return only.value


async def report(reporter: Reporter, token: str, *, step: int) -> None:
    metrics = {"step": step, "total_steps": 50, "loss": 1.25, "tokens_per_second": 800.5, "checkpoint_step": 10}
    status = {
        "lastUpdatedTime": "2026-01-01T00:00:00Z",
        "progressPercentage": 2 * step,
        "estimatedRemainingSeconds": 600,
        "metrics": [{"name": name, "value": str(value)} for name, value in metrics.items()],
    }
    assert await reporter.post(token, {"trainerStatus": status}) == (200, "")


async def label_nodes(core: client.CoreV1Api, kubelet: Kubelet) -> None:
    for index, name in enumerate(kubelet.nodes):
        labels = {"nvidia.com/gpu.product": "H100", "karpenter.sh/capacity-type": ("spot", "on-demand")[index % 2]}
        await core.patch_node(name, {"metadata": {"labels": labels}}, _content_type=PATCH)


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    """A catalogue whose one price has a date."""
    file = tmp_path / "prices.yaml"
    file.write_text(PRICES, encoding="utf-8")
    return file


@pytest.fixture
async def observed(
    settings: Settings,
    kubelet: Kubelet,
    kube: KubeClient,
    core: client.CoreV1Api,
    namespace: str,
    tmp_path: Path,
) -> AsyncIterator[Observed]:
    """One run complete, one in training that has reported twice, and a Prometheus that has seen both reports."""
    await label_nodes(core, kubelet)
    done, live = LiveRun(kube, namespace, DONE), LiveRun(kube, namespace, LIVE)
    config = settings(progress_write_seconds=1)
    scrape = configuration(
        targets=[f"127.0.0.1:{config.metrics_port}"],
        rules=[CHART / "files" / "rules.yaml"],
        every_seconds=SCRAPE_SECONDS,
    )
    async with operating(config) as operator, serving(tmp_path, scrape) as prometheus:
        await kube.create(team_budget(namespace=namespace, limitUSD=50, window="month"))
        for each in (done, live):
            await each.apply(budget={"usdPerGpuHour": None})
        await kubelet.work(Stage.PREPARE, run=DONE)
        await kubelet.hold(await kubelet.bound(Stage.TRAIN, run=DONE))  # time that the image is pulled in
        await kubelet.work(Stage.TRAIN, Stage.EVALUATE, run=DONE, seconds=2)
        await kubelet.work(Stage.PREPARE, run=LIVE)
        await kubelet.hold(await kubelet.bound(Stage.TRAIN, run=LIVE))
        rank_0, _ = await kubelet.start(Stage.TRAIN, run=LIVE)
        reporter = await Reporter.of(rank_0, kube=kube, core=core)
        token = await reporter.token()
        for step in (10, 20):
            await report(reporter, token, step=step)
            await scraped(prometheus, f'reasoning_finetune_train_steps_total{{finetune="{LIVE}"}} == {step}')
        await done.until_condition(ConditionType.COMPLETE)
        yield Observed(
            prometheus=prometheus, operator=operator, namespace=namespace, done=done, live=live, kubelet=kubelet
        )


async def scraped(prometheus: Prometheus, expr: str) -> None:
    """Wait until Prometheus has scraped twice what makes an expression true."""

    async def look() -> bool:
        name = expr.partition(" == ")[0]
        counted = await prometheus.query(f"count_over_time({name}[1m])")
        return bool(await prometheus.query(expr)) and bool(counted) and counted[0].value >= 2

    await eventually(look, what=f"Prometheus to see {expr}", every_seconds=0.25)


def legends(target: Target) -> set[str]:
    return set(re.findall(r"{{\s*(\w+)\s*}}", target.legend))


async def no_panel_is_empty(observed: Observed) -> None:
    """Fail with the names of the panels that show nothing, or series that their legends cannot name."""
    wanted = {str(target): target for target in targets(*dashboards())}

    async def look() -> bool:
        for words, target in list(wanted.items()):
            found = await observed.prometheus.query(observed.filled(target))
            if found and all(legends(target) <= each.labels.keys() for each in found):
                del wanted[words]
        return not wanted

    try:
        await eventually(look, what="every panel to show something", every_seconds=0.5)
    except AssertionError as error:
        error.add_note("\n".join(["empty, or without the labels of the legend:", *wanted]))
        raise


async def variables_offer_both_runs(observed: Observed) -> None:
    """Ask for the variables' values as Grafana does."""
    matching = f'reasoning_finetune_budget_usd{{job=~".+", namespace="{observed.namespace}"}}'
    for board in dashboards():
        for variable in board["templating"]["list"][1:]:
            series = re.fullmatch(r"label_values\((\w+).*, (\w+)\)", variable["query"])
            assert series is not None
            name, label = series.groups()
            values = await observed.prometheus.api(f"label/{label}/values", **{"match[]": name})
            assert values, f"{board['uid']}: {variable['query']}"
    runs = await observed.prometheus.api("label/finetune/values", **{"match[]": matching})
    assert runs == [DONE, LIVE]


def charged_micro_usd(pods: Sequence[Pod]) -> int:
    """Return what pods cost, from their own timestamps alone."""
    gpu_seconds = 0
    for pod in pods:
        (bound,) = [each for each in pod["status"]["conditions"] if each["type"] == "PodScheduled"]
        ends = [
            each["time"]
            for each in pod["metadata"]["managedFields"]
            if "f:phase" in each["fieldsV1"].get("f:status", {})
        ]
        gpu_seconds += max(epoch(each) for each in ends) - epoch(bound["lastTransitionTime"])
    return gpu_seconds * MICRO_USD_PER_GPU_HOUR // 3_600


def dollars(micro_usd: int) -> Any:
    return pytest.approx(micro_usd / MICRO, abs=1e-6)


async def panels_of_a_run_are_its_ledger(observed: Observed, run: LiveRun, status: Status) -> None:
    """Compare the dashboard of a run that is over with its pods and its status."""
    stages = {stage: await observed.kubelet.pods(stage, run=run.name) for stage in (Stage.TRAIN, Stage.EVALUATE)}
    bills = {stage.value: charged_micro_usd(pods) for stage, pods in stages.items()}
    spent = sum(bills.values())
    assert spent == status.cost.spent_micro_usd > 0
    assert await observed.one("rft-run", "Spent", run=run.name) == dollars(spent)
    assert await observed.one("rft-run", "Remaining", run=run.name) == dollars(10 * MICRO - spent)
    assert await observed.one("rft-run", "Limit", run=run.name) == 10
    assert await observed.one("rft-run", "Reserve", run=run.name) == 0
    assert await observed.one("rft-run", "Cost per hour", run=run.name) == 0
    (by_stage,) = await observed.panel("rft-run", "Cost by stage", run=run.name)
    assert {each.labels["phase"]: each.value for each in by_stage} == {
        stage: dollars(bill) for stage, bill in bills.items()
    }
    (waste,) = await observed.panel("rft-run", "Waste by reason", run=run.name)
    assert {each.labels["reason"]: f"{each.value:.6f}" for each in waste} == {
        IDLE[each.reason]: each.spent_usd for each in status.usage.waste
    }
    assert any(each.value > 0 for each in waste)


async def panels_of_the_team_are_the_sum(observed: Observed, bills: dict[str, int]) -> None:
    """Compare the dashboard of the team with the bills of its runs."""
    total = dollars(sum(bills.values()))
    assert await observed.one("rft-team", "Spent by the runs that exist") == total
    assert await observed.one("rft-team", "Cost per hour") == 0
    assert await observed.one("rft-team", "GPUs held") == 0
    ((by_namespace,),) = await observed.panel("rft-team", "Spend by namespace")
    assert by_namespace.value == total
    (by_capacity,) = await observed.panel("rft-team", "Spot and on-demand")
    assert sum(each.value for each in by_capacity) == total
    assert {each.labels["capacity_type"] for each in by_capacity} <= {"spot", "on-demand"}
    table = await observed.panel("rft-team", "Runs")
    assert {each.labels["finetune"]: each.value for each in table[0]} == {
        name: dollars(bill) for name, bill in bills.items()
    }
    spent, promised, free, limit = await observed.panel("rft-team", "Reservations")
    assert (spent[0].value, promised[0].value) == (total, 0)
    assert free[0].value == dollars(50 * MICRO - sum(bills.values()))
    assert limit[0].value == 50


async def both_are_settled(observed: Observed) -> dict[str, Status]:
    """End the run that trains; wait until both bills are closed, written, booked with the team, and scraped."""
    await observed.kubelet.complete(Stage.TRAIN, run=LIVE)
    await observed.kubelet.work(Stage.EVALUATE, run=LIVE, seconds=1)
    final = {}
    for run in (observed.done, observed.live):
        await run.until_condition(ConditionType.COMPLETE)
        final[run.name] = await run.until(
            lambda status: not (status.ledger.open or status.ledger.uncounted), what="the last bill"
        )
    total = sum(status.cost.spent_micro_usd for status in final.values()) / MICRO

    async def booked() -> bool:
        spent = await observed.prometheus.query("sum(reasoning_finetune_team_spent_usd)")
        left = await observed.prometheus.query("sum(reasoning_finetune_team_reserved_usd)")
        held = await observed.prometheus.query("sum(reasoning_finetune_rate_usd_per_hour)")
        if not (spent and left and held):
            return False
        return abs(spent[0].value - total) < 1e-9 and left[0].value == held[0].value == 0

    await eventually(booked, what="the bills to be booked and scraped", every_seconds=0.25)
    return final


@pytest.mark.parametrize("kubelet", [4], indirect=True)
async def test_dashboards_show_what_the_ledger_says_when_prometheus_scrapes_the_operator(observed: Observed) -> None:
    """One story for all panels: to tell it twice would double its price."""
    await no_panel_is_empty(observed)
    await variables_offer_both_runs(observed)
    rules = (await observed.prometheus.api("rules"))["groups"]
    assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}
    checked = promtool("check", "metrics", words=(await observed.operator.get("/metrics"))[1])
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    final = await both_are_settled(observed)
    for run in (observed.done, observed.live):
        await panels_of_a_run_are_its_ledger(observed, run, final[run.name])
    await panels_of_the_team_are_the_sum(
        observed, {name: status.cost.spent_micro_usd for name, status in final.items()}
    )
    recorded = await observed.prometheus.query("namespace:reasoning_finetune_spent_usd:sum")
    assert len(recorded) == 1


def test_bill_of_pods_is_gpus_times_seconds() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    pod = {
        "status": {"conditions": [{"type": "PodScheduled", "lastTransitionTime": moment.strftime("%FT%TZ")}]},
        "metadata": {"managedFields": [{"time": "2026-01-01T00:00:30Z", "fieldsV1": {"f:status": {"f:phase": {}}}}]},
    }
    assert charged_micro_usd([pod, pod]) == 2 * 30 * 1_000
