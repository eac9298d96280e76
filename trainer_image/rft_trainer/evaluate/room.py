"""Whether the questions of an evaluation fit into a model, as far as its files say.

Invariant: what the evaluation would refuse for want of room is refused before anything is paid for; where only the
engine knows how much it holds nothing is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_trainer.contract import Engine
from rft_trainer.evaluate.protocol import Exam
from rft_trainer.evaluate.settings import settings_of
from rft_trainer.prepare.chat import ChatRenderer
from rft_trainer.prepare.model import load_tokenizer


@dataclass(frozen=True)
class _ModelFiles:
    """A model that is not loaded."""

    context_tokens: int | None
    tokenizer: Any

    def count(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def check_room(exam: Exam, path: Path) -> None:
    """Raise :class:`BadInputError` when the model at ``path`` cannot hold a question, its thinking and its answer.

    Every question is rendered for it, so one that the chat template refuses is refused here, too.
    """
    evaluation, tokenizer = exam.evaluation, load_tokenizer(path)
    holder = _ModelFiles(_context_tokens(path, engine=evaluation.engine), tokenizer)
    renderer = ChatRenderer(tokenizer)
    for benchmark in evaluation.benchmarks:
        prompts = [renderer.prompt(exam.turns(question)) for question in exam.questions[benchmark.name]]
        longest = max(map(len, tokenizer(prompts, add_special_tokens=False)["input_ids"]))
        for setting in settings_of(evaluation):
            exam.way(benchmark, setting).check_room(longest, holder=holder)


def _context_tokens(path: Path, *, engine: Engine) -> int | None:
    """The positions that the engine will take; vLLM reckons those of a model that scales them itself."""
    from transformers import AutoConfig

    from rft_trainer.evaluate.transformers_sampler import positions_of, rotary_types

    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    if engine == "vllm" and rotary_types(config) - {"default"}:
        return None
    return positions_of(config)
