"""Loading libraries: the collector rests meanwhile, and only then."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

from rft_trainer.libraries import load_libraries


def test_collector_rests_while_libraries_are_loaded_and_works_again_when_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rests.py").write_text("import gc\nworked = gc.isenabled()\n")
    (tmp_path / "fails.py").write_text("raise RuntimeError('no such driver')\n")
    monkeypatch.syspath_prepend(tmp_path)
    load_libraries("rests")
    assert sys.modules.pop("rests").worked is False
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    with pytest.raises(RuntimeError, match="no such driver"):
        load_libraries("fails")
    assert gc.isenabled()
