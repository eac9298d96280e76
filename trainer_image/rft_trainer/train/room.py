"""Says that a volume is full where a library's own words do not.

Invariant: an error is explained by a full volume only where the volume is full; any other one passes unchanged.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rft_trainer.errors import StageError

FULL_BYTES = 256 << 20
"""With less than that free, a write of a large tensor that failed has failed for want of room."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(directory: Path) -> bool:
    """Whether there is next to no room on the volume."""
    try:
        return shutil.disk_usage(directory).free < FULL_BYTES
    except OSError:
        return False


@contextmanager
def room_explained(path: Path) -> Iterator[None]:
    """While a checkpoint is written at ``path``: torch tells of a full volume as of wrong positions in a file."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if getattr(error, "errno", None) in _NO_ROOM or is_full(path.parent):
            raise StageError(
                f"checkpoint {path.name}: the volume is full; it needs room for checkpoint.keepLast checkpoints and one"
                " more, the base model and the export: enlarge the claim, or lower checkpoint.keepLast"
            ) from error
        raise
