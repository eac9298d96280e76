"""Small files that readers may see at any moment.

Invariant: a reader sees the old content or the new content, never a part: write beside, flush to disk, rename.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

LEADS_NOWHERE = "is a link to a file that is not there; copy the files that links lead to (cp -rL)"


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace ``path`` with ``content`` in one step; makes missing directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = content.encode() if isinstance(content, str) else content
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` with ``value`` as JSON in one step."""
    write_atomic(path, json.dumps(value, sort_keys=True) + "\n")


def read_json(path: Path) -> Any | None:
    """The JSON in ``path``, or None when it is absent or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def leads_nowhere(path: Path) -> bool:
    """Whether a path is a link to nothing: a hub's cache was copied without the files that its links lead to."""
    return path.is_symlink() and not path.exists()


def flush_directory(path: Path) -> None:
    """Have the files below a directory, and their names, on the disk."""
    for file in (*path.rglob("*"), path):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def publish_directory(temporary: Path, final: Path) -> None:
    """Move a finished directory into place; an older one of the same name goes away.

    A node may lose its power right after: what is in place is on its disk.
    """
    flush_directory(temporary)
    stale = final.with_name(f".{final.name}.stale")
    shutil.rmtree(stale, ignore_errors=True)
    if final.exists():
        final.rename(stale)
    temporary.rename(final)
    shutil.rmtree(stale, ignore_errors=True)


def fresh_directory(path: Path) -> Path:
    """An empty directory at ``path``; what was there is removed."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
