"""Follow one run until it ends.

Invariant: a lost connection is waited out, never reported as the end of the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from kubernetes.aio import client
from pydantic import ValidationError

from rft_operator.api import KIND
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.cli.report import summary_line
from rft_operator.domain.draft import is_over
from rft_operator.errors import InvalidResource, Unavailable
from rft_operator.metrics import Metrics
from rft_operator.runtime.kube import Kube
from rft_operator.runtime.kube_client import KubeClient, read_kubeconfig

POLL_SECONDS = 1.0
QUIET_SECONDS = 15.0


async def connect(kubeconfig: Path | None) -> tuple[KubeClient, str]:
    """Return a client for a kubeconfig (the current one if None) and its namespace; raises ConfigError."""
    configuration = client.Configuration()
    namespace = await read_kubeconfig(configuration, kubeconfig)
    return KubeClient(configuration, Metrics(), instance="rft-cli"), namespace


async def fetch(kube: Kube, *, namespace: str, name: str) -> ReasoningFinetune:
    """Return a run; raises NotFound, and InvalidResource for one of another version's schema."""
    raw = dict(await kube.get(kind=KIND, namespace=namespace, name=name))
    try:
        return ReasoningFinetune.parse(raw)
    except ValidationError as error:
        msg = f"{namespace}/{name} does not fit this version of rft: {error}"
        raise InvalidResource("Unreadable", msg) from error


async def follow(
    kube: Kube, *, namespace: str, name: str, say: Callable[[str], None], timeout_seconds: float
) -> ReasoningFinetune:
    """Print a line whenever the run moves; return it when it is over; raises TimeoutError, NotFound and Rejected."""
    began = time.monotonic()
    last, said_at = "", 0.0
    while True:
        if time.monotonic() - began > timeout_seconds:
            msg = f"{namespace}/{name} did not end within {timeout_seconds:.0f} s; it goes on: rft watch {name}"
            raise TimeoutError(msg)
        run: ReasoningFinetune | None
        try:
            run = await fetch(kube, namespace=namespace, name=name)
        except Unavailable as error:
            run, line = None, f"the API server does not answer, trying again: {error}"
        else:
            line = summary_line(run)
        now = time.monotonic()
        if line != last or now - said_at > QUIET_SECONDS:
            say(f"{now - began:5.0f} s  {line}")
            last, said_at = line, now
        if run is not None and is_over(run.status):
            return run
        await asyncio.sleep(POLL_SECONDS)
