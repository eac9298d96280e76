"""What is on a volume when a process or its node is gone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rft_trainer.files import fresh_directory, publish_directory, write_json


def test_directory_is_on_the_disk_with_all_its_files_when_it_is_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that loses its power then would leave a marker beside weights that never came to the disk."""
    flushed: set[str] = set()
    fsync, rename = os.fsync, Path.rename

    def noted(descriptor: int) -> None:
        flushed.add(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def moved(path: Path, target: Path) -> Path:
        assert {"weights", "part", "adapter", "rft-export.json", ".export.part"} <= flushed
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "rename", moved)
    temporary = fresh_directory(tmp_path / ".export.part")
    (temporary / "weights").write_bytes(b"weights")
    (temporary / "adapter").mkdir()
    (temporary / "adapter" / "part").write_bytes(b"weights")
    write_json(temporary / "rft-export.json", {"step": 1})
    publish_directory(temporary, tmp_path / "export")
    assert {path.name for path in tmp_path.iterdir()} == {"export"}


def test_nothing_stays_of_a_directory_whose_replacement_was_killed(tmp_path: Path) -> None:
    (tmp_path / ".export.stale").mkdir()
    (tmp_path / ".export.stale" / "weights").write_bytes(b"of a former export")
    publish_directory(fresh_directory(tmp_path / ".export.part"), tmp_path / "export")
    assert {path.name for path in tmp_path.iterdir()} == {"export"}
