"""A model that is not whole is refused where no GPU is held, and nothing of it stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import safetensors.numpy

from rft_trainer.contract import ModelSource
from rft_trainer.errors import BadInputError
from rft_trainer.paths import Layout
from rft_trainer.prepare.model import count_parameters, fetch_model
from rft_trainer.train.weights import TensorFiles

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model in two files."""
    path = tmp_path / "source"
    path.mkdir()
    for name, tensor in ((FIRST, "a.weight"), (SECOND, "b.weight")):
        safetensors.numpy.save_file({tensor: numpy.ones((4, 4), dtype=numpy.float32)}, path / name)
    index = {"metadata": {}, "weight_map": {"a.weight": FIRST, "b.weight": SECOND}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    (path / "config.json").write_text("{}")
    (path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return path


def fetch(source: Path) -> Path:
    destination = source.with_name("model")
    uri = ModelSource(uri=f"file://{source}")
    fetch_model(uri, Layout(source.parent), destination, texts=[], seed=1, max_sequence_length=64)
    return destination


def test_model_is_there_with_its_card_when_it_is_whole(source: Path) -> None:
    assert {path.name for path in fetch(source).iterdir()} == {path.name for path in source.iterdir()}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.unlink, rf"1 of its 2 files of weights are missing, the first is {SECOND}; copy all of them"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-9]),
            rf"{SECOND} is no whole file of weights .*copy it again",
        ),
        (lambda path: path.write_bytes(b""), rf"{SECOND} is no whole file of weights"),
        (
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"),
            rf"{SECOND} is a pointer of Git LFS in place of the weights; run git lfs pull",
        ),
    ],
    ids=["gone", "cut", "empty", "pointer"],
)
def test_model_is_refused_by_file_when_it_is_not_whole(
    source: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    spoil(source / SECOND)
    with pytest.raises(BadInputError, match=rf"model.uri 'file://.*': {reason}"):
        fetch(source)
    assert not source.with_name("model").exists()


def test_model_is_refused_by_file_when_it_is_a_link_to_nothing(source: Path) -> None:
    (source / "tokenizer.json").symlink_to("../../blobs/0")
    with pytest.raises(BadInputError, match=r"model.uri .*: tokenizer\.json is a link to a file that is not there"):
        fetch(source)


def test_weights_that_another_library_has_beside_the_index_are_no_weights_of_the_model(source: Path) -> None:
    """As Mistral's repositories have them: the whole model once more, by other names."""
    twice = {name: numpy.ones((4, 4), dtype=numpy.float32) for name in ("layers.a", "layers.b")}
    safetensors.numpy.save_file(twice, source / "consolidated.safetensors")
    model = fetch(source)
    assert count_parameters(model) == 2 * 4 * 4
    assert [name for name, _ in TensorFiles(model)] == ["a.weight", "b.weight"], "an adapter is merged into these"
    assert not (model / "consolidated.safetensors").exists(), "a copy on the run's volume is of no use"


def test_a_file_beside_the_one_that_has_the_weights_is_no_part_of_the_model(source: Path) -> None:
    (source / "model.safetensors.index.json").unlink()
    (source / FIRST).rename(source / "model.safetensors")
    model = fetch(source)
    assert count_parameters(model) == 4 * 4
    assert [name for name, _ in TensorFiles(model)] == ["a.weight"]
