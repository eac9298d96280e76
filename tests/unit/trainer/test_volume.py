"""A volume that cannot hold what training writes is told before a GPU is held; nothing else is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rft_trainer.errors import BadInputError
from rft_trainer.paths import Layout, RunPaths
from rft_trainer.prepare.volume import check_volume
from unit.trainer.factory import run_config

BILLION = 1_000_000_000
CHECKPOINT, EXPORT = 12 * BILLION, 2 * BILLION
Check = Callable[..., None]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Check a volume of which so many bytes are free, for a thousand steps of a model of a billion parameters."""

    def run(*, free: int, total: int = 10**15, steps: int = 1_000, **config: Any) -> None:
        paths = RunPaths.of(Layout(tmp_path), made := run_config(**config))
        paths.data.mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=total, free=free))
        check_volume(made, paths, parameters=BILLION, steps=steps)

    return run


@pytest.mark.parametrize(
    ("every_steps", "keep_last", "steps", "needed"),
    [
        (None, 2, 1_000, CHECKPOINT + EXPORT),
        (100, 2, 1_000, 3 * CHECKPOINT),
        (100, 1, 1_000, 2 * CHECKPOINT),
        (100, 5, 101, 2 * CHECKPOINT + EXPORT),
        (100, 5, 100, CHECKPOINT + EXPORT),
    ],
)
def test_volume_is_refused_when_it_is_a_byte_too_small_for_the_saves_that_are_sure_to_come(
    check: Check, every_steps: int | None, keep_last: int, steps: int, needed: int
) -> None:
    spec = {"checkpoint__every_steps": every_steps, "checkpoint__keep_last": keep_last, "steps": steps}
    check(free=needed, **spec)
    with pytest.raises(BadInputError, match="a larger volume"):
        check(free=needed - 1, **spec)


def test_message_says_what_is_there_and_what_is_needed_and_what_to_change(check: Check) -> None:
    with pytest.raises(BadInputError) as refused:
        check(free=20 * BILLION, checkpoint__every_steps=100)
    assert str(refused.value) == (
        "the volume has room for 20.0 GB, and training writes 36.0 GB at the least: a checkpoint of 1,000,000,000 "
        "parameters takes 12.0 GB, 3 of them are there at once, the export takes 2.0 GB; give the run a larger volume "
        "(storage.size, storage.claimName), or lower checkpoint.keepLast"
    )


def test_checkpoints_of_a_former_training_count_as_room_when_they_make_way(check: Check, tmp_path: Path) -> None:
    paths = RunPaths.of(Layout(tmp_path), run_config())
    state = paths.checkpoints / "step-00000005" / "state.pt"
    state.parent.mkdir(parents=True)
    with state.open("wb") as file:
        file.truncate(CHECKPOINT)  # sparse: no byte of it is written
    check(free=EXPORT)


def test_volume_is_believed_when_its_file_system_does_not_say_how_large_it_is(check: Check) -> None:
    check(free=0, total=0)


def test_adapters_are_let_through_when_the_volume_would_not_hold_all_weights(check: Check) -> None:
    lora = {"rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": ()}
    check(free=BILLION, training__lora=lora)
