"""How a question is put to a model.

Invariant: the prompt is the same for the trained model and the baseline; without a preset it is that of the training
format.
"""

from __future__ import annotations

from typing import get_args

from rft_trainer.benchmarks import Question
from rft_trainer.contract import PromptStyle
from rft_trainer.prepare.formats import BOXED, SKY_T1_SYSTEM, Format, Message

BOXED_LAST = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."
SKYTHOUGHT_LETTER = (
    "Return your final response within \\boxed{{}} and only include the letter choice ({letters}) as your final "
    "response. {prompt}"
)
SKYTHOUGHT_GSM8K = (
    "Given the following problem, reason and give a final answer to the problem.\nProblem: {prompt}\nYour response "
    'should end with "The final answer is [answer]" where [answer] is the response to the problem.'
)
SKYTHOUGHT_PROGRAM = (
    "Generate an executable Python function generated from the given prompt. The function should take stdin as input "
    "and print the output. Simply call the function after the definition. {prompt}"
)
SKYTHOUGHT_FUNCTION = (
    "Generate an executable Python function generated from the given prompt. Return the function body without invoking "
    "it at the final solution. {prompt}"
)
"""The words of NovaSky-AI/SkyThought, skythought/evals/tasks/*.yaml."""
_BOXED_SCORERS = frozenset({"math", "integer", "letter", "gsm8k"})
_OF_FORMAT: dict[Format, PromptStyle] = {"s1": "bare", "sky-t1": "sky-t1"}


def ask(question: Question, *, format_: Format, style: PromptStyle = "format") -> list[Message]:
    """The turns before the model's answer."""
    if style == "format":
        style = _OF_FORMAT.get(format_, "boxed")
    if style == "skythought":
        return [Message("system", SKY_T1_SYSTEM), Message("user", _as_skythought(question))]
    before = BOXED if style in ("boxed", "sky-t1") and question.scorer in _BOXED_SCORERS - {"gsm8k"} else ""
    after = BOXED_LAST if style == "boxed-last" and question.scorer in _BOXED_SCORERS else ""
    user = Message("user", before + question.text + after)
    return [Message("system", SKY_T1_SYSTEM), user] if style == "sky-t1" else [user]


def wordings(question: Question) -> set[str]:
    """All texts in which a question may stand in training rows: as it was published, and as any evaluation asks it."""
    styles = [style for style in get_args(PromptStyle) if style != "format"]
    asked = {ask(question, format_="messages", style=style)[-1].content for style in styles}
    return (asked | {question.problem, question.plain, question.published}) - {""}


def _as_skythought(question: Question) -> str:
    if question.scorer == "letter":
        letters = [chr(ord("A") + index) for index in range(len(question.choices) or 4)]
        named = ", ".join(letters[:-1]) + f", or {letters[-1]}"
        choices = ", ".join(f"{letter}) {text}" for letter, text in zip(letters, question.choices, strict=False))
        prompt = f"{question.problem}\n{choices}" if choices else question.problem
        return SKYTHOUGHT_LETTER.format(letters=named, prompt=prompt)
    if question.scorer == "gsm8k":
        return SKYTHOUGHT_GSM8K.format(prompt=question.problem)
    if question.plain:
        template = SKYTHOUGHT_FUNCTION if question.is_function else SKYTHOUGHT_PROGRAM
        return template.format(prompt=question.plain)
    return (BOXED if question.scorer in _BOXED_SCORERS else "") + question.text
