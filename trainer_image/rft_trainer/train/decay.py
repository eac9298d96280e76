"""Which parameters weight decay shrinks.

Invariant: matrices and embeddings, never biases and the weights of normalisations, as transformers' Trainer, with which
both published recipes were run, has it. The split depends on names alone, so it is the same on every rank and at every
resume; and there are always the same groups, whatever the decay is.
"""

from __future__ import annotations

import re
from typing import Any

import torch

_KEPT = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:\.|$)|_norm(?:\.|$)")


def is_decayed(name: str) -> bool:
    """Whether weight decay is for a parameter of this name."""
    return _KEPT.search(name.lower()) is None


def parameter_groups(model: torch.nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """The optimizer's groups of what is trained; an adapter has no parameters that are kept from decay."""
    layer_norms = {
        id(each) for layer in model.modules() if isinstance(layer, torch.nn.LayerNorm) for each in layer.parameters()
    }
    decayed: list[torch.nn.Parameter] = []
    kept: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (decayed if is_decayed(name) and id(parameter) not in layer_norms else kept).append(parameter)
    groups = ({"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]
