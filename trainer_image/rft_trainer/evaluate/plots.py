"""Leaves pictures of the curves beside ``results.json``.

Invariant: they repeat what that file says and add nothing, so an evaluation never fails for want of one; no picture
stays that the results do not have any more.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rft_trainer.files import write_atomic
from rft_trainer.publish.plot import scaling_plot

PLOTS = "plots"
ALL_BENCHMARKS = "scaling.svg"


def write_plots(curves: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Draw the curves of ``results.json``, accuracy against thinking tokens: all together, and each benchmark's."""
    names = dict.fromkeys(str(each["benchmark"]) for each in curves)
    wanted = {ALL_BENCHMARKS: list(curves)}
    wanted |= {f"scaling-{name}.svg": [each for each in curves if each["benchmark"] == name] for name in names}
    try:
        pictures = {name: text for name, of in wanted.items() if (text := scaling_plot(of)) is not None}
        place = folder / PLOTS
        for old in place.glob("scaling*.svg"):
            if old.name not in pictures:
                old.unlink()
        for name, text in pictures.items():
            write_atomic(place / name, text)
    except (OSError, ArithmeticError, LookupError, ValueError) as error:
        sys.stderr.write(f"plots: not drawn ({error}); the results are whole without them\n")
