"""Which parameters decay, and by which rate of which step; the library's own rules are what it is held against."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, Trainer
from transformers.optimization import get_scheduler

from rft_trainer.contract import LoraConfig
from rft_trainer.train.adapter import add_adapters
from rft_trainer.train.decay import is_decayed, parameter_groups
from rft_trainer.train.schedule import learning_rate
from unit.trainer.factory import run_config

SMALL = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 32}


def qwen2() -> Any:
    return Qwen2ForCausalLM(Qwen2Config(**SMALL, num_key_value_heads=1))


def qwen3() -> Any:
    return Qwen3ForCausalLM(Qwen3Config(**SMALL, num_key_value_heads=1, head_dim=4, attention_bias=True))


def old() -> torch.nn.Module:
    """A LayerNorm that its name does not give away."""
    return torch.nn.Sequential(torch.nn.Embedding(4, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 4))


@pytest.mark.parametrize("make", [qwen2, qwen3, old])
def test_parameters_that_decay_are_those_of_the_librarys_trainer(make: object) -> None:
    assert callable(make)
    model = make()
    wanted = set(Trainer.get_decay_parameter_names(None, model))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, kept = parameter_groups(model, weight_decay=0.5)
    assert {names[id(each)] for each in decayed["params"]} == wanted
    assert {names[id(each)] for each in kept["params"]} == set(names.values()) - wanted
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.5, 0.0)


def test_all_that_is_trained_decays_when_it_is_an_adapter() -> None:
    model = qwen2()
    add_adapters(model, LoraConfig(rank=2, alpha=4, dropout=0.0, target_modules=()))
    [group] = parameter_groups(model, weight_decay=0.5)
    assert group["weight_decay"] == 0.5
    assert len(group["params"]) == sum(each.requires_grad for each in model.parameters()) > 0


@pytest.mark.parametrize("name", ["model.norm_free.weight", "model.normal.weight", "model.embed_tokens.weight"])
def test_name_that_only_sounds_like_a_normalisation_decays(name: str) -> None:
    assert is_decayed(name)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5])
def test_rates_are_those_of_the_librarys_schedule_but_for_its_first_step_at_rate_0(kind: str, ratio: float) -> None:
    training, steps = run_config(training__schedule=kind, training__warmup_ratio=ratio).training, 20
    warmup = math.ceil(ratio * steps)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=training.learning_rate)
    [rate] = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=steps).lr_lambdas
    for step in range(steps):
        wanted = training.learning_rate * rate(step + 1 if step < warmup else step)
        assert learning_rate(training, step=step, total_steps=steps) == pytest.approx(wanted, abs=1e-12)
