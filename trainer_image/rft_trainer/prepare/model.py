"""Puts the base model on the volume.

Invariant: ``<data>/model`` appears whole or not at all, in safetensors with its tokenizer; it is never written again
(but for the hashes beside it, rft_trainer.weights), for it is also the baseline of the evaluation.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rft_trainer.contract import LoraConfig, ModelSource
from rft_trainer.errors import BadInputError
from rft_trainer.files import LEADS_NOWHERE, fresh_directory, leads_nowhere, publish_directory, read_json
from rft_trainer.hub import MODEL_FILES, download
from rft_trainer.paths import Layout
from rft_trainer.prepare.chat import EncodedRow
from rft_trainer.prepare.tiny import build_model
from rft_trainer.uris import local_path, parse_uri
from rft_trainer.weights import INDEX, weight_files

_POINTER = b"version https://git-lfs"
Value = TypeVar("Value")
_PLAIN_NUMBERS = frozenset({"BF16", "F16", "F32", "F64"})


def fetch_model(
    source: ModelSource, layout: Layout, destination: Path, *, texts: Sequence[str], seed: int, max_sequence_length: int
) -> None:
    """Make ``destination`` hold the model; does nothing when it is there. ``texts`` feed ``init://``'s tokenizer."""
    if destination.is_dir():
        return
    uri = parse_uri(source.uri)
    temporary = destination.with_name(f".{destination.name}.part")
    if uri.scheme == "hf":
        download(uri.target, temporary, kind="model", patterns=MODEL_FILES, revision=source.revision)
    elif uri.scheme == "init":
        fresh_directory(temporary)
        build_model(uri, temporary, texts=texts, seed=seed, max_sequence_length=max_sequence_length)
    else:
        path = local_path(uri, layout)
        if path is None or not path.is_dir():
            raise BadInputError(f"model.uri {source.uri!r}: must be a directory with config.json and *.safetensors")
        fresh_directory(temporary)
        for pattern in MODEL_FILES:
            for file in sorted(path.glob(pattern)):
                if leads_nowhere(file):
                    raise BadInputError(f"model.uri {source.uri!r}: {file.name} {LEADS_NOWHERE}")
                if file.is_file():
                    shutil.copyfile(file, temporary / file.name)
    _check(temporary, source=source)
    for unread in set(temporary.glob("*.safetensors")) - set(weight_files(temporary)):
        unread.unlink()
    publish_directory(temporary, destination)


def _check(path: Path, *, source: ModelSource) -> None:
    if not (path / "config.json").is_file():
        raise BadInputError(f"model.uri {source.uri!r}: has no config.json; it must be a Hugging Face model directory")
    if not any(path.glob("*.safetensors")):
        raise BadInputError(f"model.uri {source.uri!r}: has no *.safetensors; convert the weights first")
    index = read_json(path / INDEX)
    wanted = set(index.get("weight_map", {}).values()) if isinstance(index, dict) else set()
    missing = sorted(str(name) for name in wanted if not (path / str(name)).is_file())
    if missing:
        raise BadInputError(
            f"model.uri {source.uri!r}: {len(missing)} of its {len(wanted)} files of weights are missing, the first is "
            f"{missing[0]}; copy all of them"
        )
    try:
        _shapes(path)
    except BadInputError as error:
        raise BadInputError(f"model.uri {source.uri!r}: {error}") from error


def load_tokenizer(path: Path) -> Any:
    """The tokenizer in a model directory; raises :class:`BadInputError` when there is none.

    Where its files are missing the library makes one of the marks alone, which would read every text as nothing.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:  # the library's parts raise what they like, one of them a plain Exception
        raise BadInputError(f"model: its tokenizer cannot be loaded ({error})") from error
    marks = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
    if set(tokenizer.get_vocab()) <= marks:
        raise BadInputError(
            f"model: its tokenizer has no token but {len(marks)} marks; copy the file of its vocabulary, too "
            "(tokenizer.json, or tokenizer.model, vocab.json and merges.txt)"
        )
    return tokenizer


def count_parameters(path: Path) -> int:
    """Parameters stored in a model directory; tied weights are stored once."""
    return sum(math.prod(shape) for shape in _shapes(path).values())


def check_trainable(
    path: Path, lora: LoraConfig | None, *, packing: bool = False, gradient_checkpointing: bool = False
) -> None:
    """Raise :class:`BadInputError` for what no rank could train, or train rightly, here where no GPU is held.

    It is an architecture that is not known or has experts, weights that are not those of config.json or are quantised,
    adapters of no layer, rows packed for a model that would mix them, activations that it cannot compute again, and an
    output that the loss does not know.
    """
    from rft_trainer.train.adapter import check_targets
    from rft_trainer.train.batch import check_packing
    from rft_trainer.train.loss import check_logits
    from rft_trainer.train.weights import check_shapes, skeleton

    _check_quantisation(path)
    model = skeleton(path)
    _check_dense(model)
    files = _each(path, lambda tensor: (list(tensor.get_shape()), str(tensor.get_dtype())))
    check_shapes(model, {name: shape for name, (shape, _) in files.items()})
    _check_numbers({name: files[name][1] for name, _ in model.named_parameters()})
    if lora is not None:
        check_targets(model, lora)
    if packing:
        check_packing(model)
    if gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise BadInputError(
            f"training.gradientCheckpointing: models of type {model.config.model_type} cannot compute activations "
            "again; set it to false"
        )
    check_logits(model)


def _check_dense(model: Any) -> None:
    """Raise :class:`BadInputError` for experts: the loss that keeps them in balance is not part of ours."""
    experts = next((name for name, _ in model.named_modules() if name.rpartition(".")[2] == "experts"), None)
    if experts is not None:
        raise BadInputError(
            f"model: {experts} are experts, and mixtures of experts cannot be trained here; use a dense model"
        )


def _check_quantisation(path: Path) -> None:
    """Raise :class:`BadInputError` for quantised weights: without their scales they are other numbers."""
    config = read_json(path / "config.json")
    settings = config.get("quantization_config") if isinstance(config, dict) else None
    if isinstance(settings, dict):
        raise _quantised(str(settings.get("quant_method", "quantization_config")))


def _check_numbers(kinds: Mapping[str, str]) -> None:
    """The same by the files, where config.json says nothing of it; a mask beside the weights may be of any kind."""
    for name, kind in kinds.items():
        if kind not in _PLAIN_NUMBERS:
            raise _quantised(f"{name} is {kind}")


def _quantised(how: str) -> BadInputError:
    return BadInputError(
        f"model: its weights are quantised ({how}), and only bf16, fp16 and fp32 can be trained; name the model that "
        "has them so"
    )


def check_rows(path: Path, rows: Sequence[EncodedRow]) -> None:
    """Raise :class:`BadInputError` for tokens that the model does not have, and for rows that are longer than it.

    With learned positions no rank could take them, and with rotary ones the trained model would be served with less.
    """
    from transformers import AutoConfig

    from rft_trainer.evaluate.transformers_sampler import positions_of, rotary_types

    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    known, highest = config.get_text_config().vocab_size, max(int(row.tokens.max()) for row in rows)
    if highest >= known:
        raise BadInputError(
            f"model: its tokenizer gives the rows token {highest}, and the model knows those below {known}; name the "
            "tokenizer that it was trained with, or a model whose embedding was made larger for it"
        )
    held, longest = positions_of(config), max(len(row.tokens) for row in rows)
    scaled = rotary_types(config) - {"default"}
    if held is not None and not scaled and longest > held:
        raise BadInputError(
            f"model: holds {held} tokens, and a row has {longest}; set training.maxSequenceLength to {held} "
            "or less, then longer rows are dropped whole, or name a copy whose config.json says how it holds more "
            "(max_position_embeddings, rope_parameters)"
        )


def _shapes(path: Path) -> dict[str, list[int]]:
    return _each(path, lambda tensor: list(tensor.get_shape()))


def _each(path: Path, look: Callable[[Any], Value]) -> dict[str, Value]:
    """What the files say of every tensor, by its name; none is read."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, Value] = {}
    for file in weight_files(path):
        try:
            with safe_open(file, framework="numpy") as tensors:
                names = tensors.keys()  # the file itself cannot be iterated over
                found.update({name: look(tensors.get_slice(name)) for name in names})
        except SafetensorError as error:
            raise BadInputError(f"{file.name} {_what_it_is(file, error)}") from error
    return found


def _what_it_is(file: Path, error: Exception) -> str:
    with file.open("rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            return "is a pointer of Git LFS in place of the weights; run git lfs pull where it was copied from"
    return f"is no whole file of weights ({error}); copy it again"
