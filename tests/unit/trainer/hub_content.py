"""A model at the hub, and what of it arrives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import safetensors.numpy

from rft_trainer.hub import MODEL_FILES, download

MODEL = {
    "README.md": b"---\nlicense: apache-2.0\n---\n",
    "pytorch_model.bin": b"not wanted",
    "config.json": b'{"model_type": "qwen2"}',
    "model.safetensors": safetensors.numpy.save({"weights.of.the.first": numpy.ones(250, dtype=numpy.float32)}),
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b'{"a": 1}',
}


def files(directory: Path) -> dict[str, bytes]:
    """What lies in a directory, but for hidden files."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    found = {str(path.relative_to(directory)): path.read_bytes() for path in paths}
    return {name: data for name, data in found.items() if not name.startswith(".")}


def wanted(content: dict[str, bytes]) -> dict[str, bytes]:
    """What of a repository is fetched."""
    return {name: data for name, data in content.items() if not name.endswith(".bin")}


def lines(*rows: object) -> bytes:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def get_model(target: str, directory: Path, *, revision: str | None = None) -> Path:
    """Fetch a model into a directory."""
    return download(target, directory, kind="model", patterns=MODEL_FILES, revision=revision)
