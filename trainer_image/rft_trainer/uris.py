"""The URIs of models, datasets and benchmarks.

Invariant: every option of a ``gym://`` or ``init://`` URI is read here once, typed; an unknown scheme or a bad option
is the user's error and names itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from rft_trainer.errors import BadInputError
from rft_trainer.paths import Layout

OptionValue = int | float | bool | str


@dataclass(frozen=True)
class Uri:
    """A parsed URI: scheme, what follows it, and its typed options."""

    text: str
    scheme: str
    target: str
    options: Mapping[str, OptionValue] = field(default_factory=dict)

    def integer(self, name: str, *, default: int, minimum: int = 0) -> int:
        """An option that must be a whole number."""
        value = self.options.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise BadInputError(f"{self.text}: option {name}={value!r} must be a whole number of at least {minimum}")
        return value

    def allow_only(self, names: frozenset[str]) -> None:
        """Raise when an option is not one of ``names``."""
        unknown = sorted(set(self.options) - names)
        if unknown:
            raise BadInputError(f"{self.text}: unknown option {unknown[0]!r}; known are {', '.join(sorted(names))}")


def parse_uri(text: str) -> Uri:
    """Parse ``scheme://target?key=value``; values that look like numbers or booleans become such."""
    scheme, separator, rest = text.partition("://")
    if not separator or not rest:
        raise BadInputError(f"{text!r}: is not a URI; write hf://, pvc://, file://, configmap://, gym:// or init://")
    if scheme not in {"gym", "init"}:
        return Uri(text=text, scheme=scheme, target=unquote(rest))
    target, _, query = rest.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    options = {name: _typed(value) for name, value in pairs}
    if len(options) < len(pairs):
        raise BadInputError(f"{text}: has an option twice; give each once")
    return Uri(text=text, scheme=scheme, target=target, options=options)


def _typed(value: str) -> OptionValue:
    if value.lower() in {"true", "false"}:
        return value.lower() == "true"
    for convert in (int, float):
        try:
            return convert(value)
        except ValueError:
            continue
    return value


def local_path(uri: Uri, layout: Layout) -> Path | None:
    """Where a ``file://``, ``pvc://`` or ``configmap://`` URI lies in this pod; None for the other schemes."""
    if uri.scheme == "file":
        path = layout.real(uri.target if uri.target.startswith("/") else f"/{uri.target}")
    elif uri.scheme == "pvc":
        claim, _, inside = uri.target.partition("/")
        path = layout.claim(claim, inside)
    elif uri.scheme == "configmap":
        name, _, key = uri.target.partition("/")
        path = layout.config_map(name, key)
    else:
        return None
    if not path.exists():
        raise BadInputError(f"{uri.text}: {path} does not exist; check the path and that the volume is mounted")
    return path
