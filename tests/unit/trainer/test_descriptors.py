"""A program that may name no file still knows what its descriptors are."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from rft_trainer.sandbox.descriptors import know_descriptors


@pytest.fixture
def original(monkeypatch: pytest.MonkeyPatch) -> os.stat_result:
    """Python's own words for this file; afterwards its functions are its own again."""
    found = os.stat(__file__)  # noqa: PTH116 - the function itself is tried
    for module, name in ((os, "fstat"), (os, "stat"), (mmap, "mmap")):
        monkeypatch.setattr(module, name, getattr(module, name))
    know_descriptors()
    return found


def test_descriptor_has_every_field_that_python_itself_gives_it(original: os.stat_result) -> None:
    with Path(__file__).open() as file:
        for found in (os.fstat(file.fileno()), os.stat(file.fileno())):  # noqa: PTH116
            names = [name for name in dir(found) if name.startswith("st_") and "atime" not in name]
            assert {name: getattr(found, name) for name in names} == {name: getattr(original, name) for name in names}


def test_name_is_asked_for_as_ever_and_a_closed_descriptor_is_an_error(original: os.stat_result) -> None:
    assert os.stat(__file__).st_ino == original.st_ino  # noqa: PTH116
    assert Path(__file__).stat(follow_symlinks=False).st_size == original.st_size
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(999)


def test_map_of_length_zero_is_of_the_whole_file(original: os.stat_result, tmp_path: Path) -> None:
    with Path(__file__).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        assert len(content) == original.st_size
    with mmap.mmap(-1, 8) as own:
        assert len(own) == 8
    (tmp_path / "empty").write_bytes(b"")
    with (tmp_path / "empty").open("rb") as file, pytest.raises(ValueError, match="empty file"):
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
