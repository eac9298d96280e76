"""vLLM behind the evaluation's interface: held to vLLM's own words by a module that speaks them."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rft_trainer.errors import BadInputError, StageError
from rft_trainer.evaluate.forcing import S1, Forcing, ThinkingBudget
from rft_trainer.evaluate.sampler import Completion, CompletionRequest, Finish
from rft_trainer.evaluate.vllm_sampler import VllmSampler
from rft_trainer.prepare.tiny import build_model
from rft_trainer.uris import parse_uri

WORDS = ["What is 12 + 30? The answer is 42. Wait, so let me think of it again."] * 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    uri = parse_uri("init://tiny-qwen2?hidden=32&layers=1&vocab=320&positions=128")
    build_model(uri, path, texts=WORDS, seed=1, max_sequence_length=128)
    return path


@dataclass
class Output:
    """What vLLM says of one completion."""

    text: str
    token_ids: list[int]
    finish_reason: str
    stop_reason: str | int | None


class FakeVllm(types.ModuleType):
    """Continues a text with what a script says, in vLLM's terms."""

    __version__ = "0.99"

    def __init__(self, script: Mapping[str, str], *, context: int = 128, reason: str | None = None) -> None:
        super().__init__("vllm")
        self.script, self.context, self.reason = script, context, reason
        self.options: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []
        fake = self

        class SamplingParams:
            def __init__(self, **fields: Any) -> None:
                self.fields = fields

        class LLM:
            def __init__(self, **options: Any) -> None:
                fake.options = options
                if options["tensor_parallel_size"] > 1:
                    raise ValueError("Total number of attention heads (4) must be divisible by 3")
                config = types.SimpleNamespace(max_model_len=fake.context)
                self.llm_engine = types.SimpleNamespace(model_config=config)

            def generate(
                self, prompts: Sequence[Mapping[str, Any]], parameters: Sequence[SamplingParams], *, use_tqdm: bool
            ) -> list[Any]:
                assert not use_tqdm
                return [
                    types.SimpleNamespace(outputs=[fake.give(prompt["prompt_token_ids"], asked.fields)])
                    for prompt, asked in zip(prompts, parameters, strict=True)
                ]

        self.SamplingParams, self.LLM = SamplingParams, LLM
        self.tokenizer: Any = None

    def give(self, prompt: list[int], asked: dict[str, Any]) -> Output:
        self.asked.append(asked)
        text = self.tokenizer.decode(prompt, skip_special_tokens=False)
        said = next(words for key, words in self.script.items() if text.endswith(key))
        tokens: list[int] = []
        for token in self.tokenizer(said, add_special_tokens=False)["input_ids"]:
            if len(tokens) == asked["max_tokens"]:
                return Output(self.tokenizer.decode(tokens), tokens, "length", None)
            tokens.append(token)
            so_far = self.tokenizer.decode(tokens, skip_special_tokens=False)
            for stop in asked["stop"]:
                if stop in so_far:
                    return Output(so_far[: so_far.index(stop)], tokens, "stop", stop)
            if token in asked["stop_token_ids"]:
                return Output(self.tokenizer.decode(tokens[:-1], skip_special_tokens=False), tokens, "stop", token)
        return Output(self.tokenizer.decode(tokens), tokens, self.reason or "length", None)


def sampler(model: Path, fake: FakeVllm, monkeypatch: pytest.MonkeyPatch, *, gpus: int = 1) -> VllmSampler:
    monkeypatch.setitem(sys.modules, "vllm", fake)
    made = VllmSampler(model, precision="bf16", gpus=gpus, seed=7)
    fake.tokenizer = made.tokenizer
    return made


def test_request_says_all_that_decides_the_completion(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeVllm({"12?": " 42.<|im_end|>"})
    engine = sampler(model, fake, monkeypatch)
    request = CompletionRequest(
        prompt="What is 12?", stops=("Wait",), max_tokens=50, temperature=0.6, top_p=0.95, seed=3
    )
    [given] = engine.complete([request])
    assert given == Completion(" 42.", engine.count(" 42."), Finish.EOS)
    [asked] = fake.asked
    ends = engine.tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert asked == {
        "max_tokens": 50, "temperature": 0.6, "top_p": 0.95, "seed": 3, "stop": ["Wait"],
        "stop_token_ids": sorted(ends), "skip_special_tokens": False, "spaces_between_special_tokens": False,
    }  # fmt: skip
    assert fake.options == {
        "model": str(model), "dtype": "bfloat16", "tensor_parallel_size": 1, "seed": 7,
        "enable_prefix_caching": True, "generation_config": "vllm",
    }  # fmt: skip
    assert engine.identity == {"engine": "vllm", "vllm": "0.99", "precision": "bf16"}


def test_completion_says_why_it_ended(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = sampler(model, FakeVllm({"12?": "The answer is 42. Wait, so let me think."}), monkeypatch)
    asked = CompletionRequest(prompt="What is 12?", stops=("Wait",), max_tokens=40)
    cut = CompletionRequest(prompt="What is 12?", max_tokens=3)
    stopped, ended = engine.complete([asked, cut])
    assert (stopped.text, stopped.finish) == ("The answer is 42. ", Finish.STOP)
    assert stopped.tokens == engine.count("The answer is 42. "), "the stop's own tokens do not count"
    assert (ended.tokens, ended.finish) == (3, Finish.LENGTH)


def test_thinking_is_forced_through_vllm(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = {
        "Wait": " so let me think.<|im_start|>answer",
        "think": " The answer is 12.<|im_start|>answer",
        "answer": " Answer: 42<|im_end|>",
    }
    engine = sampler(model, FakeVllm(script), monkeypatch)
    sample = Forcing(
        "What is 12?",
        delimiters=S1,
        budget=ThinkingBudget(waits=1, thinking_tokens=60, answer_tokens=20),
        wait_tokens=engine.count("Wait"),
    )
    while not sample.done:
        ask = sample.ask()
        request = CompletionRequest(prompt=ask.text, stops=ask.stops, max_tokens=ask.max_tokens)
        sample.take(engine.complete([request])[0])
    assert sample.answer().text == (
        "<|im_start|>think The answer is 12.Wait so let me think.<|im_start|>answer Answer: 42"
    )


def test_room_is_what_the_prompt_leaves_of_the_context(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeVllm({"1": "2" * 100}, context=64)
    engine = sampler(model, fake, monkeypatch)
    engine.complete([CompletionRequest(prompt="1" * 60, max_tokens=50)])
    assert fake.asked[0]["max_tokens"] == 4
    with pytest.raises(BadInputError, match="a prompt of 64 tokens leaves no room for an answer in 64"):
        engine.complete([CompletionRequest(prompt="1" * 64, max_tokens=1)])


def test_error_says_what_to_do_when_vllm_is_missing_or_refuses_the_model(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(BadInputError, match=r"vllm is not installed here .*set evaluation.engine: transformers"):
        VllmSampler(model, precision="auto", gpus=1, seed=1)
    with pytest.raises(StageError, match="vllm does not load the model: Total number of attention heads"):
        sampler(model, FakeVllm({}), monkeypatch, gpus=3)


def test_answer_that_vllm_gave_up_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = sampler(model, FakeVllm({"1": "2"}, reason="abort"), monkeypatch)
    with pytest.raises(StageError, match="vllm ended an answer with 'abort'"):
        engine.complete([CompletionRequest(prompt="1", max_tokens=5)])
