"""Lets the loss of a training hold few logits at once: for a process that has this folder on its PYTHONPATH.

A vocabulary that needs more than one part is too large for a quick test. ``RFT_TEST_CHUNKED`` names a file that is
there once the loss was changed, so that a test sees that it was.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

LOSS = "rft_trainer.train.loss"
ROWS = 8


class _SmallChunks(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != LOSS:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_change(module: Any) -> None:
            execute(module)
            assert module.CHUNK_ELEMENTS > module.LEAST_ROWS > ROWS
            module.CHUNK_ELEMENTS, module.LEAST_ROWS = 1, ROWS
            Path(os.environ["RFT_TEST_CHUNKED"]).touch()

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _SmallChunks())
