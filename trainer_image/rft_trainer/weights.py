"""What tells the files of a model from others: a hash over every byte, computed once and kept beside them.

Invariant: equal hashes mean equal names and contents. What is kept is believed only while size, modification and change
time of the file are those it was computed at; the change time cannot be set back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rft_trainer.files import read_json, write_json
from rft_trainer.hub import RECORD

INDEX = "model.safetensors.index.json"
KEPT = ".rft-hashes.json"
VERSION = 1
CHUNK_BYTES = 64 << 20
"""Hashed alone, so that one large file keeps all cores busy; a file's hash is that of its chunks' hashes."""
READ_BYTES = 4 << 20
MOST_THREADS = 32

Stamp = list[int]
"""Size, modification time and change time, in bytes and nanoseconds."""


def weight_files(model: Path) -> list[Path]:
    """The files that the model library reads the weights from: its one file, or those that its index names, in order.

    What is beside them is not read: Mistral's repositories have the whole model once more, for another library.
    """
    whole, index = model / "model.safetensors", read_json(model / INDEX)
    if whole.is_file():
        return [whole]
    named = index.get("weight_map") if isinstance(index, dict) else None
    if isinstance(named, dict) and named:
        return [model / name for name in sorted({str(name) for name in named.values()})]
    return sorted(model.glob("*.safetensors"))


def fingerprint(model: Path) -> str:
    """What tells these weights and this tokenizer from others: the hub's commit, or a hash of all bytes of the files.

    Prepare has computed the base model's hash, so that no GPU waits for it.
    """
    record = read_json(model / RECORD)
    if isinstance(record, dict) and record.get("whole") is True and isinstance(record.get("request"), dict):
        return f"hub:{record['request'].get('target')}@{record.get('commit')}"
    return f"files:{hash_folder(model)}"


def hash_folder(folder: Path) -> str:
    """The hash of all files of a model; hidden ones are ours or the hub's, and left out."""
    files = {str(path.relative_to(folder)): path for path in _files(folder)}
    kept = _kept(folder)
    stamps = {name: _stamp(path) for name, path in files.items()}
    known = {name: kept[name][1] for name, stamp in stamps.items() if name in kept and kept[name][0] == stamp}
    missing = [name for name in files if name not in known]
    known |= dict(zip(missing, _hashed([files[name] for name in missing]), strict=True))
    unchanged = {name: stamp for name, stamp in stamps.items() if _stamp(files[name]) == stamp}
    if missing:
        rows = {name: [stamp, known[name]] for name, stamp in unchanged.items()}
        with contextlib.suppress(OSError):  # a volume that is mounted to be read: computed anew next time
            write_json(folder / KEPT, {"version": VERSION, "files": rows})
    lines = "".join(f"{name}\0{stamps[name][0]}\0{known[name]}\n" for name in sorted(known))
    return hashlib.sha256(lines.encode()).hexdigest()


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _kept(folder: Path) -> dict[str, tuple[Stamp, str]]:
    """What an earlier look computed; nothing where that cannot be read."""
    raw = read_json(folder / KEPT)
    if not isinstance(raw, dict) or raw.get("version") != VERSION or not isinstance(raw.get("files"), dict):
        return {}
    return {
        name: (row[0], row[1])
        for name, row in raw["files"].items()
        if isinstance(row, list) and len(row) == 2 and isinstance(row[0], list) and isinstance(row[1], str)
    }


def _hashed(paths: Iterable[Path]) -> Iterator[str]:
    """The hashes of files, in order."""
    files = [(path, range(0, max(1, path.stat().st_size), CHUNK_BYTES)) for path in paths]
    chunks = [(path, start) for path, starts in files for start in starts]
    with ThreadPoolExecutor(max_workers=min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        digests = pool.map(_hashed_chunk, chunks)
        for _, starts in files:
            yield hashlib.sha256(b"".join(next(digests) for _ in starts)).hexdigest()


def _hashed_chunk(chunk: tuple[Path, int]) -> bytes:
    path, start = chunk
    digest, buffer, left = hashlib.sha256(), bytearray(READ_BYTES), CHUNK_BYTES
    with path.open("rb", buffering=0) as stream:
        stream.seek(start)
        while left > 0 and (count := stream.readinto(memoryview(buffer)[: min(left, READ_BYTES)])):
            digest.update(memoryview(buffer)[:count])
            left -= count
    return digest.digest()
