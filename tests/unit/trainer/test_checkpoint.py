"""Which checkpoint is trusted: files on a disk, without any rank."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributed

from rft_trainer.errors import BadInputError, StageError
from rft_trainer.train.checkpoint import (
    MARKER,
    UNIVERSAL_MARKER,
    Checkpoint,
    Facts,
    complete_checkpoints,
    converted,
    newest,
    prune,
    read,
    remove_remains,
    restore,
    save,
    universal,
)
from unit.trainer.factory import free_port

FILES = {"mp_rank_00_model_states.pt": 300, "zero_pp_rank_0_mp_rank_00_optim_states.pt": 500, "run-card.json": 20}


def write(directory: Path, step: int, changes: Mapping[str, object] | None = None) -> Path:
    """A checkpoint as a run leaves it."""
    path = directory / f"step-{step:08d}"
    path.mkdir(parents=True)
    for name, size in FILES.items():
        (path / name).write_bytes(b"x" * size)
    marker = {"version": 1, "step": step, "tokens": 10 * step, "world_size": 2, "dataset_sha256": "a"}
    marker |= {"time": "2026-01-01T00:00:00Z", "seconds": 1.5, "files": FILES, **(changes or {})}
    (path / MARKER).write_text(json.dumps(marker) + "\n")
    return path


def newest_step(directory: Path) -> int | None:
    found = newest(directory, dataset_sha256="a")
    return found.step if found else None


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two complete checkpoints, at steps 5 and 9."""
    write(tmp_path, 5)
    write(tmp_path, 9)
    return tmp_path


def test_newest_complete_checkpoint_is_used_when_there_are_several(directory: Path) -> None:
    assert [each.step for each in complete_checkpoints(directory)] == [5, 9]
    found = newest(directory, dataset_sha256="a")
    assert found == Checkpoint(directory / "step-00000009", 9, 90, 2, "a", "2026-01-01T00:00:00Z", 1.5)


@pytest.mark.parametrize("name", [*FILES, MARKER])
def test_checkpoint_is_skipped_when_any_of_its_files_is_cut_at_any_byte(directory: Path, name: str) -> None:
    path = directory / "step-00000009" / name
    content = path.read_bytes().rstrip(b"\n")
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        assert newest_step(directory) == 5, f"{cut} of {len(content)} bytes"
    path.write_bytes(content)
    assert newest_step(directory) == 9


@pytest.mark.parametrize("name", [*FILES, MARKER])
def test_checkpoint_is_skipped_when_any_of_its_files_is_missing(directory: Path, name: str) -> None:
    (directory / "step-00000009" / name).unlink()
    assert newest_step(directory) == 5


@pytest.mark.parametrize("name", FILES)
def test_checkpoint_is_skipped_when_a_file_is_longer_than_it_was(directory: Path, name: str) -> None:
    with (directory / "step-00000009" / name).open("ab") as stream:
        stream.write(b"x")
    assert newest_step(directory) == 5


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"step": 7},
        {"step": "9"},
        {"tokens": None},
        {"files": {}},
        {"files": [*FILES]},
        {"files": {**FILES, "run-card.json": "20"}},
        {"stranger": 1},
    ],
)
def test_checkpoint_is_skipped_when_its_marker_says_what_no_marker_says(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    write(tmp_path, 5)
    write(tmp_path, 9, changes)
    assert newest_step(tmp_path) == 5


@pytest.mark.parametrize("content", [b"", b"\x00" * 400, b"[]", b"null", b"\xff\xfe", b'{"version": 1}'])
def test_checkpoint_is_skipped_when_its_marker_is_garbled(directory: Path, content: bytes) -> None:
    (directory / "step-00000009" / MARKER).write_bytes(content)
    assert newest_step(directory) == 5
    with pytest.raises(StageError, match="step-00000009: its marker cannot be read"):
        read(directory / "step-00000009")


def test_nothing_is_used_when_no_checkpoint_is_complete(tmp_path: Path) -> None:
    assert newest_step(tmp_path / "none") is None
    (write(tmp_path, 5) / MARKER).unlink()
    assert newest_step(tmp_path) is None


def test_checkpoint_of_other_rows_is_refused_by_name(directory: Path) -> None:
    with pytest.raises(BadInputError, match="step-00000009: was trained on other rows"):
        newest(directory, dataset_sha256="b")


def test_old_checkpoints_go_and_torn_ones_do_not_count_when_two_are_kept(directory: Path) -> None:
    (write(directory, 7) / MARKER).unlink()
    write(directory, 12)
    (write(directory, 13) / MARKER).unlink()
    (directory / "step-00000005-universal").mkdir()
    (directory / "step-00000012-universal").mkdir()
    prune(directory, keep_last=2)
    left = {path.name for path in directory.iterdir()}
    assert left == {"step-00000009", "step-00000012", "step-00000012-universal", "step-00000013"}, (
        "13 is newer than any complete one: somebody may be writing it"
    )


def test_remains_of_attempts_that_died_go_when_another_begins_and_what_was_complete_stays(directory: Path) -> None:
    (write(directory, 7) / MARKER).unlink()
    (write(directory, 13) / MARKER).unlink()
    (write(directory, 11) / MARKER).write_text("garbled")
    (directory / "step-00000009" / "run-card.json").unlink()
    for name in (".step-00000005-universal.part", "step-00000005-universal", "step-00000009-universal"):
        (directory / name).mkdir()
        (directory / name / "weights.pt").write_bytes(b"x")
    (directory / "step-00000009-universal" / UNIVERSAL_MARKER).write_text('{"weights.pt": 1}')
    remove_remains(directory)
    left = {path.name for path in directory.iterdir()}
    assert left == {"step-00000005", "step-00000009", "step-00000011", "step-00000009-universal"}
    remove_remains(directory / "none")


@pytest.fixture
def alone() -> Iterator[None]:
    """This process is the only rank."""
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{free_port()}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


class Engine:
    """Writes what it is told to, or fails."""

    module = torch.nn.Linear(1, 1)

    def __init__(self, directory: Path, *, error: Exception | None = None) -> None:
        self.directory, self.error = directory, error
        self.before: set[str] = set()

    def save_checkpoint(self, directory: str, *, tag: str, **_: Any) -> None:
        self.before = {path.name for path in self.directory.iterdir()}
        if self.error is not None:
            raise self.error
        (Path(directory) / tag / "states.pt").write_bytes(b"x" * 10)


@pytest.mark.usefixtures("alone")
def test_volume_holds_what_is_kept_and_one_more_when_a_checkpoint_is_written(directory: Path) -> None:
    (write(directory, 7) / MARKER).unlink()
    (write(directory, 13) / MARKER).unlink()
    (directory / "step-00000009-universal").mkdir()
    (directory / "step-00000009-universal" / UNIVERSAL_MARKER).write_text('{"weights.pt": 1}')
    engine = Engine(directory)
    save(engine, directory, facts=Facts(step=12, tokens=1, dataset_sha256="a"), card={}, keep_last=2)
    assert engine.before == {"step-00000005", "step-00000009", "step-00000012"}
    assert {path.name for path in directory.iterdir()} == {"step-00000009", "step-00000012"}
    assert newest_step(directory) == 12


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("error", "free"),
    [
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), 1 << 20),
        (OSError(errno.ENOSPC, "No space left on device"), 1 << 40),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 1 << 40),
    ],
)
def test_full_volume_is_named_with_its_remedy_when_a_checkpoint_finds_no_room(
    directory: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, free: int
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    facts = Facts(step=12, tokens=1, dataset_sha256="a")
    with pytest.raises(StageError, match=r"step-00000012: the volume is full; .* enlarge the claim, or lower"):
        save(Engine(directory, error=error), directory, facts=facts, card={}, keep_last=2)
    assert newest_step(directory) == 9


@pytest.mark.usefixtures("alone")
def test_error_of_a_save_passes_as_it_is_when_there_is_room(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 40))
    engine = Engine(directory, error=RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        save(engine, directory, facts=Facts(step=12, tokens=1, dataset_sha256="a"), card={}, keep_last=2)


def test_universal_form_is_made_anew_when_it_is_not_whole(directory: Path) -> None:
    saved = read(directory / "step-00000009")
    converted = directory / "step-00000009-universal"
    converted.mkdir()
    (converted / "part.pt").write_bytes(b"x" * 9)
    (converted / UNIVERSAL_MARKER).write_text('{"part.pt": 9}')
    assert universal(saved) == converted
    (converted / "part.pt").write_bytes(b"x" * 8)
    with pytest.raises(StageError, match="step-00000009 of 2 ranks cannot be converted"):
        universal(saved)
    assert not converted.exists()


def test_universal_form_that_a_node_does_not_see_whole_is_an_error_there_and_stays(directory: Path) -> None:
    saved, form = read(directory / "step-00000009"), directory / "step-00000009-universal"
    form.mkdir()
    (form / "part.pt").write_bytes(b"x" * 9)
    with pytest.raises(StageError, match="step-00000009-universal: cannot be read whole on this node"):
        converted(saved)
    assert (form / "part.pt").exists(), "another rank made it, and reads it"
    (form / UNIVERSAL_MARKER).write_text('{"part.pt": 9}')
    assert converted(saved) == form


def test_checkpoint_whose_bytes_are_others_is_named_with_the_remedy(tmp_path: Path) -> None:
    def failing(error: Exception) -> Any:
        def load_checkpoint(*_: Any, **__: Any) -> None:
            raise error

        return SimpleNamespace(
            optimizer=SimpleNamespace(param_groups=[]),
            module=SimpleNamespace(parameters=list),
            load_checkpoint=load_checkpoint,
        )

    saved = read(write(tmp_path, 3))
    spoiled = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    words = rf"step-00000003 cannot be loaded \(UnicodeDecodeError: .*\); .* delete {saved.path} to resume from the one"
    with pytest.raises(StageError, match=words):
        restore(failing(spoiled), saved, path=saved.path)
    with pytest.raises(torch.OutOfMemoryError):
        restore(failing(torch.OutOfMemoryError("no memory")), saved, path=saved.path)


def test_groups_keep_their_decay_and_count_steps_alone_when_a_checkpoint_gives_all_of_them_one(
    tmp_path: Path,
) -> None:
    steps = torch.tensor(3.0)
    state: dict[str, dict[str, Any]] = {"first": {}, "second": {}}
    groups: list[dict[str, Any]] = [{"weight_decay": 0.5, "lr": 1.0}, {"weight_decay": 0.0, "lr": 1.0}]

    def load_checkpoint(*_: Any, **__: Any) -> tuple[str, None]:
        for group in groups:
            group.update(weight_decay=0.5, lr=0.1)
        for each in state.values():
            each["step"] = steps
        return "loaded", None

    engine = SimpleNamespace(
        optimizer=SimpleNamespace(param_groups=groups, optimizer=SimpleNamespace(state=state)),
        module=SimpleNamespace(parameters=list),
        load_checkpoint=load_checkpoint,
    )
    restore(engine, read(write(tmp_path, 3)), path=tmp_path / "step-00000003-universal")
    assert groups == [{"weight_decay": 0.5, "lr": 0.1}, {"weight_decay": 0.0, "lr": 0.1}]
    state["first"]["step"] += 1
    assert (float(state["first"]["step"]), float(state["second"]["step"])) == (4.0, 3.0)
