"""Where an answer ends: at the mark of the model's own chat template, also when its tokenizer ends texts at another."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from rft_trainer.evaluate.turn_ends import turn_ends

GEMMA = (
    "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI_3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
WORDS = "{% for m in messages %}{{ m.role }}: {{ m.content }} over {% endfor %}"


def tokenizer(template: str | None, *special: str) -> PreTrainedTokenizerFast:
    names = ["<unk>", *special, "over"]
    words = Tokenizer(WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.add_special_tokens(["<unk>", *special])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token=special[0], unk_token="<unk>", chat_template=template
    )


@pytest.mark.parametrize(
    ("template", "special", "ends"),
    [
        (GEMMA, ("<eos>", "<start_of_turn>", "<end_of_turn>"), {"<eos>", "<end_of_turn>"}),
        (PHI_3, ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"), {"<|endoftext|>", "<|end|>"}),
        (WORDS, ("</s>",), {"</s>"}),
        (None, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), {"<|endoftext|>", "<|im_end|>"}),
        (None, ("</s>",), {"</s>"}),
    ],
    ids=["gemma", "phi-3", "words", "chatml", "none"],
)
def test_turn_ends_at_the_mark_of_the_chat_template_too(
    template: str | None, special: tuple[str, ...], ends: set[str]
) -> None:
    found = turn_ends(tokenizer(template, *special))
    assert set(found.values()) == ends
    assert list(found) == sorted(found)
