"""Conversations -> tokens, with a mark on every token that is trained.

Invariant: only the assistant's text and its end-of-turn mark are trained; prompt and answer are encoded apart, exactly
as the evaluation will encode the prompt, so training and generation see the same tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rft_trainer.contract import EndOfTurn
from rft_trainer.errors import BadInputError
from rft_trainer.prepare.formats import Conversation, Message

CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_ENDS: Mapping[EndOfTurn, str] = {"im_end": "<|im_end|>\n", "endoftext": "<|endoftext|>"}
"""ChatML's mark has a line break, which s1 trained too; ``<|endoftext|>``, what Sky-T1's trainer put, stands alone."""
_THINK = "<think>"
_PROBE = "\u2042probe\u2042"
_CLOCK = "strftime_now"
"""What the library gives chat templates to tell a model the date (Llama 3.2, Mistral Small)."""
_DAY = datetime(2024, 7, 26, tzinfo=UTC)
"""The one that Llama's chat template names where there is no clock."""
_RAISED_BY_TEMPLATES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""Beside the library's own errors: a template is a program, and adds a text to a number, say."""
_DIRECTIVES = "%A %a %B %b %d %-d %m %-m %Y %y %H %M %S %I %p %j %F %T"


@dataclass(frozen=True)
class Segment:
    """A piece of text and whether it is trained."""

    text: str
    trained: bool


@dataclass(frozen=True)
class EncodedRow:
    """One row's tokens; ``target`` is 1 where the token is trained."""

    tokens: NDArray[np.int32]
    target: NDArray[np.uint8]


def _always_of_one_day(template: str) -> str:
    """A chat template whose clock stands still.

    Rows would else be others when Prepare is repeated on another day, and no exam the same twice.
    """
    if _CLOCK not in template:
        return template
    told = "".join(f" | replace('{each}', '{_DAY.strftime(each)}')" for each in _DIRECTIVES.split())
    return f"{{%- macro {_CLOCK}(format) -%}}{{{{ format{told} }}}}{{%- endmacro %}}\n{template}"


class ChatRenderer:
    """Renders with the tokenizer's own chat template, or ChatML where the model has none but knows its marks.

    ``eos`` names what the last turn ends with. The turns before it end as the template says, for the model will read
    them so.
    """

    def __init__(self, tokenizer: Any, *, eos: EndOfTurn = "template") -> None:
        self._tokenizer = tokenizer
        if not tokenizer.chat_template:
            if "<|im_start|>" not in tokenizer.get_vocab():
                raise BadInputError("model: its tokenizer has no chat template; use an instruction-tuned model")
            tokenizer.chat_template = CHATML_TEMPLATE
        try:
            self._template = _always_of_one_day(tokenizer.get_chat_template())
        except ValueError as error:  # of several, none of which is the default
            raise BadInputError(f"model: it has no one chat template ({error})") from error
        self._end_of_turn = self._find_end_of_turn()
        self._end_of_row = _ENDS.get(eos, self._end_of_turn)
        if eos in _ENDS and _ENDS[eos].strip() not in tokenizer.get_vocab():
            raise BadInputError(
                f"dataset.eos={eos}: the model's tokenizer has no {_ENDS[eos].strip()}; set dataset.eos: template, "
                "then the mark of the model's own chat template is used"
            )

    @property
    def end_of_row(self) -> str:
        """What the last turn of a row ends with."""
        return self._end_of_row

    def _render(self, messages: Sequence[Message], *, prompt: bool) -> str:
        from jinja2 import TemplateError

        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=prompt, chat_template=self._template
                )
            )
        except (TemplateError, *_RAISED_BY_TEMPLATES) as error:
            roles = ", ".join(message.role for message in messages)
            raise BadInputError(
                f"model: its chat template refuses the turns {roles} ({error}); use rows and an evaluation.preset of "
                "other turns, or a model whose template takes them"
            ) from error

    def _find_end_of_turn(self) -> str:
        rendered = self._render([Message("user", "x"), Message("assistant", _PROBE)], prompt=False)
        before, separator, after = rendered.rpartition(_PROBE)
        if not separator or not after or not before:
            raise BadInputError("model: its chat template does not end the assistant's turn; it cannot be trained")
        return after

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text that the model continues."""
        return self._render(messages, prompt=True)

    def segments(self, conversation: Conversation) -> list[Segment]:
        """Text in order; all turns of the assistant after the context are trained, but for those that say nothing,
        unless the template rewrites earlier turns: then the last one alone is."""
        messages = conversation.messages
        segments: list[Segment] = []
        done = ""
        for index, message in enumerate(messages):
            if message.role != "assistant" or index < conversation.context:
                continue
            prompt = self.prompt(messages[:index])
            if not prompt.startswith(done):
                return self._last_turn_only(messages)
            end = self._end_of_row if index == len(messages) - 1 else self._end_of_turn
            segments.append(Segment(prompt[len(done) :], trained=False))
            said = _continuing(prompt, message.content) + end
            segments.append(Segment(said, trained=bool(message.content.strip())))
            done = prompt + said
        return segments

    def _last_turn_only(self, messages: Sequence[Message]) -> list[Segment]:
        prompt = self.prompt(messages[:-1])
        said = _continuing(prompt, messages[-1].content) + self._end_of_row
        return [Segment(prompt, trained=False), Segment(said, trained=True)]

    def encode(self, conversations: Sequence[Conversation]) -> list[EncodedRow]:
        """Encode many rows at once; the tokenizer works in parallel."""
        rows = [self.segments(conversation) for conversation in conversations]
        texts = [segment.text for row in rows for segment in row]
        encoded = self._tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        result, position = [], 0
        for row in rows:
            pieces = encoded[position : position + len(row)]
            position += len(row)
            tokens = np.concatenate([np.asarray(piece, dtype=np.int32) for piece in pieces])
            marks = [np.full(len(piece), seg.trained, np.uint8) for piece, seg in zip(pieces, row, strict=True)]
            result.append(EncodedRow(tokens=tokens, target=np.concatenate(marks)))
        return result


def _continuing(prompt: str, content: str) -> str:
    """The turn's text after ``prompt``: a thought that the chat template has opened (QwQ, R1) is not opened twice."""
    opened, space = prompt.rstrip(), prompt[len(prompt.rstrip()) :]
    if not opened.endswith(_THINK) or not content.lstrip().startswith(_THINK):
        return content
    return content.lstrip().removeprefix(_THINK).removeprefix(space)
