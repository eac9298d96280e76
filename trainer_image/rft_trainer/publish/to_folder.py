"""Publishes into a folder, such as one of a volume.

Invariant: a file appears whole, the list of all last; what is there already is not written again, and a folder that
holds something else is left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from rft_trainer.errors import BadInputError, StageError
from rft_trainer.files import write_atomic
from rft_trainer.publish.bundle import LIST_FILE, Bundle, listed
from rft_trainer.publish.published import Published

_BEGUN = ".rft-publishing"


def publish_to_folder(bundle: Bundle, folder: Path, *, name: str) -> Published:
    """Copy what is not there; raises :class:`BadInputError` where the folder is somebody else's."""
    list_path, begun_path = folder / LIST_FILE, folder / _BEGUN
    begun = begun_path.read_bytes() if begun_path.is_file() else None
    before = listed(list_path.read_bytes() if list_path.is_file() else begun)
    ours = before is not None or begun is not None
    if folder.exists() and any(folder.iterdir()) and not ours:
        raise BadInputError(f"{name}: holds files that no run of ours published; name an empty or a new folder")
    written = 0
    try:
        if before != bundle.hashes or not _is_there(bundle, folder):
            # what there is to be taken away, should this publication be broken off and another model's follow
            write_atomic(begun_path, json.dumps({"files": {**(before or {}), **bundle.hashes}}))
            list_path.unlink(missing_ok=True)
            for path, content in bundle.files.items():
                written += _place(content, folder / path, sha256=bundle.hashes[path])
            for stale in sorted(set(before or ()) - set(bundle.files)):
                (folder / stale).unlink(missing_ok=True)
            write_atomic(list_path, bundle.list_file)
        begun_path.unlink(missing_ok=True)
    except OSError as error:
        raise StageError(f"{name}: cannot be written ({error.strerror or error}); the next attempt goes on") from error
    return Published(uri=name, revision=None, files=len(bundle.files), written=written, size=bundle.size)


def _is_there(bundle: Bundle, folder: Path) -> bool:
    """Whether the folder has the list and every file, in its size: gigabytes are not hashed again for it."""
    return (folder / LIST_FILE).is_file() and all(
        (folder / path).is_file() and (folder / path).stat().st_size == size for path, size in bundle.sizes.items()
    )


def _place(content: Path | bytes, target: Path, *, sha256: str) -> int:
    """Returns 1 when the file had to be written."""
    if target.is_file() and _sha256(target) == sha256:
        return 0
    if isinstance(content, bytes):
        write_atomic(target, content)
        return 1
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    shutil.copyfile(content, temporary)
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(target)
    return 1


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
