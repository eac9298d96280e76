"""Loads a model into the engine that the evaluation asks for.

Invariant: torch and the engines are imported only here and in their samplers, so an evaluation of an endpoint needs
none of them.
"""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rft_trainer.contract import EvaluationConfig
from rft_trainer.errors import BadInputError
from rft_trainer.prepare.chat import ChatRenderer

if TYPE_CHECKING:
    from rft_trainer.evaluate.runner import Model
    from rft_trainer.evaluate.sampler import Sampler

Load = Callable[[], "Model"]


def check_engine(evaluation: EvaluationConfig) -> None:
    """Raise :class:`BadInputError` where the engine is not in this image, before a GPU is paid for.

    It is looked for and not loaded: that takes long, and without a GPU may fail for want of one.
    """
    if evaluation.engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise vllm_is_missing("no module named vllm")


def vllm_is_missing(why: object) -> BadInputError:
    """The error of an image without vLLM."""
    return BadInputError(
        f"evaluation.engine: vllm is not installed here ({why}); build the trainer's image with it "
        "(docs/operations.md), or set evaluation.engine: transformers"
    )


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
