"""What a run hands on of its base model's answers, and takes over from an earlier run.

Invariant: an entry is used only for the same weights under the same protocol, and only if it fits the questions at hand
exactly; anything else is left alone with a word, and the base model is measured.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from rft_trainer.evaluate.measured import Measured
from rft_trainer.packed_answers import deflated_of, text_of
from rft_trainer.stage_results import BaseAnswers, KeptBaseAnswers

MOST_BYTES = 65_536
"""Of an entry; one in a ConfigMap is far smaller."""


def key_of(model: str, protocol: Mapping[str, object]) -> str:
    """The name of an entry."""
    return hashlib.sha256(json.dumps([model, protocol], sort_keys=True).encode()).hexdigest()[:40]


def to_hand_on(key: str, found: Measured) -> BaseAnswers | None:
    """The entry of a complete measurement; None where it is too large to be handed on."""
    packed = _packed(found.rights, samples=found.samples)
    if not found.complete or len(packed) > 8_192:
        return None
    return BaseAnswers(
        key=key,
        questions=found.asked,
        samples=found.samples,
        rights=packed,
        no_answer=found.no_answer,
        capped=found.capped,
        thinking_tokens=found.thinking_tokens,
    )


def taken_over(directory: Path, key: str, *, questions: int, samples: int) -> Measured | None:
    """The entry of an earlier run; None where there is none that fits."""
    path = directory / key
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return None
        kept = KeptBaseAnswers.model_validate_json(path.read_bytes())
        it = kept.answers
        rights = _rights(it, key=key, questions=questions, samples=samples)
    except (OSError, ValueError) as error:
        sys.stdout.write(f"base model: the answers kept as {key} cannot be used ({error}); it is measured\n")
        return None
    return Measured(
        rights=rights,
        samples=samples,
        asked=questions,
        no_answer=it.no_answer,
        capped=it.capped,
        thinking_tokens=it.thinking_tokens,
        measured_by=kept.measured_by,
    )


def _rights(it: BaseAnswers, *, key: str, questions: int, samples: int) -> tuple[int, ...]:
    if (it.key, it.questions, it.samples) != (key, questions, samples):
        raise ValueError("it is of other questions")
    return _unpacked(it.rights, questions=questions, samples=samples)


def _packed(rights: Sequence[int], *, samples: int) -> str:
    width = _width(samples)
    number = 0
    for right in reversed(rights):
        number = number << width | right
    size = (len(rights) * width + 7) // 8
    return text_of(number.to_bytes(size, "little"))


def _unpacked(text: str, *, questions: int, samples: int) -> tuple[int, ...]:
    width = _width(samples)
    size = (questions * width + 7) // 8
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(deflated_of(text), size + 1)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"it cannot be unpacked: {error}") from error
    if len(raw) != size or not unpacker.eof:
        raise ValueError("it is not of as many questions as it says")
    bits = "".join(f"{byte:08b}"[::-1] for byte in raw)
    rights = tuple(int(bits[at : at + width][::-1], 2) for at in range(0, questions * width, width))
    if max(rights) > samples:
        raise ValueError("a question has more right answers than answers")
    return rights


def _width(samples: int) -> int:
    return samples.bit_length()
