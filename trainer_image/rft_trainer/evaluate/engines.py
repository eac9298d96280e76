"""Loads a model into the engine that the evaluation asks for.

Invariant: torch and the engines are imported only here and in their samplers, so an evaluation of an endpoint needs
none of them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rft_trainer.contract import EvaluationConfig
from rft_trainer.prepare.chat import ChatRenderer

if TYPE_CHECKING:
    from rft_trainer.evaluate.runner import Model
    from rft_trainer.evaluate.sampler import Sampler

Load = Callable[[], "Model"]


def loader(name: str, path: Path, evaluation: EvaluationConfig) -> Load:
    """What loads the model at ``path``; raises :class:`BadInputError` when called and the model is none."""

    def load() -> Model:
        from rft_trainer.evaluate.runner import Model
        from rft_trainer.prepare.model import load_tokenizer

        sampler = _sampler(path, evaluation)
        return Model(name, sampler=sampler, render=ChatRenderer(load_tokenizer(path)).prompt)

    return load


def free_memory() -> None:
    """Give the memory of a model that nobody refers to any more back to the GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _sampler(path: Path, evaluation: EvaluationConfig) -> Sampler:
    if evaluation.engine == "vllm":
        from rft_trainer.evaluate.vllm_sampler import VllmSampler

        return VllmSampler(path, precision=evaluation.precision, gpus=evaluation.gpus, seed=evaluation.seed)
    import torch

    from rft_trainer.evaluate.transformers_sampler import TransformersSampler

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return TransformersSampler(path, device=device, precision=evaluation.precision)
