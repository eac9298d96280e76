"""Checkov in a virtual environment of its own: its pins and ours exclude each other."""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rft_local.tools import cache_directory


def checkov_python(requirements: Path) -> Path:
    """Return the Python that has checkov, installed once per set of pins and kept in the cache."""
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache_directory() / f"checkov-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _install(requirements, folder)
    return folder / "bin" / "python"


def _install(requirements: Path, folder: Path) -> None:
    """Install beside the folder and rename: what is there is complete."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".checkov-") as temporary:
        made = Path(temporary) / "venv"
        install = ["-m", "pip", "install", "--quiet", "--no-deps", "--requirement", str(requirements)]
        for argv in ([sys.executable, "-m", "venv", str(made)], [str(made / "bin" / "python"), *install]):
            done = subprocess.run(argv, capture_output=True, text=True, timeout=500)
            assert done.returncode == 0, done.stderr[-2_000:]
        made.rename(folder)


def failed_checks(python: Path, manifests: Path) -> dict[str, list[str]]:
    """Return the objects that each failed check names; offline."""
    argv = [str(python), "-m", "checkov.main", "--file", str(manifests), "--framework", "kubernetes", "--skip-download"]
    done = subprocess.run([*argv, "--output", "json"], capture_output=True, text=True, timeout=300)
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 0
    found: dict[str, list[str]] = {}
    for each in report["results"]["failed_checks"]:
        found.setdefault(each["check_id"], []).append(f"{each['resource']}: {each['check_name']}")
    return found
