"""Micro batches: what a token may see and what it must predict, and that loss and gradient do not depend on how the
rows of a step are arranged, packed or padded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from rft_trainer.prepare.chat import EncodedRow
from rft_trainer.prepare.dataset import PreparedDataset, build
from rft_trainer.prepare.packing import pack, singles
from rft_trainer.train.batch import IGNORE, Batch, collate
from rft_trainer.train.loss import LossModel
from rft_trainer.train.plan import BatchPlan
from rft_trainer.train.speed import Stopwatch
from unit.trainer.factory import row

VOCABULARY = 40


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def dataset() -> PreparedDataset:
    rows = [row(1, 2, 3, prompt=1), row(4, 5, 6, 7, prompt=2), row(8, 9, prompt=1)]
    return build(rows, [[0, 2], [1]], question_hashes=frozenset({"a"}))


def test_labels_and_positions_stay_within_a_row_when_rows_are_packed(dataset: PreparedDataset) -> None:
    batch = collate(dataset, [0, 1])
    assert batch.input_ids.tolist() == [[1, 2, 3, 8, 9], [4, 5, 6, 7, 0]]
    assert batch.labels.tolist() == [[2, 3, IGNORE, 9, IGNORE], [IGNORE, 6, 7, IGNORE, IGNORE]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 0]]


def test_positions_go_on_over_the_padding_when_no_row_is_packed(dataset: PreparedDataset) -> None:
    single = build([dataset.row(index) for index in range(3)], singles(3), question_hashes=frozenset())
    batch = collate(single, [1, 2])
    assert batch.position_ids.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]], "or the library would build a mask for nothing"
    assert batch.labels.tolist() == [[IGNORE, 6, 7, IGNORE], [9, IGNORE, IGNORE, IGNORE]]


def test_micro_batch_has_no_padding_when_it_is_flat(dataset: PreparedDataset) -> None:
    batch = collate(dataset, [0, 1], flat=True)
    assert batch.input_ids.tolist() == [[1, 2, 3, 8, 9, 4, 5, 6, 7]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2, 3]]
    assert batch.labels.tolist() == [[2, 3, IGNORE, 9, IGNORE, IGNORE, 6, 7, IGNORE]]


def test_label_count_equals_the_plan_when_counted_by_tensor(dataset: PreparedDataset) -> None:
    batch = collate(dataset, [0, 1])
    assert int((batch.labels != IGNORE).sum()) == int(dataset.sequence_targets().sum())


def make_rows(count: int) -> list[EncodedRow]:
    """Rows of 1 to 24 tokens, a part of each in front not trained."""
    random = np.random.Generator(np.random.PCG64(3))
    lengths = random.integers(1, 25, size=count).tolist()
    return [row(*random.integers(0, VOCABULARY, size=n).tolist(), prompt=int(random.integers(0, n))) for n in lengths]


def make_model() -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).double()


def summed_nll(model: Any, batch: Batch) -> Any:
    logits = model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORE, reduction="sum")


def step_of(model: Any, batches: list[Batch], *, target_tokens: int) -> tuple[float, list[torch.Tensor]]:
    """The token-weighted loss of a step, and its gradient, but for what the model computes in single precision."""
    model.zero_grad()
    total = 0.0
    for batch in batches:
        loss = summed_nll(model, batch) / target_tokens
        loss.backward()
        total += float(loss.detach())
    return total, [each.grad.clone() for each in model.parameters() if each.grad is not None]


def check_equal(model: Any, one: list[Batch], other: list[Batch], *, target_tokens: int) -> None:
    loss, gradient = step_of(model, one, target_tokens=target_tokens)
    again, gradient_again = step_of(model, other, target_tokens=target_tokens)
    assert again == pytest.approx(loss, rel=1e-7)
    assert len(gradient) == len(gradient_again) > 10
    for left, right in zip(gradient, gradient_again, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-7)


def test_loss_and_gradient_of_a_step_are_equal_when_micro_batches_are_ordered_by_length() -> None:
    dataset = build(make_rows(40), singles(40), question_hashes=frozenset())
    plan = BatchPlan(
        lengths=dataset.sequence_lengths(),
        targets=dataset.sequence_targets(),
        seed=1,
        global_batch_size=24,
        micro_batch_size=2,
        world_size=3,
    )
    for step in (0, 1):
        ordered = [rows for rank in range(3) for rows in plan.step(step, rank=rank).micro_batches]
        in_data_order = plan.global_batch(step).reshape(-1, 2).tolist()
        assert [list(rows) for rows in ordered] != in_data_order
        check_equal(
            make_model(),
            [collate(dataset, rows) for rows in in_data_order],
            [collate(dataset, rows) for rows in ordered],
            target_tokens=plan.step(step, rank=0).target_tokens,
        )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("flat", [False, True])
def test_packed_rows_give_loss_and_gradient_of_single_rows_when_kept_apart_by_their_positions(
    attention: str, flat: bool
) -> None:
    rows = make_rows(30)
    alone = build(rows, singles(30), question_hashes=frozenset())
    sequences = pack([len(each.tokens) for each in rows], capacity=32)
    packed = build(rows, sequences, question_hashes=frozenset())
    assert len(packed) < 20
    model = make_model()
    model.set_attn_implementation(attention)
    pairs = [[index, index + 1] for index in range(0, len(packed) - 1, 2)]
    rest = [] if len(packed) % 2 == 0 else [[len(packed) - 1]]
    check_equal(
        model,
        [collate(alone, [index]) for index in range(30) if alone.sequence_targets()[index]],
        [collate(packed, pair, flat=flat) for pair in pairs + rest],
        target_tokens=int(alone.sequence_targets().sum()),
    )


def test_trainers_model_keeps_packed_rows_apart_when_it_computes_the_loss() -> None:
    rows = [each for each in make_rows(12) if each.target[1:].any()]
    alone = build(rows, singles(len(rows)), question_hashes=frozenset())
    packed = build(rows, pack([len(each.tokens) for each in rows], capacity=48), question_hashes=frozenset())
    model = LossModel(make_model(), stopwatch=Stopwatch(torch.device("cpu")))
    apart = sum(float(model(collate(alone, [index])).detach()) for index in range(len(rows)))
    together = float(model(collate(packed, range(len(packed)))).detach())
    assert 1 < len(packed) < len(rows)
    assert together == pytest.approx(apart, rel=1e-6)
