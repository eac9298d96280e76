"""Lets vLLM continue texts: many at once, with the beginnings that they share computed once.

Invariant: vLLM is needed only when it is asked for, and an engine that is missing or does not start is an error that
says what to do. Its own loop is driven here step by step, so an answer is there when it is finished and the next one
takes its place at once. Tokens are counted as of the text that is kept, for vLLM counts the mark that ended it too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rft_trainer.contract import EvaluationPrecision
from rft_trainer.errors import BadInputError, StageError
from rft_trainer.evaluate.engines import vllm_is_missing
from rft_trainer.evaluate.sampler import Completion, CompletionRequest, Finish, Window
from rft_trainer.evaluate.turn_ends import turn_ends
from rft_trainer.prepare.model import load_tokenizer

_DTYPES: dict[EvaluationPrecision, str] = {"auto": "auto", "bf16": "bfloat16", "fp32": "float32"}


class VllmSampler:
    """A model loaded into vLLM in this process."""

    def __init__(self, path: Path, *, precision: EvaluationPrecision, gpus: int, seed: int) -> None:
        try:
            import vllm
            from vllm.sampling_params import RequestOutputKind
        except ImportError as error:
            raise vllm_is_missing(error) from error
        self.tokenizer = load_tokenizer(path)
        self._vllm, self._precision = vllm, precision
        self._when_finished = RequestOutputKind.FINAL_ONLY
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
        self._ends = turn_ends(self.tokenizer)
        self._numbers = itertools.count()

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

    def window(self) -> Window:
        """What vLLM has under way; it makes its batches itself, anew in each step."""
        return _VllmWindow(self)

    def add(self, request: CompletionRequest) -> str:
        """Give vLLM a request, and return its name for it; raises :class:`BadInputError` when there is no room."""
        tokens = self.tokenizer(request.prompt, add_special_tokens=False)["input_ids"]
        room = self.context_tokens - len(tokens)
        if room < 1:
            raise BadInputError(
                f"a prompt of {len(tokens)} tokens leaves no room for an answer in {self.context_tokens}"
            )
        parameters = self._vllm.SamplingParams(
            max_tokens=min(request.max_tokens, room),
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=list(request.stops),
            stop_token_ids=list(self._ends),
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
            output_kind=self._when_finished,
        )
        name = str(next(self._numbers))
        # With its type it is an input that needs no rendering; older versions look at the tokens alone.
        self._engine.llm_engine.add_request(name, {"type": "token", "prompt_token_ids": tokens}, parameters)
        return name

    def step(self) -> list[Any]:
        """Let vLLM generate a token for each request; returns what is finished by that."""
        if not self._engine.llm_engine.has_unfinished_requests():
            raise StageError("evaluation.engine: vllm has lost a request")
        return [output for output in self._engine.llm_engine.step() if output.finished]

    def read(self, output: Any, request: CompletionRequest) -> Completion:
        """A finished request as a completion."""
        [given] = output.outputs
        return self._read(given, request)

    def _read(self, output: Any, request: CompletionRequest) -> Completion:
        text = str(output.text)
        if output.finish_reason == "length":
            return Completion(text, len(output.token_ids), Finish.LENGTH)
        if output.finish_reason != "stop":
            raise StageError(f"evaluation.engine: vllm ended an answer with {output.finish_reason!r}")
        if output.stop_reason in request.stops:
            return Completion(text, self.count(text), Finish.STOP)
        for mark in self._ends.values():
            text = text.removesuffix(mark)
        return Completion(text, self.count(text), Finish.EOS)


class _VllmWindow:
    """Knows vLLM's requests by tickets."""

    def __init__(self, sampler: VllmSampler) -> None:
        self._sampler = sampler
        self._under_way: dict[str, tuple[int, CompletionRequest]] = {}

    def put(self, ticket: int, request: CompletionRequest) -> None:
        self._under_way[self._sampler.add(request)] = ticket, request

    def get(self) -> Sequence[tuple[int, Completion]]:
        found: list[tuple[int, Completion]] = []
        while not found:
            # What a window that was left has begun comes too, and nobody waits for it.
            for output in self._sampler.step():
                if output.request_id in self._under_way:
                    ticket, request = self._under_way.pop(output.request_id)
                    found.append((ticket, self._sampler.read(output, request)))
        return found

    def close(self) -> None:
        self._under_way = {}
