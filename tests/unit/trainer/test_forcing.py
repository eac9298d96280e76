"""Budget forcing, replayed case by case against transcripts written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_trainer.evaluate.forcing import (
    GENERIC,
    S1,
    SKY_T1,
    Delimiters,
    Ending,
    ForcedAnswer,
    Forcing,
    Leg,
    ThinkingBudget,
    delimiters_of,
)
from rft_trainer.evaluate.loops import LEAST_CHARACTERS, is_looping
from rft_trainer.evaluate.sampler import Completion, CompletionRequest, Finish, Sampler
from rft_trainer.prepare.formats import Format
from rft_trainer.scoring.extract import final_part
from support.scripted_engine import EOS, ScriptedSampler, complete

GOLDEN = sorted((Path(__file__).parent / "golden" / "forcing").glob("*.json"))
FAMILIES = {"s1": S1, "sky-t1": SKY_T1, "generic": GENERIC}
PROMPT = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"


def run(sample: Forcing, sampler: Sampler) -> ForcedAnswer:
    while not sample.done:
        ask = sample.ask()
        request = CompletionRequest(prompt=ask.text, stops=ask.stops, max_tokens=ask.max_tokens)
        sample.take(complete(sampler, [request])[0])
    return sample.answer()


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_transcript_is_the_golden_one_when_the_script_is_replayed(file: Path) -> None:
    golden = json.loads(file.read_text())
    budget = ThinkingBudget(
        waits=golden["waits"], thinking_tokens=golden["thinking_tokens"], answer_tokens=golden["answer_tokens"]
    )
    engine = ScriptedSampler(golden["script"])
    sample = Forcing(
        golden["prompt"],
        delimiters=FAMILIES[golden["family"]],
        budget=budget,
        wait_tokens=1,
        piece_tokens=golden["piece_tokens"],
    )
    answer = run(sample, engine)
    assert [[each.prompt, each.max_tokens] for each in engine.requests] == [
        [golden["prompt"] + text, most] for text, most in golden["asked"]
    ]
    assert answer == ForcedAnswer(
        text=golden["text"],
        legs=tuple(Leg(tokens, Ending(ending)) for tokens, ending in golden["legs"]),
        waits=golden["used_waits"],
        thinking_tokens=golden["used_thinking_tokens"],
        answer_tokens=golden["used_answer_tokens"],
        answer_finished=golden["answer_finished"],
        ending=Ending(golden["ending"]),
    )


def test_every_ending_and_every_family_has_a_golden_file() -> None:
    goldens = [json.loads(file.read_text()) for file in GOLDEN]
    assert {golden["ending"] for golden in goldens} == set(Ending)
    assert {golden["family"] for golden in goldens} == set(FAMILIES)


def test_every_format_of_rows_has_delimiters_that_the_scorer_knows() -> None:
    for format_ in get_args(Format):
        delimiters = delimiters_of(format_)
        assert final_part(f"{delimiters.start}a") is None
        assert final_part(f"{delimiters.start}a{delimiters.end}\nFinal Answer: 3") == "Final Answer: 3"


@given(
    tokens=st.lists(
        st.sampled_from(["a", " b", "\n", EOS, "<|", "end", "_of", "_thought", "|>", "<|end_of_thought|>"]), max_size=40
    ),
    waits=st.integers(0, 3),
    thinking_tokens=st.integers(1, 30),
    piece_tokens=st.integers(1, 12),
    family=st.sampled_from(sorted(FAMILIES)),
)
def test_budget_is_kept_when_the_model_says_anything(
    tokens: list[str], waits: int, thinking_tokens: int, piece_tokens: int, family: str
) -> None:
    delimiters = FAMILIES[family]
    budget = ThinkingBudget(waits=waits, thinking_tokens=thinking_tokens, answer_tokens=3)
    engine = ScriptedSampler({delimiters.start: tokens, "Wait": tokens, delimiters.end: [" 3", EOS], ":": [" 3", EOS]})
    sample = Forcing(PROMPT, delimiters=delimiters, budget=budget, wait_tokens=1, piece_tokens=piece_tokens)
    answer = run(sample, engine)
    assert answer.thinking_tokens == sum(leg.tokens for leg in answer.legs) + answer.waits <= thinking_tokens
    assert len(answer.legs) == answer.waits + 1 <= waits + 1
    assert all(each.max_tokens > 0 for each in engine.requests)
    assert answer.text.startswith(delimiters.start)
    thinking, end, said = answer.text.rpartition(delimiters.end)
    assert end == delimiters.end
    assert not any(stop in thinking[len(delimiters.start) :] for stop in delimiters.stops)
    forced = answer.legs[-1].ending in (Ending.CAPPED, Ending.LOOPED)
    assert said == ("\nFinal Answer: 3" if forced else " 3")


@pytest.mark.parametrize(
    ("passage", "times", "looping"),
    [
        ("4", LEAST_CHARACTERS, True),
        ("Wait, let me check that again. ", 20, True),
        ("Wait, let me check that again. ", 19, False),
        ("".join(f"{number} is {number * number}, " for number in range(60)), 4, True),
        ("".join(f"{number} is {number * number}, " for number in range(60)), 3, False),
    ],
)
def test_text_is_a_loop_when_its_end_repeats_four_times_over_600_characters(
    passage: str, times: int, looping: bool
) -> None:
    assert is_looping("A beginning of another kind. " + passage * times) is looping


def test_text_is_a_loop_when_it_ends_in_the_middle_of_its_passage() -> None:
    assert is_looping("Wait, let me check that again. " * 20 + "Wait, let")


def test_text_is_no_loop_when_its_steps_count_on() -> None:
    assert not is_looping("".join(f"Step {number}: add 1, that gives {number + 1}.\n" for number in range(400)))


def test_start_is_put_in_when_the_template_does_not_open_the_thinking() -> None:
    budget = ThinkingBudget(waits=0, thinking_tokens=5, answer_tokens=5)
    custom = Delimiters(start="[THINK]", end="[/THINK]", stops=("[/THINK]",))
    for prompt, text in (("q", "q[THINK]"), ("q[THINK]", "q[THINK]"), ("q[THINK]\n", "q[THINK]\n")):
        assert Forcing(prompt, delimiters=custom, budget=budget, wait_tokens=1).ask().text == text


@pytest.mark.parametrize("broken", ["\ufffd", "\ufffd\ufffd\ufffd"])
@pytest.mark.parametrize("finish", [Finish.LENGTH, Finish.STOP])
def test_model_never_reads_a_character_that_our_cut_has_broken(broken: str, finish: Finish) -> None:
    budget = ThinkingBudget(waits=1, thinking_tokens=100, answer_tokens=5)
    sample = Forcing(PROMPT, delimiters=S1, budget=budget, wait_tokens=1, piece_tokens=4)
    sample.take(Completion(f"the root \u221a{broken}", 4, finish))
    wait = "Wait" if finish is Finish.STOP else ""
    assert sample.ask().text == f"{PROMPT}{S1.start}the root \u221a{wait}"


def test_character_that_the_cap_has_broken_is_left_out() -> None:
    budget = ThinkingBudget(waits=0, thinking_tokens=4, answer_tokens=5)
    sample = Forcing(PROMPT, delimiters=S1, budget=budget, wait_tokens=1)
    sample.take(Completion("a\ufffd", 4, Finish.LENGTH))
    assert sample.ask().text == f"{PROMPT}{S1.start}a\n{S1.end}\nFinal Answer:"


def test_replacement_marks_that_the_model_wrote_itself_stay() -> None:
    budget = ThinkingBudget(waits=0, thinking_tokens=100, answer_tokens=5)
    sample = Forcing(PROMPT, delimiters=S1, budget=budget, wait_tokens=1, piece_tokens=9)
    sample.take(Completion("a\ufffdb\ufffd\ufffd\ufffd\ufffd", 9, Finish.LENGTH))
    assert sample.ask().text == f"{PROMPT}{S1.start}a\ufffdb\ufffd\ufffd\ufffd\ufffd"
