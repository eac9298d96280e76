"""Packing, the prepared dataset, batches and the plan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rft_trainer.errors import BadInputError
from rft_trainer.prepare.chat import EncodedRow
from rft_trainer.prepare.dataset import PreparedDataset, build, load, question_hash, save
from rft_trainer.prepare.packing import pack, singles
from rft_trainer.prepare.rows import data_files, read_rows
from rft_trainer.steps import total_steps
from rft_trainer.train.batch import IGNORE, collate
from rft_trainer.train.plan import BatchPlan, accumulation_steps
from rft_trainer.train.schedule import learning_rate
from unit.trainer.factory import run_config


def row(*tokens: int, prompt: int) -> EncodedRow:
    target = np.asarray([0] * prompt + [1] * (len(tokens) - prompt), dtype=np.uint8)
    return EncodedRow(tokens=np.asarray(tokens, dtype=np.int32), target=target)


@pytest.fixture
def dataset() -> PreparedDataset:
    rows = [row(1, 2, 3, prompt=1), row(4, 5, 6, 7, prompt=2), row(8, 9, prompt=1)]
    return build(rows, [[0, 2], [1]], question_hashes=frozenset({"a"}))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=80))
def test_packing_keeps_every_row_once_and_within_the_capacity_when_rows_fit(lengths: list[int]) -> None:
    packed = pack(lengths, capacity=50)
    assert sorted(index for rows in packed for index in rows) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in rows) <= 50 for rows in packed)
    assert len(packed) <= max(1, 2 * sum(lengths) // 50 + 1)


def test_saved_dataset_is_equal_when_loaded_again(dataset: PreparedDataset, tmp_path: Path) -> None:
    save(dataset, tmp_path / "dataset")
    again = load(tmp_path / "dataset")
    assert again.sha256 == dataset.sha256
    assert again.question_hashes == dataset.question_hashes
    assert [r.tokens.tolist() for r in again.sequence(0)] == [[1, 2, 3], [8, 9]]
    assert again.sequence_lengths().tolist() == [5, 4]
    assert again.sequence_targets().tolist() == [3, 2]


def test_dataset_is_refused_when_the_directory_is_empty(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="run the prepare stage first"):
        load(tmp_path)


def test_labels_and_positions_stay_within_a_row_when_rows_are_packed(dataset: PreparedDataset) -> None:
    batch = collate(dataset, [0, 1], pad_id=0)
    assert batch.input_ids.tolist() == [[1, 2, 3, 8, 9], [4, 5, 6, 7, 0]]
    assert batch.labels.tolist() == [[2, 3, IGNORE, 9, IGNORE], [IGNORE, 6, 7, IGNORE, IGNORE]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 0]]
    assert batch.attention_mask is not None
    mask = batch.attention_mask[0, 0]
    assert mask[4].tolist() == [False, False, False, True, True]
    assert bool(mask.any(dim=-1).all()), "no position may be blind: its softmax would be NaN"


def test_label_count_equals_the_plan_when_counted_by_tensor(dataset: PreparedDataset) -> None:
    batch = collate(dataset, [0, 1], pad_id=0)
    assert int((batch.labels != IGNORE).sum()) == int(dataset.sequence_targets().sum())


def test_question_hash_is_equal_when_case_and_spaces_differ() -> None:
    assert question_hash("What  IS\n2?") == question_hash("what is 2?")
    assert question_hash("what is 3?") != question_hash("what is 2?")


def make_plan(*, world_size: int, micro: int = 2) -> BatchPlan:
    lengths = np.random.Generator(np.random.PCG64(1)).integers(5, 100, size=37)
    return BatchPlan(
        lengths=lengths,
        targets=lengths // 2,
        seed=7,
        global_batch_size=8,
        micro_batch_size=micro,
        world_size=world_size,
    )


def rows_of(plan: BatchPlan, *, step: int, world_size: int) -> list[int]:
    micro = [m for rank in range(world_size) for m in plan.step(step, rank=rank).micro_batches]
    return sorted(index for batch in micro for index in batch)


def test_plan_gives_the_same_global_batch_when_the_number_of_ranks_changes() -> None:
    for step in range(12):
        one, four = make_plan(world_size=1), make_plan(world_size=4)
        assert rows_of(one, step=step, world_size=1) == rows_of(four, step=step, world_size=4)
        assert one.step(step, rank=0).target_tokens == four.step(step, rank=3).target_tokens


def test_plan_sees_every_row_once_an_epoch_when_epochs_run_into_one_another() -> None:
    plan = make_plan(world_size=1)
    seen = [int(index) for step in range(37) for index in plan.global_batch(step)]
    assert all(seen.count(index) == 8 for index in range(37))
    assert plan.epoch(37) == 8.0


def test_plan_is_a_function_of_the_step_when_asked_out_of_order() -> None:
    forward, single = make_plan(world_size=2), make_plan(world_size=2)
    steps = [forward.step(step, rank=1) for step in range(20)]
    assert single.step(19, rank=1) == steps[19]
    assert single.step(3, rank=1) == steps[3]


def test_ranks_get_rows_of_similar_length_when_they_work_in_lockstep() -> None:
    plan = make_plan(world_size=4, micro=1)
    first, second = zip(*(plan.step(0, rank=rank).micro_batches for rank in range(4)), strict=True)
    shortest_of_first = min(plan._lengths[batch[0]] for batch in first)
    assert shortest_of_first >= max(plan._lengths[batch[0]] for batch in second)


def test_batch_size_is_refused_with_a_remedy_when_ranks_do_not_divide_it() -> None:
    training = run_config(training__global_batch_size=12, training__micro_batch_size=4).training
    assert accumulation_steps(training, world_size=3) == 1
    with pytest.raises(BadInputError, match="globalBatchSize=12 must be a multiple of microBatchSize=4 x 2 GPUs = 8"):
        accumulation_steps(training, world_size=2)


@pytest.mark.parametrize(
    ("sequences", "epochs", "max_steps", "wanted"),
    [(1000, 5, None, 313), (16, 1, None, 1), (3, 1, None, 1), (1000, 5, 10, 10), (16, 1, 10, 1)],
)
def test_steps_round_up_when_the_last_batch_is_not_full(
    sequences: int, epochs: int, max_steps: int | None, wanted: int
) -> None:
    config = run_config(training__epochs=epochs, training__max_steps=max_steps)
    assert total_steps(config.training, sequences=sequences) == wanted


def test_learning_rate_rises_then_falls_to_zero_when_the_schedule_is_cosine() -> None:
    training = run_config(training__learning_rate=1.0, training__warmup_ratio=0.1).training
    rates = [learning_rate(training, step=step, total_steps=100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert all(rate > 0 for rate in rates)


def test_learning_rate_stays_or_falls_evenly_when_the_schedule_says_so() -> None:
    constant = run_config(training__schedule="constant", training__learning_rate=1.0).training
    linear = run_config(training__schedule="linear", training__learning_rate=1.0, training__warmup_ratio=0.0).training
    assert learning_rate(constant, step=99, total_steps=100) == 1.0
    assert learning_rate(linear, step=25, total_steps=100) == pytest.approx(0.75)


def test_chunked_loss_equals_plain_loss_when_logits_do_not_fit_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    from rft_trainer.train import loss as loss_module

    torch.manual_seed(0)
    head = torch.nn.Linear(16, 50, bias=False)
    hidden = torch.randn(700, 16, requires_grad=True)
    labels = torch.randint(0, 50, (700,))
    plain = torch.nn.functional.cross_entropy(head(hidden), labels, reduction="sum")
    wanted = torch.autograd.grad(plain, [hidden, head.weight])
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 50 * 100)
    chunked = loss_module.summed_nll(head, hidden, labels)
    torch.testing.assert_close(chunked, plain)
    for got, want in zip(torch.autograd.grad(chunked, [hidden, head.weight]), wanted, strict=True):
        torch.testing.assert_close(got, want)


def test_packed_rows_give_the_loss_of_single_rows_when_attention_is_kept_apart(dataset: PreparedDataset) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from rft_trainer.train.loss import LossModel

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=16, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32,
    )  # fmt: skip
    model = LossModel(Qwen2ForCausalLM(config))
    rows = [dataset.row(index) for index in range(dataset.rows)]
    single = build(rows, singles(3), question_hashes=frozenset())
    apart = sum(float(model(collate(single, [index], pad_id=0)).detach()) for index in range(3))
    together = float(model(collate(dataset, [0, 1], pad_id=0)).detach())
    assert together == pytest.approx(apart, rel=1e-5)


def test_split_is_a_word_of_the_path_when_files_are_chosen(tmp_path: Path) -> None:
    for name in ("train-00000.jsonl", "test.jsonl", "constraints.jsonl", "train_sft.jsonl"):
        (tmp_path / name).write_text("{}\n")
    names = [file.name for file in data_files(tmp_path, split="train_sft", where="hf://a/b")]
    assert names == ["train_sft.jsonl"]
    assert "constraints.jsonl" not in {file.name for file in data_files(tmp_path, split="train", where="hf://a/b")}
    with pytest.raises(BadInputError, match=r"no file is named for split 'validation'.*test\.jsonl"):
        data_files(tmp_path, split="validation", where="hf://a/b")


def test_all_files_are_read_when_none_names_a_split(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    assert [file.name for file in data_files(tmp_path, split="train", where="hf://a/b")] == ["rows.jsonl"]


def test_rows_are_those_of_the_table_when_the_file_is_parquet(tmp_path: Path) -> None:
    table = pyarrow.table({"question": ["1 + 1", "2 + 2"], "attempt": ["2", "4"]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    rows = list(read_rows(tmp_path / "rows.parquet"))
    assert rows[1] == ("rows.parquet[1]", {"question": "2 + 2", "attempt": "4"})
