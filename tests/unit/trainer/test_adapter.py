"""Adapters in a model of two layers, without any rank."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rft_trainer.contract import LoraConfig
from rft_trainer.errors import BadInputError
from rft_trainer.train.adapter import adapter_names, add_adapters, is_adapter, merge

LORA = LoraConfig(rank=2, alpha=6, dropout=0.0, target_modules=())


@pytest.fixture
def model() -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=20, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16, tie_word_embeddings=False,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def trained(model: Any) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_every_linear_layer_but_the_output_layer_gets_an_adapter_when_no_names_are_given(model: Any) -> None:
    add_adapters(model, LORA)
    names = trained(model)
    assert all(is_adapter(name) for name in names)
    assert len(names) == 2 * 7 * 2, "two layers, seven linear layers each, two matrices each"
    assert not any("lm_head" in name for name in names)


def test_named_layers_alone_get_an_adapter_when_names_are_given(model: Any) -> None:
    add_adapters(model, LORA.model_copy(update={"target_modules": ("q_proj",)}))
    assert {name.split(".")[4] for name in trained(model)} == {"q_proj"}


@pytest.mark.parametrize("name", ["c_attn", "proj", "embed_tokens", "norm", "lm_head"])
def test_name_is_refused_with_those_that_there_are_when_it_is_of_no_layer_that_can_be_merged(
    model: Any, name: str
) -> None:
    lora = LORA.model_copy(update={"target_modules": ("q_proj", name)})
    wanted = rf"training.lora.targetModules: '{name}' is no linear layer .* name some of down_proj, .*, q_proj"
    with pytest.raises(BadInputError, match=wanted):
        add_adapters(model, lora)
    assert all(parameter.requires_grad for parameter in model.parameters()), "nothing was changed"


@pytest.mark.parametrize("name", ["self_attn.q_proj", "model.layers.0.self_attn.q_proj"])
def test_layer_may_be_named_with_those_above_it(model: Any, name: str) -> None:
    add_adapters(model, LORA.model_copy(update={"target_modules": (name,)}))
    assert all(is_adapter(each) for each in trained(model))


def test_merged_weight_is_the_base_and_the_scaled_product_when_a_layer_has_an_adapter() -> None:
    base = {"a.weight": torch.ones(2, 2), "b.weight": torch.ones(2)}
    down, up = adapter_names("a.weight")
    adapters = {down: torch.tensor([[1.0, 2.0]]), up: torch.tensor([[1.0], [0.5]])}
    merged = dict(merge(base.items(), adapters, lora=LORA.model_copy(update={"rank": 1})))
    assert merged["a.weight"].tolist() == [[7.0, 13.0], [4.0, 7.0]]
    assert merged["b.weight"] is base["b.weight"]
