"""Whether the volume holds what the training will write, before a GPU is held.

Invariant: only what cannot succeed is refused. Counted are the saves that are sure to come, at the least they take; a
file system that does not say how large it is is believed to be large enough.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from rft_trainer.contract import RunConfig
from rft_trainer.errors import BadInputError
from rft_trainer.paths import RunPaths

SAVED_BYTES = 12
"""Of a parameter in a checkpoint: weight and both moments of Adam in fp32 (ZeRO, arXiv 1910.02054, section 3.1)."""
EXPORTED_BYTES = 2
"""Of a parameter in the export: bf16."""
_UNITS = ("MB", "GB", "TB")


def check_volume(config: RunConfig, paths: RunPaths, *, parameters: int, steps: int) -> None:
    """Raise :class:`BadInputError` when the run's volume is too small for ``steps`` steps of all ``parameters``.

    Checkpoints of adapters are small, and not looked at. What a former training of this run left on the volume is
    counted as room: its checkpoints make way.
    """
    if config.training.lora is not None:
        return
    usage = shutil.disk_usage(paths.data)
    if usage.total == 0:
        return
    kept, every = config.checkpoint.keep_last, config.checkpoint.every_steps
    saves = 1 + ((steps - 1) // every if every is not None else 0)
    checkpoint, export = SAVED_BYTES * parameters, EXPORTED_BYTES * parameters
    together = min(saves, kept + 1)
    needed = max(together * checkpoint, min(saves, kept) * checkpoint + export)
    room = usage.free + _bytes_in(paths.checkpoints) + _bytes_in(paths.export)
    if needed <= room:
        return
    fewer = ", or lower checkpoint.keepLast" if together > 2 else ""
    raise BadInputError(
        f"the volume has room for {_text(room)}, and training writes {_text(needed)} at the least: a checkpoint of "
        f"{parameters:,} parameters takes {_text(checkpoint)}, {together} of them are there at once, the export takes "
        f"{_text(export)}; give the run a larger volume (storage.size, storage.claimName){fewer}"
    )


def _bytes_in(directory: Path) -> int:
    return sum(each.stat().st_size for each in directory.rglob("*") if each.is_file())


def _text(size: int) -> str:
    value = size / 1e6
    for unit in _UNITS:
        if value < 1_000 or unit == _UNITS[-1]:
            break
        value /= 1_000
    return f"{value:,.1f} {unit}"
