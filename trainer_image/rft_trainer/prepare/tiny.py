"""``init://tiny-qwen2``: a real Qwen2 with random weights and a tokenizer of its own, for demos and tests.

Invariant: weights depend on the seed alone and the vocabulary on the rows alone, so a run can be repeated exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rft_trainer.errors import BadInputError
from rft_trainer.prepare.chat import CHATML_TEMPLATE
from rft_trainer.uris import Uri

PRESET = "tiny-qwen2"
END_OF_TEXT, TURN_START, TURN_END, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_pad|>"
_OPTIONS = frozenset({"hidden", "intermediate", "layers", "heads", "kv_heads", "vocab", "positions"})


def build_tokenizer(texts: Sequence[str], *, vocabulary: int) -> Any:
    """A byte-level BPE that keeps every digit apart, as Qwen's does; else arithmetic is not learned."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Split(Regex(r"\p{N}"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=PAD,
        additional_special_tokens=[END_OF_TEXT, TURN_START],
        chat_template=CHATML_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def build_model(uri: Uri, destination: Path, *, texts: Sequence[str], seed: int, max_sequence_length: int) -> None:
    """Write model and tokenizer to ``destination``; raises :class:`BadInputError` on an unknown preset or option."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    if uri.target != PRESET:
        raise BadInputError(f"model.uri {uri.text!r}: the only preset is init://{PRESET}")
    uri.allow_only(_OPTIONS)
    hidden = uri.integer("hidden", default=64, minimum=8)
    heads = uri.integer("heads", default=4, minimum=1)
    kv_heads = uri.integer("kv_heads", default=1 if heads % 2 else heads // 2, minimum=1)
    if hidden % (2 * heads):  # positions turn pairs of numbers
        raise BadInputError(f"model.uri {uri.text!r}: hidden={hidden} must be a multiple of twice heads={heads}")
    if heads % kv_heads:
        raise BadInputError(f"model.uri {uri.text!r}: heads={heads} must be a multiple of kv_heads={kv_heads}")
    tokenizer = build_tokenizer(texts, vocabulary=uri.integer("vocab", default=384, minimum=300))
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=uri.integer("intermediate", default=hidden * 11 // 4, minimum=8),
        num_hidden_layers=uri.integer("layers", default=2, minimum=1),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=uri.integer("positions", default=max(512, max_sequence_length), minimum=16),
        tie_word_embeddings=True,
        initializer_range=0.05,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
    model.save_pretrained(destination)
    tokenizer.save_pretrained(destination)
