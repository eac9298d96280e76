"""Rows of the published data sets, rendered byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest

from rft_trainer.benchmarks import Question
from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.protocol import SKY_T1_SYSTEM, ask
from rft_trainer.prepare.chat import ChatRenderer
from rft_trainer.prepare.formats import Conversation, Message, to_conversation
from rft_trainer.prepare.tiny import build_tokenizer


@pytest.fixture(scope="module")
def renderer() -> ChatRenderer:
    return ChatRenderer(build_tokenizer(["What is 12 + 30? The answer is 42."] * 5, vocabulary=300))


def conversation(row: Mapping[str, object], format_: str) -> Conversation:
    found = to_conversation(row, format_=format_, where="row 1")  # type: ignore[arg-type]
    assert found is not None
    return found


def text(renderer: ChatRenderer, found: Conversation, *, trained: bool) -> str:
    return "".join(segment.text for segment in renderer.segments(found) if segment.trained is trained)


def test_s1_row_renders_as_published_when_thinking_is_a_list(renderer: ChatRenderer) -> None:
    row = {"question": "1+1?", "thinking_trajectories": [" One.", "Two. "], "attempt": " 2 "}
    found = conversation(row, "s1")
    assert text(renderer, found, trained=False) == "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    wanted = "<|im_start|>think\nOne.\nTwo.\n<|im_start|>answer\nAnswer: 2<|im_end|>\n"
    assert text(renderer, found, trained=True) == wanted


def test_s1_row_keeps_its_answer_mark_when_it_has_one() -> None:
    found = conversation({"question": "q", "thinking_trajectories": ["t"], "attempt": "So.\nAnswer: 2"}, "s1")
    assert found.messages[-1].content.endswith("answer\nSo.\nAnswer: 2")


def test_sky_t1_row_renders_as_published_when_it_has_a_system_prompt(renderer: ChatRenderer) -> None:
    value = "<|begin_of_thought|>\n\nx<|end_of_thought|>\n\n<|begin_of_solution|>\n\n2<|end_of_solution|>"
    turns = [{"from": "user", "value": "1+1?"}, {"from": "assistant", "value": value}]
    found = conversation({"system": "S", "conversations": turns}, "sky-t1")
    prompt = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    assert text(renderer, found, trained=False) == prompt
    assert text(renderer, found, trained=True) == value + "<|im_end|>\n"


def test_messages_row_trains_every_assistant_turn_when_there_are_several(renderer: ChatRenderer) -> None:
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "dropped")]
    found = conversation({"messages": [{"role": r, "content": t} for r, t in turns]}, "messages")
    assert text(renderer, found, trained=True) == "b<|im_end|>\nd<|im_end|>\n"
    assert found.question == "c"


@pytest.mark.parametrize(
    ("row", "format_"),
    [
        ({"question": "q", "thinking_trajectories": ["t"], "attempt": " "}, "s1"),
        ({"question": "q"}, "s1"),
        ({"messages": [{"role": "user", "content": "q"}]}, "messages"),
        ({"conversations": []}, "sky-t1"),
    ],
)
def test_row_is_left_out_when_it_has_no_answer(row: dict[str, object], format_: str) -> None:
    assert to_conversation(row, format_=format_, where="row 1") is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "format_", "reason"),
    [
        ({"messages": "text"}, "messages", "list"),
        ({"attempt": "2"}, "s1", "'question' is missing"),
        ({"messages": [{"role": "judge", "content": "q"}]}, "messages", "'judge' is unknown"),
    ],
)
def test_row_is_refused_by_name_when_it_has_another_format(row: dict[str, object], format_: str, reason: str) -> None:
    with pytest.raises(BadInputError, match=rf"rows.jsonl:7: is not a {format_} row .*{reason}"):
        to_conversation(row, format_=format_, where="rows.jsonl:7")  # type: ignore[arg-type]


def test_only_assistant_tokens_are_trained_when_a_row_is_encoded(renderer: ChatRenderer) -> None:
    found = Conversation((Message("user", "What is 12?"), Message("assistant", "42.")))
    row = renderer.encode([found])[0]
    tokenizer = renderer._tokenizer
    assert tokenizer.decode(row.tokens[row.target == 1]) == "42.<|im_end|>\n"
    assert tokenizer.decode(row.tokens).endswith("assistant\n42.<|im_end|>\n")


def test_tokenizer_keeps_digits_apart_when_numbers_repeat() -> None:
    tokenizer = build_tokenizer(["12345 12345"] * 50, vocabulary=400)
    assert tokenizer.tokenize("12345") == ["1", "2", "3", "4", "5"]


def test_sky_t1_system_prompt_is_byte_exact_when_asked_for() -> None:
    digest = hashlib.sha256(SKY_T1_SYSTEM.encode()).hexdigest()
    assert digest == "c5ae4aa0b0d6fcadd6fa8977f5e55b1f2dccb7582bd05b80385e2f22650a9f8d"
    turns = ask(Question("1", "1+1?", "2", "math"), format_="sky-t1")
    assert [turn.content for turn in turns] == [
        SKY_T1_SYSTEM,
        "Return your final response within \\boxed{}. 1+1?",
    ]
    assert ask(Question("1", "1+1?", "2", "math"), format_="s1") == [Message("user", "1+1?")]
