"""Rows of the published data sets -> chat messages.

Invariant: pure functions; the assistant's text is byte-exact what the published runs trained on
(``<|begin_of_thought|>`` for Sky-T1, ``<|im_start|>think`` for s1). A row without an answer gives None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rft_trainer.errors import BadInputError

Format = Literal["sky-t1", "s1", "messages"]
THINK_START = "<|im_start|>think\n"
ANSWER_START = "<|im_start|>answer\n"
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

    @property
    def question(self) -> str:
        """The last thing the user said: what must not be in a benchmark."""
        return next(message.content for message in reversed(self.messages) if message.role == "user")


def to_conversation(row: Mapping[str, Any], *, format_: Format, where: str) -> Conversation | None:
    """Read one row; None when it has no answer. Raises :class:`BadInputError` when it is not of this format."""
    try:
        if format_ == "sky-t1":
            messages = _sky_t1(row)
        elif format_ == "s1":
            messages = _s1(row)
        else:
            messages = _messages(row)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise BadInputError(f"{where}: is not a {format_} row ({reason}); check dataset.format") from error
    if not messages or messages[-1].role != "assistant" or not messages[-1].content.strip():
        return None
    if not any(message.role == "user" for message in messages):
        return None
    return Conversation(tuple(messages))


def render_s1(*, question: str, thinking: str, answer: str) -> list[Message]:
    """s1's two delimited parts; ``Answer:`` is put before an answer that lacks it."""
    final = answer.strip()
    if "Answer:" not in final:
        final = f"Answer: {final}"
    return [Message("user", question), Message("assistant", f"{THINK_START}{thinking.strip()}\n{ANSWER_START}{final}")]


def _sky_t1(row: Mapping[str, Any]) -> list[Message]:
    turns = _turns(row["conversations"], role_key="from", text_key="value")
    system = row.get("system")
    if isinstance(system, str) and system:
        return [Message("system", system), *turns]
    return turns


def _messages(row: Mapping[str, Any]) -> list[Message]:
    return _turns(row["messages"], role_key="role", text_key="content")


def _turns(turns: Any, *, role_key: str, text_key: str) -> list[Message]:
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        raise TypeError("the turns must be a list")
    messages = []
    for turn in turns:
        role = _ROLES.get(turn[role_key])
        if role is None:
            raise ValueError(f"role {turn[role_key]!r} is unknown")
        text = turn[text_key]
        messages.append(Message(role, text if isinstance(text, str) else ""))  # type: ignore[arg-type]
    while messages and messages[-1].role != "assistant":
        messages.pop()
    return messages


def _s1(row: Mapping[str, Any]) -> list[Message]:
    thinking = _first(
        row, "thinking_trajectories", "thinking", "deepseek_thinking_trajectory", "gemini_thinking_trajectory"
    )
    answer = _first(row, "attempt", "deepseek_attempt", "gemini_attempt", "answer", "solution")
    if isinstance(thinking, Sequence) and not isinstance(thinking, str):
        thinking = "\n".join(str(part) for part in thinking)
    question = row["question"]
    if not isinstance(answer, str) or not answer.strip():
        return []
    return render_s1(question=str(question), thinking=str(thinking or ""), answer=answer)


def _first(row: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        if row.get(name):
            return row[name]
    return None
