"""Adapters on real DeepSpeed ranks: one curve, small checkpoints, a merged model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rft_trainer.contract import ExitCode
from rft_trainer.prepare.dataset import load
from rft_trainer.train.checkpoint import newest
from rft_trainer.train.export import Export, export_checkpoint
from support import warm_ranks
from support.training import SAME_STEP, weights
from unit.trainer.factory import Pod

pytestmark = pytest.mark.distributed

RANK, ALPHA = 4, 8
ONE_RANK = "localhost slots=1\n"
LORA = {"rank": RANK, "alpha": ALPHA, "dropout": 0.0, "target_modules": []}
SETTINGS: dict[str, Any] = {
    "training__lora": LORA,
    "training__schedule": "constant",
    "training__warmup_ratio": 0.0,
    "checkpoint__every_steps": 4,
}


def curve(pod: Pod) -> list[float]:
    return [line["loss"] for line in pod.steps()]


def test_adapters_learn_the_same_under_another_stage_and_after_a_resume_on_another_number_of_ranks(
    make_pod: Callable[..., Pod],
) -> None:
    straight = make_pod(**SETTINGS, training__zero_stage=1, hosts=ONE_RANK, gpus_per_node=1)
    assert warm_ranks.train(straight) == ExitCode.DONE, straight.log("train")
    first = make_pod(**SETTINGS, training__zero_stage=3, training__max_steps=4)
    assert warm_ranks.train(first) == ExitCode.DONE, first.log("train")
    check_checkpoint_holds_adapters_alone(first)
    second = make_pod(**SETTINGS, training__zero_stage=3, share=first, hosts=ONE_RANK, gpus_per_node=1)
    assert warm_ranks.train(second) == ExitCode.DONE, second.log("train")
    assert curve(second) == pytest.approx(curve(straight), rel=SAME_STEP)
    assert curve(second)[-1] < curve(second)[0]
    check_export(second)


def check_checkpoint_holds_adapters_alone(pod: Pod) -> None:
    base_bytes = (pod.paths.model / "model.safetensors").stat().st_size
    states = pod.paths.checkpoints.glob("step-*/*model_states.pt")
    assert sum(path.stat().st_size for path in states) < base_bytes / 2


def check_export(pod: Pod) -> None:
    """The merged model is the base model plus what the kept adapter adds, and loads as any model does."""
    base, merged = load_file(pod.paths.model / "model.safetensors"), weights(pod)
    adapter = load_file(pod.paths.export / "adapter" / "adapter_model.safetensors")
    assert merged.keys() == base.keys()
    changed = 0
    for name, tensor in merged.items():
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        wanted = base[name]
        if f"{layer}.lora_A.weight" in adapter:
            wanted = wanted + ALPHA / RANK * adapter[f"{layer}.lora_B.weight"] @ adapter[f"{layer}.lora_A.weight"]
            assert not torch.equal(tensor, base[name]), name
            changed += 1
        torch.testing.assert_close(tensor, wanted)
    assert changed == 2 * 7, "two layers, seven linear layers each"
    loaded = AutoModelForCausalLM.from_pretrained(pod.paths.export, dtype=torch.float32).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in merged.items())
    check_export_of_the_checkpoint(pod, merged)


def check_export_of_the_checkpoint(pod: Pod, wanted: dict[str, torch.Tensor]) -> None:
    """What is evaluated after a stop comes from the checkpoint, without any engine."""
    saved = newest(pod.paths.checkpoints, dataset_sha256=load(pod.paths.dataset).sha256)
    assert saved is not None
    export_checkpoint(Export.of(pod.config, pod.paths), saved)
    for name, tensor in weights(pod).items():
        torch.testing.assert_close(tensor, wanted[name])
