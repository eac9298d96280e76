"""The run card: all that a run depends on, so that it can be replayed from the card alone.

Invariant: every value is the one in effect, not the one asked for; what could differ elsewhere has a version or a hash.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rft_trainer.contract import RunConfig
from rft_trainer.files import read_json
from rft_trainer.hub import RECORD
from rft_trainer.paths import RunPaths
from rft_trainer.prepare.dataset import PreparedDataset
from rft_trainer.train.kernels import Kernels

HASHED_BYTES = 2**30
"""Larger files are named with their size alone: GPUs do not wait for hashes of weights."""
LIBRARIES = (
    "torch", "deepspeed", "transformers", "peft", "tokenizers", "safetensors", "numpy", "flash-attn", "liger-kernel",
)  # fmt: skip


def run_card(
    config: RunConfig,
    paths: RunPaths,
    dataset: PreparedDataset,
    *,
    deepspeed: Mapping[str, Any],
    kernels: Kernels,
    world_size: int,
) -> dict[str, Any]:
    """The card of this attempt; rank 0 makes it."""
    cuda = torch.cuda.is_available()
    return {
        "version": 1,
        "run": config.model_dump(mode="json"),
        "deepspeed": dict(deepspeed),
        "model": {
            "uri": config.model.uri,
            "revision": config.model.revision,
            "commit": _commit(paths.model),
            "files": _files(paths.model),
        },
        "data": {
            "uri": config.dataset.uri,
            "revision": config.dataset.revision,
            "commit": _commit(paths.source),
            "source_files": _files(paths.source),
            "files": _files(paths.dataset),
            "sha256": dataset.sha256,
            "rows": dataset.rows,
            "sequences": len(dataset),
        },
        "ranks": world_size,
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "kernels": {"attention": kernels.attention, "liger": kernels.liger},
        "trainer_sha256": _source_sha256(),
        "versions": {
            "python": platform.python_version(),
            "cuda": torch.version.cuda,
            **{name: version for name in LIBRARIES if (version := _version(name)) is not None},
        },
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(directory: Path) -> str | None:
    """The hub's commit that a directory was fetched from."""
    record = read_json(directory / RECORD)
    return record.get("commit") if isinstance(record, dict) else None


def _files(directory: Path) -> dict[str, str | int]:
    """Every file with its SHA-256, or its size; hidden files are notes of ours."""
    return {
        str(path.relative_to(directory)): _sha256(path) if path.stat().st_size <= HASHED_BYTES else path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _source_sha256() -> str:
    """One hash of this package's source, for it has no version of its own."""
    package = Path(__file__).parents[1]
    names = sorted(str(path.relative_to(package)) for path in package.rglob("*.py"))
    lines = "".join(f"{_sha256(package / name)}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()
