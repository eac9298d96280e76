"""Lets a model on this machine continue texts, in batches with a key-value cache.

Invariant: greedy completions do not depend on chance, sampled ones only on the seed of their own request, and how much
room one has follows from its own prompt: nothing depends on the other rows of its batch, so a batch that the memory
does not hold is parted. Special tokens stay in the text, for they mark the end of thinking.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessor, StoppingCriteria

from rft_trainer.contract import EvaluationPrecision
from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.fitting_window import FittingWindow, MostRows
from rft_trainer.evaluate.sampler import BatchWindow, Completion, CompletionRequest, Finish, Window
from rft_trainer.evaluate.turn_ends import turn_ends
from rft_trainer.prepare.model import load_tokenizer

_SMALLEST = 1e-300


class TransformersSampler:
    """A loaded model."""

    def __init__(self, path: Path, *, device: torch.device, precision: EvaluationPrecision = "auto") -> None:
        self.tokenizer = load_tokenizer(path)
        self.tokenizer.padding_side = "left"
        exact = precision == "fp32" or (precision == "auto" and device.type != "cuda")
        dtype = torch.float32 if exact else torch.bfloat16
        self._number_format = "fp32" if exact else "bf16"
        model, info = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, output_loading_info=True)
        if info["missing_keys"]:
            raise BadInputError(f"model {path.name}: weights are missing, the first is {min(info['missing_keys'])}")
        self._model: Any = self._placed(model, device, name=path.name).eval()
        # The model's own settings (Qwen's penalty for repetitions, beams, limits of time) are no part of a protocol.
        self._model.generation_config = GenerationConfig()
        self._device = device
        self._positions = positions_of(self._model.config)
        self._most_rows = MostRows()
        self._model.register_forward_pre_hook(self._within_context, with_kwargs=True)
        self._row_by_row = "longrope" in rotary_types(self._model.config)
        self._end_ids = list(turn_ends(self.tokenizer))
        # Nothing reads padding, but the model must have the token: that of many a tokenizer is beyond it.
        known = self._model.get_input_embeddings().num_embeddings
        self._pad_id = next(each for each in (self.tokenizer.pad_token_id, *self._end_ids, 0) if _is_one(each, known))
        if self.tokenizer.pad_token_id != self._pad_id:
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(self._pad_id)

    def _placed(self, model: Any, device: torch.device, *, name: str) -> Any:
        try:
            return model.to(device)
        except torch.OutOfMemoryError as error:  # another attempt would pay for the same
            raise BadInputError(
                f"model {name}: its weights in {self._number_format} do not fit the GPU's memory; evaluate with "
                "engine: vllm over more gpus, with another preset where this one asks for fp32, or by rft evaluate"
            ) from error

    @property
    def context_tokens(self) -> int | None:
        """The positions that the model knows; None where it has none to run out of."""
        return self._positions

    @property
    def identity(self) -> dict[str, str]:
        """Library, versions and number format."""
        return {
            "engine": "transformers",
            "transformers": transformers.__version__,
            "torch": str(torch.__version__).split("+")[0],
            "precision": self._number_format,
            "device": self._device.type,
        }

    def count(self, text: str) -> int:
        """The number of tokens of a text."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def window(self) -> Window:
        """A batch at a time: its rows are computed together, and a row that has ended waits for the others."""
        return BatchWindow(self._one_by_one) if self._row_by_row else FittingWindow(self._complete, self._most_rows)

    def _one_by_one(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """For models that scale the positions of a whole batch by its longest row."""
        return [completion for request in requests for completion in self._complete([request])]

    def _complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Continue a batch; raises :class:`BadInputError` when a prompt fills the model's context."""
        prompts = [request.prompt for request in requests]
        encoded = self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(self._device)
        width = encoded["input_ids"].shape[1]
        limits = [
            self._limit(request, tokens=tokens)
            for request, tokens in zip(requests, encoded["attention_mask"].sum(1).tolist(), strict=True)
        ]
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=encoded["input_ids"],
                attention_mask=encoded["attention_mask"],
                max_new_tokens=max(limits),
                eos_token_id=self._end_ids,
                pad_token_id=self._pad_id,
                use_cache=True,
                do_sample=False,
                logits_processor=[_Draw(requests, self._device)],
                stopping_criteria=[_RowEnds(self.tokenizer, requests, limits=limits, width=width)],
            )
        rows = output[:, width - 1 :].tolist()  # with the prompt's last token
        return [
            self._read(row[1 : limit + 1], request, after=row[0])
            for row, limit, request in zip(rows, limits, requests, strict=True)
        ]

    def _limit(self, request: CompletionRequest, *, tokens: int) -> int:
        if self.context_tokens is None:
            return request.max_tokens
        room = self.context_tokens - tokens
        if room < 1:
            raise BadInputError(
                f"a prompt of {tokens} tokens leaves no room for an answer in the model's {self.context_tokens}"
            )
        return min(request.max_tokens, room)

    def _within_context(self, _module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Hold rows that have ended at the last position.

        The library computes them until the whole batch has ended. A model with a table of positions would fail beyond
        its end, and scaling that follows the largest position would change what the other rows say.
        """
        positions = kwargs.get("position_ids")
        if positions is not None and self.context_tokens is not None:
            kwargs["position_ids"] = positions.clamp(max=self.context_tokens - 1)
        return args, kwargs

    def _read(self, tokens: list[int], request: CompletionRequest, *, after: int) -> Completion:
        ends = [index for index, token in enumerate(tokens) if token in self._end_ids]
        kept = tokens[: ends[0]] if ends else tokens
        text = self._continuation(kept, after=after)
        cut = min((text.find(stop) for stop in request.stops if stop in text), default=None)
        if cut is None:
            return Completion(text, len(kept), Finish.EOS if ends else Finish.LENGTH)
        while kept and len(self._continuation(kept[:-1], after=after)) >= cut:
            kept = kept[:-1]
        return Completion(text[:cut], len(kept), Finish.STOP)

    def _continuation(self, tokens: Sequence[int], *, after: int) -> str:
        """What tokens say after another: decoders of SentencePiece drop the space that a text begins with."""
        before, whole = self._decode([after]), self._decode([after, *tokens])
        return whole.removeprefix(before) if whole.startswith(before) else self._decode(tokens)

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=False))


def _is_one(token: int | None, known: int) -> bool:
    return token is not None and token < known


def positions_of(config: Any) -> int | None:
    """The positions that a model knows, by its configuration; of one that reads pictures too, those of its text.

    None where they have no end: distances take their place, as in Bloom and MPT, or a state, as in Mamba.
    """
    found = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) else None


def rotary_types(config: Any) -> set[str]:
    """How rotary positions are scaled; some models do it in another way in each kind of layer."""
    parameters = getattr(config.get_text_config(), "rope_parameters", None) or {}
    each = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    return {str(value["rope_type"]) for value in each if "rope_type" in value}


class _Draw(LogitsProcessor):  # type: ignore[misc]
    """Makes the greedy choice a draw: the highest of logits + Gumbel noise is a sample of their softmax.

    Each row has noise of its own seed, so a batch that is made up otherwise after a restart gives the same answers;
    and no top-k of a model's own generation settings has a say.
    """

    def __init__(self, requests: Sequence[CompletionRequest], device: torch.device) -> None:
        self._temperatures = [request.temperature for request in requests]
        self._top_ps = [request.top_p for request in requests]
        self._generators = [torch.Generator(device).manual_seed(request.seed) for request in requests]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not any(self._temperatures):
            return scores
        drawn = scores.double()
        for row, temperature in enumerate(self._temperatures):
            if temperature > 0:
                noise = torch.empty_like(drawn[row]).exponential_(generator=self._generators[row])
                likely = _nucleus(drawn[row] / temperature, top_p=self._top_ps[row])
                drawn[row] = likely - noise.clamp_min(_SMALLEST).log()
        return drawn


def _nucleus(scores: torch.Tensor, *, top_p: float) -> torch.Tensor:
    """Rule out all but the likeliest tokens that hold ``top_p`` of the probability; the likeliest always stays."""
    if top_p >= 1:
        return scores
    ordered, places = scores.sort(descending=True)
    share = ordered.softmax(0)
    beyond = share.cumsum(0) - share >= top_p
    return scores.index_fill(0, places[beyond], float("-inf"))


class _RowEnds(StoppingCriteria):  # type: ignore[misc]
    """Ends each row at its own limit and at its own stop texts, which may be several tokens long."""

    def __init__(self, tokenizer: Any, requests: Sequence[CompletionRequest], *, limits: list[int], width: int) -> None:
        self._tokenizer, self._limits, self._width = tokenizer, limits, width
        self._stops = [request.stops for request in requests]
        # A token is a byte at least, and the first of the tail may begin within a character.
        self._tail = 4 + max((len(stop.encode()) for stops in self._stops for stop in stops), default=0)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        length = input_ids.shape[1] - self._width
        done = [length >= limit for limit in self._limits]
        if any(self._stops):
            tails = input_ids[:, self._width :][:, -self._tail :].tolist()
            for row, (tail, stops) in enumerate(zip(tails, self._stops, strict=True)):
                text = self._tokenizer.decode(tail, skip_special_tokens=False) if stops else ""
                done[row] = done[row] or any(stop in text for stop in stops)
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)
