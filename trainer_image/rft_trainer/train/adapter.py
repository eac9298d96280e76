"""LoRA: adapters of low rank in the model, and the way back to a plain one.

Invariant: only the adapters are trained and saved; the merged export has the base model's names and shapes, so whatever
loads the base model loads it. The model keeps its class: peft puts the adapters into it instead of wrapping it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rft_trainer.contract import LoraConfig
from rft_trainer.errors import BadInputError

NAME = "default"
FOLDER = "adapter"
_PREFIX = "base_model.model."
"""How peft names the tensors of a saved adapter."""


def peft_config(lora: LoraConfig) -> Any:
    """The adapter's configuration in peft's form."""
    import peft

    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules) or "all-linear",
        task_type="CAUSAL_LM",
    )


def add_adapters(model: Any, lora: LoraConfig) -> None:
    """Freeze the model and put adapters into it; raises :class:`BadInputError` when a name is not of linear layers."""
    import peft

    check_targets(model, lora)
    try:
        peft.inject_adapter_in_model(peft_config(lora), model, adapter_name=NAME)
    except ValueError as error:
        raise BadInputError(f"training.lora.targetModules: {error}") from error


def check_targets(model: Any, lora: LoraConfig) -> None:
    """Raise :class:`BadInputError` for a name that is not of linear layers alone.

    An adapter of anything else would be trained, and not be exported.
    """
    output = model.get_output_embeddings()
    linear: dict[str, bool] = {
        name: isinstance(module, torch.nn.Linear) and module is not output for name, module in model.named_modules()
    }
    for target in lora.target_modules:
        named = [is_linear for name, is_linear in linear.items() if name == target or name.endswith(f".{target}")]
        if not named or not all(named):
            known = sorted({name.rpartition(".")[2] for name, is_linear in linear.items() if is_linear})
            raise BadInputError(
                f"training.lora.targetModules: {target!r} is no linear layer of this model below its output; name some "
                f"of {', '.join(known)}, or none for all of them"
            )


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter."""
    return f".lora_A.{NAME}." in name or f".lora_B.{NAME}." in name


def saved_name(name: str) -> str:
    """The name of an adapter's parameter in a saved adapter."""
    return _PREFIX + name.replace(f".{NAME}.", ".")


def adapter_names(plain: str) -> tuple[str, str]:
    """The two adapter parameters of a weight that has them."""
    layer = plain.removesuffix(".weight")
    return f"{layer}.lora_A.{NAME}.weight", f"{layer}.lora_B.{NAME}.weight"


def merge(
    base: Iterable[tuple[str, torch.Tensor]], adapters: Mapping[str, torch.Tensor], *, lora: LoraConfig
) -> Iterator[tuple[str, torch.Tensor]]:
    """The base model's tensors with what the adapters have learned; a sum is made in fp32."""
    scale = lora.alpha / lora.rank
    for name, weight in base:
        down, up = (adapters.get(each) for each in adapter_names(name))
        if down is None or up is None:
            yield name, weight
        else:
            yield name, weight.float() + scale * (up.float() @ down.float())


@dataclass(frozen=True)
class BaseModelName:
    """What peft loads below an adapter."""

    name: str
    revision: str | None = None


def save_adapter(
    adapters: Mapping[str, torch.Tensor], destination: Path, *, lora: LoraConfig, base: BaseModelName
) -> None:
    """Write the adapter as peft does, so that it can be loaded onto the base model."""
    from safetensors.torch import save_file

    destination.mkdir()
    layers = sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in adapters})
    config = peft_config(lora.model_copy(update={"target_modules": tuple(layers)}))
    config.base_model_name_or_path, config.revision, config.inference_mode = base.name, base.revision, True
    config.save_pretrained(destination)
    tensors = {saved_name(name): tensor.contiguous() for name, tensor in adapters.items()}
    save_file(tensors, destination / "adapter_model.safetensors", metadata={"format": "pt"})
