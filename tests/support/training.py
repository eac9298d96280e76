"""A pod's training held against the oracle."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.domain.facts import Settings
from rft_operator.domain.resolve import resolve
from support.builders import resource
from support.objects import stored_run
from support.oracle import Curve, plain_torch
from unit.trainer.factory import Pod

SAME_STEP = 1e-5
"""Relative: two ways to sum the same numbers in fp32, from the same weights."""
LATER_STEPS = 1e-4
"""Absolute, of a loss: the optimizer turns differences of rounding into differences of weights."""


def weights(pod: Pod) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(pod.paths.export / "model.safetensors")
    return found


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
        resources={"nodes": 1, "gpusPerNode": pod.config.gpus_per_node},
    )["spec"]
    run = ReasoningFinetune.model_validate(stored_run(spec=spec))
    written = resolve(run, Settings(trainer_image="rft-trainer:test")).deepspeed
    pod.layout.deepspeed_file.write_text(json.dumps({**written, **more}))


def check_equals_plain_torch(pod: Pod, *, steps: int) -> Curve:
    """Every step's loss and gradient norm, and the weights at the end, are those of plain torch."""
    wanted = plain_torch(pod.paths.model, pod.paths.dataset, pod.config.training, steps=steps)
    lines = pod.steps()
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    losses, norms = [line["loss"] for line in lines], [line["grad_norm"] for line in lines]
    assert losses[0] == pytest.approx(wanted.losses[0], rel=SAME_STEP)
    assert norms[0] == pytest.approx(wanted.norms[0], rel=SAME_STEP)
    assert losses == pytest.approx(wanted.losses, abs=LATER_STEPS)
    assert norms == pytest.approx(wanted.norms, rel=1e-3)
    for name, tensor in weights(pod).items():
        torch.testing.assert_close(tensor, wanted.weights[name], atol=2e-3, rtol=1e-3)
    return wanted
