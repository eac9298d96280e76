"""The completions interface of a remote engine: what is sent, what is read, what is asked again."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from rft_trainer.contract import Benchmark, ExitCode
from rft_trainer.errors import BadInputError, StageError
from rft_trainer.evaluate.answering import Asked, answer_forced
from rft_trainer.evaluate.forcing import S1, Ending, ThinkingBudget
from rft_trainer.evaluate.http_sampler import LONGEST_PAUSE_SECONDS, TRIES, HttpSampler
from rft_trainer.evaluate.sampler import Completion, CompletionRequest, Finish
from support.completions_server import Completions, Reply, as_vllm, serving
from support.scripted_engine import EOS, ScriptedSampler

REQUEST = CompletionRequest(prompt="q", stops=("<|im_start|>",), max_tokens=5, temperature=0.7, top_p=0.9, seed=3)
BUSY = Reply(503)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_key_is_not_taken_to_another_place_when_the_endpoint_redirects() -> None:
    with serving(Completions(lambda _: said())) as other, serving(Completions(lambda _: said())) as server:
        server.failures.append(Reply(302, headers={"Location": f"{other.url}/completions"}))
        with pytest.raises(BadInputError, match="answered 302"):
            list(sampler(server.url, api_key="secret").complete([REQUEST]))
    assert server.authorizations == ["Bearer secret"]
    assert other.authorizations == []


def words(text: str) -> int:
    return len(text.split())


def sampler(url: str, pauses: list[float] | None = None, **options: Any) -> HttpSampler:
    seen = [] if pauses is None else pauses
    return HttpSampler(url, model="m", count=words, timeout_seconds=10, pause=seen.append, **options)


def said(text: str = "a b", *, reason: str | None = "stop", **choice: Any) -> dict[str, Any]:
    return {"choices": [{"text": text, "finish_reason": reason, **choice}], "usage": {"completion_tokens": 5}}


def test_request_says_all_that_decides_the_completion() -> None:
    with serving(Completions(lambda _: said())) as server:
        sampler(server.url, api_key="k").complete([REQUEST])
    assert server.bodies == [
        {
            "model": "m", "prompt": "q", "max_tokens": 5, "temperature": 0.7, "top_p": 0.9, "seed": 3,
                "stop": ["<|im_start|>"],
            "add_special_tokens": False, "skip_special_tokens": False, "spaces_between_special_tokens": False,
        }
    ]  # fmt: skip
    assert server.authorizations == ["Bearer k"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (said(reason="length"), Completion("a b", 5, Finish.LENGTH)),
        (said(stop_reason="<|im_start|>"), Completion("a b", 2, Finish.STOP)),
        (said(stop_reason=None), Completion("a b", 2, Finish.EOS)),
        (said(stop_reason=151645), Completion("a b", 2, Finish.EOS)),
        (said(matched_stop="<|im_start|>"), Completion("a b", 2, Finish.STOP)),
        (said(), Completion("a b", 2, Finish.STOP)),
    ],
)
def test_completion_says_why_it_ended_when_the_engine_does(given: dict[str, Any], expected: Completion) -> None:
    with serving(Completions(lambda _: given)) as server:
        assert sampler(server.url).complete([REQUEST]) == [expected]


def test_completion_ended_with_the_turn_when_no_stop_was_asked_for() -> None:
    with serving(Completions(lambda _: said())) as server:
        [given] = sampler(server.url).complete([CompletionRequest(prompt="q", max_tokens=5)])
    assert given.finish is Finish.EOS
    assert "stop" not in server.bodies[0]


def test_completions_are_in_the_order_of_the_requests_when_there_are_many() -> None:
    requests = [CompletionRequest(prompt=f"q{number}", max_tokens=5) for number in range(20)]
    with serving(Completions(lambda body: said(body["prompt"]))) as server:
        given = sampler(server.url, connections=4).complete(requests)
    assert [each.text for each in given] == [each.prompt for each in requests]


@pytest.mark.parametrize("failure", [BUSY, Reply(429), Reply(500), Reply(502), Reply(504), Reply(408), Reply(0)])
def test_request_is_repeated_when_the_engine_cannot_answer_now(failure: Reply) -> None:
    pauses: list[float] = []
    with serving(Completions(lambda _: said(), failure, failure, failure)) as server:
        assert sampler(server.url, pauses).complete([REQUEST]) == [Completion("a b", 2, Finish.STOP)]
    assert len(server.bodies) == 4
    assert pauses == [1, 2, 4]


def test_pause_is_the_one_asked_for_within_a_minute_when_the_engine_names_one() -> None:
    pauses: list[float] = []
    failures = [
        Reply(429, headers={"Retry-After": value}) for value in ("7", "9999", "Wed, 21 Oct 2026 07:28:00 GMT", "0")
    ]
    with serving(Completions(lambda _: said(), *failures)) as server:
        sampler(server.url, pauses).complete([REQUEST])
    assert pauses == [7, LONGEST_PAUSE_SECONDS, 4, 0]


def test_evaluation_fails_without_an_answer_when_the_engine_stays_away() -> None:
    pauses: list[float] = []
    with serving(Completions(lambda _: said(), *[BUSY] * TRIES)) as server:
        with pytest.raises(StageError, match=f"answered 503: no; {TRIES} tries") as raised:
            sampler(server.url, pauses).complete([REQUEST])
        assert raised.value.exit_code == 1
    assert len(pauses) == TRIES - 1
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
        with pytest.raises(StageError, match="could not be reached"):
            sampler(url, pauses).complete([REQUEST])


@pytest.mark.parametrize("status", [400, 401, 404])
def test_request_is_not_repeated_when_it_is_refused(status: int) -> None:
    with serving(Completions(lambda _: said(), Reply(status, b"the model `m` does not exist"))) as server:
        with pytest.raises(BadInputError, match=f"answered {status}: the model `m` does not exist") as raised:
            sampler(server.url).complete([REQUEST])
        assert raised.value.exit_code == ExitCode.BAD_INPUT
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "given",
    [{}, [], {"choices": []}, said(reason=None), said(reason="abort"), {"choices": [{"finish_reason": "stop"}]}],
)
def test_evaluation_fails_when_the_engine_gives_no_completion(given: Any) -> None:
    with serving(Completions(lambda _: given)) as server, pytest.raises(StageError, match="gave no completion but"):
        sampler(server.url).complete([REQUEST])


def test_endpoint_is_refused_when_it_is_no_web_address() -> None:
    with pytest.raises(BadInputError, match="must start with http"):
        sampler("file:///etc/passwd")


def test_thinking_is_forced_when_the_engine_is_remote() -> None:
    engine = ScriptedSampler(
        {
            "think": ["a", " b", "<|im_start|>"],
            "a bWait": [" c", " d", " e", " f"],
            "<|im_start|>answer\nFinal Answer:": [" 3", EOS],
        }
    )
    budget = ThinkingBudget(waits=1, thinking_tokens=5, answer_tokens=4)
    benchmark = Benchmark(name="sums", uri="file:///x", max_tokens=9)
    with serving(Completions(as_vllm(engine))) as server:
        [(_, answer)] = answer_forced(
            sampler(server.url, context_tokens=100),
            [Asked("q\n", seed=1)],
            benchmark=benchmark,
            delimiters=S1,
            budget=budget,
        )
    assert answer.text == "<|im_start|>thinka bWait c d\n<|im_start|>answer\nFinal Answer: 3"
    assert answer.forced is not None
    assert answer.forced.ending is Ending.CAPPED
    assert [body["max_tokens"] for body in server.bodies] == [5, 2, 4]
    assert len({body["seed"] for body in server.bodies}) == 3
