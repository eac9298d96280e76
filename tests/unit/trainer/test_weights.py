"""Hashes of models: every byte counts, and what is kept is believed only while the files are the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rft_trainer import weights
from rft_trainer.files import read_json, write_json
from rft_trainer.weights import KEPT, hash_folder

CHUNK = 100


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of several chunks and files."""
    monkeypatch.setattr(weights, "CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(weights, "READ_BYTES", 32)
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 2)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "empty.txt").touch()
    return tmp_path


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0, 31, 32, CHUNK - 1, CHUNK, 3 * CHUNK + 7, 511])
def test_every_byte_counts(model: Path, at: int) -> None:
    before = hash_folder(model)
    flipped(model / "model.safetensors", at)
    changed = hash_folder(model)
    flipped(model / "model.safetensors", at)
    assert changed != before == hash_folder(model)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: (model / "config.json").rename(model / "config2.json"),
        lambda model: (model / "new.json").touch(),
        lambda model: (model / "tokenizer" / "empty.txt").unlink(),
        lambda model: (model / "config.json").write_text("{} ", encoding="utf-8"),
    ],
    ids=["renamed", "added", "removed", "longer"],
)
def test_every_file_counts(model: Path, change: Callable[[Path], object]) -> None:
    before = hash_folder(model)
    change(model)
    assert hash_folder(model) != before


def test_hidden_files_do_not_count(model: Path) -> None:
    before = hash_folder(model)
    (model / ".cache").mkdir()
    (model / ".cache" / "x").write_text("x", encoding="utf-8")
    (model / ".lock").touch()
    assert hash_folder(model) == before


def test_two_chunks_in_another_order_are_another_model(model: Path) -> None:
    one, other = b"a" * CHUNK + b"b" * CHUNK, b"b" * CHUNK + b"a" * CHUNK
    (model / "model.safetensors").write_bytes(one)
    before = hash_folder(model)
    (model / "model.safetensors").write_bytes(other)
    assert hash_folder(model) != before


def test_files_are_not_read_again_while_they_are_the_same(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hash_folder(model)

    def refuse(_: object) -> bytes:
        raise AssertionError("read again")

    monkeypatch.setattr(weights, "_hashed_chunk", refuse)
    assert hash_folder(model) == before


def test_file_that_was_changed_behind_its_modification_time_is_read_again(model: Path) -> None:
    path = model / "model.safetensors"
    before, stat = hash_folder(model), path.stat()
    flipped(path, 5)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert hash_folder(model) != before


@pytest.mark.parametrize(
    "kept", ["{", "[]", '{"version": 2, "files": {}}', '{"version": 1, "files": {"config.json": 1}}']
)
def test_what_is_kept_and_cannot_be_read_is_computed_anew(model: Path, kept: str) -> None:
    before = hash_folder(model)
    (model / KEPT).write_text(kept, encoding="utf-8")
    assert hash_folder(model) == before
    assert set((read_json(model / KEPT) or {})["files"]) == {"config.json", "model.safetensors", "tokenizer/empty.txt"}


def test_hash_is_the_same_on_a_volume_that_cannot_be_written(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hash_folder(model)
    (model / KEPT).unlink()

    def refuse(*_: object) -> None:
        raise OSError(30, "read-only file system")

    monkeypatch.setattr(weights, "write_json", refuse)
    assert hash_folder(model) == before
    assert not (model / KEPT).exists()
    assert write_json is not refuse
