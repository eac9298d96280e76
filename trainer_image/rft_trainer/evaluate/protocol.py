"""How a question is put to a model.

Invariant: the prompt is that of the training format and is the same for the trained model and the baseline.
"""

from __future__ import annotations

from typing import Literal

from rft_trainer.benchmarks import Question
from rft_trainer.prepare.formats import Message

SKY_T1_SYSTEM = (
    "Your role as an assistant involves thoroughly exploring questions through a systematic long "
    "thinking process before providing the final precise and accurate solutions. This requires "
    "engaging in a comprehensive cycle of analysis, summarizing, exploration, reassessment, "
    "reflection, backtracing, and iteration to develop well-considered thinking process. Please "
    "structure your response into two main sections: Thought and Solution. In the Thought section, "
    "detail your reasoning process using the specified format: <|begin_of_thought|> {thought with "
    "steps separated with '\n\n'} <|end_of_thought|> Each step should include detailed considerations "
    "such as analisying questions, summarizing relevant findings, brainstorming new ideas, "
    "verifying the accuracy of the current steps, refining any errors, and revisiting previous "
    "steps. In the Solution section, based on various attempts, explorations, and reflections from "
    "the Thought section, systematically present the final solution that you deem correct. The "
    "solution should remain a logical, accurate, concise expression style and detail necessary step "
    "needed to reach the conclusion, formatted as follows: <|begin_of_solution|> {final formatted, "
    "precise, and clear solution} <|end_of_solution|> Now, try to solve the following question "
    "through the above guidelines:"
)
"""Byte-exact, misspellings included (sha256 c5ae4aa0...)."""
BOXED = "Return your final response within \\boxed{}. "


def ask(question: Question, *, format_: Literal["sky-t1", "s1", "messages"]) -> list[Message]:
    """The turns before the model's answer: s1 asks the bare question, the others ask for a boxed answer."""
    wants_box = question.scorer in {"math", "integer", "letter"} and format_ != "s1"
    user = Message("user", (BOXED if wants_box else "") + question.problem)
    if format_ == "sky-t1":
        return [Message("system", SKY_T1_SYSTEM), user]
    return [user]
