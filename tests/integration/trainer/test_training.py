"""Training on real DeepSpeed ranks that goes to its end, whatever happens on the way, and can be done again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rft_trainer.contract import ExitCode, RunConfig
from rft_trainer.train.checkpoint import complete_checkpoints
from support import warm_ranks
from support.training import weights
from unit.trainer.factory import Pod, wait_until

pytestmark = pytest.mark.distributed

STEPS = 40
PACKED = {
    "training__packing": True,
    "training__precision": "bf16",
    "training__gradient_checkpointing": True,
    "training__max_sequence_length": 512,
    "training__global_batch_size": 8,
    "training__micro_batch_size": 2,
    "data_directory": "/rft/data/packed",
}


def test_resumed_training_ends_with_equal_weights_when_the_node_was_lost(make_pod: Callable[..., Pod]) -> None:
    settings = {"training__max_steps": STEPS, "checkpoint__every_steps": 4}
    straight, broken = make_pod(**settings), make_pod(**settings)
    assert warm_ranks.train(straight) == ExitCode.DONE, straight.log("train")
    broken.start("train")
    wait_until(lambda: bool(complete_checkpoints(broken.paths.checkpoints)), what="a first checkpoint")
    broken.power_off()
    assert not broken.paths.export.exists()
    saved = complete_checkpoints(broken.paths.checkpoints)[-1].step
    assert 0 < saved < STEPS
    assert warm_ranks.train(broken) == ExitCode.DONE, broken.log("train")
    first = next(line for line in broken.progress_lines() if line["phase"] == "train")
    assert first["step"] == saved + 1
    assert weights(broken).keys() == weights(straight).keys()
    for name, tensor in weights(broken).items():
        assert torch.equal(tensor, weights(straight)[name]), name
    assert curve(broken) == curve(straight), "every step stands once, with the loss that it would have had"
    assert len(complete_checkpoints(broken.paths.checkpoints)) == broken.config.checkpoint.keep_last


def curve(pod: Pod) -> list[tuple[int, float, float]]:
    return [(line["step"], line["loss"], line["grad_norm"]) for line in pod.steps()]


def test_run_gives_equal_losses_weights_and_card_when_it_is_replayed_from_its_card_alone(
    make_pod: Callable[..., Pod], tmp_path: Path
) -> None:
    pod = make_pod(**PACKED)
    assert pod.run_here("prepare") == ExitCode.DONE
    assert warm_ranks.train(pod) == ExitCode.DONE, pod.log("train")
    card = json.loads(pod.paths.run_card.read_bytes())
    again = Pod(tmp_path / "again", RunConfig.model_validate(card["run"]), hosts=f"localhost slots={card['ranks']}\n")
    again.layout.deepspeed_file.write_text(json.dumps(card["deepspeed"]))
    assert again.run_here("prepare") == ExitCode.DONE
    assert warm_ranks.train(again) == ExitCode.DONE, again.log("train")
    assert json.loads(again.paths.run_card.read_bytes()) == card
    assert curve(again) == curve(pod)
    assert [step for step, _, _ in curve(pod)] == list(range(1, 7))
    assert all(0 < loss < 7 for _, loss, _ in curve(pod))
    replayed, kept = weights(again), weights(pod)
    assert {tensor.dtype for tensor in kept.values()} == {torch.bfloat16}
    assert replayed.keys() == kept.keys()
    assert all(torch.equal(replayed[name], tensor) for name, tensor in kept.items())
