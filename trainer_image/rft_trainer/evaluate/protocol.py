"""How a question is put to a model.

Invariant: the prompt is that of the training format and is the same for the trained model and the baseline.
"""

from __future__ import annotations

from rft_trainer.benchmarks import Question
from rft_trainer.prepare.formats import SKY_T1_SYSTEM, Format, Message

BOXED = "Return your final response within \\boxed{}. "


def ask(question: Question, *, format_: Format) -> list[Message]:
    """The turns before the model's answer: s1 asks the bare question, the others ask for a boxed answer."""
    wants_box = question.scorer in {"math", "integer", "letter"} and format_ != "s1"
    user = Message("user", (BOXED if wants_box else "") + question.problem)
    if format_ == "sky-t1":
        return [Message("system", SKY_T1_SYSTEM), user]
    return [user]
