"""The completions interface of a remote engine: what is sent, what is read, what is asked again, what is under way."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from rft_trainer.contract import Benchmark, ExitCode
from rft_trainer.errors import BadInputError, StageError
from rft_trainer.evaluate.answering import ask_all
from rft_trainer.evaluate.exchanges import Asked, Way
from rft_trainer.evaluate.forcing import S1, Ending, ThinkingBudget
from rft_trainer.evaluate.http_connection import LONGEST_PAUSE_SECONDS, TRIES, HttpConnection
from rft_trainer.evaluate.http_sampler import HttpSampler
from rft_trainer.evaluate.http_served import Served, look_at
from rft_trainer.evaluate.sampler import Completion, CompletionRequest, Finish
from support.completions_server import VLLM, Completions, Reply, as_vllm, card, serving
from support.scripted_engine import EOS, ScriptedSampler, complete

REQUEST = CompletionRequest(prompt="q", stops=("<|im_start|>",), max_tokens=5, temperature=0.7, top_p=0.9, seed=3)
BUSY = Reply(503)
ENDS = {7: "<|im_end|>", 9: "<|endoftext|>"}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_key_is_not_taken_to_another_place_when_the_endpoint_redirects() -> None:
    with serving(Completions(lambda _: said())) as other, serving(Completions(lambda _: said())) as server:
        server.failures.append(Reply(302, headers={"Location": f"{other.url}/completions"}))
        with pytest.raises(BadInputError, match="answered 302"):
            complete(sampler(server.url, api_key="secret"), [REQUEST])
    assert server.authorizations == ["Bearer secret"]
    assert other.authorizations == []


def words(text: str) -> int:
    return len(text.split())


def sampler(
    url: str,
    pauses: list[float] | None = None,
    *,
    api_key: str | None = None,
    context_tokens: int = 100,
    takes_more: bool = True,
    connections: int = 32,
) -> HttpSampler:
    seen = [] if pauses is None else pauses
    connection = HttpConnection(url, api_key=api_key, timeout_seconds=10, pause=seen.append)
    served = Served(model="m", context_tokens=context_tokens, takes_more=takes_more)
    return HttpSampler(connection, served, count=words, ends=ENDS, connections=connections)


def said(text: str = "a b", *, reason: str | None = "stop", **choice: Any) -> dict[str, Any]:
    return {"choices": [{"text": text, "finish_reason": reason, **choice}], "usage": {"completion_tokens": 5}}


def test_request_says_all_that_decides_the_completion() -> None:
    with serving(Completions(lambda _: said())) as server:
        complete(sampler(server.url, api_key="k"), [REQUEST])
    assert server.bodies == [
        {
            "model": "m", "prompt": "q", "max_tokens": 5, "temperature": 0.7, "top_p": 0.9, "seed": 3,
                "stop": ["<|im_start|>"],
            "add_special_tokens": False, "skip_special_tokens": False, "spaces_between_special_tokens": False,
            "top_k": 1 << 30, "min_p": 0.0, "repetition_penalty": 1.0,
            "stop_token_ids": [7, 9],
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
        assert complete(sampler(server.url), [REQUEST]) == [expected]


def test_completion_ended_with_the_turn_when_no_stop_was_asked_for() -> None:
    with serving(Completions(lambda _: said())) as server:
        [given] = complete(sampler(server.url), [CompletionRequest(prompt="q", max_tokens=5)])
    assert given.finish is Finish.EOS
    assert "stop" not in server.bodies[0]


def test_completions_are_in_the_order_of_the_requests_when_there_are_many() -> None:
    requests = [CompletionRequest(prompt=f"q{number}", max_tokens=5) for number in range(20)]
    with serving(Completions(lambda body: said(body["prompt"]))) as server:
        given = complete(sampler(server.url, connections=4), requests)
    assert [each.text for each in given] == [each.prompt for each in requests]


@pytest.mark.parametrize("failure", [BUSY, Reply(429), Reply(500), Reply(502), Reply(504), Reply(408), Reply(0)])
def test_request_is_repeated_when_the_engine_cannot_answer_now(failure: Reply) -> None:
    pauses: list[float] = []
    with serving(Completions(lambda _: said(), failure, failure, failure)) as server:
        assert complete(sampler(server.url, pauses), [REQUEST]) == [Completion("a b", 2, Finish.STOP)]
    assert len(server.bodies) == 4
    assert pauses == [1, 2, 4]


def test_pause_is_the_one_asked_for_within_a_minute_when_the_engine_names_one() -> None:
    pauses: list[float] = []
    failures = [
        Reply(429, headers={"Retry-After": value}) for value in ("7", "9999", "Wed, 21 Oct 2026 07:28:00 GMT", "0")
    ]
    with serving(Completions(lambda _: said(), *failures)) as server:
        complete(sampler(server.url, pauses), [REQUEST])
    assert pauses == [7, LONGEST_PAUSE_SECONDS, 4, 0]


def test_evaluation_fails_without_an_answer_when_the_engine_stays_away() -> None:
    pauses: list[float] = []
    with serving(Completions(lambda _: said(), *[BUSY] * TRIES)) as server:
        with pytest.raises(StageError, match=f"answered 503: no; {TRIES} tries") as raised:
            complete(sampler(server.url, pauses), [REQUEST])
        assert raised.value.exit_code == 1
    assert len(pauses) == TRIES - 1
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
        with pytest.raises(StageError, match="could not be reached"):
            complete(sampler(url, pauses), [REQUEST])


@pytest.mark.parametrize("status", [400, 401, 404])
def test_request_is_not_repeated_when_it_is_refused(status: int) -> None:
    with serving(Completions(lambda _: said(), Reply(status, b"the model `m` does not exist"))) as server:
        with pytest.raises(BadInputError, match=f"answered {status}: the model `m` does not exist") as raised:
            complete(sampler(server.url), [REQUEST])
        assert raised.value.exit_code == ExitCode.BAD_INPUT
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "given",
    [{}, [], {"choices": []}, said(reason=None), said(reason="abort"), {"choices": [{"finish_reason": "stop"}]}],
)
def test_evaluation_fails_when_the_engine_gives_no_completion(given: Any) -> None:
    with serving(Completions(lambda _: given)) as server, pytest.raises(StageError, match="gave no completion but"):
        complete(sampler(server.url), [REQUEST])


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
    way = Way(benchmark, budget, S1)
    with serving(Completions(as_vllm(engine))) as server:
        remote = sampler(server.url)
        exchange = way.exchange(Asked("q\n", seed=1), sampler=remote)
        [(_, answer)] = ask_all(remote, [{"q": exchange}], at_once=2)
    assert answer.text == "<|im_start|>thinka bWait c d\n<|im_start|>answer\nFinal Answer: 3"
    assert answer.forced is not None
    assert answer.forced.ending is Ending.CAPPED
    assert [body["max_tokens"] for body in server.bodies] == [5, 2, 4]
    assert len({body["seed"] for body in server.bodies}) == 3


def test_completion_is_handed_over_when_it_is_there_though_its_neighbours_are_not() -> None:
    slow = threading.Event()

    def give(body: dict[str, Any]) -> Any:
        if body["prompt"] == "slow":
            assert slow.wait(30)
        return said(body["prompt"])

    with serving(Completions(give)) as server:
        window = sampler(server.url, connections=2).window()
        for ticket, prompt in enumerate(["slow", "a", "b", "c"]):
            window.put(ticket, CompletionRequest(prompt=prompt, max_tokens=5))
        found: dict[int, Completion] = {}
        while len(found) < 3:
            found.update(window.get())
        assert sorted(found) == [1, 2, 3], "one connection waits, and the other one does the rest"
        slow.set()
        assert [ticket for ticket, _ in window.get()] == [0]
        window.close()


def test_no_more_connections_are_open_than_there_may_be() -> None:
    meeting, both = threading.Lock(), threading.Barrier(2, timeout=30)
    open_, most = [0], [0]

    def give(body: dict[str, Any]) -> Any:
        with meeting:
            open_[0] += 1
            most[0] = max(most[0], open_[0])
        both.wait()
        with meeting:
            open_[0] -= 1
        return said()

    requests = [CompletionRequest(prompt=f"q{number}", max_tokens=5) for number in range(8)]
    with serving(Completions(give)) as server:
        complete(sampler(server.url, connections=2), requests)
    assert most == [2]


@pytest.mark.parametrize(
    ("bad", "error"),
    [(Reply(401, b"no such key"), "answered 401: no such key"), (Reply(200, b"hm"), "gave no completion")],
)
def test_what_came_before_an_error_is_handed_over_before_it_is_raised(bad: Reply, error: str) -> None:
    reached, released = threading.Event(), threading.Event()

    def give(body: dict[str, Any]) -> Any:
        if body["prompt"] == "before":
            server.failures.append(bad)
        if body["prompt"] == "after":
            reached.set()
            assert released.wait(30)
        return said()

    with serving(Completions(give)) as server:
        window = sampler(server.url, connections=1).window()
        for ticket, prompt in enumerate(["before", "bad", "after"]):
            window.put(ticket, CompletionRequest(prompt=prompt, max_tokens=5))
        assert reached.wait(30)
        assert [ticket for ticket, _ in window.get()] == [0]
        for _ in range(2):
            with pytest.raises(StageError, match=error):
                window.get()
        with pytest.raises(StageError, match=error):
            window.put(3, REQUEST)
        window.close()
        released.set()


def test_tokenizer_counts_for_one_thread_at_a_time() -> None:
    threads: set[int] = set()

    def count(text: str) -> int:
        threads.add(threading.get_ident())
        return words(text)

    with serving(Completions(lambda _: said())) as server:
        served = Served(model="m", context_tokens=100, takes_more=True)
        remote = HttpSampler(HttpConnection(server.url), served, count=count, ends=ENDS)
        complete(remote, [CompletionRequest(prompt=f"q{number}", max_tokens=5) for number in range(8)])
    assert threads == {threading.get_ident()}, "tokenizers of the library fail when two threads use them"


def test_engine_is_not_asked_again_when_nobody_waits_for_the_answer_any_more() -> None:
    asked, left = threading.Event(), threading.Event()

    def pause(_: float) -> None:
        asked.set()
        assert left.wait(30)

    with serving(Completions(lambda _: said(), *[BUSY] * TRIES)) as server:
        connection = HttpConnection(server.url, pause=pause)
        served = Served(model="m", context_tokens=100, takes_more=True)
        window = HttpSampler(connection, served, count=words, ends=ENDS).window()
        before = set(threading.enumerate())
        window.put(0, REQUEST)
        [thread] = [each for each in threading.enumerate() if each.name == "completions" and each not in before]
        assert asked.wait(30)
        window.close()
        left.set()
        thread.join(30)
        assert not thread.is_alive()
    assert len(server.bodies) == 1


def test_answer_is_asked_for_within_what_the_context_still_holds() -> None:
    with serving(Completions(lambda _: said(), models=[card("m", max_model_len=10)])) as server:
        remote = sampler(server.url, context_tokens=10)
        complete(remote, [CompletionRequest(prompt="a b c", max_tokens=50)])
        with pytest.raises(
            BadInputError, match="a prompt of 10 tokens leaves no room for an answer in the endpoint's 10"
        ):
            complete(remote, [CompletionRequest(prompt="a " * 10, max_tokens=1)])
        with pytest.raises(BadInputError, match="maximum context length is 10"):
            complete(sampler(server.url), [CompletionRequest(prompt="a b c", max_tokens=50)])
    assert [body["max_tokens"] for body in server.bodies] == [7, 50]


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_answer_ends_with_the_turn_when_the_engine_does_not_know_its_mark(reason: str) -> None:
    text = "a b c<|endoftext|> d<|im_end|> e"
    with serving(Completions(lambda _: said(text, reason=reason), takes_more=False)) as server:
        [given] = complete(sampler(server.url, takes_more=False), [REQUEST])
    assert given == Completion("a b c", 3, Finish.EOS)
    assert server.bodies[0].keys() == {"model", "prompt", "max_tokens", "temperature", "top_p", "seed", "stop"}


def test_engine_that_may_add_a_mark_to_the_prompt_has_room_for_it() -> None:
    assert sampler("http://x/v1", context_tokens=10, takes_more=False).context_tokens == 9
    assert sampler("http://x/v1", context_tokens=10).context_tokens == 10


def look(server: Completions, model: str = "m", **options: Any) -> Served:
    return look_at(HttpConnection(server.url, pause=lambda _: None, **options), model, ends=[7, 9])


def test_engine_says_what_it_serves_and_what_it_is() -> None:
    models = [card("m", root="/models/step-9"), card("other")]
    with serving(Completions(lambda _: said(), models=models)) as server:
        served = look(server, api_key="k")
        assert set(server.authorizations) == {"Bearer k"}
    assert served == Served(
        model="m", weights="/models/step-9", engine="vllm", version="0.33.0", context_tokens=4_096, takes_more=True
    )
    assert served.identity == {
        "engine": "vllm", "version": "0.33.0", "interface": "openai-completions", "fields": "extended",
        "context_tokens": "4096",
    }  # fmt: skip
    [probe] = server.probes
    assert (probe["max_tokens"], probe["stop_token_ids"]) == (1, [7, 9])


@pytest.mark.parametrize(
    ("values", "own", "expected"),
    [
        ({"owned_by": "sglang"}, {"/get_server_info": {"version": "0.5.1"}}, ("sglang", "0.5.1", 4_096)),
        (
            {"owned_by": "llamacpp", "max_model_len": None, "meta": {"n_ctx": 512, "n_ctx_train": 4_096}},
            {"/props": {"build_info": "b8681"}},
            ("llama.cpp", "b8681", 512),
        ),
        ({"owned_by": "vllm"}, {}, ("vllm", "unknown", 4_096)),
        ({"owned_by": "vllm"}, {"/version": ["?"]}, ("vllm", "unknown", 4_096)),
        ({"owned_by": "somebody"}, VLLM, ("openai-completions", "unknown", 4_096)),
    ],
    ids=str,
)  # fmt: skip
def test_engine_is_known_by_what_it_says_and_not_guessed(
    values: dict[str, Any], own: dict[str, Any], expected: tuple[str, str, int]
) -> None:
    with serving(Completions(lambda _: said(), models=[card("m", **values)], own=own)) as server:
        served = look(server)
    assert (served.engine, served.version, served.context_tokens) == expected


def test_adapter_holds_what_the_model_below_it_does() -> None:
    models = [card("below"), card("m", max_model_len=None, parent="below", root="/adapters/m")]
    with serving(Completions(lambda _: said(), models=models)) as server:
        served = look(server)
    assert (served.context_tokens, served.weights) == (4_096, "/adapters/m")


def test_fields_beyond_the_interface_are_left_out_when_the_engine_refuses_them() -> None:
    with serving(Completions(lambda _: said(), takes_more=False)) as server:
        served = look(server)
    assert not served.takes_more
    assert served.identity["fields"] == "openai"
    assert len(server.probes) == 2


def test_probe_is_no_excuse_for_another_refusal() -> None:
    with serving(Completions(lambda _: said(), models=None)) as server:
        server.refusal = lambda body: Reply(400, b"completions are not served here")  # type: ignore[method-assign]
        connection = HttpConnection(server.url)
        with pytest.raises(BadInputError, match="completions are not served here"):
            look_at(connection, "m", ends=[7], context_tokens=5)


@pytest.mark.parametrize(
    ("models", "given", "error"),
    [
        ([card("a"), card("b")], None, "model 'm': the endpoint .* serves a, b"),
        (None, None, "--context-tokens: is needed, for the endpoint .* does not say"),
        ([card("m", max_model_len=None)], None, "--context-tokens: is needed"),
        ([card("m")], 5_000, "--context-tokens 5000: the endpoint .* holds 4096"),
    ],
)
def test_error_says_what_the_endpoint_cannot_do_or_does_not_say(
    models: list[dict[str, Any]] | None, given: int | None, error: str
) -> None:
    with serving(Completions(lambda _: said(), models=models)) as server, pytest.raises(BadInputError, match=error):
        look_at(HttpConnection(server.url), "m", ends=[], context_tokens=given)
    assert not server.bodies


def test_context_is_the_given_one_where_the_engine_does_not_say_or_holds_more() -> None:
    for models in (None, [card("m")], [{"id": "m"}]):
        with serving(Completions(lambda _: said(), models=models)) as server:
            served = look_at(HttpConnection(server.url), "m", ends=[], context_tokens=512)
        assert served.context_tokens == 512
    assert served.identity["engine"] == "openai-completions"
    assert served.weights == "unknown"


def test_version_is_asked_for_again_when_the_engine_cannot_say_it_now() -> None:
    with serving(Completions(lambda _: said())) as server:
        answers = [Reply(503), Reply(503)]
        look_now = server.look

        def look_later(path: str, authorization: str | None) -> Reply:
            return answers.pop() if path == "/version" and answers else look_now(path, authorization)

        server.look = look_later  # type: ignore[method-assign]
        assert look(server).version == "0.33.0", "another version is another protocol"


def test_engine_that_does_not_say_what_it_serves_is_not_waited_for_without_end() -> None:
    tries, released = [0], threading.Event()

    def hang(path: str, authorization: str | None) -> Reply:
        tries[0] += 1
        released.wait(30)
        return Reply(0)

    with serving(Completions(lambda _: said())) as server:
        server.look = hang  # type: ignore[method-assign]
        connection = HttpConnection(server.url, look_seconds=0.05, pause=lambda _: None)
        with pytest.raises(StageError, match="/models: could not be reached: timed out; 6 tries"):
            look_at(connection, "m", ends=[])
        released.set()
    assert tries == [TRIES]
