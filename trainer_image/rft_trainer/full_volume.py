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
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(directory: Path) -> bool:
    """Whether there is next to no room on the volume."""
    try:
        return shutil.disk_usage(directory).free < FULL_BYTES
    except OSError:
        return False


@contextmanager
def room_explained(directory: Path, *, what: str) -> Iterator[None]:
    """While something large is written below ``directory``.

    Torch tells of a full volume as of wrong positions in a file, and safetensors has an error of its own.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        number = getattr(error, "errno", None)
        if number in NO_ROOM or (number is None and is_full(directory)):
            raise StageError(
                f"{what}: the volume is full; it needs room for checkpoint.keepLast checkpoints and one more, the base "
                "model and the export: enlarge the claim, or lower checkpoint.keepLast"
            ) from error
        raise
