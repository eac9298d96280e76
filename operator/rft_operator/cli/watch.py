"""Follow one run until it ends.

Invariant: a lost connection is waited out, never reported as the end of the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from kubernetes.aio import client, config

from rft_operator.api import KIND
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.cli.report import summary_line
from rft_operator.domain.ending import is_over
from rft_operator.errors import ConfigError, KubeError, NotFound
from rft_operator.metrics import Metrics
from rft_operator.runtime.kube_client import KubeClient

POLL_SECONDS = 1.0
QUIET_SECONDS = 15.0


async def connect(kubeconfig: Path | None) -> KubeClient:
    """Return a client for a kubeconfig (the current one if None); raises ConfigError."""
    configuration = client.Configuration()
    try:
        await config.load_kube_config(
            config_file=str(kubeconfig) if kubeconfig is not None else None, client_configuration=configuration
        )
    except (config.ConfigException, OSError) as error:
        msg = f"no usable kubeconfig: {error}. Set KUBECONFIG, or give --kubeconfig FILE."
        raise ConfigError(msg) from error
    return KubeClient(configuration, Metrics(), instance="rft-cli")


async def fetch(kube: KubeClient, *, namespace: str, name: str) -> ReasoningFinetune:
    """Return a run; raises NotFound."""
    return ReasoningFinetune.parse(dict(await kube.get(kind=KIND, namespace=namespace, name=name)))


async def follow(
    kube: KubeClient, *, namespace: str, name: str, say: Callable[[str], None], timeout_seconds: float
) -> ReasoningFinetune:
    """Print a line whenever the run moves; return it when it is over; raises TimeoutError."""
    began = time.monotonic()
    last, said_at = "", 0.0
    while True:
        if time.monotonic() - began > timeout_seconds:
            msg = f"{namespace}/{name} did not end within {timeout_seconds:.0f} s; it goes on: rft watch {name}"
            raise TimeoutError(msg)
        try:
            run = await fetch(kube, namespace=namespace, name=name)
        except NotFound:
            raise
        except KubeError:
            await asyncio.sleep(POLL_SECONDS)
            continue
        line = summary_line(run)
        now = time.monotonic()
        if line != last or now - said_at > QUIET_SECONDS:
            say(f"{now - began:5.0f} s  {line}")
            last, said_at = line, now
        if is_over(run.status):
            return run
        await asyncio.sleep(POLL_SECONDS)
