"""What Kueue does to a Job of the fake API server, in the order in which it does it.

After pkg/controller/jobs/job/job_controller.go of kubernetes-sigs/kueue (ff69552): RunWithPodSetsInfo and Stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rft_operator.domain.timestamps import rfc3339
from rft_trainer.contract import Outcome, Stage
from rft_trainer.stage_results import StageResult, TrainSummary
from support.builders import NAMESPACE
from support.stage import World


def admit(
    world: World, stage: Stage, attempt: int = 1, *, suffix: str = "x", ranks: Sequence[int] | None = None
) -> None:
    """Kueue lets a Job start, and the Job controller makes its pods, or those of some ranks first."""

    def write(job: dict[str, Any]) -> None:
        job["spec"]["suspend"] = False
        job.setdefault("status", {})["startTime"] = rfc3339(world.now)

    world.kube.patch("Job", NAMESPACE, world.job(stage, attempt)["metadata"]["name"], write)
    world.create_pods(stage, attempt, suffix=suffix, ranks=ranks)


def evict(world: World, stage: Stage, attempt: int = 1) -> None:
    """Kueue suspends a Job, and the Job controller deletes its pods, which get their grace."""

    def write(job: dict[str, Any]) -> None:
        job["spec"]["suspend"] = True
        job["status"] = {}

    world.kube.patch("Job", NAMESPACE, world.job(stage, attempt)["metadata"]["name"], write)
    for pod in world.pods(stage, attempt):
        world.kube.remove("Pod", NAMESPACE, pod["metadata"]["name"])


def start(world: World, stage: Stage, attempt: int = 1) -> None:
    """The scheduler binds the pods whose gates are open, and the kubelets start them."""
    for index, pod in enumerate(world.pods(stage, attempt)):
        assert not pod["spec"].get("schedulingGates"), f"{pod['metadata']['name']} is gated"
        world.bind(pod, f"node-{index + 1}")
        world.set_status(pod, phase="Running", running=True)


def end(world: World, stage: Stage, attempt: int = 1, *, exit_code: int, step: int | None = None) -> None:
    """The containers of deleted pods end; with a step, rank 0 says that it saved a checkpoint of it."""
    words = ""
    if step is not None:
        train = TrainSummary(step=step, total_steps=50, tokens=1, checkpoint_step=step, checkpoint_seconds=1.5)
        words = StageResult(stage=stage, outcome=Outcome.DRAINED, train=train).model_dump_json(exclude_none=True)
    for index, pod in enumerate(world.pods(stage, attempt)):
        message = words if index == 0 else ""
        world.set_status(pod, phase="Failed", exit_code=exit_code, message=message, reason="Error")
