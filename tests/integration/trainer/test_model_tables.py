"""What a model computes from its configuration is the same under ZeRO-3, whose way to build models rounds it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from support.warm_ranks import warm_server
from unit.trainer.factory import free_port

pytestmark = pytest.mark.distributed

SIZES = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1,
    "num_key_value_heads": 1, "head_dim": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "yarn": {
        "model_type": "qwen3",
        "max_position_embeddings": 4_096,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 4.0,
            "original_max_position_embeddings": 1_024,
        },
    },
    "gemma 3": {"model_type": "gemma3_text"},
}


def _compare(folder: Path, port: int) -> None:
    """One rank: the model under ZeRO-3 beside the one that the library loads."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    import deepspeed
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from rft_trainer.train.weights import build_model

    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    zero3 = {"train_batch_size": 1, "bf16": {"enabled": True}, "zero_optimization": {"stage": 3}}
    for name, values in MODELS.items():
        config = AutoConfig.for_model(**values, **SIZES)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder / name)
        wanted = dict(AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.bfloat16).named_buffers())
        model = build_model(folder / name, dtype=torch.bfloat16, attention="sdpa", deepspeed_config=zero3, zero3=True)
        found = dict(model.named_buffers())
        assert found.keys() == wanted.keys(), name
        assert any(buffer.is_floating_point() for buffer in found.values()), name
        for key, buffer in found.items():
            assert (buffer.dtype, buffer.tolist()) == (wanted[key].dtype, wanted[key].tolist()), f"{name}: {key}"


def test_frequencies_of_positions_are_exact_when_the_weights_are_in_parts(tmp_path: Path) -> None:
    rank = warm_server().Process(target=_compare, args=(tmp_path, free_port()))
    rank.start()
    try:
        rank.join(timeout=120)
        assert rank.exitcode == 0
    finally:
        rank.kill()
        rank.join()
