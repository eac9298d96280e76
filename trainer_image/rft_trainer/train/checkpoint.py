"""Training states on the volume.

Invariant: a checkpoint counts only with its marker ``complete.json``, which is written last, in one step, after every
rank has saved and with the size of every file; so a kill at any moment leaves the older one valid.
"""

from __future__ import annotations

import datetime
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from rft_trainer.errors import BadInputError, StageError
from rft_trainer.files import read_json, write_json

MARKER = "complete.json"
_UNIVERSAL_SUFFIX = "-universal"


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
    for marker in directory.glob(f"step-*/{MARKER}"):
        content = read_json(marker)
        if isinstance(content, dict) and _sizes_hold(marker.parent, content.get("files", {})):
            found.append(read(marker.parent))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def read(path: Path) -> Checkpoint:
    """The complete checkpoint at ``path``; raises :class:`StageError` when its marker cannot be read."""
    content = read_json(path / MARKER)
    if not isinstance(content, dict):
        raise StageError(f"checkpoint {path.name}: its marker cannot be read on this node; is the volume shared?")
    fields = ("step", "tokens", "world_size", "dataset_sha256", "time", "seconds")
    return Checkpoint(path=path, **{name: content[name] for name in fields})


def _sizes_hold(path: Path, files: dict[str, int]) -> bool:
    try:
        return bool(files) and all((path / name).stat().st_size == size for name, size in files.items())
    except OSError:
        return False


def newest(directory: Path, *, dataset_sha256: str) -> Checkpoint | None:
    """The newest complete checkpoint; raises :class:`BadInputError` when it was trained on other rows."""
    found = complete_checkpoints(directory)
    if not found:
        return None
    if found[-1].dataset_sha256 != dataset_sha256:
        raise BadInputError(f"{found[-1].path}: was trained on other rows; use another data directory")
    return found[-1]


def save(engine: Any, directory: Path, *, step: int, tokens: int, dataset_sha256: str, keep_last: int) -> Checkpoint:
    """Save the state after ``step`` steps on all ranks; every rank returns once the marker is written."""
    started = time.monotonic()
    path = directory / f"step-{step:08d}"
    if dist.get_rank() == 0:
        shutil.rmtree(path, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
    dist.barrier()
    engine.save_checkpoint(
        str(directory), tag=path.name, client_state={"step": step, "tokens": tokens}, save_latest=False
    )
    dist.barrier()
    seconds = round(time.monotonic() - started, 3)
    facts: list[Any] = [datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), seconds]
    dist.broadcast_object_list(facts, src=0)
    checkpoint = Checkpoint(
        path=path,
        step=step,
        tokens=tokens,
        world_size=dist.get_world_size(),
        dataset_sha256=dataset_sha256,
        time=str(facts[0]),
        seconds=float(facts[1]),
    )
    if dist.get_rank() == 0:
        _mark_complete(checkpoint)
        prune(directory, keep_last=keep_last)
    dist.barrier()
    return checkpoint


def _mark_complete(checkpoint: Checkpoint) -> None:
    files = {
        str(file.relative_to(checkpoint.path)): file.stat().st_size
        for file in sorted(checkpoint.path.rglob("*"))
        if file.is_file()
    }
    fields = {name: value for name, value in vars(checkpoint).items() if name != "path"}
    write_json(checkpoint.path / MARKER, {"version": 1, **fields, "files": files})


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


def universal(checkpoint: Checkpoint) -> Path:
    """The checkpoint in DeepSpeed's form for another number of ranks; converted once, by rank 0."""
    path = checkpoint.path.with_name(checkpoint.path.name + _UNIVERSAL_SUFFIX)
    if path.is_dir():
        return path
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    command += ["--input_folder", str(checkpoint.path), "--output_folder", str(temporary)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise StageError(
            f"checkpoint {checkpoint.path.name} of {checkpoint.world_size} ranks cannot be converted: {lines[-1]}"
        )
    temporary.rename(path)
    return path


def restore(engine: Any, checkpoint: Checkpoint, *, path: Path) -> None:
    """Load weights and optimizer on all ranks; ``path`` is the checkpoint or its universal form."""
    loaded, _ = engine.load_checkpoint(
        str(path.parent), tag=path.name, load_lr_scheduler_states=False, load_module_strict=True
    )
    if loaded is None:
        raise StageError(f"checkpoint {checkpoint.path.name} cannot be loaded; delete it to resume from an older one")
