"""Which dashboards the committed pictures were drawn from: a test tells when they are of others than those shipped."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from support.dashboards import FOLDER as DASHBOARDS

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "img"
STAMP = FOLDER / "dashboards.json"


def digests() -> dict[str, str]:
    """Return the shipped dashboards' SHA-256 by file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(DASHBOARDS.glob("*.json"))}


def write_stamp(*boards: str) -> None:
    """Put on record what these dashboards' pictures were drawn from."""
    found = digests()
    before = json.loads(STAMP.read_text(encoding="utf-8")) if STAMP.is_file() else {}
    drawn = {name: digest for name, digest in found.items() if name.removesuffix(".json") in boards}
    kept = {name: digest for name, digest in before.items() if name in found}
    STAMP.write_text(json.dumps(dict(sorted({**kept, **drawn}.items())), indent=1) + "\n", encoding="utf-8")
