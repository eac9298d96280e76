"""How a question is put to a model.

Invariant: the prompt is the same for the trained model and the baseline; without a preset it is that of the training
format.
"""

from __future__ import annotations

from rft_trainer.benchmarks import Question
from rft_trainer.contract import PromptStyle
from rft_trainer.prepare.formats import SKY_T1_SYSTEM, Format, Message

BOXED = "Return your final response within \\boxed{}. "
BOXED_LAST = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."
_BOXED_SCORERS = frozenset({"math", "integer", "letter", "gsm8k"})
_OF_FORMAT: dict[Format, PromptStyle] = {"s1": "bare", "sky-t1": "sky-t1"}


def ask(question: Question, *, format_: Format, style: PromptStyle = "format") -> list[Message]:
    """The turns before the model's answer."""
    if style == "format":
        style = _OF_FORMAT.get(format_, "boxed")
    before = BOXED if style in ("boxed", "sky-t1") and question.scorer in _BOXED_SCORERS - {"gsm8k"} else ""
    after = BOXED_LAST if style == "boxed-last" and question.scorer in _BOXED_SCORERS else ""
    user = Message("user", before + question.text + after)
    return [Message("system", SKY_T1_SYSTEM), user] if style == "sky-t1" else [user]
