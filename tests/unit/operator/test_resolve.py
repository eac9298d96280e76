"""From the spec to ``run.json``: what the trainer gets to know."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.domain.facts import Settings
from rft_operator.domain.resolve import resolve
from rft_trainer.contract import LoraConfig, RunConfig
from support.builders import resource
from support.objects import stored_run


def run_of(**spec: Any) -> RunConfig:
    stored = stored_run(spec=resource(**spec)["spec"])
    return resolve(ReasoningFinetune.model_validate(stored), Settings(trainer_image="rft-trainer:test")).config


def test_trainer_gets_the_bounds_of_the_spec() -> None:
    run = run_of(timeouts={"pendingSeconds": 900, "startupSeconds": 700, "stallSeconds": 300})
    assert (run.pending_seconds, run.startup_seconds, run.stall_seconds) == (900, 700, 300)


@pytest.mark.parametrize(
    ("training", "lora"),
    [
        ({}, None),
        ({"method": "full"}, None),
        ({"method": "lora"}, LoraConfig(rank=16, alpha=32, dropout=0.0, target_modules=())),
        (
            {"method": "lora", "lora": {"rank": 8, "dropout": "0.05", "targetModules": ["q_proj"]}},
            LoraConfig(rank=8, alpha=32, dropout=0.05, target_modules=("q_proj",)),
        ),
    ],
)
@pytest.mark.parametrize("recipe", [None, "s1"])
def test_adapters_are_trained_only_where_the_method_says_so(
    training: dict[str, Any], lora: LoraConfig | None, recipe: str | None
) -> None:
    assert run_of(training=training, recipe=recipe).training.lora == lora
