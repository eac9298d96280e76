"""The documentation is a site without a broken link, and its pages find each other in the repository, too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.markdown import PAGES, ROOT, name_of, targets

CHECKOUT_ONLY = "../shared"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    return out


def test_site_has_every_page_when_it_is_built_strictly(site: Path) -> None:
    built = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    docs = ROOT / "docs"
    for page in docs.rglob("*.md"):
        place = str(page.relative_to(docs).with_suffix(".html")).replace("README.html", "index.html")
        assert place in built
    assert {"reference/chart.html", "contributing.html", "changelog.html"} <= built


def test_site_has_every_runbook_in_its_nav(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs" / "runbooks").glob("Rft*.md"):
        assert f'href="runbooks/{page.stem}.html"' in home


def test_site_serves_the_examples_and_fetches_nothing_from_elsewhere(site: Path) -> None:
    assert (site / "examples" / "kueue.yaml").read_text() == (ROOT / "examples" / "kueue.yaml").read_text()
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text("utf-8"))
        assert not loaded, page.name


def test_site_says_what_a_command_needs(site: Path) -> None:
    assert "<em>Needs a cluster with GPUs:</em>" in (site / "install.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_a_page_lead_to_files_of_the_repository(page: Path) -> None:
    broken = [target for target in targets(page) if not (page.parent / target).exists()]
    assert not broken
    assert not any(target.startswith(CHECKOUT_ONLY) for target in targets(page))
