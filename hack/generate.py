"""Writes every file that is generated from the code; with ``--check`` it writes none and exits with 1 if one is stale.

Usage: python hack/generate.py [--check]

Each generator is a pure function from the repository's root to paths and texts; here alone files are compared and
written. The chart's rendering is Helm's: hack/render.sh.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import values_reference

from rft_monitoring import boards
from rft_operator import metrics_reference
from rft_operator.api import crd
from rft_operator.cli import reference

ROOT = Path(__file__).resolve().parents[1]
GENERATORS: tuple[Callable[[Path], dict[Path, str]], ...] = (
    crd.outputs,
    reference.outputs,
    metrics_reference.outputs,
    boards.outputs,
    values_reference.outputs,
)


def stale(root: Path) -> dict[Path, str]:
    """Return the files that are not what the code says, with what it says."""
    files = {path: text for generate in GENERATORS for path, text in generate(root).items()}
    return {
        path: text for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    }


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write the files that are stale, or with ``--check`` name them."""
    if unknown := [each for each in arguments if each != "--check"]:
        sys.stderr.write(f"error: {unknown[0]}: the only option is --check\n")
        return 2
    found = stale(root)
    for path, text in found.items():
        name = path.relative_to(root)
        if arguments:
            sys.stderr.write(f"error: {name} differs from the code that it is generated from; run: make generate\n")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {name}\n")
    return 1 if arguments and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
