"""Prometheus and promtool as Debian packages them: found on PATH, or unpacked into the cache; nothing is installed.

Invariant: a cached folder is complete (it appears by one rename). No service is started but the test's own, which
listens on 127.0.0.1 alone and ends with the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from rft_local.tools import cache_directory
from support.operator_process import free_port
from support.polling import eventually

PACKAGE = "prometheus"
PROGRAMS = ("prometheus", "promtool")
START_SECONDS = 30.0
STOP_SECONDS = 20.0


def program(name: str) -> Path:
    """Return the path of ``prometheus`` or ``promtool``, version 2.42 or newer."""
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    folder = cache_directory() / "prometheus-debian"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _unpack(folder)
    return folder / name


def _unpack(folder: Path) -> None:
    """Fetch Debian's package and keep its two programs."""
    if shutil.which("apt-get") is None:
        raise RuntimeError(f"{', '.join(PROGRAMS)} are missing: install Prometheus 2.42 or newer and put them on PATH")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".prometheus-") as name:
        temporary = Path(name)
        if _apt("download", PACKAGE, cwd=temporary) != "":
            _apt("update", "-qq", cwd=temporary)
            problem = _apt("download", PACKAGE, cwd=temporary)
            if problem:
                raise RuntimeError(f"apt-get download {PACKAGE} failed: {problem}")
        (package,) = temporary.glob("*.deb")
        unpacked, made = temporary / "unpacked", temporary / "bin"
        subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True, timeout=120)
        made.mkdir()
        for each in PROGRAMS:
            (unpacked / "usr" / "bin" / each).rename(made / each)
        made.rename(folder)


def _apt(*arguments: str, cwd: Path) -> str:
    """Run apt-get; return what went wrong, or nothing."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    argv = ["apt-get", *arguments]
    done = subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    return "" if done.returncode == 0 else (done.stderr.strip()[-600:] or f"exit code {done.returncode}")


def promtool(*arguments: str | Path, words: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool; ``words`` are its standard input."""
    argv = [str(program("promtool")), *map(str, arguments)]
    return subprocess.run(argv, input=words, capture_output=True, text=True, timeout=120)


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer, with its newest value."""

    labels: Mapping[str, str]
    value: float


class Prometheus:
    """A running server."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def api(self, path: str, **parameters: str) -> Any:
        """Ask the HTTP API; return ``data``."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/api/v1/{path}", params=parameters) as response,
        ):
            body = await response.json()
        assert body["status"] == "success", f"{parameters}: {body.get('error')}"
        return body["data"]

    async def query(self, expr: str) -> list[Series]:
        """Return an expression's value now; a scalar has no labels."""
        data = await self.api("query", query=expr)
        if data["resultType"] == "scalar":
            return [Series({}, float(data["result"][1]))]
        return [Series(each["metric"], float(each["value"][1])) for each in data["result"]]


def configuration(*, targets: list[str], rules: list[Path], every_seconds: int) -> dict[str, Any]:
    """Return a configuration that scrapes as the chart's PodMonitor does: the run's own labels win."""
    return {
        "global": {"scrape_interval": f"{every_seconds}s", "evaluation_interval": f"{every_seconds}s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {"job_name": "rft-operator", "honor_labels": True, "static_configs": [{"targets": targets}]},
        ],
    }


@contextlib.asynccontextmanager
async def serving(folder: Path, config: Mapping[str, Any], *, data: Path | None = None) -> AsyncIterator[Prometheus]:
    """Run a server on 127.0.0.1; ``data`` is a database to serve, else an empty one is made."""
    file, port = folder / "prometheus.yml", free_port()
    file.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    argv = [
        str(program("prometheus")),
        f"--config.file={file}",
        f"--storage.tsdb.path={data or folder / 'data'}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    log = folder / "prometheus.log"
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(*argv, stdout=out, stderr=out)
    server = Prometheus(f"http://127.0.0.1:{port}")

    async def ready() -> bool:
        assert process.returncode is None, log.read_text(encoding="utf-8")
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with aiohttp.ClientSession() as session, session.get(f"{server.url}/-/ready") as response:
                return response.status == 200
        return False

    try:
        await eventually(ready, what="Prometheus to be ready", seconds=START_SECONDS)
        yield server
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
