"""Operations, peaks, kernels: what is computed with what."""

from __future__ import annotations

import importlib.util
import shutil
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rft_operator.domain.estimate_gpu import GPUS
from rft_trainer.contract import LoraConfig
from rft_trainer.peaks import PEAKS, peak_of_device
from rft_trainer.prepare.chat import EncodedRow
from rft_trainer.prepare.dataset import build
from rft_trainer.train.adapter import add_adapters
from rft_trainer.train.kernels import available
from rft_trainer.train.speed import Stopwatch, arithmetic, peak_flops, squared_rows
from unit.trainer.factory import run_config

CPU = torch.device("cpu")


def model(*, tied: bool) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    return Qwen2ForCausalLM(config)


@pytest.mark.parametrize("tied", [True, False])
def test_embedding_counts_where_it_is_multiplied_with_and_not_where_it_is_looked_up(tied: bool) -> None:
    found = arithmetic(model(tied=tied))
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 32 + 2 * 16 + 3 * 32 * 64 + 2 * 32
    assert found.per_token == 6 * (3 * layer + 32 + 100 * 32)
    assert found.per_squared_row == 6 * 3 * 32
    wanted = 10 * found.per_token + 60 * found.per_squared_row
    assert found.of(tokens=10, squared_rows=60, windowed_rows=50) == wanted


@pytest.mark.parametrize(
    ("window", "kinds", "full", "windowed"),
    [
        (4, ["sliding_attention", "sliding_attention", "full_attention"], 1, 2),
        (4, None, 0, 3),
        (None, None, 3, 0),
        (None, ["linear_attention", "conv", "full_attention"], 1, 0),
    ],
)
def test_attention_is_counted_as_far_as_a_layer_sees(
    window: int | None, kinds: list[str] | None, full: int, windowed: int
) -> None:
    built = model(tied=True)
    built.config.sliding_window, built.config.layer_types = window, kinds
    found = arithmetic(built)
    assert (found.per_squared_row, found.per_windowed_row) == (6 * full * 32, 6 * windowed * 32)
    assert found.window == window


def test_frozen_weights_need_no_product_for_their_gradients() -> None:
    full, adapted = arithmetic(model(tied=True)), model(tied=True)
    add_adapters(adapted, LoraConfig(rank=2, alpha=4, dropout=0.0, target_modules=("q_proj",)))
    adapters = 3 * 2 * (32 + 32)
    assert arithmetic(adapted).per_token == full.per_token * 4 // 6 + 6 * adapters


def test_attention_is_counted_by_row_when_rows_are_packed() -> None:
    rows = [
        EncodedRow(tokens=np.zeros(length, dtype=np.int32), target=np.ones(length, dtype=np.uint8))
        for length in (3, 4, 5)
    ]
    dataset = build(rows, [[0, 2], [1]], question_hashes=frozenset())
    assert squared_rows(dataset).tolist() == [9 + 25, 16]
    assert squared_rows(dataset, window=3).tolist() == [9 + 25 - 4, 16 - 1]
    seen = [sum(min(place, 3) for place in range(1, length + 1)) for length in (3, 5)]
    assert sum(seen) == (9 + 25 - 4) // 2 + 3, "pairs of tokens, the diagonal whole"


def test_peak_is_found_by_the_drivers_name_and_absent_for_a_cpu() -> None:
    peak = peak_of_device("NVIDIA H100 80GB HBM3")
    assert peak is not None
    assert peak.bf16 == 989_000_000_000_000
    assert peak_of_device("NVIDIA GeForce 256") is None
    assert peak_flops(CPU, precision="bf16") is None
    assert PEAKS.keys() >= GPUS.keys()


def test_stopwatch_counts_only_what_it_encloses() -> None:
    watch = Stopwatch(CPU)
    assert watch.take() == 0
    for _ in range(2):
        with watch.running():
            torch.ones(64, 64).sum()
    assert watch.take() > 0
    assert watch.take() == 0


@pytest.mark.parametrize(
    ("cuda", "precision", "installed", "flash", "liger"),
    [
        (True, "bf16", {"flash_attn", "liger_kernel", "gcc"}, True, True),
        (True, "fp32", {"flash_attn", "liger_kernel", "gcc"}, False, True),
        (True, "bf16", {"flash_attn", "liger_kernel"}, True, False),
        (True, "bf16", set(), False, False),
        (False, "bf16", {"flash_attn", "liger_kernel", "gcc"}, False, False),
    ],
)
def test_kernels_are_used_where_gpu_and_image_have_them(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, precision: str, installed: set[str], flash: bool, liger: bool
) -> None:
    def find_spec(name: str) -> ModuleSpec | None:
        return ModuleSpec(name, None) if name in installed else None

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(shutil, "which", lambda name: name if name in installed else None)
    found = available(run_config(training__precision=precision).training)
    assert (found.flash_attention, found.liger) == (flash, liger)
    assert found.attention == ("flash_attention_2" if flash else "sdpa")
