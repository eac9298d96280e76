"""Training on real DeepSpeed ranks: resumable, drainable, and no hang or loss goes unseen."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from rft_trainer.contract import ExitCode, Outcome
from rft_trainer.train.checkpoint import complete_checkpoints
from support.training import weights
from unit.trainer.factory import Pod, wait_until

pytestmark = pytest.mark.distributed


def lives(process: psutil.Process) -> bool:
    """A process that has ended and waits for its parent to notice does not live."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_resumed_training_ends_with_equal_weights_when_the_node_was_lost(make_pod: Callable[..., Pod]) -> None:
    settings = {"training__max_steps": 60, "checkpoint__every_steps": 3}
    straight, broken = make_pod(**settings), make_pod(**settings)
    assert straight.run("train") == ExitCode.DONE, straight.log("train")
    broken.start("train")
    wait_until(lambda: bool(complete_checkpoints(broken.paths.checkpoints)), what="a first checkpoint")
    broken.power_off()
    assert not broken.paths.export.exists()
    saved = complete_checkpoints(broken.paths.checkpoints)[-1].step
    assert 0 < saved < 60
    assert broken.run("train") == ExitCode.DONE, broken.log("train")
    first = next(line for line in broken.progress_lines() if line["phase"] == "train")
    assert first["step"] == saved + 1
    assert weights(broken).keys() == weights(straight).keys()
    for name, tensor in weights(broken).items():
        assert torch.equal(tensor, weights(straight)[name]), name
    curves = [[(line["step"], line["loss"], line["grad_norm"]) for line in pod.steps()] for pod in (broken, straight)]
    assert curves[0] == curves[1], "every step stands once, with the loss that it would have had"
    assert len(complete_checkpoints(broken.paths.checkpoints)) == broken.config.checkpoint.keep_last


def test_both_nodes_drain_at_one_step_and_any_gang_goes_on_when_one_node_is_stopped(
    make_pod: Callable[..., Pod],
) -> None:
    hosts = "127.0.0.1 slots=1\n127.0.0.2 slots=1\n"
    settings = {"training__max_steps": 4000, "nodes": 2, "gpus_per_node": 1, "training__zero_stage": 3}
    first = make_pod(hosts=hosts, **settings)
    second = make_pod(hosts=hosts, share=first, **settings)
    nodes = [first.start("train"), second.start("train", JOB_COMPLETION_INDEX="1")]
    wait_until(lambda: '"phase": "train"' in first.log("train"), what="a first step")
    nodes[1].send_signal(signal.SIGTERM)
    assert [node.wait(60) for node in nodes] == [ExitCode.DRAINED, ExitCode.DRAINED], first.log("train")
    results = [first.result(), second.result()]
    assert [result.outcome for result in results] == [Outcome.DRAINED, Outcome.DRAINED]
    steps = {result.train.step for result in results if result.train}
    assert len(steps) == 1
    step = steps.pop()
    assert {result.train.checkpoint_step for result in results if result.train} == {step}
    assert [saved.step for saved in complete_checkpoints(first.paths.checkpoints)] == [step]
    check_evaluation_of_a_stopped_run(first, step=step)
    check_resume_on_one_rank(make_pod, first, step=step)


def check_evaluation_of_a_stopped_run(pod: Pod, *, step: int) -> None:
    assert pod.run("evaluate") == ExitCode.DONE, pod.log("evaluate")
    summary = pod.result().evaluate
    assert summary is not None
    assert summary.scores[0].questions == 8
    assert summary.scores[0].baseline is not None
    assert list(pod.paths.evaluation.glob(f"sums-step-{step}-*.jsonl"))
    assert pod.run("evaluate") == ExitCode.DONE
    assert " of 8 answers" not in pod.log("evaluate"), "answers are asked once"


def check_resume_on_one_rank(make_pod: Callable[..., Pod], stopped: Pod, *, step: int) -> None:
    """Another world size continues from the same checkpoint: its next loss is that of the plan's next batch."""
    pod = make_pod(hosts="localhost slots=1\n", share=stopped, training__max_steps=4000, gpus_per_node=1)
    process = pod.start("train")
    wait_until(lambda: '"phase": "train"' in pod.log("train") or process.poll() is not None, what="a resumed step")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == ExitCode.DRAINED, pod.log("train")
    lines = [line for line in pod.progress_lines() if line["phase"] == "train"]
    assert lines[0]["step"] == step + 1
    before = [line for line in stopped.progress_lines() if line["loss"] is not None][-1]
    assert lines[0]["loss"] == pytest.approx(before["loss"], abs=0.5)


def test_supervisor_reports_the_signal_when_a_rank_is_killed(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod(training__max_steps=4000)
    process = pod.start("train")
    wait_until(lambda: '"phase": "train"' in pod.log("train"), what="a first step")
    ranks = pod.ranks()
    ranks[-1].kill()
    assert process.wait(90) not in {int(code) for code in ExitCode}
    result = pod.result()
    assert result.outcome is Outcome.FAILED
    assert result.train is not None
    assert result.train.step >= 1
    assert result.error
    wait_until(lambda: not any(lives(rank) for rank in ranks), what="the end of all ranks")


def test_attempt_ends_as_a_hang_with_all_stacks_when_one_rank_is_stopped(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod(training__max_steps=4000, stall_seconds=15)
    process = pod.start("train", RFT_ATTEMPT="2")
    wait_until(lambda: '"phase": "train"' in pod.log("train"), what="a first step")
    ranks = pod.ranks()
    ranks[1].suspend()
    assert process.wait(90) == ExitCode.STALLED, pod.log("train")
    result = pod.result()
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert result.error.startswith("hang: rank 1 gave no sign of life for ")
    assert result.train is not None
    assert result.train.step >= 1
    evidence = pod.paths.hangs / "attempt-2" / "node-0"
    assert pod.paths.pod_path(evidence) in result.error
    for rank in (0, 1):
        assert 'loop.py", line' in (evidence / f"rank-{rank}.txt").read_text()
    flights = list(evidence.glob("flight-rank-*.json"))  # a busy machine may end a rank before it writes its own
    assert all(json.loads(flight.read_bytes())["entries"] for flight in flights)
    assert flights
    wait_until(lambda: not any(lives(rank) for rank in ranks), what="the end of all ranks")


def test_training_ends_as_drained_without_checkpoint_when_the_grace_is_too_short(
    make_pod: Callable[..., Pod],
) -> None:
    pod = make_pod(training__max_steps=4000)
    process = pod.start("train", RFT_GRACE_SECONDS="0.1")
    wait_until(lambda: '"phase": "load"' in pod.log("train"), what="the start of the ranks")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == ExitCode.DRAINED_WITHOUT_CHECKPOINT
    assert pod.result().outcome is Outcome.DRAINED
    assert "graceSeconds" in str(pod.result().error)


def test_training_stops_before_the_first_step_when_the_batch_does_not_fit_the_ranks(
    make_pod: Callable[..., Pod],
) -> None:
    pod = make_pod(training__global_batch_size=10)
    assert pod.run("train") == ExitCode.BAD_INPUT, pod.log("train")
    assert "globalBatchSize=10 must be a multiple of microBatchSize=4 x 2" in str(pod.result().error)


def test_packed_training_in_bf16_completes_when_activations_are_recomputed(
    make_pod: Callable[..., Pod], tmp_path: Path
) -> None:
    pod = make_pod(
        training__packing=True,
        training__precision="bf16",
        training__gradient_checkpointing=True,
        training__max_sequence_length=512,
        training__global_batch_size=8,
        training__micro_batch_size=2,
        data_directory="/rft/data/packed",
    )
    assert pod.run("prepare") == ExitCode.DONE, pod.log("prepare")
    assert pod.run("train") == ExitCode.DONE, pod.log("train")
    summary = pod.result().train
    assert summary is not None
    assert summary.loss is not None
    assert 0 < summary.loss < 7
    assert {tensor.dtype for tensor in weights(pod).values()} == {torch.bfloat16}
