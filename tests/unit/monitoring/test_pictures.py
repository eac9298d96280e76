"""The pictures in the documentation are of the dashboards that are shipped, and their story can still be told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pictures import story
from pictures.stamp import FOLDER, STAMP, digests

PAGE = Path(__file__).resolve().parents[3] / "docs" / "monitoring.md"
PNG = b"\x89PNG\r\n\x1a\n"
LARGEST_BYTES = 400_000


def test_pictures_are_of_the_dashboards_that_are_shipped() -> None:
    drawn = json.loads(STAMP.read_text(encoding="utf-8"))
    assert drawn == digests(), "the dashboards have changed since their pictures were drawn: make pictures"


def test_every_picture_is_shown_and_is_small() -> None:
    shown = re.findall(r"!\[[^\]]+\]\(img/([a-z-]+\.png)\)", PAGE.read_text(encoding="utf-8"))
    pictures = sorted(FOLDER.glob("dashboard-*.png"))
    assert sorted(shown) == [picture.name for picture in pictures]
    assert {picture.name for picture in pictures} >= {f"dashboard-{name}.png" for name in ("run", "team", "operator")}
    for picture in pictures:
        assert picture.read_bytes().startswith(PNG)
        assert picture.stat().st_size < LARGEST_BYTES


async def test_story_is_told_by_the_core_as_prometheus_would_scrape_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "MINUTES", 30)
    monkeypatch.setattr(story, "SCRAPE_SECONDS", 60)
    file = tmp_path / "story.txt"
    assert await story.tell(file) == story.START + 30 * 60
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[-1] == "# EOF"
    spent = [line for line in lines if line.startswith("reasoning_finetune_spent_usd{") and "sky-t1-32b" in line]
    values = [float(line.split()[-2]) for line in spent]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(8 * 2.95 * 12 / 60)  # eight GPUs, bound for twelve minutes
    assert all('namespace="reasoning"' in line and 'job="rft-system/rft-operator"' in line for line in spent)
