"""From a dashboard's JSON and a Prometheus to a PNG: Grafana's own components in headless Chromium.

The page holds the answers of Prometheus, so it asks no network; npm and Chromium are needed here alone, and no test
of the suite draws.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_local.tools import cache_directory
from support.dashboards import ROW, filled
from support.prometheus import Prometheus

HERE = Path(__file__).parent / "page"
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
WIDTH, HEAD, CELL = 1440, 44, 38
ANY = ".+"
"""Value of a variable of which all values are chosen."""
POINTS = 300
STYLE = (
    "body{margin:0;background:#111217;color:#ccccdc;font:14px Inter,'DejaVu Sans',sans-serif}#root{position:relative}"
)


class PictureError(Exception):
    """A picture cannot be drawn on this machine; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a dashboard is opened with."""

    since: int
    until: int
    values: Mapping[str, str]
    """Of the variables."""
    rate_interval: str

    @property
    def step(self) -> int:
        """Return seconds between two points."""
        return max(1, (self.until - self.since) // POINTS)


def browser() -> str:
    """Return a headless Chromium."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    raise PictureError("Chromium is missing. On Debian or Ubuntu: apt-get install chromium-headless-shell")


def bundle() -> Path:
    """Return the script of the page, built once per set of pins and kept in the cache."""
    npm = shutil.which("npm")
    if npm is None:
        raise PictureError("npm is missing: install Node.js 20 or newer")
    sources = ("package.json", "package-lock.json", "main.tsx", "scrollbars.ts")
    pins = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in sources[:2])).hexdigest()[:12]
    folder = cache_directory() / f"pictures-{pins}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in sources:
        shutil.copy(HERE / name, folder)
    if not (folder / "node_modules" / ".package-lock.json").is_file():
        _run([npm, "ci", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund"], cwd=folder)
    argv = [str(folder / "node_modules" / ".bin" / "esbuild"), "main.tsx", "--bundle", "--minify", "--outdir=out"]
    loaders = [
        "--jsx=automatic",
        '--define:process.env.NODE_ENV="production"',
        "--loader:.svg=dataurl",
        "--loader:.ttf=dataurl",
        "--alias:react-custom-scrollbars-2=./scrollbars.ts",
    ]
    _run([*argv, *loaders, "--format=iife", "--target=es2022", "--log-level=error"], cwd=folder)
    return folder / "out" / "main.js"


def _run(argv: list[str], *, cwd: Path) -> None:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=900, env={**os.environ, "CI": "1"})
    if done.returncode != 0:
        raise PictureError(f"{argv[0]} failed: {done.stderr[-2_000:]}")


async def answered(board: Mapping[str, Any], prometheus: Prometheus, view: View) -> dict[str, Any]:
    """Return the dashboard with Prometheus' answers beside each query."""
    panels = []
    for panel in board["panels"]:
        queries = []
        for target in panel.get("targets", ()) if panel["type"] != ROW else ():
            expr = filled(target["expr"], rate_interval=view.rate_interval, **view.values)
            table = target.get("format") == "table"
            if table or target.get("instant"):
                data = await prometheus.api("query", query=expr, time=str(view.until))
            else:
                span = {"start": str(view.since), "end": str(view.until), "step": str(view.step)}
                data = await prometheus.api("query_range", query=expr, **span)
            queries.append(
                {
                    "refId": target["refId"],
                    "legend": target.get("legendFormat") or "",
                    "table": table,
                    "result": data["result"],
                }
            )
        panels.append({**panel, "queries": queries})
    return {
        "title": board["title"],
        "values": {name: value for name, value in view.values.items() if value != ANY},
        "from": view.since,
        "to": view.until,
        "step": view.step,
        "panels": panels,
    }


def draw(page: Mapping[str, Any], *, script: Path, folder: Path, to: Path) -> None:
    """Write the picture."""
    places = [panel["gridPos"] for panel in page["panels"]]
    height = max(place["y"] + place["h"] for place in places) * CELL + HEAD + 4
    file = folder / f"{to.stem}.html"
    text = json.dumps(page).replace("</", "<\\/")
    file.write_text(
        f"<!doctype html><html><head><meta charset='utf-8'><style>{STYLE}</style>"
        f"<link rel='stylesheet' href='{script.with_suffix('.css').as_uri()}'></head><body><div id='root'></div>"
        f"<script>window.dashboard = {text}</script><script src='{script.as_uri()}'></script></body></html>",
        encoding="utf-8",
    )
    argv = [
        browser(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--allow-file-access-from-files",
        "--virtual-time-budget=20000",
        f"--window-size={WIDTH},{height}",
        f"--screenshot={to}",
        file.as_uri(),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=180)
    if done.returncode != 0 or not to.is_file():
        raise PictureError(f"Chromium failed: {done.stderr[-2_000:]}")
