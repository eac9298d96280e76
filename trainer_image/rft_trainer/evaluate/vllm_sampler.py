"""Lets vLLM continue texts: many at once, with the beginnings that they share computed once.

Invariant: vLLM is needed only when it is asked for, and an engine that is missing or does not start is an error that
says what to do. Tokens are counted as of the text that is kept, for vLLM counts the mark that ended it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rft_trainer.contract import EvaluationPrecision
from rft_trainer.errors import BadInputError, StageError
from rft_trainer.evaluate.sampler import Completion, CompletionRequest, Finish
from rft_trainer.prepare.model import load_tokenizer

_DTYPES: dict[EvaluationPrecision, str] = {"auto": "auto", "bf16": "bfloat16", "fp32": "float32"}
_ENDS_OF_TURN = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>")


class VllmSampler:
    """A model loaded into vLLM in this process."""

    def __init__(self, path: Path, *, precision: EvaluationPrecision, gpus: int, seed: int) -> None:
        try:
            import vllm
        except ImportError as error:
            raise BadInputError(
                f"evaluation.engine: vllm is not installed here ({error}); build the trainer's image with it "
                "(docs/operations.md), or set evaluation.engine: transformers"
            ) from error
        self.tokenizer = load_tokenizer(path)
        self._vllm, self._precision = vllm, precision
        try:
            self._engine: Any = vllm.LLM(
                model=str(path),
                dtype=_DTYPES[precision],
                tensor_parallel_size=gpus,
                seed=seed,
                enable_prefix_caching=True,
                # The model's own sampling defaults (top-k and others) are no part of a protocol.
                generation_config="vllm",
            )
        except (RuntimeError, ValueError) as error:
            raise StageError(f"evaluation.engine: vllm does not load the model: {error}") from error
        vocabulary = self.tokenizer.get_vocab()
        ends = {vocabulary[end] for end in _ENDS_OF_TURN if end in vocabulary} | {self.tokenizer.eos_token_id}
        self._end_ids = sorted(end for end in ends if end is not None)

    @property
    def context_tokens(self) -> int:
        """The positions that the engine holds."""
        return int(self._engine.llm_engine.model_config.max_model_len)

    @property
    def identity(self) -> dict[str, str]:
        """Version and number format."""
        return {"engine": "vllm", "vllm": str(self._vllm.__version__), "precision": self._precision}

    def count(self, text: str) -> int:
        """The number of tokens of a text."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Continue a batch; raises :class:`BadInputError` when a prompt fills the model's context."""
        prompts, parameters = [], []
        for request in requests:
            tokens = self.tokenizer(request.prompt, add_special_tokens=False)["input_ids"]
            room = self.context_tokens - len(tokens)
            if room < 1:
                raise BadInputError(
                    f"a prompt of {len(tokens)} tokens leaves no room for an answer in {self.context_tokens}"
                )
            prompts.append({"prompt_token_ids": tokens})
            parameters.append(
                self._vllm.SamplingParams(
                    max_tokens=min(request.max_tokens, room),
                    temperature=request.temperature,
                    top_p=request.top_p,
                    seed=request.seed,
                    stop=list(request.stops),
                    stop_token_ids=self._end_ids,
                    skip_special_tokens=False,
                    spaces_between_special_tokens=False,
                )
            )
        outputs = self._engine.generate(prompts, parameters, use_tqdm=False)
        return [self._read(each.outputs[0], request) for each, request in zip(outputs, requests, strict=True)]

    def _read(self, output: Any, request: CompletionRequest) -> Completion:
        text = str(output.text)
        if output.finish_reason == "length":
            return Completion(text, len(output.token_ids), Finish.LENGTH)
        if output.finish_reason != "stop":
            raise StageError(f"evaluation.engine: vllm ended an answer with {output.finish_reason!r}")
        if output.stop_reason in request.stops:
            return Completion(text, self.count(text), Finish.STOP)
        for mark in self.tokenizer.convert_ids_to_tokens(self._end_ids):
            text = text.removesuffix(mark)
        return Completion(text, self.count(text), Finish.EOS)
