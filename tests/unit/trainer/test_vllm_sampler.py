"""vLLM behind the evaluation's interface: held to vLLM's own words by a module that speaks them."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
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
from support.scripted_engine import complete

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


class FakeEngine:
    """vLLM's own loop: a step gives each request that it has under way one token."""

    def __init__(self, fake: FakeVllm) -> None:
        self._fake = fake
        self.model_config = types.SimpleNamespace(max_model_len=fake.context)
        self._under_way: dict[str, tuple[Output, int]] = {}
        self.steps: list[int] = []
        """Requests under way in each."""

    def add_request(self, request_id: str, prompt: Mapping[str, Any], params: Any) -> None:
        assert isinstance(request_id, str)
        assert request_id not in self._under_way
        assert prompt["type"] == "token"
        assert len(prompt["prompt_token_ids"]) + params.fields["max_tokens"] <= self._fake.context
        output = self._fake.give(prompt["prompt_token_ids"], params.fields)
        self._under_way[request_id] = output, len(output.token_ids)

    def has_unfinished_requests(self) -> bool:
        return bool(self._under_way)

    def step(self) -> list[Any]:
        self.steps.append(len(self._under_way))
        found = []
        for name, (output, left) in list(self._under_way.items()):
            self._under_way[name] = output, left - 1
            if left <= 1:
                del self._under_way[name]
                found.append(types.SimpleNamespace(request_id=name, outputs=[output], finished=True))
            elif self._fake.tells_all:
                so_far = Output("", [], "", None)
                found.append(types.SimpleNamespace(request_id=name, outputs=[so_far], finished=False))
        return found


class FakeVllm(types.ModuleType):
    """Continues a text with what a script says, in vLLM's terms."""

    __version__ = "0.99"

    def __init__(
        self, script: Mapping[str, str], *, context: int = 128, reason: str | None = None, tells_all: bool = False
    ) -> None:
        super().__init__("vllm")
        self.script, self.context, self.reason, self.tells_all = script, context, reason, tells_all
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
                fake.engine = self.llm_engine = FakeEngine(fake)

        self.sampling_params = types.ModuleType("vllm.sampling_params")
        self.sampling_params.RequestOutputKind = types.SimpleNamespace(FINAL_ONLY="final only")  # type: ignore[attr-defined]
        self.SamplingParams, self.LLM = SamplingParams, LLM
        self.tokenizer: Any = None
        self.engine: Any = None

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
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", fake.sampling_params)
    made = VllmSampler(model, precision="bf16", gpus=gpus, seed=7)
    fake.tokenizer = made.tokenizer
    return made


def test_request_says_all_that_decides_the_completion(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeVllm({"12?": " 42.<|im_end|>"})
    engine = sampler(model, fake, monkeypatch)
    request = CompletionRequest(
        prompt="What is 12?", stops=("Wait",), max_tokens=50, temperature=0.6, top_p=0.95, seed=3
    )
    [given] = complete(engine, [request])
    assert given == Completion(" 42.", engine.count(" 42."), Finish.EOS)
    [asked] = fake.asked
    ends = engine.tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert asked == {
        "max_tokens": 50, "temperature": 0.6, "top_p": 0.95, "seed": 3, "stop": ["Wait"],
        "stop_token_ids": sorted(ends), "skip_special_tokens": False, "spaces_between_special_tokens": False,
        "output_kind": "final only",
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
    stopped, ended = complete(engine, [asked, cut])
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
        sample.take(complete(engine, [request])[0])
    assert sample.answer().text == (
        "<|im_start|>think The answer is 12.Wait so let me think.<|im_start|>answer Answer: 42"
    )


def test_room_is_what_the_prompt_leaves_of_the_context(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeVllm({"1": "2" * 100}, context=64)
    engine = sampler(model, fake, monkeypatch)
    complete(engine, [CompletionRequest(prompt="1" * 60, max_tokens=50)])
    assert fake.asked[0]["max_tokens"] == 4
    with pytest.raises(BadInputError, match="a prompt of 64 tokens leaves no room for an answer in 64"):
        complete(engine, [CompletionRequest(prompt="1" * 64, max_tokens=1)])


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
        complete(engine, [CompletionRequest(prompt="1", max_tokens=5)])


@pytest.mark.parametrize("tells_all", [False, True])
def test_answer_is_handed_over_when_it_is_finished_and_another_takes_its_place(
    model: Path, monkeypatch: pytest.MonkeyPatch, tells_all: bool
) -> None:
    script = {"1": "short", "2": "a much longer answer than the others", "3": "short"}
    fake = FakeVllm(script, tells_all=tells_all)
    engine = sampler(model, fake, monkeypatch)
    window = engine.window()
    for ticket, prompt in enumerate("12"):
        window.put(ticket, CompletionRequest(prompt=prompt, max_tokens=100))
    assert [(ticket, given.text) for ticket, given in window.get()] == [(0, "short")]
    window.put(2, CompletionRequest(prompt="3", max_tokens=100))
    assert [(ticket, given.text) for ticket, given in window.get()] == [(2, "short")]
    assert set(fake.engine.steps) == {2}, "the engine had two to work on all the time"
    assert [ticket for ticket, _ in window.get()] == [1]


def test_window_hears_nothing_of_one_that_was_left(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = sampler(model, FakeVllm({"1": "one", "2": "two and more"}), monkeypatch)
    left = engine.window()
    left.put(0, CompletionRequest(prompt="1", max_tokens=9))
    left.close()
    [given] = complete(engine, [CompletionRequest(prompt="2", max_tokens=40)])
    assert given.text == "two and more"


def test_request_that_vllm_lost_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeVllm({"1": "one"})
    window = sampler(model, fake, monkeypatch).window()
    window.put(0, CompletionRequest(prompt="1", max_tokens=9))
    monkeypatch.setattr(fake.engine, "_under_way", {})
    with pytest.raises(StageError, match="vllm has lost a request"):
        window.get()
