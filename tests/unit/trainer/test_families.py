"""What the trainer takes for granted of a model, tried on models: rows in one line do not read each other, and logits
are what the output layer gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rft_trainer.errors import BadInputError
from rft_trainer.train.batch import IGNORE, KEEP_ROWS_APART, Batch, check_packing
from rft_trainer.train.loss import LossModel, check_logits
from rft_trainer.train.speed import Stopwatch

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
WITH_STATE = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
MULTIPLIED = {"mamba_n_heads": 4, "mamba_d_ssm": 64, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 16}


pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(family: str, **values: Any) -> Any:
    """A model of a family, with weights far enough from 0 that every layer counts."""
    known = AutoConfig.for_model(family)
    sizes = {name: value for name, value in SIZES.items() if hasattr(known, name)}
    config = AutoConfig.for_model(family, **sizes | values)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()
    random = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.2, generator=random)
    return model


def batch(*rows: list[int]) -> Batch:
    """Rows in one line, all trained."""
    return Batch(
        input_ids=torch.tensor([[token for row in rows for token in row]]),
        position_ids=torch.tensor([[place for row in rows for place in range(len(row))]]),
        labels=torch.tensor([[token for row in rows for token in (*row[1:], IGNORE)]]),
    )


def losses(model: Any, *batches: Batch) -> list[float]:
    loss = LossModel(model, stopwatch=Stopwatch(torch.device("cpu")))
    with torch.no_grad():
        return [float(loss(each)) for each in batches]


FIRST, SECOND = [7, 9, 11, 30, 8, 41, 5], [12, 50, 33, 6, 61]


@pytest.mark.parametrize("family", sorted(KEEP_ROWS_APART))
def test_rows_in_one_line_do_not_read_each_other_when_their_model_may_be_packed(family: str) -> None:
    model = tiny(family)
    check_packing(model)
    together, first, second = losses(model, batch(FIRST, SECOND), batch(FIRST), batch(SECOND))
    assert together == pytest.approx(first + second, rel=1e-5)


@pytest.mark.parametrize(
    ("family", "values"),
    [
        ("gemma3_text", {"layer_types": ["sliding_attention", "full_attention"]}),
        ("olmo3", {"layer_types": ["sliding_attention", "full_attention"]}),
        ("mistral", {}),
    ],
)
def test_rows_in_one_line_do_not_read_each_other_when_layers_have_a_window(family: str, values: dict[str, Any]) -> None:
    model = tiny(family, sliding_window=3, **values)
    together, first, second = losses(model, batch(FIRST, SECOND), batch(FIRST), batch(SECOND))
    assert together == pytest.approx(first + second, rel=1e-5)


def test_packing_is_refused_when_layers_carry_a_state_from_row_to_row() -> None:
    model = tiny("qwen3_5_text", **WITH_STATE)
    with pytest.raises(BadInputError, match=r"training\.packing: models of type qwen3_5_text .* set packing: false"):
        check_packing(model)
    together, first, second = losses(model, batch(FIRST, SECOND), batch(FIRST), batch(SECOND))
    assert together != pytest.approx(first + second, rel=1e-3), "or it may be packed"


@pytest.mark.parametrize("family", ["qwen2", "granite", "gpt2", "opt"])
def test_logits_are_known_when_they_are_those_of_the_output_layer(family: str) -> None:
    check_logits(tiny(family).to("meta"))


@pytest.mark.parametrize(
    ("family", "values"),
    [
        ("falcon_h1", {**MULTIPLIED, "lm_head_multiplier": 0.5}),
        ("recurrent_gemma", {"lru_width": 32, "logits_soft_cap": 3.0}),
        ("roberta", {"is_decoder": True}),
    ],
)
def test_model_is_refused_when_its_logits_are_not_those_of_its_output_layer(
    family: str, values: dict[str, Any]
) -> None:
    with pytest.raises(BadInputError, match=r"does not take its logits from its output layer|no.* plain decoder"):
        check_logits(tiny(family, **values).to("meta"))
