"""The prepared dataset, its sources, and what a training computes from it step by step."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from rft_trainer.contract import DatasetSource
from rft_trainer.errors import BadInputError
from rft_trainer.paths import Layout
from rft_trainer.prepare import dataset as prepared
from rft_trainer.prepare.dataset import PreparedDataset, build, load, question_hash, save
from rft_trainer.prepare.rows import conversations, data_files, read_rows
from rft_trainer.steps import total_steps
from rft_trainer.train.schedule import learning_rate
from unit.trainer.factory import row, run_config


@pytest.fixture
def dataset() -> PreparedDataset:
    rows = [row(1, 2, 3, prompt=1), row(4, 5, 6, 7, prompt=2), row(8, 9, prompt=1)]
    return build(rows, [[0, 2], [1]], question_hashes=frozenset({"a"}))


def test_saved_dataset_is_equal_when_loaded_again(dataset: PreparedDataset, tmp_path: Path) -> None:
    save(dataset, tmp_path / "dataset")
    again = load(tmp_path / "dataset")
    assert again.sha256 == dataset.sha256
    assert again.question_hashes == dataset.question_hashes
    assert [r.tokens.tolist() for r in again.sequence(0)] == [[1, 2, 3], [8, 9]]
    assert again.sequence_lengths().tolist() == [5, 4]
    assert again.sequence_targets().tolist() == [3, 2]


@pytest.mark.parametrize("rows_at_once", [1, 2, 3, 1_000])
def test_trained_tokens_are_the_same_however_many_rows_are_counted_at_once(
    dataset: PreparedDataset, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr(prepared, "COUNTED_ROWS", rows_at_once)
    assert dataset.sequence_targets().tolist() == [3, 2]


def test_memory_to_count_trained_tokens_does_not_grow_with_the_rows() -> None:
    rows, length = 20_000, 100
    offsets = np.arange(rows + 1, dtype=np.int64)
    marks = np.ones(rows * length, dtype=np.uint8)
    large = PreparedDataset(marks.view(np.int8), marks, offsets * length, offsets[:-1], offsets, frozenset(), "")
    tracemalloc.start()
    try:
        assert int(large.sequence_targets().sum()) == rows * (length - 1)
        assert tracemalloc.get_traced_memory()[1] < marks.nbytes
    finally:
        tracemalloc.stop()


def test_dataset_is_refused_when_the_directory_is_empty(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="run the prepare stage first"):
        load(tmp_path)


def test_question_hash_is_equal_when_case_and_spaces_differ() -> None:
    assert question_hash("What  IS\n2?") == question_hash("what is 2?")
    assert question_hash("what is 3?") != question_hash("what is 2?")


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


@pytest.mark.parametrize(
    ("inside", "split", "is_refused"),
    [
        ("rows.jsonl", "train", False),
        ("rows.jsonl", "validation", True),
        ("validation.jsonl", "validation", False),
        ("validation/rows.jsonl", "validation", False),
        ("folder", "train", False),
        ("folder", "validation", True),
        ("validation", "validation", False),
    ],
)
def test_split_is_refused_when_nothing_is_named_for_one(
    tmp_path: Path, inside: str, split: str, is_refused: bool
) -> None:
    layout = Layout(tmp_path)
    place = layout.claim("validation-claim", inside)
    file = place if place.suffix else place / "rows.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text('{"prompt": "q", "completion": "a"}\n')
    source = DatasetSource(uri=f"pvc://validation-claim/{inside}", format="prompt-completion", split=split)
    found = conversations(source, layout, download_to=tmp_path / "source")
    if not is_refused:
        assert len(list(found)) == 1
        return
    what = "is one file" if place.suffix else "has no file that is named for a split"
    with pytest.raises(BadInputError, match=rf"dataset\.split 'validation': pvc://.*/{inside} {what}.*; remove"):
        list(found)


@pytest.mark.parametrize(
    ("names", "twins"),
    [
        (["a.jsonl", "a.jsonl.gz"], r"a\.jsonl and a\.jsonl\.gz"),
        (["a.jsonl", "b.parquet", "c.jsonl"], r"a\.jsonl and b\.parquet"),
        (["a/train.json", "b/train.json.gz", "b/train.jsonl"], r"b/train\.json\.gz and b/train\.jsonl"),
        (["a.jsonl", "b.jsonl.gz", "c.json"], None),
        (["train.jsonl", "test.parquet"], None),
        (["a/train.parquet", "b/train.parquet"], None),
    ],
)
def test_rows_are_not_read_twice_when_they_stand_there_in_two_forms(
    tmp_path: Path, names: list[str], twins: str | None
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    if twins is None:
        assert data_files(tmp_path, split="train", where="pvc://claim")
        return
    with pytest.raises(BadInputError, match=rf"pvc://claim: {twins} may be the same rows in two forms; name the file"):
        data_files(tmp_path, split="train", where="pvc://claim")


def test_files_in_a_folder_that_is_named_as_a_file_are_read_once(tmp_path: Path) -> None:
    """As Spark writes a table."""
    (tmp_path / "rows.parquet").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["q"]}), tmp_path / "rows.parquet" / "part-0.snappy.parquet")
    files = data_files(tmp_path, split="train", where="pvc://claim")
    assert [file.name for file in files] == ["part-0.snappy.parquet"]


def test_folder_is_refused_by_file_when_its_rows_are_of_a_form_that_is_not_read(tmp_path: Path) -> None:
    for name in ("state.json", "dataset_info.json", "data-00000-of-00001.arrow"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(BadInputError, match=r"pvc://claim: has no .* but data-00000-of-00001\.arrow; write the rows"):
        data_files(tmp_path, split="train", where="pvc://claim")


@pytest.mark.parametrize("name", ["b.jsonl.zst", "b.jsonl"])
def test_a_part_of_the_rows_is_not_left_out_when_a_file_of_them_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    if name.endswith("zst"):
        (tmp_path / name).write_bytes(b"\x28\xb5\x2f\xfd")
    else:
        (tmp_path / name).symlink_to("../blobs/0")
    with pytest.raises(BadInputError, match=rf"{name}: (files of this form are not read; write|is a link to a file)"):
        [list(read_rows(file)) for file in data_files(tmp_path, split="train", where="pvc://claim")]


def test_rows_are_those_of_the_table_when_the_file_is_parquet(tmp_path: Path) -> None:
    table = pyarrow.table({"question": ["1 + 1", "2 + 2"], "attempt": ["2", "4"]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    rows = list(read_rows(tmp_path / "rows.parquet"))
    assert rows[1] == ("rows.parquet[1]", {"question": "2 + 2", "attempt": "4"})


ROWS = b"".join(b'{"prompt": "%d", "completion": "caf\xc3\xa9"}\n' % number for number in range(2_000))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", ROWS),
        ("rows.jsonl.gz", gzip.compress(ROWS)),
        ("rows.json.gz", gzip.compress(ROWS)),
        ("rows.json", ROWS),
        ("rows.json", b"\xef\xbb\xbf" + ROWS),
    ],
)
def test_rows_are_those_of_the_lines_when_a_line_is_a_row(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    rows = list(read_rows(tmp_path / name))
    assert (len(rows), rows[7]) == (2_000, (f"{name}:8", {"prompt": "7", "completion": "caf\u00e9"}))


@pytest.mark.parametrize("indent", [None, 1])
def test_rows_are_those_of_the_list_when_a_compressed_file_is_json(tmp_path: Path, indent: int | None) -> None:
    given = [{"prompt": "1"}, {"prompt": "2"}]
    (tmp_path / "rows.json.gz").write_bytes(gzip.compress(json.dumps(given, indent=indent).encode()))
    assert list(read_rows(tmp_path / "rows.json.gz")) == [(f"rows.json.gz[{at}]", row) for at, row in enumerate(given)]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("rows.json.gz", gzip.compress(b"[" + ROWS)[:-900], r"rows\.json\.gz: is no whole gzip file .*copy it"),
        (
            "rows.jsonl",
            ROWS + '{"prompt": "\u00e9"}'.encode("latin-1"),
            r"rows\.jsonl:2001: is not UTF-8 \(.*save it as UTF",
        ),
        ("rows.json", '[{"prompt": "\u00e9"}]'.encode("latin-1"), r"rows\.json: is not UTF-8 .*save it as UTF-8"),
        (
            "rows.jsonl.gz",
            gzip.compress(ROWS)[:-900],
            r"rows\.jsonl\.gz: is no whole gzip file .*after line \d+.*copy it",
        ),
        ("rows.jsonl.gz", ROWS, r"rows\.jsonl\.gz: is no whole gzip file .*after line 0\)"),
        ("rows.jsonl.gz", gzip.compress(ROWS)[:40] + b"\x00" * 400, r"rows\.jsonl\.gz: is no whole gzip file"),
        ("rows.json", b"[" * 100_000, r"rows\.json: is not JSON .*recursion"),
        ("rows.csv", b"prompt,completion", r"rows\.csv: files of this form are not read; write the rows as \.jsonl"),
        ("rows.parquet", b"", r"rows\.parquet: is no whole parquet file .*after row 0\); copy it again"),
        ("rows.parquet", ROWS, r"rows\.parquet: is no whole parquet file"),
    ],
)
def test_file_is_refused_with_the_place_and_the_remedy_when_it_cannot_be_read(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInputError, match=reason):
        list(read_rows(tmp_path / name))


def test_parquet_is_refused_by_name_when_a_page_in_it_is_spoiled(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"prompt": [str(number) for number in range(5_000)]}), path)
    data = bytearray(path.read_bytes())
    data[4:400] = b"\xff" * 396
    path.write_bytes(data)
    with pytest.raises(BadInputError, match=r"rows\.parquet: is no whole parquet file .*copy it again"):
        list(read_rows(path))
