"""How a training ends before its time: stops, kills, hangs, and what is left behind. No process outlives its pod."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import psutil
import pytest

from rft_trainer.contract import ExitCode, Outcome
from rft_trainer.train.checkpoint import complete_checkpoints
from unit.trainer.factory import Pod, wait_until

pytestmark = pytest.mark.distributed

ENDLESS = 4_000
"""Steps that no test waits for."""
PATIENCE_SECONDS = 240
"""For a machine that is busy with other tests."""


def lives(process: psutil.Process) -> bool:
    """A process that has ended and waits for its parent to notice does not live."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_both_nodes_drain_at_one_step_and_any_gang_goes_on_when_one_node_is_stopped(
    make_pod: Callable[..., Pod],
) -> None:
    hosts = "127.0.0.1 slots=1\n127.0.0.2 slots=1\n"
    settings = {"training__max_steps": ENDLESS, "nodes": 2, "gpus_per_node": 1, "training__zero_stage": 3}
    first = make_pod(hosts=hosts, **settings)
    second = make_pod(hosts=hosts, share=first, **settings)
    nodes = [first.start("train"), second.start("train", JOB_COMPLETION_INDEX="1")]
    wait_until(lambda: '"phase": "train"' in first.log("train"), what="a first step")
    nodes[1].send_signal(signal.SIGTERM)
    assert [node.wait(PATIENCE_SECONDS) for node in nodes] == [ExitCode.DRAINED, ExitCode.DRAINED], first.log("train")
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
    assert pod.run_here("evaluate") == ExitCode.DONE
    summary = pod.result().evaluate
    assert summary is not None
    assert summary.scores[0].questions == 8
    assert summary.scores[0].baseline is not None
    assert list(pod.paths.evaluation.glob(f"sums-step-{step}-*.jsonl"))
    asked = {path: path.stat().st_mtime_ns for path in pod.paths.evaluation.glob("sums-*.jsonl")}
    assert asked
    assert pod.run_here("evaluate") == ExitCode.DONE
    assert {path: path.stat().st_mtime_ns for path in asked} == asked, "answers are asked once"


def check_resume_on_one_rank(make_pod: Callable[..., Pod], stopped: Pod, *, step: int) -> None:
    """Another world size continues from the same checkpoint: its next loss is that of the plan's next batch."""
    pod = make_pod(hosts="localhost slots=1\n", share=stopped, training__max_steps=ENDLESS, gpus_per_node=1)
    process = pod.start("train")
    wait_until(lambda: '"phase": "train"' in pod.log("train") or process.poll() is not None, what="a resumed step")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_SECONDS) == ExitCode.DRAINED, pod.log("train")
    lines = [line for line in pod.progress_lines() if line["phase"] == "train"]
    assert lines[0]["step"] == step + 1
    before = [line for line in stopped.progress_lines() if line["loss"] is not None][-1]
    assert lines[0]["loss"] == pytest.approx(before["loss"], abs=0.5)


def test_training_ends_as_diverged_with_its_last_good_checkpoint_when_the_loss_is_no_number(
    make_pod: Callable[..., Pod],
) -> None:
    saves = {"checkpoint__every_steps": 1, "checkpoint__keep_last": 1}
    pod = make_pod(training__learning_rate=1e30, training__warmup_ratio=0.0, **saves)
    assert pod.run("train") == ExitCode.DIVERGED, pod.log("train")
    result = pod.result()
    assert result.outcome is Outcome.FAILED
    assert "diverged: step 2: the loss is not a finite number, at a learning rate of " in str(result.error)
    assert "the newest checkpoint is step-00000001" in str(result.error)
    assert [saved.step for saved in complete_checkpoints(pod.paths.checkpoints)] == [1]
    assert result.train is not None
    assert (result.train.step, result.train.checkpoint_step) == (1, 1)
    assert not pod.paths.export.exists()
    assert "NaN" not in pod.paths.steps.read_text() + json.dumps(pod.progress_lines())


def test_supervisor_reports_the_signal_when_a_rank_is_killed(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod(training__max_steps=ENDLESS)
    process = pod.start("train")
    wait_until(lambda: '"phase": "train"' in pod.log("train"), what="a first step")
    ranks = pod.ranks()
    ranks[-1].kill()
    assert process.wait(PATIENCE_SECONDS) not in {int(code) for code in ExitCode}
    result = pod.result()
    assert result.outcome is Outcome.FAILED
    assert result.train is not None
    assert result.train.step >= 1
    assert result.error
    assert {line["step"] for line in pod.progress_lines()} >= {0}
    assert '\n[rank 0] {"v": 1' in pod.log("train"), "every line says whose it is"
    wait_until(lambda: not any(lives(rank) for rank in ranks), what="the end of all ranks")


def test_attempt_ends_as_a_hang_with_all_stacks_when_one_rank_is_stopped(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod(training__max_steps=ENDLESS, stall_seconds=15)
    process = pod.start("train", RFT_ATTEMPT="2")
    wait_until(lambda: '"phase": "train"' in pod.log("train"), what="a first step")
    ranks = pod.ranks()
    ranks[1].suspend()
    wait_until(lambda: ranks[1].status() == psutil.STATUS_STOPPED, what="the stop of a rank")
    assert process.wait(PATIENCE_SECONDS) == ExitCode.STALLED, pod.log("train")
    result = pod.result()
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert result.error.startswith("hang: rank 1 gave no sign of life for ")
    assert "its process is stopped" in result.error
    assert result.train is not None
    assert result.train.step >= 1
    evidence = pod.paths.hangs / "attempt-2" / "node-0"
    assert pod.paths.pod_path(evidence) in result.error
    for rank in (0, 1):
        assert 'loop.py", line' in (evidence / f"rank-{rank}.txt").read_text()
        assert json.loads((evidence / f"flight-rank-{rank}.json").read_bytes())["entries"]
    assert json.loads((evidence / "hang.json").read_bytes())["ranks"].keys() == {"0", "1"}
    wait_until(lambda: not any(lives(rank) for rank in ranks), what="the end of all ranks")


def test_training_ends_as_drained_without_checkpoint_when_the_grace_is_too_short(
    make_pod: Callable[..., Pod],
) -> None:
    pod = make_pod(training__max_steps=ENDLESS)
    process = pod.start("train", RFT_GRACE_SECONDS="0.1")
    wait_until(lambda: '"phase": "load"' in pod.log("train"), what="the start of the ranks")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_SECONDS) == ExitCode.DRAINED_WITHOUT_CHECKPOINT
    assert pod.result().outcome is Outcome.DRAINED
    assert "the grace period ended in the phase load" in str(pod.result().error), (
        "nothing was trained that could be lost"
    )
