"""The tokens with which a model ends its turn.

Invariant: all engines end an answer at the same ones, whatever a model's own generation settings say: those of its chat
template, the tokenizer's own, and the marks that families of models share. A base model knows the marks of its chat
template, but is often told to end at another token alone.
"""

from __future__ import annotations

from typing import Any

from rft_trainer.errors import BadInputError
from rft_trainer.prepare.chat import ChatRenderer

_MARKS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>")


def turn_ends(tokenizer: Any) -> dict[int, str]:
    """Texts of the tokens by their ids, in the order of the ids."""
    vocabulary = tokenizer.get_vocab()
    ends = {vocabulary[mark] for mark in _MARKS if mark in vocabulary}
    known = sorted(end for end in {*ends, tokenizer.eos_token_id, _of_template(tokenizer)} if end is not None)
    return dict(zip(known, tokenizer.convert_ids_to_tokens(known), strict=True))


def _of_template(tokenizer: Any) -> int | None:
    """The mark that follows an answer in a chat, as Gemma's ``<end_of_turn>``: trained rows end with it, too."""
    try:
        written = ChatRenderer(tokenizer).end_of_row.strip()
    except BadInputError:  # nothing can be asked with such a template, which is told where that is tried
        return None
    tokens = tokenizer(written, add_special_tokens=False)["input_ids"]
    return tokens[0] if tokens and tokens[0] in tokenizer.get_added_vocab().values() else None
