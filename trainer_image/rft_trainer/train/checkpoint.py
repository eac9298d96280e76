"""Training states on the volume.

Invariant: a checkpoint counts only with its marker ``complete.json``, which is written last, in one step, after every
rank has saved and with the size of every file; so a kill at any moment leaves the older one valid.
"""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rft_trainer.errors import BadInputError, StageError
from rft_trainer.files import flush_directory, read_json, write_json
from rft_trainer.full_volume import is_full, room_explained
from rft_trainer.paths import CARD_FILE

MARKER = "complete.json"
UNIVERSAL_MARKER = "universal.json"
_UNIVERSAL_SUFFIX = "-universal"

Sizes = Annotated[dict[str, Annotated[int, Field(ge=0)]], Field(min_length=1)]


class _Marker(BaseModel):
    """``complete.json``; one that says anything else was not written by us, or not whole."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1]
    step: int
    tokens: int
    world_size: int
    dataset_sha256: str
    time: str
    seconds: float
    files: Sizes


@dataclass(frozen=True)
class Facts:
    """What a checkpoint is of."""

    step: int
    tokens: int
    dataset_sha256: str


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    path: Path
    step: int
    tokens: int
    world_size: int
    dataset_sha256: str
    time: str
    """RFC 3339, when it was complete."""
    seconds: float
    """How long the save took."""


def complete_checkpoints(directory: Path) -> list[Checkpoint]:
    """The complete checkpoints, oldest first; one whose files no longer have their sizes does not count."""
    found = []
    for path in directory.glob("step-*"):
        marker = _marker(path)
        if marker is not None and path.name == _name(marker.step) and _sizes_hold(path, marker.files):
            found.append(_checkpoint(path, marker))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def read(path: Path) -> Checkpoint:
    """The complete checkpoint at ``path``; raises :class:`StageError` when its marker cannot be read."""
    marker = _marker(path)
    if marker is None:
        raise StageError(f"checkpoint {path.name}: its marker cannot be read on this node; is the volume shared?")
    return _checkpoint(path, marker)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _marker(path: Path) -> _Marker | None:
    try:
        return _Marker.model_validate_json((path / MARKER).read_bytes())
    except (OSError, ValidationError):
        return None


def _checkpoint(path: Path, marker: _Marker) -> Checkpoint:
    return Checkpoint(path=path, **marker.model_dump(exclude={"version", "files"}))


def _sizes_hold(path: Path, files: Mapping[str, int]) -> bool:
    try:
        return all((path / name).stat().st_size == size for name, size in files.items())
    except OSError:
        return False


def _sizes(path: Path) -> dict[str, int]:
    return {str(file.relative_to(path)): file.stat().st_size for file in sorted(path.rglob("*")) if file.is_file()}


def newest(directory: Path, *, dataset_sha256: str) -> Checkpoint | None:
    """The newest complete checkpoint; raises :class:`BadInputError` when it was trained on other rows."""
    found = complete_checkpoints(directory)
    if not found:
        return None
    if found[-1].dataset_sha256 != dataset_sha256:
        raise BadInputError(f"{found[-1].path}: was trained on other rows; use another data directory")
    return found[-1]


def save(engine: Any, directory: Path, *, facts: Facts, card: Mapping[str, Any], keep_last: int) -> Checkpoint:
    """Save the state after ``facts.step`` steps on all ranks; every rank returns once the marker is written."""
    started = time.monotonic()
    path = directory / _name(facts.step)
    if dist.get_rank() == 0:
        remove_remains(directory)
        _remove_universal_forms(directory)  # every rank has loaded what it resumed from
        shutil.rmtree(path, ignore_errors=True)
    dist.barrier()
    with room_explained(directory, what=f"checkpoint {path.name}"):
        if dist.get_rank() == 0:
            path.mkdir(parents=True)
            write_json(path / CARD_FILE, card)
        dist.barrier()
        engine.save_checkpoint(
            str(directory),
            tag=path.name,
            client_state={"step": facts.step, "tokens": facts.tokens},
            save_latest=False,
            exclude_frozen_parameters=has_frozen_parameters(engine),
        )
        dist.barrier()
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:
            flush_directory(path)  # a node may lose its power after the marker says that they are there
    dist.barrier()
    ended: list[Any] = [
        datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        round(time.monotonic() - started, 3),
        _sizes(path) if dist.get_rank() == 0 else None,  # before the marker's own file comes and goes
    ]
    dist.broadcast_object_list(ended, src=0)
    marker = _Marker(
        version=1,
        step=facts.step,
        tokens=facts.tokens,
        world_size=dist.get_world_size(),
        dataset_sha256=facts.dataset_sha256,
        time=str(ended[0]),
        seconds=float(ended[1]),
        files=ended[2],
    )
    if dist.get_rank() == 0:
        write_json(path / MARKER, marker.model_dump())
        prune(directory, keep_last=keep_last)
    dist.barrier()
    return _checkpoint(path, marker)


def has_frozen_parameters(engine: Any) -> bool:
    """Whether only an adapter is trained: the base model is on the volume already and is not saved again."""
    return any(not parameter.requires_grad for parameter in engine.module.parameters())


def prune(directory: Path, *, keep_last: int) -> None:
    """Remove complete checkpoints beyond the newest ``keep_last``, and older incomplete ones."""
    found = complete_checkpoints(directory)
    if not found:
        return
    keep = {checkpoint.path.name for checkpoint in found[-keep_last:]}
    for path in directory.glob("step-*"):
        if path.name.removesuffix(_UNIVERSAL_SUFFIX) not in keep and path.name < found[-1].path.name:
            (path / MARKER).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def remove_remains(directory: Path) -> None:
    """Remove what attempts that died left half written: it holds the room that the next checkpoint needs.

    To be called by one rank while nobody saves. What once was complete stays, whatever its files look like now: a
    volume that is ill for a moment must not cost a checkpoint.
    """
    for path in directory.glob(f".step-*{_UNIVERSAL_SUFFIX}.part"):
        shutil.rmtree(path, ignore_errors=True)
    for path in directory.glob("step-*"):
        if _is_absent(path / (UNIVERSAL_MARKER if path.name.endswith(_UNIVERSAL_SUFFIX) else MARKER)):
            shutil.rmtree(path, ignore_errors=True)


def _is_absent(path: Path) -> bool:
    try:
        path.lstat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def _remove_universal_forms(directory: Path) -> None:
    """Remove the converted checkpoints, each as large as the one it was made from."""
    for path in directory.glob(f"step-*{_UNIVERSAL_SUFFIX}"):
        (path / UNIVERSAL_MARKER).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)


def _universal_path(checkpoint: Checkpoint) -> Path:
    return checkpoint.path.with_name(checkpoint.path.name + _UNIVERSAL_SUFFIX)


def universal(checkpoint: Checkpoint) -> Path:
    """The checkpoint in DeepSpeed's form for another number of ranks; converted once, by rank 0."""
    path = _universal_path(checkpoint)
    if _is_whole(path):
        return path
    temporary = path.with_name(f".{path.name}.part")
    for stale in (path, temporary):
        shutil.rmtree(stale, ignore_errors=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    command += ["--input_folder", str(checkpoint.path), "--output_folder", str(temporary)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        why = "the volume is full, and needs room for it once more" if is_full(path.parent) else lines[-1]
        shutil.rmtree(temporary, ignore_errors=True)
        raise StageError(
            f"checkpoint {checkpoint.path.name} of {checkpoint.world_size} ranks cannot be converted: {why}"
        )
    with room_explained(path.parent, what=f"checkpoint {path.name}"):
        flush_directory(temporary)
        write_json(temporary / UNIVERSAL_MARKER, _sizes(temporary))
        temporary.rename(path)
    return path


def converted(checkpoint: Checkpoint) -> Path:
    """What :func:`universal` has made on rank 0; raises :class:`StageError` on a node that does not see it whole."""
    path = _universal_path(checkpoint)
    if not _is_whole(path):
        raise StageError(f"checkpoint {path.name}: cannot be read whole on this node; is the volume shared?")
    return path


def _is_whole(path: Path) -> bool:
    try:
        sizes = TypeAdapter(Sizes).validate_python(read_json(path / UNIVERSAL_MARKER), strict=True)
    except ValidationError:
        return False
    return _sizes_hold(path, sizes)


def restore(engine: Any, checkpoint: Checkpoint, *, path: Path) -> None:
    """Load weights and optimizer on all ranks; ``path`` is the checkpoint or its universal form.

    From a universal checkpoint DeepSpeed gives all groups the decay of the first and, under ZeRO-3, one and the same
    counter of steps, which each of them would then raise.
    """
    decays = [group["weight_decay"] for group in engine.optimizer.param_groups]
    why = "it is not there"
    try:
        loaded, _ = engine.load_checkpoint(
            str(path.parent),
            tag=path.name,
            load_lr_scheduler_states=False,
            load_module_strict=not has_frozen_parameters(engine),
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of bytes that are others than were written any part of the libraries complains
        loaded, why = None, f"{type(error).__name__}: {error}"
    if loaded is None:
        raise StageError(
            f"checkpoint {path.name} cannot be loaded ({why}); where the next attempt says so, too, delete "
            f"{checkpoint.path} to resume from the one before it"
        )
    for group, decay in zip(engine.optimizer.param_groups, decays, strict=True):
        group["weight_decay"] = decay
    for state in engine.optimizer.optimizer.state.values():
        if torch.is_tensor(state.get("step")):
            state["step"] = state["step"].clone()
