"""The trained model in Hugging Face's format, from the running engine or from a checkpoint.

Invariant: ``<data>/export`` appears whole, with the step it stands for; an older export is replaced only by a newer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rft_trainer.contract import EndOfTurn, RunConfig, TrainingConfig
from rft_trainer.errors import StageError
from rft_trainer.files import fresh_directory, publish_directory, read_json, write_json
from rft_trainer.full_volume import room_explained
from rft_trainer.hub import MODEL_CARD, RECORD
from rft_trainer.paths import CARD_FILE, RunPaths
from rft_trainer.train.adapter import FOLDER as ADAPTER_FOLDER
from rft_trainer.train.adapter import BaseModelName, is_adapter, merge, save_adapter
from rft_trainer.train.checkpoint import Checkpoint
from rft_trainer.train.generation import write_generation_files
from rft_trainer.train.weights import TensorFiles, gathered_state

MARKER = "rft-export.json"
SHARD_BYTES = 4 * 2**30
_PREFIX = "model."


def exported_step(path: Path) -> int | None:
    """The step of the export at ``path``; None when there is none."""
    marker = read_json(path / MARKER)
    return int(marker["step"]) if isinstance(marker, dict) else None


@dataclass(frozen=True)
class Export:
    """What an export is made from and where it goes."""

    base: Path
    destination: Path
    training: TrainingConfig
    base_uri: str
    eos: EndOfTurn
    """What the rows ended with."""

    @classmethod
    def of(cls, config: RunConfig, paths: RunPaths) -> Export:
        """The export of a run."""
        return cls(
            base=paths.model,
            destination=paths.export,
            training=config.training,
            base_uri=config.model.uri,
            eos=config.dataset.eos,
        )

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the weights."""
        return torch.bfloat16 if self.training.precision == "bf16" else torch.float32


def export_engine(export: Export, model: Any, *, card: Mapping[str, Any], step: int, zero3: bool, rank: int) -> None:
    """Write the engine's weights; all ranks call it, rank 0 writes."""
    lora = export.training.lora
    state = gathered_state(model, zero3=zero3, wanted=is_adapter if lora else lambda name: True)
    if rank == 0:
        _write(export, state, card=card, step=step)
    else:
        for _ in state:
            pass


def export_checkpoint(export: Export, checkpoint: Checkpoint) -> None:
    """Write the weights of a checkpoint, without any engine or GPU."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    state = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint.path.parent), tag=checkpoint.path.name)
    if not state:
        raise StageError(f"checkpoint {checkpoint.path.name}: holds no weights")
    names = {name: name.removeprefix(_PREFIX) for name in state}
    stored = TensorFiles(export.base)
    tensors = ((short, state[name]) for name, short in names.items() if is_adapter(short) or short in stored)
    card = read_json(checkpoint.path / CARD_FILE) or {}
    _write(export, tensors, card=card, step=checkpoint.step)


def _write(export: Export, state: Iterable[tuple[str, torch.Tensor]], *, card: Mapping[str, Any], step: int) -> None:
    destination = export.destination
    temporary = destination.with_name(f".{destination.name}.part")
    try:
        with room_explained(destination.parent, what="export"):
            _fill(fresh_directory(temporary), export, state, card=card, step=step)
            publish_directory(temporary, destination)  # many a volume says only now that it is full
    except StageError:
        shutil.rmtree(temporary, ignore_errors=True)  # it holds the room of what the next attempt writes
        raise


def _fill(
    temporary: Path, export: Export, state: Iterable[tuple[str, torch.Tensor]], *, card: Mapping[str, Any], step: int
) -> None:
    """The base model's other files, where turns end, the weights (adapters merged), the card, the marker."""
    lora = export.training.lora
    for file in export.base.iterdir():
        notes = file.name.startswith(".") or file.name == MODEL_CARD
        weights = file.suffix == ".safetensors" or file.name.endswith(".index.json")
        if file.is_file() and not notes and not weights:
            shutil.copyfile(file, temporary / file.name)
    _name_number_format(temporary / "config.json", export.dtype)
    write_generation_files(export.base, temporary, eos=export.eos)
    if lora is not None:
        adapters = dict(state)
        save_adapter(adapters, temporary / ADAPTER_FOLDER, lora=lora, base=_loadable(export))
        state = merge(TensorFiles(export.base), adapters, lora=lora)
    _write_shards(((name, _in(tensor, export.dtype)) for name, tensor in state), temporary)
    write_json(temporary / CARD_FILE, card)
    write_json(temporary / MARKER, {"version": 1, "step": step})


def _in(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _loadable(export: Export) -> BaseModelName:
    """The base model as the model library loads it: the hub's repository and commit, or a path."""
    record = read_json(export.base / RECORD)
    commit = record.get("commit") if isinstance(record, dict) else None
    return BaseModelName(export.base_uri.removeprefix("hf://").removeprefix("file://"), revision=commit)


def _name_number_format(file: Path, dtype: torch.dtype) -> None:
    """Have the configuration say what the weights are in, for whoever loads them goes by it and would round them."""
    config = json.loads(file.read_bytes())
    config["torch_dtype" if "torch_dtype" in config else "dtype"] = str(dtype).removeprefix("torch.")
    file.write_text(json.dumps(config, indent=2) + "\n")


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
