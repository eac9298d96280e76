"""Lets a model answer, in batches with a key-value cache.

Invariant: greedy answers do not depend on chance, sampled ones only on the seed of their batch; special tokens stay
in the text, for they mark the end of thinking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rft_trainer.contract import Benchmark
from rft_trainer.errors import BadInputError
from rft_trainer.prepare.chat import ChatRenderer
from rft_trainer.prepare.formats import Message
from rft_trainer.prepare.model import load_tokenizer

_STOPS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>")


@dataclass(frozen=True)
class Answer:
    """One generated answer."""

    text: str
    tokens: int
    finished: bool
    """False when the token limit cut it."""


class Generator:
    """A loaded model."""

    def __init__(self, path: Path, *, device: torch.device) -> None:
        from transformers import AutoModelForCausalLM

        self._tokenizer = load_tokenizer(path)
        self._tokenizer.padding_side = "left"
        self._renderer = ChatRenderer(self._tokenizer)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        model, info = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, output_loading_info=True)
        if info["missing_keys"]:
            raise BadInputError(f"model {path.name}: weights are missing, the first is {min(info['missing_keys'])}")
        self._model: Any = model.to(device).eval()
        self._device = device
        vocabulary = self._tokenizer.get_vocab()
        stops = {vocabulary[stop] for stop in _STOPS if stop in vocabulary} | {self._tokenizer.eos_token_id}
        self._stop_ids = sorted(stop for stop in stops if stop is not None)
        pad = self._tokenizer.pad_token_id
        self._pad_id: int = pad if pad is not None else self._stop_ids[0]
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.convert_ids_to_tokens(self._pad_id)

    def answer(self, questions: Sequence[Sequence[Message]], *, benchmark: Benchmark, seed: int) -> list[Answer]:
        """Answer a batch of questions once each."""
        prompts = [self._renderer.prompt(messages) for messages in questions]
        encoded = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(self._device)
        width = encoded["input_ids"].shape[1]
        room = self._model.config.max_position_embeddings - width
        if room < 1:
            raise BadInputError(
                f"benchmark {benchmark.name}: a question of {width} tokens leaves no room for an answer"
            )
        sampling = (
            {"do_sample": True, "temperature": benchmark.temperature}
            if benchmark.temperature > 0
            else {"do_sample": False}
        )
        torch.manual_seed(seed)
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=encoded["input_ids"],
                attention_mask=encoded["attention_mask"],
                max_new_tokens=min(benchmark.max_tokens, room),
                eos_token_id=self._stop_ids,
                pad_token_id=self._pad_id,
                use_cache=True,
                **sampling,
            )
        return [self._read(row) for row in output[:, width:].tolist()]

    def _read(self, tokens: list[int]) -> Answer:
        stops = [index for index, token in enumerate(tokens) if token in self._stop_ids]
        kept = tokens[: stops[0]] if stops else tokens
        text = self._tokenizer.decode(kept, skip_special_tokens=False)
        return Answer(text=text, tokens=len(kept), finished=bool(stops))
