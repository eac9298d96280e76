"""All files of a published model, and one list of them with their hashes.

Invariant: the list is made from content alone, so that the same run gives the same list, and a place that has it has
the model whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rft_trainer.paths import RunPaths
from rft_trainer.publish.card import PLOT_FILE, PROTOCOL_FILE, RESULTS_FILE, model_card
from rft_trainer.publish.eval_results import eval_results
from rft_trainer.publish.plot import scaling_plot
from rft_trainer.publish.story import EXPORT_MARKER, Story

LIST_FILE = "rft-published.json"
LIST_VERSION = 1


@dataclass(frozen=True)
class Bundle:
    """Files by their path in the repository, in order; content, or where it is."""

    files: Mapping[str, Path | bytes]

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file: gigabytes are read, once."""
        return {name: _sha256(content) for name, content in self.files.items()}

    @cached_property
    def list_file(self) -> bytes:
        """The list, which is published last."""
        return (json.dumps({"version": LIST_VERSION, "files": self.hashes}, indent=1, sort_keys=True) + "\n").encode()

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file."""
        return {
            name: len(each) if isinstance(each, bytes) else each.stat().st_size for name, each in self.files.items()
        }

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes.values())


def listed(content: bytes | None) -> dict[str, str] | None:
    """The hashes of a list that was published before; None where there is none that can be read."""
    try:
        found = json.loads(content or b"")
        return {str(name): str(value) for name, value in found["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def make_bundle(story: Story, paths: RunPaths, *, repository: str | None) -> Bundle:
    """Put together what is published; ``repository`` is the hub's name for it, where it has one."""
    files: dict[str, Path | bytes] = {
        str(path.relative_to(story.export)): path
        for path in sorted(story.export.rglob("*"))
        if path.is_file() and path.name != EXPORT_MARKER and not path.name.startswith(".")
    }
    plot = scaling_plot((story.results or {}).get("scaling", ()))
    if plot is not None:
        files[PLOT_FILE] = plot.encode()
    if story.results is not None:
        for name, file in ((RESULTS_FILE, "results.json"), (PROTOCOL_FILE, "protocol.json")):
            if (paths.evaluation / file).is_file():
                files[name] = paths.evaluation / file
    files |= eval_results(story, repository=repository)
    files["README.md"] = model_card(story, has_plot=plot is not None).encode()
    return Bundle(dict(sorted(files.items())))


def _sha256(content: Path | bytes) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
