"""Loading the libraries of a stage, seconds of every start, without what needs not be.

Invariant: nothing is loaded that the stage would not load itself, a little later.
"""

from __future__ import annotations

import atexit
import gc
import sys
from importlib import import_module


def load_libraries(*names: str) -> None:
    """Import modules with Python's collector off, and leave what they made out of its later walks.

    Half a million objects that stay are walked again and again while they are made: a fifth of the time of torch,
    DeepSpeed and transformers. In a training each later walk over them would hold up one rank, and so all.
    """
    if all(name in sys.modules for name in names):
        return  # what was made since may be litter, and must stay within the collector's reach
    gc.disable()
    try:
        for name in names:
            import_module(name)
    finally:
        gc.enable()
    gc.freeze()
    atexit.register(gc.unfreeze)  # else libraries in C++ tell, at the end of the log, of all that they think is lost
