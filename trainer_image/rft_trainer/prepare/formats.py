"""Rows of the published data sets -> chat messages.

Invariant: pure functions; the assistant's text is byte-exact what the published runs trained on
(``<|begin_of_thought|>`` for Sky-T1, ``<|im_start|>think`` for s1). A row without an answer gives None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rft_trainer.errors import BadInputError

Format = Literal["sky-t1", "s1", "messages", "prompt-completion"]
Row = Mapping[str, Any]
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
"""What Sky-T1 was trained and asked with: 1,310 characters, misspellings included, sha256
c5ae4aa0b0d6fcadd6fa8977f5e55b1f2dccb7582bd05b80385e2f22650a9f8d."""
THINK_START = "<|im_start|>think\n"
ANSWER_START = "<|im_start|>answer\n"
BOXED = "Return your final response within \\boxed{}. "
"""Stands before the mathematics of Sky-T1's rows (recipes/sky-t1-preview/preprocess.py) and is no part of it."""
_OWN = ("attempt", "answer", "solution")
_ANSWERS: Mapping[str, Sequence[str]] = {
    "thinking_trajectories": _OWN,
    "thinking": _OWN,
    "deepseek_thinking_trajectory": ("deepseek_attempt",),
    "gemini_thinking_trajectory": ("gemini_attempt",),
}
"""Where a row's thinking is, and the answer that it came to: s1K-1.1 has those of two models beside each other."""
_UNREAD = ("reasoning_content", "reasoning", "thinking", "tool_calls")
"""Fields of a turn beside its text in which others keep what the model is to learn: never left out in silence."""
_UNTRAINED = ("weight", "train")
"""Fields by which others leave a turn of the assistant out of the training; here every one is trained."""
_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Conversation:
    """The turns of one row; the last one is the assistant's."""

    messages: tuple[Message, ...]
    context: int = 0
    """So many turns in front are never trained, whoever says them."""

    @property
    def questions(self) -> tuple[str, ...]:
        """What the user said, each time that a trained turn follows, without the wish for a box.

        None of it may be in a benchmark. Of a context that is not trained the last question alone counts.
        """
        asked = [index for index, message in enumerate(self.messages) if message.role == "user"]
        before = [index for index in asked if index < self.context][-1:]
        trained = [*before, *(index for index in asked if index >= self.context)]
        return tuple(self.messages[index].content.removeprefix(BOXED) for index in trained)


def to_conversation(row: Row, *, format_: Format, where: str) -> Conversation | None:
    """Read one row; None when it has no answer. Raises :class:`BadInputError` when it is not of this format."""
    try:
        conversation = RENDERERS[format_](row)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise BadInputError(f"{where}: is not a {format_} row ({reason}); check dataset.format") from error
    _check_characters(conversation, where=where)
    messages = conversation.messages
    if len(messages) <= conversation.context or messages[-1].role != "assistant" or not messages[-1].content.strip():
        return None
    return conversation if any(message.role == "user" for message in messages) else None


def _check_characters(conversation: Conversation, *, where: str) -> None:
    try:
        for message in conversation.messages:
            message.content.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise BadInputError(f"{where}: has {half}, half of a character that was cut; no tokenizer reads it") from error


def render_sky_t1(row: Row) -> Conversation:
    """``{system, conversations: [{from, value}]}``; a row without a system prompt gets the published one."""
    turns = _until_answer(_turns(row["conversations"], role_key="from", text_key="value"))
    system = _text(row.get("system"), of="field system")
    if any(turn.role == "system" for turn in turns):
        if system:
            raise ValueError("it has a system prompt in the field system, and another one among its turns")
        return Conversation(turns)
    return Conversation((Message("system", system or SKY_T1_SYSTEM), *turns))


def render_s1(row: Row) -> Conversation:
    """``{question, thinking_trajectories, attempt}`` of s1K, and the names that s1K-1.1 gives to the same."""
    thinking, answer = _thinking_and_answer(row)
    parts = thinking if isinstance(thinking, Sequence) and not isinstance(thinking, str) else [thinking or ""]
    said = "" if answer is None else answer
    texts = [("question", row["question"]), ("answer", said), *(("thinking", part) for part in parts)]
    for name, value in texts:
        if not isinstance(value, str):
            raise TypeError(f"its {name} must be text, found {type(value).__name__}")
    if not said.strip():
        return Conversation((Message("user", row["question"]),))
    if not any(name in row for name in _ANSWERS):
        raise ValueError(f"it has no thinking: one of the fields {', '.join(_ANSWERS)}")
    return s1_conversation(question=row["question"], thinking="\n".join(parts), answer=said)


def _thinking_and_answer(row: Row) -> tuple[Any, Any]:
    """Those of one and the same source; a thought without its own answer has none."""
    for thinking, answers in _ANSWERS.items():
        answer = _first(row, *answers)
        if row.get(thinking) and answer is not None:
            return row[thinking], answer
    every = dict.fromkeys(name for names in _ANSWERS.values() for name in names)
    return None, None if _first(row, *_ANSWERS) else _first(row, *every)


def s1_conversation(*, question: str, thinking: str, answer: str) -> Conversation:
    """s1's two delimited parts; ``Answer:`` is put before an answer that lacks it.

    Put before it first, stripped after, as in data/tokenization.py of simplescaling/s1: blank lines that an attempt
    begins with stay between the two.
    """
    final = answer if "Answer:" in answer else f"Answer: {answer}"
    said = f"{THINK_START}{thinking.strip()}\n{ANSWER_START}{final.strip()}"
    return Conversation((Message("user", question), Message("assistant", said)))


def render_messages(row: Row) -> Conversation:
    """``{messages: [{role, content}]}``; every turn of the assistant is trained, what follows the last is not kept."""
    return Conversation(_until_answer(_turns(row["messages"], role_key="role", text_key="content")))


def render_prompt_completion(row: Row) -> Conversation:
    """``{prompt, completion}``, each a text or a list of ``{role, content}``; of the prompt nothing is trained."""
    prompt = _texts_or_turns(row["prompt"], role="user", trained=False)
    return Conversation((*prompt, *_until_answer(_texts_or_turns(row["completion"], role="assistant"))), len(prompt))


RENDERERS: Mapping[Format, Callable[[Row], Conversation]] = {
    "sky-t1": render_sky_t1,
    "s1": render_s1,
    "messages": render_messages,
    "prompt-completion": render_prompt_completion,
}


def _texts_or_turns(value: Any, *, role: Literal["user", "assistant"], trained: bool = True) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message(role, value),)
    return _turns(value, role_key="role", text_key="content", trained=trained)


def _turns(turns: Any, *, role_key: str, text_key: str, trained: bool = True) -> tuple[Message, ...]:
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        raise TypeError("the turns must be a list")
    messages = []
    for turn in turns:
        role = _ROLES.get(turn[role_key])
        if role is None:
            raise ValueError(f"role {turn[role_key]!r} is unknown")
        unread = next((name for name in _UNREAD if turn.get(name)), None)
        if unread is not None:
            raise ValueError(
                f"{unread} of {role} would not be trained; put it into {text_key}, thinking in <think> and </think>"
            )
        marked = next((name for name in _UNTRAINED if turn.get(name) == 0), None)
        if trained and role == "assistant" and marked is not None:
            raise ValueError(
                f"{marked} says that a turn of assistant is not to be trained; put what is only read into the prompt "
                "of a prompt-completion row"
            )
        messages.append(Message(role, _text(turn[text_key], of=f"{text_key} of {role}")))  # type: ignore[arg-type]
    return tuple(messages)


def _text(content: Any, *, of: str) -> str:
    """What is said: a text, OpenAI's list of parts that are texts, or nothing."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, Sequence) else [content]
    if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in parts):
        raise TypeError(f"the {of} is neither a text nor a list of parts that are texts")
    return "".join(part["text"] for part in parts)


def _until_answer(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The turns up to the assistant's last one."""
    kept = list(messages)
    while kept and kept[-1].role != "assistant":
        kept.pop()
    return tuple(kept)


def _first(row: Row, *names: str) -> Any:
    """The first that is there; a number is, also if it is 0."""
    return next((row[name] for name in names if row.get(name) not in (None, "", [])), None)
