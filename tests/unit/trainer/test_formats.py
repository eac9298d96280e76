"""Rows of the published data sets, rendered byte for byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest

from rft_trainer.benchmarks import Question
from rft_trainer.contract import EndOfTurn
from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.prompts import ask
from rft_trainer.prepare.chat import CHATML_TEMPLATE, ChatRenderer
from rft_trainer.prepare.formats import RENDERERS, SKY_T1_SYSTEM, Conversation, Format, Message, to_conversation
from rft_trainer.prepare.tiny import build_tokenizer
from support.qwen import TEMPLATE

ANSWERED = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


def make_renderer(*, template: str | None = None, eos: EndOfTurn = "template") -> ChatRenderer:
    tokenizer = build_tokenizer(["What is 12 + 30? The answer is 42."] * 5, vocabulary=300)
    tokenizer.chat_template = template or tokenizer.chat_template
    return ChatRenderer(tokenizer, eos=eos)


@pytest.fixture(scope="module")
def renderer() -> ChatRenderer:
    return make_renderer()


def conversation(row: Mapping[str, object], format_: str) -> Conversation:
    found = to_conversation(row, format_=format_, where="row 1")  # type: ignore[arg-type]
    assert found is not None
    return found


def text(renderer: ChatRenderer, found: Conversation, *, trained: bool) -> str:
    return "".join(segment.text for segment in renderer.segments(found) if segment.trained is trained)


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_row_renders_byte_for_byte_when_qwens_template_is_used(file: Path) -> None:
    golden = json.loads(file.read_text())
    found = conversation(golden["row"], golden["format"])
    segments = make_renderer(template=TEMPLATE, eos=golden["eos"]).segments(found)
    assert [{"trained": each.trained, "text": each.text} for each in segments] == golden["segments"]


def test_every_format_and_every_end_of_turn_has_a_golden_file() -> None:
    goldens = [json.loads(file.read_text()) for file in GOLDEN]
    assert {golden["format"] for golden in goldens} == set(RENDERERS) == set(get_args(Format))
    assert {golden["eos"] for golden in goldens} == set(get_args(EndOfTurn))


@pytest.mark.parametrize(
    ("file", "length", "sha256"),
    [
        ("sky-t1", 1_310, "c5ae4aa0b0d6fcadd6fa8977f5e55b1f2dccb7582bd05b80385e2f22650a9f8d"),
        ("s1", 68, "66b9ea09bd5b7099cbb4fc820f31b575c0366fa439b08245566692c6784e281e"),
    ],
)
def test_system_prompt_is_the_published_one_to_the_byte(file: str, length: int, sha256: str) -> None:
    golden = next(json.loads(each.read_text()) for each in GOLDEN if each.stem == file)
    system = golden["segments"][0]["text"].removeprefix("<|im_start|>system\n").partition("<|im_end|>")[0]
    assert (len(system), hashlib.sha256(system.encode()).hexdigest()) == (length, sha256)


def test_sky_t1_row_has_the_published_system_prompt_when_it_brings_none() -> None:
    turns = [{"from": "user", "value": "1+1?"}, {"from": "assistant", "value": "2"}]
    for row in ({"conversations": turns}, {"system": "", "conversations": turns}):
        assert conversation(row, "sky-t1").messages[0] == Message("system", SKY_T1_SYSTEM)
    assert conversation({"system": "S", "conversations": turns}, "sky-t1").messages[0].content == "S"


def test_sky_t1_row_keeps_the_system_prompt_when_it_is_among_the_turns() -> None:
    turns = [{"from": who, "value": who} for who in ("system", "user", "assistant")]
    found = conversation({"conversations": turns}, "sky-t1")
    assert [turn.content for turn in found.messages] == ["system", "user", "assistant"]
    with pytest.raises(BadInputError, match="system prompt in the field system, and another one among its turns"):
        conversation({"system": "S", "conversations": turns}, "sky-t1")


def test_s1_row_has_thinking_and_answer_of_one_model_when_it_has_two() -> None:
    both = {"question": "q", "deepseek_thinking_trajectory": "D", "gemini_thinking_trajectory": "G", "solution": "S"}
    found = conversation({**both, "deepseek_attempt": "", "gemini_attempt": "g"}, "s1")
    assert found.messages[1].content == "<|im_start|>think\nG\n<|im_start|>answer\nAnswer: g"
    assert to_conversation({**both, "deepseek_attempt": ""}, format_="s1", where="row 1") is None


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}])
def test_row_is_refused_when_a_turn_is_marked_as_not_to_be_trained(mark: dict[str, object]) -> None:
    marked = [{**ANSWERED[0], **mark}, {**ANSWERED[1], **mark}, *ANSWERED]
    with pytest.raises(BadInputError, match=rf"{next(iter(mark))} says that a turn .* prompt-completion row"):
        conversation({"messages": marked}, "messages")
    with pytest.raises(BadInputError, match="says that a turn"):
        conversation({"prompt": "q", "completion": [{**ANSWERED[1], **mark}]}, "prompt-completion")
    turns = [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a", **mark}]
    with pytest.raises(BadInputError, match="says that a turn"):
        conversation({"conversations": turns}, "sky-t1")
    conversation({"messages": [{**ANSWERED[0], **mark}, {**ANSWERED[1], "weight": 1, "train": None}]}, "messages")
    assert conversation({"prompt": marked[:2], "completion": ANSWERED}, "prompt-completion").context == 2


@pytest.mark.parametrize("opened", ["<think>\n", "<think>"])
def test_thought_is_opened_once_when_the_chat_template_opens_it(opened: str) -> None:
    renderer = make_renderer(template=CHATML_TEMPLATE.replace("assistant\n'", f"assistant\n{opened}'"))
    for said in ("<think>\nwhy\n</think>\n2", "\n<think>\nwhy\n</think>\n2"):
        found = Conversation((Message("user", "q"), Message("assistant", said)))
        whole = text(renderer, found, trained=False) + text(renderer, found, trained=True)
        assert whole.endswith("assistant\n<think>\nwhy\n</think>\n2<|im_end|>\n")
        assert whole.count("<think>") == 1


def test_prompt_has_no_system_turn_when_the_template_adds_none(renderer: ChatRenderer) -> None:
    found = conversation({"question": "1+1?", "thinking_trajectories": ["t"], "attempt": "2"}, "s1")
    assert text(renderer, found, trained=False) == "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"


def test_prompt_is_the_same_on_every_day_when_the_template_tells_the_date() -> None:
    dated = "Today Date: {{ strftime_now('%d %b %Y') }}\n" + CHATML_TEMPLATE
    prompt = make_renderer(template=dated).prompt([Message("user", "1+1?")])
    assert prompt.startswith("Today Date: 26 Jul 2024\n<|im_start|>user\n")


@pytest.mark.parametrize("begin", ["", "\n", "  ", "\n\n  "])
def test_template_is_not_changed_by_its_standing_clock(begin: str) -> None:
    unused = "{% if false %}{{ strftime_now('%Y') }}{% endif %}"
    turns = [Message("user", "1+1?")]
    plain = make_renderer(template=f"{begin}{{% if false %}}{{% endif %}}{CHATML_TEMPLATE}").prompt(turns)
    assert make_renderer(template=f"{begin}{unused}{CHATML_TEMPLATE}").prompt(turns) == plain


def test_benchmark_is_compared_with_every_question_whose_answer_is_trained() -> None:
    said = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "dropped")]
    turns = [{"role": role, "content": content} for role, content in said]
    assert conversation({"messages": turns}, "messages").questions == ("a", "c")
    assert conversation({"prompt": turns[:3], "completion": turns[3:4]}, "prompt-completion").questions == ("c",)


def test_last_turn_alone_is_trained_when_the_template_rewrites_earlier_ones() -> None:
    forgetful = (
        "{% for m in messages %}{% if m.role != 'assistant' or loop.last %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    renderer = make_renderer(template=forgetful, eos="endoftext")
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    found = conversation({"messages": [{"role": r, "content": t} for r, t in turns]}, "messages")
    assert text(renderer, found, trained=True) == "d<|endoftext|>"
    prompt = "<|im_start|>user\na<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
    assert text(renderer, found, trained=False) == prompt


@pytest.mark.parametrize("roles", ["system user assistant", "user user assistant"])
def test_turns_are_refused_with_the_remedy_when_the_chat_template_refuses_them(roles: str) -> None:
    """As Gemma's and Mistral's templates do."""
    strict = (
        "{% for message in messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
        "<{{ message['role'] }}>{{ message['content'] }}</>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    turns = {"messages": [{"role": role, "content": "word"} for role in roles.split()]}
    refused = rf"chat template refuses the turns {', '.join(roles.split()[:2])} \(roles must alternate"
    with pytest.raises(BadInputError, match=refused):
        make_renderer(template=strict).encode([conversation(turns, "messages")])


def test_end_of_turn_is_refused_with_the_remedy_when_the_tokenizer_lacks_it() -> None:
    tokenizer = build_tokenizer(["text"], vocabulary=300)
    tokenizer.get_vocab = lambda: {"<|im_start|>": 1, "<|im_end|>": 2}
    with pytest.raises(BadInputError, match=r"dataset\.eos=endoftext: .* has no <\|endoftext\|>; .*eos: template"):
        ChatRenderer(tokenizer, eos="endoftext")
    assert ChatRenderer(tokenizer, eos="im_end") is not None


@pytest.mark.parametrize(
    ("row", "format_"),
    [
        ({"question": "q", "thinking_trajectories": ["t"], "attempt": " "}, "s1"),
        ({"question": "q"}, "s1"),
        ({"messages": [{"role": "user", "content": "q"}]}, "messages"),
        ({"conversations": []}, "sky-t1"),
        ({"prompt": "q", "completion": ""}, "prompt-completion"),
        ({"prompt": ANSWERED, "completion": []}, "prompt-completion"),
        ({"prompt": [], "completion": "an answer to nothing"}, "prompt-completion"),
    ],
)
def test_row_is_left_out_when_it_has_no_answer(row: dict[str, object], format_: str) -> None:
    assert to_conversation(row, format_=format_, where="row 1") is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "format_", "reason"),
    [
        ({"messages": "text"}, "messages", "list"),
        ({"attempt": "2"}, "s1", "'question' is missing"),
        ({"prompt": "q"}, "prompt-completion", "'completion' is missing"),
        ({"messages": [{"role": "judge", "content": "q"}]}, "messages", "'judge' is unknown"),
        ({"question": "q", "reasoning": "t", "answer": "2"}, "s1", "no thinking: one of the fields thinking_traj"),
        ({"question": None, "thinking": "t", "answer": "2"}, "s1", "question must be text, found NoneType"),
        ({"question": "q", "thinking": "t", "answer": 0}, "s1", "answer must be text, found int"),
        ({"question": "q", "thinking_trajectories": ["t", None], "attempt": "2"}, "s1", "thinking must be text, found"),
        ({"question": "q", "thinking": {"step": "t"}, "answer": "2"}, "s1", "thinking must be text, found dict"),
        ({"system": 7, "conversations": []}, "sky-t1", "field system is neither a text nor a list"),
        ({"messages": [{"role": "user", "content": 7}, ANSWERED[1]]}, "messages", "content of user is neither a text"),
        ({"conversations": [{"from": "user", "value": [{"image": "x"}]}]}, "sky-t1", "value of user is neither"),
    ],
)
def test_row_is_refused_by_name_when_it_has_another_format(row: dict[str, object], format_: str, reason: str) -> None:
    with pytest.raises(BadInputError, match=rf"rows.jsonl:7: is not a {format_} row .*{reason}"):
        to_conversation(row, format_=format_, where="rows.jsonl:7")  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking", "tool_calls"])
def test_row_is_refused_by_name_when_a_turn_says_something_that_would_not_be_trained(field: str) -> None:
    turns: list[dict[str, object]] = [
        {"role": "user", "content": "2 + 3"},
        {"role": "assistant", "content": "5", field: ["2 and 3 is 5"]},
    ]
    with pytest.raises(BadInputError, match=rf"row 1: .*{field} of assistant would not be trained; .*<think>"):
        conversation({"messages": turns}, "messages")
    empty = [turns[0], {**turns[1], field: None}]
    assert conversation({"messages": empty}, "messages").messages[-1] == Message("assistant", "5")


def test_turn_says_all_of_its_parts_when_they_are_texts() -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "2?"}]
    found = conversation({"messages": [{"role": "user", "content": parts}, ANSWERED[1]]}, "messages")
    assert found.messages[0] == Message("user", "What is 2?")


def test_row_is_refused_by_name_when_half_a_character_of_it_was_cut() -> None:
    row = {"prompt": json.loads('"\\ud83d\\ude00 and \\ud83d"'), "completion": "a"}
    with pytest.raises(BadInputError, match=r"rows.jsonl:7: has \\ud83d, half of a character"):
        to_conversation(row, format_="prompt-completion", where="rows.jsonl:7")


def test_question_of_a_benchmark_is_known_when_sky_t1_asks_for_a_box_before_it() -> None:
    said = "Return your final response within \\boxed{}. What is 2?"
    turns = [{"from": "user", "value": said}, {"from": "assistant", "value": "2"}]
    found = conversation({"conversations": turns}, "sky-t1")
    assert (found.messages[1].content, found.questions) == (said, ("What is 2?",))


def test_only_assistant_tokens_are_trained_when_a_row_is_encoded(renderer: ChatRenderer) -> None:
    found = Conversation((Message("user", "What is 12?"), Message("assistant", "42.")))
    row = renderer.encode([found])[0]
    tokenizer = renderer._tokenizer
    assert tokenizer.decode(row.tokens[row.target == 1]) == "42.<|im_end|>\n"
    assert tokenizer.decode(row.tokens).endswith("assistant\n42.<|im_end|>\n")


def test_turn_that_says_nothing_is_read_and_not_trained(renderer: ChatRenderer) -> None:
    silent = [ANSWERED[0], {"role": "assistant", "content": None}, *ANSWERED]
    found = conversation({"messages": silent}, "messages")
    assert text(renderer, found, trained=True) == "a<|im_end|>\n"
    assert text(renderer, found, trained=False).count("<|im_start|>assistant\n") == 2


@pytest.mark.parametrize("template", ["{{ messages[0].content + 1 }}", "{{ 1 / 0 }}", "{% for %}"])
def test_model_is_refused_when_its_chat_template_fails(template: str) -> None:
    with pytest.raises(BadInputError, match="its chat template refuses the turns user, assistant"):
        make_renderer(template=template)


def test_model_is_refused_when_it_has_several_chat_templates_and_no_default() -> None:
    tokenizer = build_tokenizer(["text"], vocabulary=300)
    tokenizer.chat_template = {"rag": CHATML_TEMPLATE, "tool_use": CHATML_TEMPLATE}
    with pytest.raises(BadInputError, match=r"has no one chat template .*'rag', 'tool_use'"):
        ChatRenderer(tokenizer)


def test_tokenizer_keeps_digits_apart_when_numbers_repeat() -> None:
    tokenizer = build_tokenizer(["12345 12345"] * 50, vocabulary=400)
    assert tokenizer.tokenize("12345") == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("format_", get_args(Format))
def test_question_is_put_as_in_training_when_a_model_is_evaluated(format_: Format) -> None:
    question = Question("1", "1+1?", "2", "math")
    wanted = {"sky-t1": [SKY_T1_SYSTEM, "Return your final response within \\boxed{}. 1+1?"], "s1": ["1+1?"]}
    turns = [turn.content for turn in ask(question, format_=format_)]
    assert turns == wanted.get(format_, ["Return your final response within \\boxed{}. 1+1?"])
