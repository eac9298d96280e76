"""Faster kernels where the GPU and the image have them; nothing needs them.

Invariant: what is used is decided once, the same on all ranks, and is named in the run card.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from typing import Any

import torch

from rft_trainer.contract import TrainingConfig

ATTENTION = "sdpa"
"""Torch's own attention, in the model library's words: what every model must have that is to be trained."""


@dataclass(frozen=True)
class Kernels:
    """What runs the attention and the small layers."""

    flash_attention: bool
    liger: bool

    @property
    def attention(self) -> str:
        """The attention in the model library's words."""
        return "flash_attention_2" if self.flash_attention else ATTENTION


def available(training: TrainingConfig) -> Kernels:
    """What can be used here: flash-attn computes in half precision only, and both are for CUDA devices."""
    cuda = torch.cuda.is_available()
    return Kernels(
        flash_attention=cuda and training.precision == "bf16" and _importable("flash_attn"),
        liger=cuda and _importable("liger_kernel") and _has_compiler(),
    )


def _importable(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _has_compiler() -> bool:
    """Triton, which liger is written in, compiles a stub of C for every kernel."""
    return any(shutil.which(name) is not None for name in ("gcc", "clang"))


def use_liger(model: Any) -> None:
    """Replace norms, rotary embeddings and the gated MLP; the loss stays ours, which knows all ranks' tokens."""
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False)
