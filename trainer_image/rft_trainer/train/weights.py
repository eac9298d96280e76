"""Loads a Hugging Face model directory under any ZeRO stage, and gathers it back.

Invariant: every parameter is assigned from the files by name or the load fails; the library's own loader has silently
left weights at random under ZeRO-3. Rank 0 alone reads the files, the others receive.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rft_trainer.errors import BadInputError


def build_model(
    path: Path, *, dtype: torch.dtype, attention: str, deepspeed_config: dict[str, Any], zero3: bool
) -> Any:
    """The model of ``path`` with its weights; partitioned as it is built under ZeRO-3."""
    import deepspeed
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise BadInputError(f"model: its config.json cannot be used ({error})") from error
    partition = deepspeed.zero.Init(config_dict_or_path=deepspeed_config) if zero3 else contextlib.nullcontext()
    with no_init_weights(), partition:
        try:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
        except ValueError as error:
            raise BadInputError(f"model: {error}") from error
    model.tie_weights()
    load_weights(model, path, zero3=zero3)
    return model


def load_weights(model: nn.Module, path: Path, *, zero3: bool) -> None:
    """Assign every parameter from the safetensors files of ``path``; raises :class:`BadInputError` on a gap."""
    import deepspeed
    import torch.distributed as dist

    files = TensorFiles(path)
    missing = [name for name, _ in model.named_parameters() if name not in files]
    if missing:
        raise BadInputError(f"model: {len(missing)} weights are not in its files, the first is {missing[0]}")
    reads = not zero3 or dist.get_rank() == 0
    for name, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=zero3):
            if reads:
                _assign(name, parameter, files.read(name))


def _assign(name: str, parameter: nn.Parameter, tensor: torch.Tensor) -> None:
    if parameter.shape != tensor.shape:
        raise BadInputError(f"model: weight {name} has shape {tuple(tensor.shape)}, expected {tuple(parameter.shape)}")
    with torch.no_grad():
        parameter.data.copy_(tensor)


class TensorFiles:
    """Tensors of a directory by name."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self._open = safe_open
        self._files: dict[str, Path] = {}
        for file in sorted(path.glob("*.safetensors")):
            with safe_open(file, framework="pt") as tensors:
                self._files.update(dict.fromkeys(tensors.keys(), file))

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name in self._files:
            yield name, self.read(name)

    def read(self, name: str) -> torch.Tensor:
        """One tensor, on the CPU."""
        with self._open(self._files[name], framework="pt") as tensors:
            tensor: torch.Tensor = tensors.get_tensor(name)
        return tensor


def gathered_state(
    model: nn.Module, *, zero3: bool, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every wanted parameter whole, one at a time, on the CPU; all ranks iterate, for gathering is a collective."""
    import deepspeed

    for name, parameter in model.named_parameters():
        if wanted(name):
            with deepspeed.zero.GatheredParameters([parameter], enabled=zero3):
                yield name, parameter.data.detach().to("cpu", copy=True)
