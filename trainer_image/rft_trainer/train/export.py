"""The trained model in Hugging Face's format, from the running engine or from a checkpoint.

Invariant: ``<data>/export`` appears whole, with the step it stands for; an older export is replaced only by a newer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from rft_trainer.errors import StageError
from rft_trainer.files import fresh_directory, publish_directory, read_json, write_json
from rft_trainer.train.checkpoint import Checkpoint
from rft_trainer.train.weights import gathered_state

MARKER = "rft-export.json"
SHARD_BYTES = 4 * 2**30
_PREFIX = "model."


def exported_step(path: Path) -> int | None:
    """The step of the export at ``path``; None when there is none."""
    marker = read_json(path / MARKER)
    return int(marker["step"]) if isinstance(marker, dict) else None


def export_engine(model: Any, *, base: Path, destination: Path, step: int, zero3: bool, rank: int) -> None:
    """Write the engine's weights; all ranks call it, rank 0 writes."""
    state = gathered_state(model, zero3=zero3)
    if rank != 0:
        for _ in state:
            pass
        return
    _write(state, base=base, destination=destination, step=step)


def export_checkpoint(checkpoint: Checkpoint, *, base: Path, destination: Path, dtype: torch.dtype) -> None:
    """Write the weights of a checkpoint, without any engine or GPU."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    state = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint.path.parent), tag=checkpoint.path.name)
    if not state:
        raise StageError(f"checkpoint {checkpoint.path.name}: holds no weights")
    stored = _stored_names(base)
    names = {name: name.removeprefix(_PREFIX) for name in state}
    tensors = ((short, state[name].to(dtype)) for name, short in names.items() if short in stored)
    _write(tensors, base=base, destination=destination, step=checkpoint.step)


def _stored_names(path: Path) -> set[str]:
    from safetensors import safe_open

    names: set[str] = set()
    for file in path.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            names.update(tensors.keys())
    return names


def _write(state: Iterable[tuple[str, torch.Tensor]], *, base: Path, destination: Path, step: int) -> None:
    temporary = fresh_directory(destination.with_name(f".{destination.name}.part"))
    for file in base.iterdir():
        if file.suffix != ".safetensors" and not file.name.endswith(".index.json") and file.is_file():
            shutil.copyfile(file, temporary / file.name)
    _write_shards(state, temporary)
    write_json(temporary / MARKER, {"version": 1, "step": step})
    publish_directory(temporary, destination)


def _write_shards(state: Iterable[tuple[str, torch.Tensor]], directory: Path) -> None:
    """Safetensors files of at most ``SHARD_BYTES``, with an index when there are several."""
    from safetensors.torch import save_file

    shards: list[Path] = []
    weight_map: dict[str, int] = {}
    pending: dict[str, torch.Tensor] = {}
    total = size = 0

    def flush() -> None:
        nonlocal pending, size
        path = directory / f".shard-{len(shards)}"
        save_file(pending, path, metadata={"format": "pt"})
        shards.append(path)
        pending, size = {}, 0

    for name, tensor in state:
        nbytes = tensor.numel() * tensor.element_size()
        if pending and size + nbytes > SHARD_BYTES:
            flush()
        pending[name] = tensor.contiguous()
        weight_map[name] = len(shards)
        size, total = size + nbytes, total + nbytes
    flush()
    if len(shards) == 1:
        shards[0].rename(directory / "model.safetensors")
        return
    files = [f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors" for number in range(len(shards))]
    for shard, file in zip(shards, files, strict=True):
        shard.rename(directory / file)
    index = {"metadata": {"total_size": total}, "weight_map": {n: files[i] for n, i in weight_map.items()}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
