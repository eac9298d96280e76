"""Training on real DeepSpeed ranks: equal to plain torch, resumable, drainable."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForCausalLM

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.domain.facts import Settings
from rft_operator.domain.resolve import resolve
from rft_trainer.contract import ExitCode, Outcome
from rft_trainer.prepare.dataset import load
from rft_trainer.train.batch import IGNORE, collate
from rft_trainer.train.checkpoint import complete_checkpoints
from rft_trainer.train.plan import BatchPlan
from rft_trainer.train.schedule import learning_rate
from support.builders import resource
from support.objects import stored_run
from unit.trainer.factory import Pod, wait_until

pytestmark = pytest.mark.distributed


def weights(pod: Pod) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(pod.paths.export / "model.safetensors")
    return found


def plain_torch(pod: Pod, *, steps: int) -> tuple[dict[str, torch.Tensor], float]:
    """The same training without DeepSpeed: one process, the whole global batch at once."""
    training = pod.config.training
    dataset = load(pod.paths.dataset)
    plan = BatchPlan(
        lengths=dataset.sequence_lengths(),
        targets=dataset.sequence_targets(),
        seed=training.seed,
        global_batch_size=training.global_batch_size,
        micro_batch_size=training.global_batch_size,
        world_size=1,
    )
    model = AutoModelForCausalLM.from_pretrained(pod.paths.model, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), betas=training.adam_betas, weight_decay=training.weight_decay)
    loss = torch.zeros(())
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, step=step, total_steps=steps)
        batch = collate(dataset, plan.step(step, rank=0).micro_batches[0], pad_id=0)
        logits = model(input_ids=batch.input_ids).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch has no annotation here
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.max_gradient_norm)
        optimizer.step()
    return dict(model.state_dict()), float(loss.detach())


def write_deepspeed_json(pod: Pod, **more: Any) -> None:
    """Write what the operator writes for this run, and ``more``."""
    training = pod.config.training
    spec = resource(
        training={
            "globalBatchSize": training.global_batch_size,
            "microBatchSize": training.micro_batch_size,
            "precision": training.precision,
            "deepspeed": {"offload": training.offload, "zeroStage": training.zero_stage},
        },
        resources={"nodes": 1, "gpusPerNode": 2},
    )["spec"]
    run = ReasoningFinetune.model_validate(stored_run(spec=spec))
    written = resolve(run, Settings(trainer_image="rft-trainer:test")).deepspeed
    pod.layout.deepspeed_file.write_text(json.dumps({**written, **more}))


def check_equals_plain_torch(pod: Pod, *, steps: int) -> None:
    wanted, loss = plain_torch(pod, steps=steps)
    summary = pod.result().train
    assert summary is not None
    assert summary.step == summary.total_steps == steps
    assert summary.loss == pytest.approx(loss, abs=1e-3)
    for name, tensor in weights(pod).items():
        torch.testing.assert_close(tensor, wanted[name], atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(("stage", "offload"), [(1, "none"), (2, "none"), (3, "none"), (3, "all")])
def test_training_equals_plain_torch_when_rows_are_uneven_and_micro_batches_accumulate(
    make_pod: Callable[..., Pod], stage: int, offload: str
) -> None:
    pod = make_pod(training__zero_stage=stage, training__offload=offload)
    write_deepspeed_json(pod)
    assert pod.run("train") == ExitCode.DONE, pod.log("train")
    check_equals_plain_torch(pod, steps=6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="DeepSpeed compiles its CPU optimizer: needs g++")
def test_training_equals_plain_torch_also_after_a_resume_when_deepspeeds_own_optimizer_is_offloaded(
    make_pod: Callable[..., Pod],
) -> None:
    settings = {"training__offload": "all", "training__schedule": "constant", "training__warmup_ratio": 0.0}
    first = make_pod(**settings, training__max_steps=3)
    second = make_pod(**settings, share=first)
    for pod in (first, second):
        write_deepspeed_json(pod, zero_force_ds_cpu_optimizer=True)
        assert pod.run("train", timeout_seconds=500) == ExitCode.DONE, pod.log("train")
    assert next(line["step"] for line in second.progress_lines() if line["phase"] == "train") == 4
    check_equals_plain_torch(second, steps=6)


def test_training_ends_with_78_and_the_remedy_when_offload_finds_no_compiler(
    make_pod: Callable[..., Pod], tmp_path: Path
) -> None:
    pod = make_pod(training__offload="all")
    write_deepspeed_json(pod, zero_force_ds_cpu_optimizer=True)
    environment = {"CXX": str(tmp_path / "no-compiler"), "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}
    assert pod.start("train", **environment).wait(240) == ExitCode.BAD_INPUT, pod.log("train")
    assert "training.deepspeed.offload: DeepSpeed could not compile" in str(pod.result().error)


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
    ranks = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "rft_trainer.train.main" in child.cmdline() and "deepspeed.launcher.launch" not in child.cmdline()
    ]
    ranks[-1].kill()
    assert process.wait(90) not in {int(code) for code in ExitCode}
    result = pod.result()
    assert result.outcome is Outcome.FAILED
    assert result.train is not None
    assert result.train.step >= 1
    assert result.error
    assert not any(rank.is_running() for rank in ranks)


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


@pytest.mark.parametrize(("stage", "ranks_before", "ranks_after"), [(1, 2, 1), (2, 2, 1), (3, 1, 2)])
def test_training_goes_on_as_if_nothing_happened_when_the_number_of_ranks_changes(
    make_pod: Callable[..., Pod], stage: int, ranks_before: int, ranks_after: int
) -> None:
    settings = {"training__zero_stage": stage, "training__schedule": "constant", "training__warmup_ratio": 0.0}
    first = make_pod(**settings, hosts=f"localhost slots={ranks_before}\n")
    assert first.run("train") == ExitCode.DONE, first.log("train")
    second = make_pod(**settings, training__max_steps=9, share=first, hosts=f"localhost slots={ranks_after}\n")
    assert second.run("train") == ExitCode.DONE, second.log("train")
    train_lines = [line["step"] for line in second.progress_lines() if line["phase"] == "train"]
    assert train_lines[0] == 7
    wanted, loss = plain_torch(second, steps=9)
    summary = second.result().train
    assert summary is not None
    assert summary.loss == pytest.approx(loss, abs=2e-3)
    for name, tensor in weights(second).items():
        torch.testing.assert_close(tensor, wanted[name], atol=5e-3, rtol=1e-3)
