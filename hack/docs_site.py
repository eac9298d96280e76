"""Hooks of mkdocs: pages that live outside docs/, links that leave it, runbooks in the nav, and what a command needs.

The Markdown is written for the repository, where a link goes to any file of it. On the site a link to a file that is
published there goes to its page, and a link to any other file of the repository becomes the file's name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
    "helm/rft-operator/README.md": "reference/chart.md",
    **{f"examples/{path.name}": f"examples/{path.name}" for path in sorted((ROOT / "examples").glob("*.yaml"))},
}
"""Files of the repository with their place on the site."""
INLINE_LINK = re.compile(r"(?<!\!)\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)")
NEEDS = re.compile(r"^(?P<indent> *)<!-- needs: (?P<what>[a-z-]+) -->$", re.MULTILINE)
NEEDED = {
    "gpu-cluster": "Needs a cluster with GPUs",
    "cluster": "Needs a cluster with the operator, such as the local one",
    "docker": "Needs Docker or another builder of images, and a registry",
    "root": "Needs Linux and root; minutes, and gigabytes the first time",
    "minutes": "Takes minutes",
    "network": "Needs a package index",
}
"""What may stand in a mark in front of a block of commands, and its words for a reader."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every runbook into the nav."""
    for section in config.nav or ():
        if isinstance(section, dict) and "Runbooks" in section:
            pages = sorted(path.name for path in (ROOT / "docs" / "runbooks").glob("Rft*.md"))
            section["Runbooks"] = ["runbooks/README.md", *(f"runbooks/{name}" for name in pages)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files from outside of docs/."""
    for source, place in OUTSIDE.items():
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links that leave docs/ into links of the site, and marks into words."""
    origin = next((source for source, place in OUTSIDE.items() if place == page.file.src_uri), None)
    source = origin if origin not in (None, "README.md") else f"docs/{page.file.src_uri}"
    here = PurePosixPath(page.file.src_uri)

    def link(found: re.Match[str]) -> str:
        text, target = found["text"], found["target"]
        path, _, anchor = target.partition("#")
        if not path or "://" in target or target.startswith("mailto:"):
            return found[0]
        file = os.path.normpath(PurePosixPath(source).parent / path)
        place = file.removeprefix("docs/") if file.startswith("docs/") else OUTSIDE.get(file)
        if place is None:
            return text if text.startswith("`") else f"{text} (`{file}`)"
        relative = os.path.relpath(place, here.parent)
        return f"[{text}]({relative}{'#' + anchor if anchor else ''})"

    def mark(found: re.Match[str]) -> str:
        return f"{found['indent']}*{NEEDED[found['what']]}:*\n"

    return NEEDS.sub(mark, INLINE_LINK.sub(link, markdown))
