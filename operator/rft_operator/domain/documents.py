"""YAML as users write it.

Invariant: nothing that was written is left out: of a key that is there twice the one would be taken, the other be
ignored, and nobody knows which was meant.
"""

from __future__ import annotations

from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, as kubectl does."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in seen:
                    words = f"{key.value} is there twice; keep the one that is meant"
                    raise yaml.composer.ComposerError("in the mapping", node.start_mark, words, key.start_mark)
                seen.add(key.value)
        return node


def documents(text: str) -> list[Any]:
    """Return what the documents of a text hold, empty ones left out; raises YAMLError, ValueError, RecursionError."""
    return [each for each in yaml.load_all(text, Loader=_Loader) if each is not None]
