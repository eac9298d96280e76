"""Loads a Hugging Face model directory under any ZeRO stage, and gathers it back.

Invariant: every parameter is assigned from the files by name or the load fails; the library's own loader has silently
left weights at random under ZeRO-3. Rank 0 alone reads the files, the others receive. What a model computes from its
configuration (the frequencies of its positions) is the same under every stage, to the bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rft_trainer.errors import BadInputError
from rft_trainer.train.kernels import ATTENTION
from rft_trainer.weights import weight_files


def build_model(
    path: Path, *, dtype: torch.dtype, attention: str, deepspeed_config: dict[str, Any], zero3: bool
) -> Any:
    """The model of ``path`` with its weights; partitioned as it is built under ZeRO-3."""
    import deepspeed

    partition = deepspeed.zero.Init(config_dict_or_path=deepspeed_config) if zero3 else contextlib.nullcontext()
    model = _without_weights(path, place=partition, dtype=dtype, attention=attention)
    if zero3:
        exact = _without_weights(path, place=_parameters_on_meta(), dtype=dtype, attention=attention)
        _take_buffers(model, exact)
    load_weights(model, path, zero3=zero3)
    return model


def skeleton(path: Path) -> Any:
    """The model of ``path`` without memory for its weights: its layers, and their names and shapes."""
    return _without_weights(path, place=torch.device("meta"), dtype=torch.bfloat16, attention=ATTENTION)


def _without_weights(
    path: Path, *, place: contextlib.AbstractContextManager[Any], dtype: torch.dtype, attention: str
) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    try:  # code that comes with a model is not run: it would have the volume and the GPUs
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise BadInputError(f"model: its config.json cannot be used ({error})") from error
    with no_init_weights(), place:
        try:
            model = AutoModelForCausalLM.from_config(
                config, dtype=dtype, attn_implementation=attention, trust_remote_code=False
            )
        except (ValueError, TypeError, KeyError) as error:
            raise BadInputError(f"model: it cannot be built from its config.json ({error})") from error
    model.tie_weights()
    return model


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Models built meanwhile have no memory for their parameters, and their buffers as ever."""
    register = nn.Module.register_parameter

    def registered(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, None if parameter is None else nn.Parameter(parameter.to("meta")))

    nn.Module.register_parameter = registered  # type: ignore[method-assign, assignment] # for the time of a constructor
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _take_buffers(model: nn.Module, exact: nn.Module) -> None:
    """Give ``model`` the buffers of a model that was built without ``zero.Init``.

    That makes every tensor in the number format of the weights on its way: in bf16 the frequencies of YaRN, LongRoPE
    and Gemma 3 are off by up to 0.4 %, which is many turns at position 10,000.
    """
    values = dict(exact.named_buffers())
    for name, buffer in model.named_buffers():
        buffer.data = values[name].to(buffer.device)


def check_shapes(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise :class:`BadInputError` when files with tensors of these shapes cannot fill a model."""
    _check_names(model, shapes, shapes=shapes)
    for name, parameter in model.named_parameters():
        _check_shape(name, parameter, shapes[name])


def load_weights(model: nn.Module, path: Path, *, zero3: bool) -> None:
    """Assign every parameter from the safetensors files of ``path``; raises :class:`BadInputError` on a gap.

    What is computed from the configuration may be in the files or not.
    """
    import deepspeed
    import torch.distributed as dist

    files = TensorFiles(path)
    _check_names(model, files)
    reads = not zero3 or dist.get_rank() == 0
    for name, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=zero3):
            if reads:
                _assign(name, parameter, files.read(name))
    for name, buffer in kept_buffers(model):
        if name in files:
            buffer.data.copy_(files.read(name))


def _check_names(
    model: nn.Module, names: Container[str], *, shapes: Mapping[str, Sequence[int]] = MappingProxyType({})
) -> None:
    """``shapes``: those of what the files have, by which a weight of another name is known."""
    parameters = dict(model.named_parameters())
    missing = [name for name in parameters if name not in names]
    if not missing:
        return
    wanted = tuple(parameters[missing[0]].shape)
    other = next((name for name, shape in shapes.items() if name not in parameters and tuple(shape) == wanted), None)
    remedy = "copy all files of the model"
    if other is not None:
        remedy = (
            f"they have {other} of its size: where they were written for another version, which named weights "
            "otherwise, load them once with AutoModelForCausalLM.from_pretrained, write them with "
            "save_pretrained(FOLDER, save_original_format=False), the tokenizer too, and name that folder"
        )
    raise BadInputError(f"model: {len(missing)} weights are not in its files, the first is {missing[0]}; {remedy}")


def _check_shape(name: str, parameter: nn.Parameter, shape: Sequence[int]) -> None:
    if tuple(parameter.shape) != tuple(shape):
        raise BadInputError(f"model: weight {name} has shape {tuple(shape)}, expected {tuple(parameter.shape)}")


def _assign(name: str, parameter: nn.Parameter, tensor: torch.Tensor) -> None:
    _check_shape(name, parameter, tensor.shape)
    with torch.no_grad():
        parameter.data.copy_(tensor)


class TensorFiles:
    """Tensors of a directory by name."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self._open = safe_open
        self._files: dict[str, Path] = {}
        for file in weight_files(path):
            with safe_open(file, framework="pt") as tensors:
                self._files.update(dict.fromkeys(tensors.keys(), file))

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name in self._files:
            yield name, self.read(name)

    def read(self, name: str) -> torch.Tensor:
        """One tensor, on the CPU."""
        with self._open(self._files[name], framework="pt") as tensors:
            tensor: torch.Tensor = tensors.get_tensor(name)
        return tensor


def kept_buffers(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """What stands in a model's files beside its parameters, as the constants of Apertus' activation do."""
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(prefix, recurse=False):
            if name.rpartition(".")[2] not in module._non_persistent_buffers_set:
                yield name, buffer


def gathered_state(
    model: nn.Module, *, zero3: bool, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every wanted tensor of the model's files whole, one at a time, on the CPU.

    All ranks iterate, for gathering a parameter is a collective.
    """
    import deepspeed

    for name, parameter in model.named_parameters():
        if wanted(name):
            with deepspeed.zero.GatheredParameters([parameter], enabled=zero3):
                yield name, parameter.data.detach().to("cpu", copy=True)
    for name, buffer in kept_buffers(model):
        if wanted(name):
            yield name, buffer.detach().to("cpu", copy=True)
