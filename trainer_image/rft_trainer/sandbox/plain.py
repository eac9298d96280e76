"""Values that may cross between a tested function and its judge: plain data, and nothing that has methods of its own.

Invariant: what comes out of :func:`decode` is made here from text; a tested program cannot send an object whose
comparison it wrote itself. Works with the standard library alone, on both sides.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_ITEMS = 1_000_000
"""Of an endless iterator so many are taken; then it is refused."""


class NotPlainError(ValueError):
    """A value that is no plain data."""


def encode(value: object) -> Any:
    """``value`` as what JSON can hold; raises :class:`NotPlainError`."""
    if value is None or isinstance(value, bool):
        return value
    for kind, encoder in _ENCODERS:
        if isinstance(value, kind):
            return encoder(value)
    raise NotPlainError(f"a value of type {type(value).__name__} is no plain data")


def decode(value: Any) -> Any:
    """The value that :func:`encode` was given; raises :class:`NotPlainError` for anything else."""
    if value is None or isinstance(value, bool | str):
        return value
    if not isinstance(value, list) or len(value) != 2 or value[0] not in _DECODERS:
        raise NotPlainError("is not an encoded value")
    try:
        return _DECODERS[value[0]](value[1])
    except (TypeError, ValueError, ArithmeticError) as error:
        raise NotPlainError(f"is not an encoded {value[0]}: {error}") from error


def _items(values: Any) -> list[Any]:
    return [encode(each) for each in values]


def _endless(values: Iterator[object]) -> list[Any]:
    out: list[Any] = []
    for each in values:
        if len(out) >= MAX_ITEMS:
            raise NotPlainError(f"an iterator of more than {MAX_ITEMS} values")
        out.append(encode(each))
    return ["iterator", out]


def _float(value: float) -> list[str]:
    return ["float", value.hex() if math.isfinite(value) else repr(float(value))]


_ENCODERS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, lambda value: ["int", hex(value)]),
    (float, _float),
    (complex, lambda value: ["complex", [_float(value.real), _float(value.imag)]]),
    (list, lambda value: ["list", _items(value)]),
    (tuple, lambda value: ["tuple", _items(value)]),
    (dict, lambda value: ["dict", [[encode(key), encode(each)] for key, each in value.items()]]),
    (set, lambda value: ["set", _items(value)]),
    (frozenset, lambda value: ["frozenset", _items(value)]),
    (bytes, lambda value: ["bytes", value.hex()]),
    (bytearray, lambda value: ["bytearray", value.hex()]),
    (range, lambda value: ["range", [hex(value.start), hex(value.stop), hex(value.step)]]),
    (deque, lambda value: ["deque", _items(value)]),
    (Decimal, lambda value: ["decimal", str(value)]),
    (Fraction, lambda value: ["fraction", [hex(value.numerator), hex(value.denominator)]]),
    (type({}.keys()), lambda value: ["set", _items(value)]),
    (type({}.values()), lambda value: ["list", _items(value)]),
    (type({}.items()), lambda value: ["set", _items(value)]),
    (Iterator, _endless),
)


def _whole(text: Any) -> int:
    return int(str(text), 16)


def _float_of(text: Any) -> float:
    return float(text) if text in ("nan", "inf", "-inf") else float.fromhex(str(text))


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "int": _whole,
    "float": _float_of,
    "complex": lambda parts: complex(decode(parts[0]), decode(parts[1])),
    "list": lambda items: [decode(each) for each in items],
    "tuple": lambda items: tuple(decode(each) for each in items),
    "dict": lambda pairs: {decode(key): decode(each) for key, each in pairs},
    "set": lambda items: {decode(each) for each in items},
    "frozenset": lambda items: frozenset(decode(each) for each in items),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "range": lambda parts: range(*(_whole(each) for each in parts)),
    "deque": lambda items: deque(decode(each) for each in items),
    "decimal": lambda text: Decimal(str(text)),
    "fraction": lambda parts: Fraction(_whole(parts[0]), _whole(parts[1])),
    "iterator": lambda items: iter([decode(each) for each in items]),
}
