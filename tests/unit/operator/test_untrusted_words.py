"""What pods say is theirs to say, not ours to believe: no word of theirs may stop the operator or spoil a status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rft_operator.domain.facts import Report
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_operator.run_metrics import RunCollector
from rft_trainer.contract import Stage
from support.builders import NAMESPACE
from support.stage import World


def reported(world: World, **metrics: str) -> None:
    world.cache.put_report(
        world.key,
        Report(
            stage=Stage.TRAIN,
            attempt=1,
            received_at=world.now,
            percent=10,
            eta_seconds=1,
            metrics=tuple(metrics.items()),
        ),
    )


@pytest.mark.parametrize("words", ["1e300", "inf", "-inf", "nan", "-5", "99999999999", "many", ""])
async def test_senseless_step_is_left_out_of_status(words: str) -> None:
    world = World()
    await world.to_training()
    reported(world, step=words, total_steps=words, loss="1.5")
    await world.after(5)
    progress = world.status.progress
    assert (progress.step, progress.total_steps, progress.percent) == (None, None, 10)


@pytest.mark.parametrize("words", ["1e300", "inf", "nan", "-5", "99999999999", "many"])
async def test_senseless_checkpoint_is_left_out_of_status(words: str) -> None:
    world = World()
    await world.to_training()
    reported(world, step="5", checkpoint_step=words, checkpoint_seconds="1")
    await world.after(5)
    assert world.status.checkpoint is None
    reported(world, step="6", checkpoint_step="6", checkpoint_seconds=words, checkpoint_time=words)
    await world.after(61)
    checkpoint: Any = world.status.checkpoint
    assert (checkpoint.step, checkpoint.save_seconds) == (6, None)


def train(**fields: Any) -> dict[str, Any]:
    return {"stage": "train", "train": {"step": 50, "total_steps": 50, "tokens": 1, **fields}}


@pytest.mark.parametrize(
    "said",
    [
        train(step=10**12),
        train(step=-1),
        train(checkpoint_step=10**12),
        train(checkpoint_path="x" * 1_025),
        train(checkpoint_step=1, checkpoint_seconds=1e300),
        {"stage": "train", "surprise": 1},
    ],
    ids=lambda said: json.dumps(said)[:60],
)
async def test_result_outside_of_its_bounds_is_no_result(said: dict[str, Any]) -> None:
    world = World()
    await world.to_training()
    message = json.dumps({"version": 1, "outcome": "completed", **said})
    for pod in world.pods(Stage.TRAIN):
        world.set_status(pod, phase="Succeeded", exit_code=0, message=message, reason="Completed")
    await world.settle()
    assert world.condition("Trained").status != "True"
    assert world.status.attempts[1].outcome == "Failed"
    assert world.status.checkpoint is None


@pytest.mark.parametrize(
    "field",
    [{"value": 1.5}, {"value": -0.1}, {"stderr": 1e300}, {"questions": 10**12}, {"benchmark": "b" * 41}],
    ids=str,
)
async def test_score_outside_of_its_bounds_is_no_score(field: dict[str, Any]) -> None:
    world = World()
    await world.to_training()
    await world.to_evaluation()
    score = {"benchmark": "sums", "metric": "accuracy", "value": 0.5, "stderr": 0.1, "questions": 1, "samples": 1}
    message = json.dumps({"stage": "evaluate", "outcome": "completed", "evaluate": {"scores": [{**score, **field}]}})
    (pod,) = world.pods(Stage.EVALUATE)
    world.set_status(pod, phase="Succeeded", exit_code=0, message=message, reason="Completed")
    await world.settle()
    assert world.condition("Evaluated").status != "True"
    assert world.condition("Complete").status != "True"
    assert world.status.evaluation is None


async def test_pod_with_a_senseless_rank_does_not_stop_the_run() -> None:
    world = World()
    await world.to_training()
    name = world.pods(Stage.TRAIN)[0]["metadata"]["name"]
    world.kube.patch(
        "Pod",
        NAMESPACE,
        name,
        lambda obj: obj["metadata"]["labels"].update({"batch.kubernetes.io/job-completion-index": "x"}),
    )
    await world.after(5)
    assert world.status.pods.running == 2


async def test_absurd_time_to_go_spoils_neither_the_run_nor_its_end_nor_the_scrape() -> None:
    world = World(budget={"usdPerGpuHour": "900", "limitUSD": 100_000})
    await world.to_training()
    world.report(step=5, eta_seconds=2_147_483_647)
    await world.after(61)
    assert float(world.status.cost.forecast_usd) > 100_000
    await world.after(61)
    collector = RunCollector(
        resources=lambda: [world.run], nodes=list, catalogue=lambda: world.catalogue, now=lambda: world.now
    )
    assert any(family.name == "reasoning_finetune_forecast_usd" and family.samples for family in collector.collect())
    world.kube.remove("ReasoningFinetune", NAMESPACE, world.key.name)
    await world.reconciler.reconcile(world.key)
    assert world.job_gone(Stage.TRAIN)


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1970-01-01T00:00:00+00:00"])
async def test_checkpoint_of_a_clock_that_never_ran_is_of_the_report(when: str) -> None:
    world = World()
    await world.to_training()
    reported(world, step="6", checkpoint_step="6", checkpoint_seconds="1", checkpoint_time=when)
    at = world.now
    await world.after(5)
    assert world.status.checkpoint.time == rfc3339(at)
    world.finish_pods(Stage.TRAIN, exit_code=1)
    await world.after(5)
    assert world.status.attempts[1].outcome == "Failed"


async def test_numbers_of_a_pod_beyond_all_bounds_do_not_wedge_the_run() -> None:
    world = World()
    await world.to_training()
    (first, second) = world.pods(Stage.TRAIN)
    world.set_status(first, phase="Failed", exit_code=3_221_225_786, reason="Error")

    def greedy(obj: dict[str, Any]) -> None:
        obj["metadata"]["uid"], obj["metadata"]["name"] = "greedy", "greedy"
        obj["spec"]["containers"] = [{"name": "trainer", "resources": {"requests": {"nvidia.com/gpu": "9000G"}}}]

    pod = json.loads(json.dumps(second))
    greedy(pod)
    world.kube.put(pod)
    world.set_status(second, phase="Failed", exit_code=1, reason="Error")
    await world.after(5)
    assert {entry.pod: entry.gpus for entry in world.status.ledger.open}["greedy"] == 2_147_483_647


def test_second_year_is_written_with_four_digits() -> None:
    assert rfc3339(epoch("0001-01-01T00:00:00Z")) == "0001-01-01T00:00:00Z"
