"""The shapes of known models: what an estimate of memory and time is made from, without the weights.

Sources: the ``config.json`` of each model on its hub page; the parameter counts that follow from the shapes are those
the model cards give. Any other dense decoder of the same build is read from its own ``config.json``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rft_operator.errors import InvalidResource
from rft_trainer.errors import BadInputError
from rft_trainer.uris import Uri, parse_uri

MODEL_UNKNOWN = "ModelUnknown"
_QUERY_KEY_VALUE_BIAS = frozenset({"qwen2"})
_QUERY_KEY_NORM = frozenset({"qwen3"})
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A dense decoder: grouped-query attention, a gated MLP of three matrices, RMS norms."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied_embeddings: bool
    attention_bias: bool = False
    """Query, key and value have a bias, as in Qwen2."""
    query_key_norm: bool = False
    """Queries and keys are normed, as in Qwen3."""
    head_size: int | None = None
    """Width of a head; None means hidden / heads."""

    @property
    def embedding_parameters(self) -> int:
        """Return the parameters of one embedding matrix, usually the largest tensor."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Return all parameters; tied embeddings count once."""
        head = self.head_size or self.hidden // self.heads
        queries, keys = self.heads * head, self.kv_heads * head
        attention = 2 * self.hidden * queries + 2 * self.hidden * keys
        attention += queries + 2 * keys if self.attention_bias else 0
        attention += 2 * head if self.query_key_norm else 0
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        embeddings = self.embedding_parameters * (1 if self.tied_embeddings else 2)
        return embeddings + self.layers * layer + self.hidden

    def adapter_parameters(self, *, rank: int, layers: Collection[str]) -> int:
        """Return the parameters of LoRA adapters on the named linear layers, or on all; an unknown name counts high."""
        head = self.head_size or self.hidden // self.heads
        queries, keys = self.heads * head, self.kv_heads * head
        widths = {
            "q_proj": self.hidden + queries,
            "k_proj": self.hidden + keys,
            "v_proj": self.hidden + keys,
            "o_proj": self.hidden + queries,
            "gate_proj": self.hidden + self.intermediate,
            "up_proj": self.hidden + self.intermediate,
            "down_proj": self.hidden + self.intermediate,
        }
        chosen = [widths.get(name, self.hidden + self.intermediate) for name in layers or widths]
        return rank * sum(chosen) * self.layers

    @property
    def multiplied_parameters(self) -> int:
        """Return the parameters a token is multiplied with: all but the look-up of its embedding."""
        return self.parameters - (0 if self.tied_embeddings else self.embedding_parameters)

    @property
    def largest_tensor(self) -> int:
        """Return the parameters of the largest tensor: what ZeRO-3 must gather whole."""
        return max(self.embedding_parameters, self.hidden * self.intermediate)


def _qwen(size: str, *, hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int) -> ModelShape:
    small = size in {"0.5B", "1.5B", "3B"}
    return ModelShape(
        name=f"Qwen2.5-{size}",
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        intermediate=intermediate,
        vocabulary=151_936 if small else 152_064,
        tied_embeddings=small,
        attention_bias=True,
    )


def _llama(name: str, *, hidden: int, layers: int, heads: int, intermediate: int) -> ModelShape:
    return ModelShape(
        name=f"Llama-{name}",
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=8,
        intermediate=intermediate,
        vocabulary=128_256,
        tied_embeddings=name.startswith("3.2"),
    )


_QWEN_32B = _qwen("32B", hidden=5_120, layers=64, heads=40, kv_heads=8, intermediate=27_648)
_LLAMA_8B = _llama("3.1-8B", hidden=4_096, layers=32, heads=32, intermediate=14_336)
_LLAMA_70B = _llama("3.1-70B", hidden=8_192, layers=80, heads=64, intermediate=28_672)
_OF_QWEN = r"Qwen2\.5-(?:Coder-|Math-)?{}(?:-Instruct)?"
_OF_LLAMA = r"(?:Meta-)?Llama-{}(?:-Instruct)?"
KNOWN: tuple[tuple[str, ModelShape], ...] = (
    (_OF_QWEN.format(r"0\.5B"), _qwen("0.5B", hidden=896, layers=24, heads=14, kv_heads=2, intermediate=4_864)),
    (_OF_QWEN.format(r"1\.5B"), _qwen("1.5B", hidden=1_536, layers=28, heads=12, kv_heads=2, intermediate=8_960)),
    (_OF_QWEN.format("3B"), _qwen("3B", hidden=2_048, layers=36, heads=16, kv_heads=2, intermediate=11_008)),
    (_OF_QWEN.format("7B"), _qwen("7B", hidden=3_584, layers=28, heads=28, kv_heads=4, intermediate=18_944)),
    (_OF_QWEN.format("14B"), _qwen("14B", hidden=5_120, layers=48, heads=40, kv_heads=8, intermediate=13_824)),
    (_OF_QWEN.format("32B"), _QWEN_32B),
    (_OF_QWEN.format("72B"), _qwen("72B", hidden=8_192, layers=80, heads=64, kv_heads=8, intermediate=29_568)),
    (r"QwQ-32B(?:-Preview)?|Sky-T1-32B-(?:Preview|Flash)|s1(?:\.1)?-32B", _QWEN_32B),
    (_OF_LLAMA.format(r"3\.2-1B"), _llama("3.2-1B", hidden=2_048, layers=16, heads=32, intermediate=8_192)),
    (_OF_LLAMA.format(r"3\.2-3B"), _llama("3.2-3B", hidden=3_072, layers=28, heads=24, intermediate=8_192)),
    (_OF_LLAMA.format(r"3(?:\.1)?-8B"), _LLAMA_8B),
    (_OF_LLAMA.format(r"3(?:\.[13])?-70B"), _LLAMA_70B),
    (_OF_LLAMA.format(r"3\.1-405B"), _llama("3.1-405B", hidden=16_384, layers=126, heads=128, intermediate=53_248)),
)
"""Last part of a hub name -> shape; who republished the model does not matter."""
TINY_PRESET = "tiny-qwen2"


def known_model(uri: str) -> ModelShape | None:
    """Return the shape of a hub model or a preset by its URI, or None; raises InvalidResource for a bad ``init://``."""
    try:
        parsed = parse_uri(uri)
        if parsed.scheme == "init":
            return _tiny(parsed)
    except BadInputError as error:
        raise InvalidResource("InvalidSpec", f"spec.model.uri: {error}") from error
    if parsed.scheme != "hf":
        return None
    name = parsed.target.rsplit("/", 1)[-1]
    found = (shape for pattern, shape in KNOWN if re.fullmatch(pattern, name, re.IGNORECASE))
    shape = next(found, None)
    return None if shape is None else replace(shape, name=name)


def _tiny(uri: Uri) -> ModelShape | None:
    """The trainer's preset with its defaults; its vocabulary is at most what is asked for."""
    if uri.target != TINY_PRESET:
        return None
    hidden = uri.integer("hidden", default=64, minimum=8)
    heads = uri.integer("heads", default=4, minimum=1)
    return ModelShape(
        name=uri.text.removeprefix("init://"),
        hidden=hidden,
        layers=uri.integer("layers", default=2, minimum=1),
        heads=heads,
        kv_heads=uri.integer("kv_heads", default=max(1, heads // 2), minimum=1),
        intermediate=uri.integer("intermediate", default=hidden * 11 // 4, minimum=8),
        vocabulary=uri.integer("vocab", default=384, minimum=300),
        tied_embeddings=True,
        attention_bias=True,
    )


def shape_of_config(config: Mapping[str, Any], *, name: str) -> ModelShape:
    """Return the shape that a model's ``config.json`` describes; raises InvalidResource naming what is wrong."""
    experts = next((key for key in _EXPERTS if config.get(key)), None)
    if experts is not None:
        raise InvalidResource(
            MODEL_UNKNOWN,
            f"{name}: {experts} is {config[experts]!r}: a mixture of experts cannot be estimated; use a dense model",
        )
    kind = config.get("model_type")
    heads = _count(config, "num_attention_heads", name=name)
    return ModelShape(
        name=name,
        hidden=_count(config, "hidden_size", name=name),
        layers=_count(config, "num_hidden_layers", name=name),
        heads=heads,
        kv_heads=_count(config, "num_key_value_heads", name=name) if config.get("num_key_value_heads") else heads,
        intermediate=_count(config, "intermediate_size", name=name),
        vocabulary=_count(config, "vocab_size", name=name),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        attention_bias=kind in _QUERY_KEY_VALUE_BIAS or bool(config.get("attention_bias")),
        query_key_norm=kind in _QUERY_KEY_NORM,
        head_size=_count(config, "head_dim", name=name) if config.get("head_dim") else None,
    )


def _count(config: Mapping[str, Any], key: str, *, name: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidResource(
            MODEL_UNKNOWN,
            f"{name}: {key} is {value!r}, which must be a whole number from 1; give the config.json of a decoder",
        )
    return value
