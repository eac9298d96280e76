"""The tokens with which a model ends its turn.

Invariant: all engines end an answer at the same ones, whatever a model's own generation settings say; a base model
knows the marks of its chat template, but is often told to end at another token alone.
"""

from __future__ import annotations

from typing import Any

_MARKS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>")


def turn_ends(tokenizer: Any) -> dict[int, str]:
    """Texts of the tokens by their ids, in the order of the ids."""
    vocabulary = tokenizer.get_vocab()
    ends = {vocabulary[mark] for mark in _MARKS if mark in vocabulary} | {tokenizer.eos_token_id}
    known = sorted(end for end in ends if end is not None)
    return dict(zip(known, tokenizer.convert_ids_to_tokens(known), strict=True))
