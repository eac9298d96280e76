"""The project's Markdown: its files, its links, its blocks of code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
        ROOT / "helm" / "rft-operator" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
)
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<body>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL
)
NEEDS = re.compile(r"<!-- needs: (?P<what>[a-z-]+) -->\s*$")
LINK = re.compile(r"(?<!\!)\[[^\]]+\]\((?P<target>[^)\s]+)\)")
IMAGE = re.compile(r"\!\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block."""

    page: str
    """Path in the repository."""
    line: int
    language: str
    body: str
    needs: str | None
    """What the mark in front of it says."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    """Return the path of a page in the repository."""
    return str(page.relative_to(ROOT))


def blocks() -> Iterator[Block]:
    """Yield the fenced blocks of all pages."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in FENCE.finditer(text):
            before = NEEDS.search(text[: found.start()])
            indent = found["indent"]
            yield Block(
                page=name_of(page),
                line=text.count("\n", 0, found.start()) + 1,
                language=found["language"].strip(),
                body="".join(line.removeprefix(indent) for line in found["body"].splitlines(keepends=True)),
                needs=before["what"] if before else None,
            )


def targets(page: Path) -> Iterator[str]:
    """Yield the relative links of a page, without their anchors; code is no link."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for pattern in (LINK, IMAGE):
        for found in pattern.finditer(text):
            path = found["target"].partition("#")[0]
            if path and "://" not in path and not path.startswith("mailto:"):
                yield path
