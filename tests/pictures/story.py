"""An afternoon of two teams, told in minutes: what Prometheus would have scraped, as OpenMetrics text.

One run is in its second attempt, one is done, one waits for its team's money, one has just begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from pictures.clusters import Machine, Recipe, Team
from rft_operator.domain.timestamps import epoch
from rft_operator.run_metrics import RunCollector
from rft_operator.runtime.budget_cache import BudgetCache
from rft_operator.team_metrics import TeamCollector
from rft_trainer.contract import Stage

START = epoch("2026-01-01T08:00:00Z")
MINUTES = 358
SCRAPE_SECONDS = 30
TARGET = {"job": "rft-system/rft-operator", "instance": "10.0.0.7:8080"}
SKY = Recipe(total_steps=650, step_seconds=36, tokens_per_second=21_500, loss_at_start=0.93, loss_at_end=0.48)
S1 = Recipe(total_steps=315, step_seconds=7, tokens_per_second=54_000, loss_at_start=0.72, loss_at_end=0.14)
LORA = Recipe(total_steps=900, step_seconds=9, tokens_per_second=33_000, loss_at_start=0.88, loss_at_end=0.55)

Act = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens at a minute."""

    minute: float
    act: Act


def spec(*, nodes: int, limit_usd: int, benchmarks: tuple[str, ...], capacity_type: str) -> dict[str, Any]:
    """Return what differs from the spec that all tests share."""
    rows = [{"name": name, "uri": f"gym://{name}", "limit": 200, "maxTokens": 4_096} for name in benchmarks]
    return {
        "resources": {"nodes": nodes, "gpusPerNode": 8},
        "scheduling": {"nodeSelector": {"karpenter.sh/capacity-type": capacity_type}},
        "training": {"globalBatchSize": 96, "microBatchSize": 1},
        "budget": {"limitUSD": limit_usd, "usdPerGpuHour": None},
        "checkpoint": {"graceSeconds": 300},
        "evaluation": {"gpus": 1, "maxSeconds": 2_400, "benchmarks": rows},
    }


def teams() -> tuple[Team, Team]:
    """Return both teams with their machines and budgets."""
    owned = [Machine(name=f"od-{number}", capacity_type="on-demand") for number in (1, 2)]
    spot = [Machine(name=f"spot-{number}", capacity_type="spot") for number in (1, 2, 3)]
    return (
        Team("reasoning", machines=owned, limit_usd=400, start=START),
        Team("code", machines=spot, limit_usd=120, start=START),
    )


def stage(team: Team, run: str, stage: Stage, nodes: list[str], *, minute: float, pull: float) -> list[Event]:
    """Return the events of pods that are bound and whose containers start after a pull."""
    return [
        Event(minute, lambda: team.bind_pods(run, stage, nodes)),
        Event(minute + pull, lambda: team.start_pods(run, stage)),
    ]


def script(reasoning: Team, code: Team) -> list[Event]:
    """Return what happens, in order of minutes."""
    sky, s1, lora = "sky-t1-32b", "s1-32b", "qwen-7b-lora"
    train, prepare, evaluate = Stage.TRAIN, Stage.PREPARE, Stage.EVALUATE
    big = spec(nodes=1, limit_usd=190, benchmarks=("math500", "gpqa-diamond"), capacity_type="on-demand")
    wide = spec(nodes=2, limit_usd=60, benchmarks=("aime24", "math500", "gpqa-diamond"), capacity_type="spot")
    small = spec(nodes=1, limit_usd=40, benchmarks=("math500",), capacity_type="spot")
    dear = spec(nodes=2, limit_usd=90, benchmarks=("math500",), capacity_type="spot")
    return [
        Event(4, lambda: reasoning.submit(sky, **big)),
        *stage(reasoning, sky, prepare, ["od-1"], minute=5, pull=1),
        Event(17, lambda: reasoning.at(sky).complete(prepare)),
        *stage(reasoning, sky, train, ["od-1"], minute=18, pull=5),
        Event(26, lambda: reasoning.train(sky, SKY)),
        Event(139, lambda: reasoning.crash(sky)),
        Event(140.5, lambda: reasoning.bind_pods(sky, train, ["od-2"], attempt=2)),
        Event(145, lambda: reasoning.start_pods(sky, train, attempt=2)),
        Event(149, lambda: reasoning.train(sky, SKY, attempt=2)),
        Event(30, lambda: code.submit(s1, **wide)),
        *stage(code, s1, prepare, ["spot-1"], minute=31, pull=1),
        Event(39, lambda: code.at(s1).complete(prepare)),
        Event(40, lambda: code.bind_pods(s1, train, ["spot-1", "spot-2"])),
        Event(44, lambda: code.start_pods(s1, train)),
        Event(47, lambda: code.train(s1, S1)),
        Event(84, lambda: code.end_training(s1)),
        *stage(code, s1, evaluate, ["spot-1"], minute=85, pull=2),
        Event(
            112,
            lambda: code.end_evaluation(
                s1, {"aime24": (0.267, 0.500), "math500": (0.840, 0.926), "gpqa-diamond": (0.490, 0.566)}
            ),
        ),
        Event(150, lambda: code.submit(lora, **small)),
        *stage(code, lora, prepare, ["spot-3"], minute=151, pull=1),
        Event(160, lambda: code.at(lora).complete(prepare)),
        *stage(code, lora, train, ["spot-3"], minute=161, pull=3),
        Event(166, lambda: code.train(lora, LORA)),
        Event(301, lambda: code.end_training(lora)),
        *stage(code, lora, evaluate, ["spot-3"], minute=302, pull=2),
        Event(325, lambda: code.end_evaluation(lora, {"math500": (0.742, 0.801)})),
        Event(330, lambda: code.submit("s1-7b", **small)),
        *stage(code, "s1-7b", prepare, ["spot-2"], minute=331, pull=1),
        Event(338, lambda: code.at("s1-7b").complete(prepare)),
        *stage(code, "s1-7b", train, ["spot-2"], minute=339, pull=3),
        Event(344, lambda: code.train("s1-7b", LORA)),
        Event(350, lambda: code.submit("s1-14b", **dear)),
    ]


def registry(reasoning: Team, code: Team) -> CollectorRegistry:
    """Return the operator's own collectors over both teams."""
    made = CollectorRegistry()
    both = (reasoning, code)
    made.register(
        RunCollector(
            resources=lambda: [run for team in both for run in team.runs()],
            nodes=lambda: [node for team in both for node in team.nodes()],
            catalogue=lambda: reasoning.catalogue,
            now=lambda: reasoning.now,
        )
    )
    return made


def team_registry(reasoning: Team, code: Team) -> CollectorRegistry:
    """Return the collector of the budgets as they are now."""
    budgets, made = BudgetCache(), CollectorRegistry()
    for team in (reasoning, code):
        budgets.put(team.raw_budget())
    made.register(TeamCollector(budgets, now=lambda: reasoning.now))
    return made


def exposition(found: CollectorRegistry, *, at: int) -> Iterator[str]:
    """Yield the samples of a scrape with their time; one replica leads."""
    for family in found.collect():
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            labels = ",".join(f'{name}="{value}"' for name, value in {**sample.labels, **TARGET}.items() if value)
            yield f"{sample.name}{{{labels}}} {sample.value} {at}"


async def tell(file: Path) -> int:
    """Write all scrapes of the story into a file; return the second of the last one."""
    reasoning, code = teams()
    runs = registry(reasoning, code)
    events = sorted(script(reasoning, code), key=lambda event: event.minute)
    leader = ",".join(f'{name}="{value}"' for name, value in TARGET.items())
    with file.open("w", encoding="utf-8") as out:
        for at in range(START, START + MINUTES * 60 + 1, SCRAPE_SECONDS):
            reasoning.now = code.now = at
            while events and START + events[0].minute * 60 <= at:
                events.pop(0).act()
                await _settle(reasoning, code, at)
            for team in (reasoning, code):
                team.report_all()
            await _settle(reasoning, code, at)
            lines = [*exposition(runs, at=at), *exposition(team_registry(reasoning, code), at=at)]
            out.writelines(f"{line}\n" for line in (*lines, f"rft_leader{{{leader}}} 1 {at}"))
        out.write("# EOF\n")
    return START + MINUTES * 60


async def _settle(reasoning: Team, code: Team, at: int) -> None:
    for team in (reasoning, code):
        team.now = at
        await team.settle()
        team.now = at
